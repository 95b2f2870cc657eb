#include "wire/client.h"

#include <algorithm>
#include <array>

#include "http/characters.h"

namespace ringmaster::wire {

using base::Source;
using http::Parse;

static constexpr std::size_t kIdleConnectionsMax = 1024;

void ClientConnection::done() {
  auto& idle = pool_->idle_;
  const auto self = std::ranges::find(idle, this, [](const auto& c) { return c.get(); });
  CHECK(self != idle.end());
  idle.erase(self);  // destroys this
}

std::unique_ptr<ClientConnection> ConnectionPool::take() {
  while (!idle_.empty()) {
    std::unique_ptr<ClientConnection> connection = std::move(idle_.back());
    idle_.pop_back();
    const bool silent = connection->waiting() && !connection->stream_.watch().readable();
    connection->abandon();
    if (silent) return connection;
  }
  return nullptr;
}

Async<Result<std::unique_ptr<ClientConnection>>> ConnectionPool::connect(Time deadline) {
  auto stream = co_await io::connect(loop_, server_, deadline);
  if (!stream) co_return std::unexpected(stream.error());
  co_return std::make_unique<ClientConnection>(std::move(*stream), *this);
}

void ConnectionPool::put(std::unique_ptr<ClientConnection> connection) {
  if (idle_.size() >= kIdleConnectionsMax || connection->stream_.watch().readable()) return;
  if (server_.family == Endpoint::Family::unix_path) connection->stream_.watch().calm();
  connection->begin(loop_.now() + idle_max_);
  connection->stream_.watch().reader = connection.get();
  idle_.push_back(std::move(connection));
}

void ResponseReader::begin(io::Stream& stream, http::Method method, const http::HeadLimits& limits) {
  parser_.set_limits(limits);
  stream_ = &stream;
  method_ = method;
  in_.clear();
  parser_.restart(method);
  body_ = {};
  any_bytes_ = ended_ = false;
}

Async<Result<void>> ResponseReader::read_head(Time deadline) {
  parser_.restart(method_);
  in_.compact();
  while (true) {
    const Parse parse = in_.empty() ? Parse::more : parser_.parse(in_.view());
    if (parse == Parse::rejected) co_return base::fail(Code::invalid, std::string(parser_.rejection().why), Source::replica);
    if (parse == Parse::done) break;
    auto read = stream_->read(in_.space(), deadline);
    const auto got = co_await read;
    if (!got) co_return base::fail(got.error().code, {}, Source::replica);
    if (*got == 0) co_return base::fail(in_.empty() ? Code::closed : Code::reset, {}, Source::replica);
    any_bytes_ = true;
    in_.add(*got);
  }
  in_.skip(parser_.head_bytes());
  body_ = http::BodyDecoder(head().framing, head().content_length);
  co_return Result<void>{};
}

std::string_view ResponseReader::arrived_body() { return in_.empty() || body_.done() ? std::string_view{} : decode_in_place(body_, in_); }

Async<Result<std::string_view>> ResponseReader::read_body(Duration wait_max) {
  while (!complete()) {
    std::string_view piece = arrived_body();
    if (piece.empty() && !complete() && !body_.bad()) {
      in_.clear();
      auto read = stream_->read(in_.space(), stream_->watch().loop().now() + wait_max);
      const auto got = co_await read;
      if (!got) co_return base::fail(got.error().code, {}, Source::replica);
      if (*got == 0) {
        ended_ = body_.ends_with_connection();
        if (!ended_) co_return base::fail(Code::closed, "the response ended too early", Source::replica);
        break;
      }
      in_.add(*got);
      piece = arrived_body();
    }
    if (body_.bad()) co_return base::fail(Code::invalid, std::string(body_.why()), Source::replica);
    if (!piece.empty()) co_return piece;
  }
  co_return std::string_view{};
}

std::string_view FetchResponse::field(std::string_view name) const {
  const auto found = std::ranges::find_if(fields, [&](const auto& field) { return http::equals_ignoring_case(field.first, name); });
  return found == fields.end() ? std::string_view{} : found->second;
}

Async<Result<void>> ask_for_head(io::Stream& stream, ResponseReader& reader, http::Method method, std::span<const std::string_view> pieces, Time deadline) {
  reader.begin(stream, method);
  auto write = stream.write(pieces, deadline);
  const auto sent = co_await write;
  if (!sent) co_return std::unexpected(sent.error());
  do {
    const auto got = co_await reader.read_head(deadline);
    if (!got) co_return std::unexpected(got.error());
  } while (reader.head().status < 200);
  co_return Result<void>{};
}

static Async<Result<void>> ask_for_head(io::Stream& stream, ResponseReader& reader, const FetchRequest& request, bool keep, Time deadline) {
  std::string head = request.preface + request.method + " " + request.target + " HTTP/1.1\r\nHost: " + request.host + "\r\nUser-Agent: ringmaster\r\n" +
                     (keep ? "" : "Connection: close\r\n") + request.headers;
  if (!request.body.empty() || request.method == "POST") head += "Content-Length: " + std::to_string(request.body.size()) + "\r\n";
  head += "\r\n";
  const std::array<std::string_view, 2> pieces = {head, request.body};
  const http::Method method = request.method == "HEAD" ? http::Method::head : http::Method::get;
  co_return co_await ask_for_head(stream, reader, method, pieces, deadline);
}

// Sends the request and reads its answer. `reader` says afterwards whether any of it came, and whether the connection can
// be used again.
static Async<Result<FetchResponse>> ask(io::Stream& stream, ResponseReader& reader, const FetchRequest& request, bool keep, Time deadline,
                                        std::size_t body_bytes_max) {
  const auto got = co_await ask_for_head(stream, reader, request, keep, deadline);
  if (!got) co_return std::unexpected(got.error());
  FetchResponse response;
  response.status = reader.head().status;
  for (const http::Field& field : reader.head().fields) response.fields.emplace_back(field.name, field.value);
  while (!request.head_only && !reader.complete()) {
    const auto more = co_await reader.read_body(deadline - stream.watch().loop().now());
    if (!more) co_return std::unexpected(more.error());
    response.body += *more;
    if (response.body.size() > body_bytes_max && response.status >= 300) {
      response.body.resize(body_bytes_max);  // an error is known by its status; its page may be cut
      co_return response;
    }
    if (response.body.size() > body_bytes_max) {
      co_return base::fail(Code::too_large, "the answer has more than " + std::to_string(body_bytes_max) + " bytes", Source::replica);
    }
  }
  co_return response;
}

Async<Result<FetchResponse>> fetch(io::Loop& loop, const Endpoint& server, const FetchRequest& request, Time deadline, std::size_t body_bytes_max) {
  auto stream = co_await io::connect(loop, server, deadline);
  if (!stream) co_return std::unexpected(stream.error());
  const auto reader = std::make_unique<ResponseReader>();
  co_return co_await ask(*stream, *reader, request, false, deadline, body_bytes_max);
}

Async<Result<FetchResponse>> fetch(ConnectionPool& pool, const FetchRequest& request, Time deadline, std::size_t body_bytes_max) {
  const auto reader = std::make_unique<ResponseReader>();
  const bool repeatable = request.method == "GET" || request.method == "HEAD";
  std::unique_ptr<ClientConnection> connection = pool.take();
  while (true) {
    const bool kept = connection != nullptr;
    if (!kept) {
      auto made = co_await pool.connect(deadline);
      if (!made) co_return std::unexpected(made.error());
      connection = std::move(*made);
    }
    auto response = co_await ask(connection->stream(), *reader, request, true, deadline, body_bytes_max);
    if (response && reader->reusable()) pool.put(std::move(connection));
    const bool was_over = !response && kept && !reader->any_bytes() && (response.error().code == Code::closed || response.error().code == Code::reset);
    if (!was_over || !repeatable) co_return response;
    connection.reset();
  }
}

Async<Result<std::unique_ptr<FetchStream>>> FetchStream::open(io::Loop& loop, Endpoint server, FetchRequest request, Time deadline) {
  auto stream = co_await io::connect(loop, server, deadline);
  if (!stream) co_return std::unexpected(stream.error());
  std::unique_ptr<FetchStream> fetching(new FetchStream(std::move(*stream)));
  const auto got = co_await ask_for_head(fetching->stream_, fetching->reader_, request, false, deadline);
  if (!got) co_return std::unexpected(got.error());
  co_return fetching;
}

Async<Result<std::string_view>> FetchStream::read() {
  static constexpr Duration kForAsLongAsItTakes = std::chrono::hours(24 * 365);
  co_return co_await reader_.read_body(kForAsLongAsItTakes);
}

}  // namespace ringmaster::wire
