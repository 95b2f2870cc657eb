// The life of one request in the balancer:
//
//   choose a replica ─▶ attempt ─▶ answered ─▶ done
//     ▲         │ none free    │ failed
//     │         ▼              ▼
//     │   wait in the queue    may it be tried again? (may_retry) ── no ──▶ 502 / 503 / 504
//     └─────────┴──────────────┘ yes
//
// What decides about another try is how far the last one got: before a byte was written any method may go to the next
// replica; after that only an idempotent one (RFC 9110 section 9.2.2), within the retry budget; after a byte was given to
// the client, none. With hedging, a second attempt may race a slow first one.
#pragma once

#include <array>
#include <optional>

#include "proxy/attempt.h"
#include "wire/hangup.h"

namespace ringmaster::proxy {

class Relay {
 public:
  Relay(Balancer& balancer, PoolState& pool, wire::Exchange& exchange, const Forwarding& forwarding);
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;
  ~Relay();

  io::Async<void> run();

  // The last replica that was tried, and how many tries there were.
  std::string_view replica_name() const { return tries_ == 0 ? std::string_view{} : std::string_view(tried_[tries_ - 1]->name); }
  unsigned tries() const { return tries_ + forgotten_; }
  // Why it failed, for the log; empty: it did not.
  const std::string& reason() const { return reason_; }

 private:
  using MaybeFailure = std::optional<Failure>;
  static constexpr unsigned kTriesMax = 4;  // three, and a hedge

  const balance::PoolView& view() const { return balancer_.view_->pools[forwarding_.pool]; }
  bool has_view() const { return forwarding_.pool < balancer_.view_->pools.size(); }
  std::span<balance::Replica* const> tried() const { return std::span(tried_).first(tries_); }

  // A replica and a ticket for it, or null. `is_full_` then tells whether there would be one if it had room.
  Upstream* choose(balance::Ticket& ticket);
  Upstream* use(const balance::PoolView& pool, balance::Replica& replica);
  balance::Replica* choose_sticky(const balance::PoolView& pool);
  Pinned* pinned(const balance::PoolView& pool);
  bool somebody_is_expected() const;
  io::Async<bool> wait_for_turn(const MaybeFailure& failure);
  io::Async<bool> wait_for_backlog();
  bool enter_queue(bool& look);
  void forget_full();
  void leave_queue(bool used);
  void suspect_last(const MaybeFailure& failure);

  io::Async<MaybeFailure> complete_body();
  io::Async<MaybeFailure> race(Attempt& first, base::Duration delay, Attempt*& winner);
  base::Duration hedge_delay();
  io::Async<MaybeFailure> answer(Attempt& attempt);
  io::Async<MaybeFailure> tunnel(Attempt& attempt, const wire::ResponseChanges& changes);
  io::Async<bool> may_retry(const Failure& failure);
  io::Async<void> give_up(const MaybeFailure& failure);
  io::Async<void> refuse_full();
  io::Async<void> reply_error(unsigned status, std::string_view public_reason, std::string_view extra = {});

  base::Time now() const { return balancer_.loop_.now(); }

  Balancer& balancer_;
  PoolState& pool_;
  wire::Exchange& exchange_;
  const Forwarding& forwarding_;
  std::optional<wire::HangupGuard> hangup_;
  std::optional<std::uint64_t> key_;
  std::array<Upstream*, kTriesMax> upstreams_{};      // that were tried; kept alive until the end
  std::array<balance::Replica*, kTriesMax> tried_{};  // theirs, as pick() wants them
  std::array<bool, kTriesMax> backlog_full_{};        // it could not be connected to for that
  unsigned tries_ = 0;
  unsigned forgotten_ = 0;        // tries that ended at a full backlog, and may be made again
  std::optional<Attempt> hedge_;  // beside a slow first attempt
  base::Time deadline_;
  std::string reason_;
  PoolQueue::PlacePtr place_;             // in the queue
  base::Time wait_until_ = base::kNever;  // set when waiting begins
  bool is_full_ = false;
  bool queued_ = false;
  bool streamed_ = false;                     // part of the body is gone: no more tries
  bool sticks_ = false;                       // its sticky cookie leads to a replica that gets requests
  bool suspected_ = false;                    // one replica has been sent to be checked; once per request is enough
  std::optional<std::uint32_t> sticky_slot_;  // that the client came with
};

}  // namespace ringmaster::proxy
