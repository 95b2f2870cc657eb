#include "proxy/relay.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "proxy/key.h"
#include "proxy/tunnel.h"

namespace ringmaster::proxy {

using balance::Replica;
using base::Code;
using base::Result;
using base::Source;
using io::Async;

Relay::Relay(Balancer& balancer, PoolState& pool, wire::Exchange& exchange, const Forwarding& forwarding)
    : balancer_(balancer), pool_(pool), exchange_(exchange), forwarding_(forwarding) {
  const base::Duration timeout = pool.settings.retry.timeout;
  deadline_ = timeout == base::Duration::zero() ? base::kNever : now() + timeout;
}

Relay::~Relay() {
  leave_queue(false);
  for (unsigned i = 0; i < tries_; ++i) balancer_.release(*upstreams_[i]);
}

Async<void> Relay::run() {
  io::Fiber& fiber = co_await io::this_fiber();
  pool_.budget.request(now());
  MaybeFailure failure;
  if (!exchange_.body_complete() && forwarding_.buffered) failure = co_await complete_body();
  // From here on: a client that ends its side right behind the body has asked, and waits.
  hangup_.emplace(exchange_.client_watch(), fiber);
  if (failure) {
    if (!fiber.cancelled) co_await give_up(failure);
    co_return;
  }
  while (has_view()) {
    const bool backlog = failure && failure->error.code == Code::full && failure->progress == Progress::nothing_sent;
    const bool exhausted = tries_ >= pool_.settings.retry.tries;
    if (exhausted && !backlog) break;
    balance::Ticket ticket;
    Upstream* upstream = exhausted ? nullptr : choose(ticket);
    if (upstream == nullptr) {
      const bool at_backlog = backlog && (exhausted || !is_full_);
      bool another = false;
      if (at_backlog) {
        another = co_await wait_for_backlog();
      } else {
        another = co_await wait_for_turn(failure);
      }
      if (!another) break;
      continue;
    }
    leave_queue(true);
    if (tries() > 1) ++pool_.metrics.retries;
    Attempt attempt(balancer_, pool_, exchange_, forwarding_, *upstream, std::move(ticket), deadline_);
    if (Pinned* own = pinned(view()); own != nullptr && &own->upstream() == upstream && own->connection) attempt.use(std::move(own->connection));
    Attempt* winner = &attempt;
    const base::Duration delay = hedge_delay();
    // One that belongs to a connection has no twin elsewhere.
    if (delay > base::Duration::zero() && !attempt.is_private() && !names_connection_auth(exchange_.request().fields)) {
      failure = co_await race(attempt, delay, winner);
    } else {
      failure = co_await attempt.begin(true);
    }
    if (!failure) failure = co_await answer(*winner);
    if (failure && winner->client_error()) failure->error = *winner->client_error();
    if (attempt.streamed()) {
      streamed_ = true;
      co_await attempt.stop_upload();
    }
    winner->end(failure);
    hedge_.reset();
    if (!failure || fiber.cancelled) co_return;
    backlog_full_[tries_ - 1] = failure->error.code == Code::full;
    const bool again = co_await may_retry(*failure);
    if (!again) break;
  }
  leave_queue(false);
  if (!fiber.cancelled) co_await give_up(failure);
}

// A body that fits the buffer is awaited whole before a replica is chosen: a slow client then holds none, and the request
// can be tried again.
Async<Relay::MaybeFailure> Relay::complete_body() {
  const auto got = co_await exchange_.complete_body(forwarding_.buffer_bytes);
  if (!got) co_return Failure{got.error(), Progress::nothing_sent};
  co_return std::nullopt;
}

// --- choosing, and waiting for it ---

Replica* Relay::choose_sticky(const balance::PoolView& pool) {
  if (!sticky_slot_) sticky_slot_ = pool_.sticky.slot(exchange_.request()).value_or(0);
  Replica* seat = pool.seated(*sticky_slot_).get();
  if (seat == nullptr || !balance::is_eligible(pool, *seat, tried())) return nullptr;
  sticks_ = true;  // it keeps its cookie, even if this one request has to go elsewhere
  return seat;
}

// The replica's connection that is this client's own, if that replica still gets requests; else it is given up.
Pinned* Relay::pinned(const balance::PoolView& pool) {
  auto* own = static_cast<Pinned*>(exchange_.companion().get());  // nobody else leaves companions with clients
  if (own == nullptr) return nullptr;
  const Replica& replica = own->upstream().replica();
  const bool good = !own->upstream().retired && replica.pool == pool.name && !(own->connection && own->connection->stream().watch().readable());
  if (!good) exchange_.companion().reset();
  return good ? own : nullptr;
}

Upstream* Relay::use(const balance::PoolView& pool, Replica& replica) {
  Upstream& upstream = balancer_.upstream(pool, replica);
  ++upstream.users;
  upstreams_[tries_] = &upstream;
  tried_[tries_++] = &replica;
  return &upstream;
}

Upstream* Relay::choose(balance::Ticket& ticket) {
  static constexpr int kRacesMax = 8;  // lost to other workers, in a row
  const balance::PoolView& pool = view();
  // Nobody overtakes those who wait: he enters the queue, and is told there whether it is his turn.
  is_full_ = pool.counted() && !place_ && pool_.queue.length() > 0;
  if (is_full_) return nullptr;
  if (!key_) key_ = key_of(pool.key, exchange_, pool_.pick);
  pool_.pick.now = now();
  sticks_ = false;
  if (Pinned* own = pinned(pool)) {
    Replica& replica = own->upstream().replica();
    if (balance::is_eligible(pool, replica, tried())) {
      if (balance::try_admit(pool, replica, ticket, balance::Bound::capacity)) return use(pool, replica);
      is_full_ = true;  // another would not know who it is
      return nullptr;
    }
  }
  Replica* sticky = pool_.sticky.on() ? choose_sticky(pool) : nullptr;
  if (sticky != nullptr && balance::try_admit(pool, *sticky, ticket, balance::Bound::capacity)) return use(pool, *sticky);
  for (int race = 0; race < kRacesMax; ++race) {
    Replica* picked = balance::pick(pool, *key_, tried(), pool_.pick);
    if (picked == nullptr) break;
    if (balance::try_admit(pool, *picked, ticket)) return use(pool, *picked);
  }
  is_full_ = pool.counted() && std::ranges::any_of(pool.replicas, [&](const auto& r) { return balance::is_eligible(pool, *r, tried()); });
  return nullptr;
}

bool Relay::somebody_is_expected() const {
  return std::ranges::any_of(view().replicas, [](const auto& replica) { return replica->expected(); });
}

// The last one broke the connection and there is no other: if it has died, its successor is a moment away. Until it has
// been checked it gets no more requests.
void Relay::suspect_last(const MaybeFailure& failure) {
  if (!failure || (failure->error.code != Code::closed && failure->error.code != Code::reset) || std::exchange(suspected_, true)) return;
  Upstream& last = *upstreams_[tries_ - 1];
  if (last.replica().change_phase(balance::Phase::ready, balance::Phase::suspect)) balancer_.reports_.suspect(last.share());
}

// Nobody is free, or ready. If somebody may be soon, waits for that: true when it is worth choosing again.
Async<bool> Relay::wait_for_turn(const MaybeFailure& failure) {
  if (!is_full_) suspect_last(failure);
  if (!is_full_ && !somebody_is_expected()) co_return false;
  if (!place_) {
    bool look = false;
    if (!enter_queue(look)) co_return false;
    if (look) co_return true;
  }
  if (!std::exchange(queued_, true)) ++pool_.metrics.queued;
  const Code woken = co_await pool_.queue.wait(place_, wait_until_);
  if (woken == Code::timeout) ++pool_.metrics.queue_timeouts;
  co_return woken == Code::ok;
}

bool Relay::enter_queue(bool& look) {
  if (!queued_) wait_until_ = std::min(deadline_, now() + pool_.settings.queue_wait);
  place_ = pool_.queue.enter(balancer_.loop_, look);
  if (!place_) ++pool_.metrics.refused_full;
  return place_ != nullptr;
}

// Every replica's backlog of connections is full. Nothing tells when there is room in one (connect(2) on a Unix socket knows
// no "in progress"), so it is tried again after a moment; meanwhile the request stands in the queue like any other.
Async<bool> Relay::wait_for_backlog() {
  // The longer the queue, the longer the pause: all who wait together try some 2,000 times a second.
  static constexpr base::Duration kPauseMin = std::chrono::milliseconds(5);
  static constexpr base::Duration kPauseEach = std::chrono::microseconds(500);
  bool look = false;
  if (!place_ && !enter_queue(look) && !queued_) co_return false;
  if (!std::exchange(queued_, true)) ++pool_.metrics.queued;
  const base::Time until = std::min(wait_until_, now() + std::max(kPauseMin, kPauseEach * pool_.queue.length()));
  Code woken = Code::ok;
  if (place_) {
    woken = co_await pool_.queue.wait(place_, until);
  } else {
    woken = co_await balancer_.loop_.sleep(until - now());  // the queue has filled up meanwhile; who has waited goes on
  }
  if (woken == Code::cancelled) co_return false;
  forget_full();
  if (now() < wait_until_) co_return true;
  ++pool_.metrics.queue_timeouts;
  co_return false;
}

// Those whose backlog was full may be tried again.
void Relay::forget_full() {
  unsigned kept = 0;
  for (unsigned i = 0; i < tries_; ++i) {
    if (backlog_full_[i]) {
      balancer_.release(*upstreams_[i]);
      ++forgotten_;
      continue;
    }
    upstreams_[kept] = upstreams_[i];
    tried_[kept] = tried_[i];
    backlog_full_[kept++] = false;
  }
  std::fill(backlog_full_.begin() + kept, backlog_full_.end(), false);
  tries_ = kept;
}

void Relay::leave_queue(bool used) {
  if (place_) pool_.queue.leave(std::exchange(place_, nullptr), used);
}

// --- trying ---

base::Duration Relay::hedge_delay() {
  const bool may = pool_.settings.retry.hedge_percentile != 0 && exchange_.body_complete() && http::is_idempotent(exchange_.request().method) &&
                   !wants_websocket(exchange_.request()) && tries_ < kTriesMax;
  return may ? pool_.hedge_delay(now()) : base::Duration::zero();
}

static Async<void> begin_into(Attempt& attempt, std::optional<std::optional<Failure>>& result, io::Signal& ended) {
  result = co_await attempt.begin(false);
  ended.notify();
}

// Begins `first`; if it has not answered after `delay`, begins another beside it. The first response's head wins, and the
// other attempt is broken off.
Async<Relay::MaybeFailure> Relay::race(Attempt& first, base::Duration delay, Attempt*& winner) {
  io::Scope scope(balancer_.loop_);
  io::Signal ended;
  std::optional<MaybeFailure> result;
  std::optional<MaybeFailure> other;
  scope.spawn(begin_into(first, result, ended));
  Code woken = Code::ok;
  if (!result) woken = co_await ended.wait(balancer_.loop_, now() + delay);
  if (!result && woken == Code::timeout && pool_.queue.length() == 0) {
    balance::Ticket ticket;
    Upstream* upstream = pool_.budget.spend(now()) ? choose(ticket) : nullptr;
    if (upstream != nullptr) {
      ++pool_.metrics.hedges;
      hedge_.emplace(balancer_, pool_, exchange_, forwarding_, *upstream, std::move(ticket), deadline_);
      scope.spawn(begin_into(*hedge_, other, ended));
    }
  }
  const auto decided = [&] { return (result && !*result) || (other && !*other) || (result && (other || !hedge_)); };
  while (woken != Code::cancelled && !decided()) woken = co_await ended.wait(balancer_.loop_);
  scope.cancel();
  co_await scope.join();
  // What was decided before the cancelling counts; both may have answered in the same round.
  if (!hedge_) co_return *result;
  const bool hedge_won = !*other && *result;
  winner = hedge_won ? &*hedge_ : &first;
  // The loser's connection and ticket are given up now, not when the winner's body has been sent.
  if (hedge_won) {
    first.end(*result);
  } else {
    hedge_->end(*other ? *other : MaybeFailure(Failure{{Code::cancelled, Source::us, {}}, Progress::answering}));
    std::swap(upstreams_[tries_ - 1], upstreams_[tries_ - 2]);  // the last in the list is the one that counts
    std::swap(tried_[tries_ - 1], tried_[tries_ - 2]);
  }
  co_return hedge_won ? *other : *result;
}

// Gives the response to the client.
Async<Relay::MaybeFailure> Relay::answer(Attempt& attempt) {
  wire::ResponseReader& reader = attempt.reader();
  if (reader.head().status == 404 && forwarding_.on_not_found != nullptr) {
    reader.arrived_body();
    co_await (*forwarding_.on_not_found)(exchange_);
    co_return std::nullopt;
  }
  std::string cookie;
  const std::uint32_t slot = attempt.upstream().replica().slot;
  if (pool_.sticky.on() && !sticks_ && sticky_slot_ != slot) cookie = pool_.sticky.set_cookie(slot);
  const wire::ResponseChanges changes{forwarding_.response_fields, cookie};
  if (attempt.began_tunnel()) {
    auto failure = co_await tunnel(attempt, changes);
    co_return failure;
  }
  exchange_.begin_forward(reader.head(), changes);
  std::string_view piece = reader.arrived_body();
  std::uint64_t& received = attempt.upstream().metrics.answers.bytes_received;
  while (true) {
    received += piece.size();
    const bool last = reader.complete();
    // Before its last bytes leave: a client that sends its next request at once must not find its own last one in the way.
    if (last) attempt.release_ticket();
    const auto written = co_await exchange_.write(piece, last);
    if (!written) co_return Failure{{written.error().code, Source::client, {}}, Progress::answering};
    if (last) co_return std::nullopt;
    const auto more = co_await reader.read_body(balancer_.config_.timeouts.stream);
    if (!more) co_return Failure{more.error(), Progress::answering};
    piece = *more;
  }
}

Async<Relay::MaybeFailure> Relay::tunnel(Attempt& attempt, const wire::ResponseChanges& changes) {
  const auto begun = co_await exchange_.begin_tunnel(attempt.reader().head(), changes);
  if (!begun) co_return Failure{{begun.error().code, Source::client, {}}, Progress::answering};
  hangup_.reset();  // from here on that the client ends its side is a message like any other
  ++pool_.metrics.tunnels;
  TunnelEnds ends{exchange_.stream(), attempt.stream(), exchange_.arrived_early(), attempt.reader().leftover()};
  if (ends.from_client.empty() && ends.from_server.empty()) {  // nearly always: then an idle tunnel holds no buffers
    exchange_.release_buffer();
    attempt.release_buffer();
  }
  const TunnelBytes carried = co_await run_tunnel(ends, balancer_.config_.timeouts.tunnel, balancer_.config_.timeouts.body);
  --pool_.metrics.tunnels;
  exchange_.count_tunnel(carried.from_client, carried.from_server);
  exchange_.end_tunnel();
  co_return std::nullopt;
}

// --- after a failure ---

Async<bool> Relay::may_retry(const Failure& failure) {
  Upstream& upstream = *upstreams_[tries_ - 1];
  if (failure.progress == Progress::answering || streamed_ || failure.error.source == Source::client || now() >= deadline_) co_return false;
  if (failure.progress == Progress::nothing_sent) co_return true;
  if (!http::is_idempotent(exchange_.request().method)) co_return false;
  // It may still be at work: another would double it. Whoever sets a timeout for each try has said that he wants that.
  if (failure.error.code == Code::timeout && pool_.settings.retry.try_timeout == base::Duration::zero()) co_return false;
  const auto explained = [&] { return upstream.replica().exited(); };
  if (explained() || failure.error.code == Code::exited) co_return true;
  if (pool_.budget.spend(now())) co_return true;
  // A connection breaks a moment before we hear that its process has ended. If that is what happened, it is no sign of
  // overload, and the retry is free.
  static constexpr base::Duration kNews = std::chrono::milliseconds(100);
  co_await upstream.exit_signal().wait(balancer_.loop_, now() + kNews);
  if (!explained()) ++pool_.metrics.retries_denied;
  co_return explained();
}

// 503: how full it is, if the client may know, and when it is worth asking again.
Async<void> Relay::refuse_full() {
  const balance::PoolView& pool = view();
  const base::Duration wait = pool_.queue.time_to_drain(pool, now());
  const auto ms = std::max<std::int64_t>(1, std::chrono::ceil<std::chrono::milliseconds>(wait).count());
  const std::string retry_after = "Retry-After: " + std::to_string((ms + 999) / 1000) + "\r\n";
  reason_ = "pool '" + pool.name + "' is at full capacity";
  if (forwarding_.listener->error_page(503) != nullptr) {
    co_await reply_error(503, {}, retry_after);
    co_return;
  }
  std::string body = fmt::format(R"({{"message":"<Error> at full capacity, try again later","status":"failure","retry_after_ms":{}}})"
                                 "\n",
                                 ms);
  if (!forwarding_.listener->error_detail) {
    co_await exchange_.reply(503, "application/json", body, retry_after);
    co_return;
  }
  const balance::PoolStatus& status = *pool.status;
  const std::uint64_t used = status.ready.load() + (status.panic(pool.panic_below_percent) ? status.doubtful.load() : 0);
  const std::uint64_t capacity = pool.max_in_flight * used;
  body = fmt::format(R"({{"message":"<Error> {}","status":"failure","in_flight":{},"capacity":{},"queue":{},"queue_length":{},"retry_after_ms":{}}})"
                     "\n",
                     reason_, pool.status->in_flight.load(std::memory_order_relaxed), capacity, pool_.queue.length(), pool_.settings.queue_length, ms);
  co_await exchange_.reply(503, "application/json", body, retry_after);
}

// What is inside (names, addresses, the state of things) is for the log, and for clients only where the listener says so.
Async<void> Relay::reply_error(unsigned status, std::string_view public_reason, std::string_view extra) {
  const std::string_view why = forwarding_.listener->error_detail ? std::string_view(reason_) : public_reason;
  co_await wire::reply_error(exchange_, *forwarding_.pages, status, why, extra);
}

Async<void> Relay::give_up(const MaybeFailure& failure) {
  if (exchange_.begun()) {  // unfinished, and so the connection will be broken
    if (failure) reason_ = base::describe(failure->error);
    co_return;
  }
  static constexpr std::string_view kLater = "Retry-After: 1\r\n";
  if (!failure && is_full_) {
    co_await refuse_full();
    co_return;
  }
  if (!failure) {
    reason_ = "no replica of pool '" + pool_.settings.name + "' is ready";
    co_await reply_error(503, "no server is ready", kLater);
    co_return;
  }
  const base::Error& error = failure->error;
  if (error.source == Source::client) {
    const unsigned status = error.code == Code::timeout ? 408 : error.code == Code::too_large ? 413 : 400;
    reason_ = base::describe(error);
    co_await reply_error(status, reason_);  // it is the client's own fault that is told
    co_return;
  }
  if (error.code == Code::full) {
    reason_ = "no further connection to a replica: " + base::describe(error);
    co_await reply_error(503, "at full capacity, try again later", kLater);
    co_return;
  }
  const bool late = error.code == Code::timeout;
  reason_ = "replica '" + tried_[tries_ - 1]->name + "' failed: " + base::describe(error);
  co_await reply_error(late ? 504 : 502, late ? "the server did not answer in time" : "the server gave no usable answer");
}

}  // namespace ringmaster::proxy
