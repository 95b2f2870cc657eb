#include "wire/exchange.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "http/target.h"

namespace ringmaster::wire {

using http::Framing;

// Up to here copying a body behind its head is cheaper than a second piece for the kernel.
static constexpr std::size_t kCopyBytesMax = 1024;

Exchange::Exchange(io::Stream& stream, const Endpoint& peer, std::string_view peer_text, Workspace& workspace, const ServerLimits& limits, DateClock& date,
                   std::unique_ptr<Companion>& companion)
    : stream_(stream), peer_(peer), peer_text_(peer_text), workspace_(workspace), limits_(limits), date_(date), companion_(companion) {}

std::string_view DateClock::now(io::Loop& loop) {
  if (loop.now() >= until_) {
    const base::WallTime wall = loop.system().wall_now();
    http::format_date(wall, text_);
    const auto into_second = wall - std::chrono::floor<std::chrono::seconds>(wall);
    until_ = loop.now() + std::chrono::seconds(1) - std::chrono::duration_cast<Duration>(into_second);
  }
  return text_;
}

bool Exchange::begin(std::string_view& complaint) {
  const http::RequestHead& head = request();
  workspace_.in.skip(workspace_.parser.head_bytes());
  body_start_ = workspace_.in.position();
  body_ = http::BodyDecoder(head.framing, head.content_length);
  keep_alive_ = head.keep_alive;
  if (!http::normalise_path(head.path, workspace_.scratch_path, path_)) {
    complaint = "the path has a broken escape, a NUL, or a '..' above its root";
    return false;
  }
  if (body_.done()) return true;
  buffered_ = decode_in_place(body_, workspace_.in);
  body_bytes_received_ = buffered_.size();
  continue_wanted_ = head.expects_continue && buffered_.empty() && !body_.done();
  if (!body_.bad()) return true;
  complaint = body_.why();
  return false;
}

Async<Result<void>> Exchange::invite_body() {
  if (!std::exchange(continue_wanted_, false)) co_return Result<void>{};
  static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
  auto write = stream_.write(std::span(&kContinue, 1), patience());
  co_return co_await write;
}

// Into the buffer as it stands, or nothing more is to come.
Async<Result<std::string_view>> Exchange::read_piece() {
  Buffer& in = workspace_.in;
  const std::size_t position = in.position();
  if (body_began_ == base::kNever) body_began_ = loop().now();
  while (!body_.done() && body_bytes_received_ <= body_bytes_max_) {
    in.rewind(position);
    Time deadline = loop().now() + limits_.body_timeout;
    if (limits_.body_rate_min != 0) {
      const auto earned = std::chrono::nanoseconds(std::chrono::seconds(1)) * static_cast<std::int64_t>(body_bytes_received_ / limits_.body_rate_min);
      deadline = std::min(deadline, body_began_ + ServerLimits::kBodyGrace + earned);
    }
    auto read = stream_.read(in.space(), deadline);
    const auto got = co_await read;
    if (!got) co_return base::fail(got.error().code, "the request's body did not arrive", base::Source::client);
    if (*got == 0) co_return base::fail(Code::reset, "the client ended in the middle of the body", base::Source::client);
    in.add(*got);
    const std::string_view piece = decode_in_place(body_, in);
    if (body_.bad()) co_return base::fail(Code::invalid, std::string(body_.why()), base::Source::client);
    body_bytes_received_ += piece.size();
    if (!piece.empty() && body_bytes_received_ <= body_bytes_max_) co_return piece;
  }
  if (body_bytes_received_ > body_bytes_max_) {
    co_return base::fail(Code::too_large, "the body has more than " + std::to_string(body_bytes_max_) + " bytes", base::Source::client);
  }
  co_return std::string_view{};
}

Async<Result<std::string_view>> Exchange::read_body() {
  if (continue_wanted_) {
    auto sent = co_await invite_body();
    if (!sent) co_return std::unexpected(sent.error());
  }
  // After the body's end the buffer holds what follows it, perhaps the next request.
  if (!body_.done()) workspace_.in.rewind(body_start_);
  co_return co_await read_piece();
}

Async<Result<void>> Exchange::complete_body(std::size_t bytes_max) {
  static constexpr std::size_t kSpaceMin = 512;  // less is no room for a piece and its framing
  Buffer& in = workspace_.in;
  const http::RequestHead& head = request();
  if (body_.done()) co_return Result<void>{};
  in.rewind(body_start_ + buffered_.size());
  const std::uint64_t left = head.framing == Framing::length ? head.content_length - buffered_.size() : 0;
  if (left > in.space().size() && head.content_length > bytes_max) co_return Result<void>{};
  const auto invited = co_await invite_body();
  if (!invited) co_return base::fail(invited.error().code, {}, base::Source::client);
  while (!body_.done()) {
    const std::size_t position = spill_.empty() ? body_start_ + buffered_.size() : body_start_;
    in.rewind(position);
    if (spill_.empty() && in.space().size() < (head.framing == Framing::length ? 1 : kSpaceMin)) {
      if (buffered_.size() >= bytes_max) co_return Result<void>{};
      spill_ = buffered_;
      in.rewind(body_start_);
    }
    if (spill_.size() >= std::max<std::size_t>(bytes_max, 1)) co_return Result<void>{};
    const auto piece = co_await read_piece();
    if (!piece) co_return std::unexpected(piece.error());
    if (!spill_.empty()) {
      spill_ += *piece;
      buffered_ = spill_;
    } else if (buffered_.empty()) {
      buffered_ = *piece;
    } else {
      buffered_ = {buffered_.data(), buffered_.size() + piece->size()};  // it stands right behind
    }
  }
  co_return Result<void>{};
}

Async<Result<std::string>> Exchange::read_whole_body(std::size_t bytes_max) {
  std::string whole(buffered_);
  while (whole.size() <= bytes_max && !body_.done()) {
    const auto piece = co_await read_body();
    if (!piece) co_return std::unexpected(piece.error());
    whole += *piece;
  }
  if (whole.size() > bytes_max) {
    co_return base::fail(Code::too_large, "the body has more than " + std::to_string(bytes_max) + " bytes", base::Source::client);
  }
  co_return whole;
}

Async<Result<void>> Exchange::reply(unsigned status, std::string_view content_type, std::string_view body, std::string_view extra) {
  // The body was not wanted: how much of it is still to come nobody knows, so the connection ends with the answer.
  if (!body_.done()) keep_alive_ = false;
  begun_ = true;
  status_ = status;
  std::string& out = workspace_.out;
  out.clear();
  const bool bodiless = status == 204 || status == 304;  // RFC 9110 section 8.6
  const http::ResponseOptions options{bodiless ? Framing::none : Framing::length, body.size(), keep_alive_, request().minor_version, date_.now(loop())};
  http::append_own_response(out, status, content_type, extra, options);
  if (request().method == http::Method::head) body = {};
  body_bytes_sent_ += body.size();
  if (body.size() <= kCopyBytesMax) out.append(std::exchange(body, {}));
  const std::array<std::string_view, 2> pieces = {out, body};
  auto write = stream_.write(pieces, patience());
  const auto sent = co_await write;
  finished_ = sent.has_value();
  co_return sent;
}

Async<Result<void>> Exchange::forward_interim(const http::ResponseHead& head) {
  std::string& out = workspace_.out;
  out.clear();
  http::append_response(out, head, {Framing::none, 0, true, 1, {}});
  const std::string_view piece = out;
  auto write = stream_.write(std::span(&piece, 1), patience());
  co_return co_await write;
}

void Exchange::begin_forward(const http::ResponseHead& head, const ResponseChanges& changes) {
  if (!body_.done()) keep_alive_ = false;
  begun_ = true;
  status_ = head.status;
  const unsigned minor = request().minor_version;
  Framing framing = head.framing;
  if (framing == Framing::chunked || framing == Framing::until_close) {
    // Its length is not known: chunked, or for HTTP/1.0 ended by the connection's end.
    framing = minor == 0 ? Framing::until_close : Framing::chunked;
    if (minor == 0) keep_alive_ = false;
  }
  chunked_ = framing == Framing::chunked;
  workspace_.out.clear();
  http::append_response(workspace_.out, head, {framing, head.content_length, keep_alive_, minor, date_.now(loop()), false, changes.edits, changes.extra});
}

Async<Result<void>> Exchange::begin_tunnel(const http::ResponseHead& head, const ResponseChanges& changes) {
  begun_ = true;
  keep_alive_ = false;
  status_ = head.status;
  std::string& out = workspace_.out;
  out.clear();
  http::append_response(out, head, {Framing::none, 0, true, 1, {}, true, changes.edits, changes.extra});
  const std::string_view piece = out;
  auto write = stream_.write(std::span(&piece, 1), patience());
  co_return co_await write;
}

void Exchange::release_buffer() {
  CHECK(workspace_.in.empty());
  workspace_.parser.keep_line(workspace_.kept_line);
  workspace_.in.release();
  path_ = request().path;
  buffered_ = {};
}

Async<Result<void>> Exchange::write(std::string_view piece, bool last) {
  static constexpr std::string_view kAfterChunk = "\r\n";
  static constexpr std::string_view kLast = "0\r\n\r\n";
  static constexpr std::string_view kAfterChunkAndLast = "\r\n0\r\n\r\n";
  std::string& out = workspace_.out;
  body_bytes_sent_ += piece.size();
  std::string_view after;
  if (chunked_ && piece.empty()) {
    if (last) after = kLast;
  } else if (chunked_) {
    std::array<char, 18> size;
    const auto [end, error] = std::to_chars(size.data(), size.data() + 16, piece.size(), 16);
    out.append(size.data(), end).append("\r\n");
    after = last ? kAfterChunkAndLast : kAfterChunk;
  }
  if (piece.size() <= kCopyBytesMax) out.append(std::exchange(piece, {})).append(std::exchange(after, {}));
  const std::array<std::string_view, 3> pieces = {out, piece, after};
  auto write = stream_.write(pieces, patience());
  const auto sent = co_await write;
  out.clear();
  finished_ = last && sent.has_value();
  co_return sent;
}

}  // namespace ringmaster::wire
