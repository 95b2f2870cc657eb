// The life of one request in the balancer:
//
//   pick a replica ─▶ attempt ─▶ answered ─▶ done
//        ▲               │ failed
//        └── may it be tried again? (run) ── no ──▶ 502 / 503 / 504
//
// An attempt is: a ticket, a connection, the request's head and body, the response's head and body. What decides about
// another try is how far it got: before a byte was written any method may go to the next replica; after that only an
// idempotent one (RFC 9110 section 9.2.2), within the retry budget; after a byte was given to the client, none.
#pragma once

#include <array>
#include <optional>

#include "proxy/balancer.h"

namespace ringmaster::proxy {

class Relay {
 public:
  Relay(Balancer& balancer, wire::Exchange& exchange, std::string_view pool, const ForwardOptions& options, RelayWorkspace& workspace)
      : balancer_(balancer), pool_state_(balancer.pool_state(pool)), exchange_(exchange), pool_(pool), options_(options), workspace_(workspace) {}
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;
  ~Relay();

  io::Async<void> run();

 private:
  enum class Progress : std::uint8_t { nothing_sent, sent, answering };  // answering: a byte of the response has come
  struct Failure {
    base::Error error;
    Progress progress;
  };
  static constexpr unsigned kTriesMax = 3;

  const balance::PoolView* view() const { return balancer_.view_->find(pool_); }
  Upstream* pick();
  io::Async<bool> wait_for_replica(const std::optional<Failure>& failure);
  void suspect(Upstream& upstream);
  io::Async<bool> may_retry(Upstream& upstream, const Failure& failure);
  io::Async<void> give_up(const std::optional<Failure>& failure);

  // One try. Nothing: the exchange has had its response, or never will.
  io::Async<std::optional<Failure>> attempt(Upstream& upstream);
  io::Async<std::optional<Failure>> exchange_on(io::Stream& stream, bool& reusable);
  io::Async<std::optional<Failure>> receive(io::Stream& stream, base::Time deadline);
  io::Async<std::optional<Failure>> answer();
  io::Async<base::Result<void>> send_request(io::Stream& stream, bool& any_byte_sent);

  // The rest of a body that had not arrived with the head.
  struct Upload {
    bool done = false;
    std::optional<base::Error> client_error;
  };
  io::Async<void> upload(io::Stream& stream, Upload& state);

  base::Time in(base::Duration d) const { return balancer_.loop_.now() + d; }

  Balancer& balancer_;
  PoolState& pool_state_;
  wire::Exchange& exchange_;
  std::string_view pool_;
  const ForwardOptions& options_;
  RelayWorkspace& workspace_;
  std::optional<std::uint64_t> key_;
  std::array<Upstream*, kTriesMax> upstreams_{};      // that were tried; kept alive until the end
  std::array<balance::Replica*, kTriesMax> tried_{};  // theirs, as pick() wants them
  unsigned tries_ = 0;
  base::Time wait_until_ = base::kNever;  // for a replica to become ready; set when waiting begins
  Upstream::Active* active_ = nullptr;    // of the attempt under way
  bool suspected_ = false;                // one replica has been sent to be checked; once per request is enough
  bool streamed_ = false;                 // part of the body has been read for good: it cannot be sent again
};

}  // namespace ringmaster::proxy
