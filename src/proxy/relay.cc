#include "proxy/relay.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "proxy/key.h"
#include "wire/hangup.h"

namespace ringmaster::proxy {

using balance::Replica;
using base::Code;
using base::Result;
using base::Source;
using http::Framing;
using io::Async;

Relay::~Relay() {
  for (unsigned i = 0; i < tries_; ++i) balancer_.release(*upstreams_[i]);
}

Async<void> Relay::run() {
  io::Fiber& fiber = co_await io::this_fiber();
  const wire::HangupGuard guard(exchange_.client_watch(), fiber);
  std::optional<Failure> failure;
  while (tries_ < kTriesMax) {
    Upstream* upstream = pick();
    if (upstream == nullptr) {
      const bool another = co_await wait_for_replica(failure);
      if (!another) break;
      continue;
    }
    failure = co_await attempt(*upstream);
    if (!failure || fiber.cancelled) co_return;
    const bool again = co_await may_retry(*upstream, *failure);
    if (!again) break;
  }
  if (!fiber.cancelled) co_await give_up(failure);
}

Upstream* Relay::pick() {
  const balance::PoolView* pool = view();
  if (pool == nullptr) return nullptr;
  if (!key_) key_ = key_of(pool->key, exchange_, pool_state_.pick);
  Replica* picked = balance::pick(*pool, *key_, std::span(tried_).first(tries_), pool_state_.pick);
  if (picked == nullptr) return nullptr;
  Upstream& upstream = balancer_.upstream(*pool, *picked);
  ++upstream.users;
  upstreams_[tries_] = &upstream;
  tried_[tries_++] = picked;
  return &upstream;
}

// Has the replica checked at once; until it has answered it gets no more requests.
void Relay::suspect(Upstream& upstream) {
  auto ready = balance::Phase::ready;
  if (upstream.replica().phase.compare_exchange_strong(ready, balance::Phase::suspect)) balancer_.suspect_(upstream.share());
}

// Nobody is ready. If somebody may be soon, waits for that: true when it is worth picking again.
Async<bool> Relay::wait_for_replica(const std::optional<Failure>& failure) {
  const balance::PoolView* pool = view();
  const config::Pool* settings = balancer_.config_.find_pool(pool_);
  if (pool == nullptr || settings == nullptr) co_return false;
  // The last one broke the connection and there is no other: if it has died, its successor is a moment away.
  const bool broke = failure && (failure->error.code == Code::closed || failure->error.code == Code::reset);
  if (broke && !std::exchange(suspected_, true)) suspect(*upstreams_[tries_ - 1]);
  if (wait_until_ == base::kNever) wait_until_ = in(settings->queue_wait);
  const auto expected = [this] {
    const balance::PoolView* now = view();
    return now != nullptr && std::ranges::any_of(now->replicas, [](const auto& replica) { return replica->expected(); });
  };
  if (!expected() || pool_state_.waiting >= settings->queue_length) co_return false;
  ++pool_state_.waiting;
  const Code woken = co_await balancer_.became_ready_.wait(balancer_.loop_, wait_until_);
  --pool_state_.waiting;
  co_return woken == Code::ok;
}

Async<bool> Relay::may_retry(Upstream& upstream, const Failure& failure) {
  if (failure.progress == Progress::answering || streamed_ || failure.error.source == Source::client) co_return false;
  if (failure.progress == Progress::nothing_sent) co_return true;
  if (!http::is_idempotent(exchange_.request().method)) co_return false;
  if (failure.error.code == Code::timeout) co_return false;  // it may still be at work: another would double it
  const auto explained = [&] { return upstream.replica().exited.load(std::memory_order_relaxed); };
  if (explained() || failure.error.code == Code::exited) co_return true;
  if (balancer_.budget_.spend(balancer_.loop_.now())) co_return true;
  // A connection breaks a moment before we hear that its process has ended. If that is what happened, it is no sign of
  // overload, and the retry is free.
  static constexpr base::Duration kNews = std::chrono::milliseconds(100);
  co_await upstream.exit_signal().wait(balancer_.loop_, in(kNews));
  co_return explained();
}

Async<void> Relay::give_up(const std::optional<Failure>& failure) {
  if (exchange_.begun()) co_return;  // unfinished, and so the connection will be broken
  if (!failure) {
    co_await wire::reply_error(exchange_, *options_.pages, 503, "no replica of pool '" + std::string(pool_) + "' is ready", "Retry-After: 1\r\n");
    co_return;
  }
  const base::Error& error = failure->error;
  if (error.source == Source::client) {
    co_await wire::reply_error(exchange_, *options_.pages, error.code == Code::timeout ? 408 : 400, base::describe(error));
    co_return;
  }
  if (error.code == Code::full) {
    co_await wire::reply_error(exchange_, *options_.pages, 503, "every replica's queue of connections is full", "Retry-After: 1\r\n");
    co_return;
  }
  const bool late = error.code == Code::timeout;
  co_await wire::reply_error(exchange_, *options_.pages, late ? 504 : 502, "replica '" + tried_[tries_ - 1]->name + "' failed: " + base::describe(error));
}

Async<std::optional<Relay::Failure>> Relay::attempt(Upstream& upstream) {
  balance::Ticket ticket(*upstream.replica().cell);
  auto connection = upstream.connections().take();
  if (!connection) {
    auto made = co_await upstream.connections().connect(in(balancer_.config_.timeouts.connect));
    if (!made) {
      const Code code = made.error().code;
      if (code != Code::cancelled) ticket.failed();
      // A full backlog is a busy replica, and a lack of ports is our own: neither says that it is broken.
      if (code == Code::refused || code == Code::timeout) suspect(upstream);
      co_return Failure{{code, Source::replica, {}}, Progress::nothing_sent};
    }
    connection = std::move(*made);
  }
  bool reusable = false;
  std::optional<Failure> failure;
  {
    Upstream::Active active(upstream, connection->stream().watch());
    active_ = &active;
    failure = co_await exchange_on(connection->stream(), reusable);
    active_ = nullptr;
  }
  if (failure && failure->error.source == Source::replica && failure->error.code != Code::cancelled) ticket.failed();
  if (reusable && !upstream.retired) upstream.connections().put(std::move(connection));
  co_return failure;
}

Async<std::optional<Relay::Failure>> Relay::exchange_on(io::Stream& stream, bool& reusable) {
  const bool whole = exchange_.body_complete();
  bool any_byte_sent = false;
  if (!whole) {
    const auto invited = co_await exchange_.invite_body();
    if (!invited) co_return Failure{{invited.error().code, Source::client, {}}, Progress::nothing_sent};
  }
  const auto sent = co_await send_request(stream, any_byte_sent);
  if (!sent) co_return Failure{{sent.error().code, Source::replica, {}}, any_byte_sent ? Progress::sent : Progress::nothing_sent};
  const base::Duration response_max = balancer_.config_.timeouts.response;
  if (whole) {
    auto failure = co_await receive(stream, in(response_max));
    reusable = !failure && workspace_.reader.reusable();
    co_return failure;
  }
  streamed_ = true;  // from here on the body's pieces pass through and are gone
  Upload state;
  io::Scope uploading(balancer_.loop_);
  uploading.spawn(upload(stream, state));
  auto failure = co_await receive(stream, base::kNever);  // upload() sets the deadline once the request has ended
  uploading.cancel();
  co_await uploading.join();
  if (failure && state.client_error) co_return Failure{*state.client_error, failure->progress};
  reusable = !failure && state.done && workspace_.reader.reusable();
  co_return failure;
}

// The head, and of the body what is here, in one call.
Async<Result<void>> Relay::send_request(io::Stream& stream, bool& any_byte_sent) {
  const http::RequestHead& head = exchange_.request();
  const std::string_view body = exchange_.buffered_body();
  http::RequestOptions options{exchange_.path(), {exchange_.peer_text(), "http"}, head.framing, head.content_length};
  // A chunked body that is whole already has a length: simpler for the replica, and one packet.
  if (options.framing == Framing::chunked && exchange_.body_complete()) options = {options.path, options.forwarded, Framing::length, body.size()};
  std::string& out = workspace_.out;
  out.clear();
  http::append_request(out, head, options);
  std::string_view after;
  if (options.framing == Framing::chunked && !body.empty()) {
    std::array<char, 16> size;
    const auto [end, error] = std::to_chars(size.data(), size.data() + size.size(), body.size(), 16);
    out.append(size.data(), end).append("\r\n");
    after = "\r\n";
  }
  const std::array<std::string_view, 3> pieces = {out, body, after};
  auto write = stream.write(pieces, in(balancer_.config_.timeouts.body));
  const auto sent = co_await write;
  any_byte_sent = write.written() > 0;
  co_return sent;
}

Async<void> Relay::upload(io::Stream& stream, Upload& state) {
  const bool chunked = exchange_.request().framing == Framing::chunked;
  const config::Timeouts& timeouts = balancer_.config_.timeouts;
  while (!state.done) {
    const auto piece = co_await exchange_.read_body();
    if (!piece) {
      if (piece.error().code != Code::cancelled) state.client_error = piece.error();
      stream.watch().abort(Code::cancelled);  // half a request must not look like a whole one
      co_return;
    }
    std::array<char, 20> size;
    char* end = size.data();
    if (chunked) {
      end = std::to_chars(size.data(), size.data() + 16, piece->size(), 16).ptr;
      *end++ = '\r';
      *end++ = '\n';
    }
    const std::array<std::string_view, 3> pieces = {std::string_view(size.data(), end), *piece, std::string_view(chunked ? "\r\n" : "")};
    auto write = stream.write(pieces, in(timeouts.body));
    const auto sent = co_await write;
    if (!sent) break;  // it may have answered early: receive() finds out, and in time
    state.done = piece->empty();
  }
  const Code slept = co_await balancer_.loop_.sleep(timeouts.response);
  if (slept != Code::cancelled && !active_->answering) stream.watch().abort(Code::timeout);
}

// Up to the final head, then the answer to the client.
Async<std::optional<Relay::Failure>> Relay::receive(io::Stream& stream, base::Time deadline) {
  static constexpr unsigned kInterimMax = 16;
  wire::ResponseReader& reader = workspace_.reader;
  reader.begin(stream, exchange_.request().method);
  for (unsigned interim = 0; interim <= kInterimMax; ++interim) {
    const auto got = co_await reader.read_head(deadline);
    if (!got) {
      base::Error error = got.error();
      if (error.detail.empty() && error.code == Code::closed) error.detail = "it closed the connection without an answer";
      co_return Failure{std::move(error), reader.any_bytes() ? Progress::answering : Progress::sent};
    }
    const unsigned status = reader.head().status;
    if (status == 101) co_return Failure{{Code::invalid, Source::replica, "it switched protocols unasked"}, Progress::answering};
    if (status >= 200) {
      active_->answering = true;
      co_return co_await answer();
    }
    // 100 was ours to ask for, and an HTTP/1.0 client knows no interim responses (RFC 9110 section 15.2).
    if (status == 100 || exchange_.request().minor_version == 0) continue;
    const auto forwarded = co_await exchange_.forward_interim(reader.head());
    if (!forwarded) co_return Failure{{forwarded.error().code, Source::client, {}}, Progress::answering};
  }
  co_return Failure{{Code::invalid, Source::replica, "it sent too many interim responses"}, Progress::answering};
}

Async<std::optional<Relay::Failure>> Relay::answer() {
  wire::ResponseReader& reader = workspace_.reader;
  if (reader.head().status == 404 && options_.on_not_found) {
    reader.arrived_body();
    co_await options_.on_not_found(exchange_);
    co_return std::nullopt;
  }
  exchange_.begin_forward(reader.head());
  std::string_view piece = reader.arrived_body();
  while (true) {
    const bool last = reader.complete();
    const auto written = co_await exchange_.write(piece, last);
    if (!written) co_return Failure{{written.error().code, Source::client, {}}, Progress::answering};
    if (last) co_return std::nullopt;
    const auto more = co_await reader.read_body(balancer_.config_.timeouts.body);
    if (!more) co_return Failure{more.error(), Progress::answering};
    piece = *more;
  }
}

}  // namespace ringmaster::proxy
