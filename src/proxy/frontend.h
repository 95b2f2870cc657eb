// What happens to a request before it is balanced, and after it has ended: who sent it, which route takes it, its limits,
// answers that need no replica; then metrics and the access log. One for each listener and worker.
#pragma once

#include "proxy/balancer.h"

namespace ringmaster::proxy {

class Frontend final : public wire::Handler {
 public:
  // `listener`: its index. `pages` and `on_not_found` are whoever wraps this one's; by default its own errors, and a
  // replica's 404 as it is.
  Frontend(const config::Config& config, std::size_t listener, Shared& shared, Balancer& balancer, const wire::Handler* pages = nullptr,
           NotFound on_not_found = {});

  io::Async<void> handle(wire::Exchange& exchange) override;
  ErrorPage error_page(unsigned status, std::string_view why) const override;
  void refused(const Refused& refused) override;
  // Sets the exchange's client, if a trusted peer names it; true if the peer is trusted.
  bool identify_client(wire::Exchange& exchange) const;

 private:
  // What of a request is made up here, and referred to until it has ended; taken from a pool.
  struct Scratch {
    std::string path;
    std::string extra;
    std::string request_id;
    std::array<std::string_view, 3> replaced;
  };
  // An answer of our own, instead of a replica's.
  struct Refusal {
    unsigned status;
    std::string why;
    std::string extra;
  };
  struct Summary {
    std::string_view replica;
    unsigned tries = 0;
    std::string_view reason;
  };

  bool trusts(const base::Endpoint& peer) const;
  std::optional<Refusal> refuse(wire::Exchange& exchange, const config::Route* route, std::size_t index);
  bool misleads(const wire::Exchange& exchange, const config::Route* route, std::size_t index) const;
  io::Async<void> answer(wire::Exchange& exchange, const config::Route& route, Scratch& scratch);
  Forwarding prepare(const wire::Exchange& exchange, const config::Route* route, std::size_t index, bool trusted, Scratch& scratch);
  void append_trace(const wire::Exchange& exchange, Scratch& scratch, Forwarding& forwarding);
  void finish(const wire::Exchange& exchange, std::size_t route, const Summary& summary, const Scratch& scratch, base::Duration took);

  const config::Config& config_;
  const config::Listener& listener_;
  Shared& shared_;
  Balancer& balancer_;
  const RouteTable& routes_;
  const wire::Handler& pages_;
  NotFound on_not_found_;
  std::size_t default_pool_;
  bool reads_paths_;  // some route has another way to read them than the normal one
  std::vector<std::size_t> pool_of_route_;
  wire::ObjectPool<Scratch> scratches_;
};

}  // namespace ringmaster::proxy
