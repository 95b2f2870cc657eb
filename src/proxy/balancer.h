// One worker's half of the data plane: the current view, its connections to the replicas, and the requests that wait.
//
// A Balancer lives on its worker's loop. The engine's control thread talks to it by post(): adopt() when membership
// changes, ready() when a replica has become ready, exited() when one's process has ended.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "balance/pick.h"
#include "config/config.h"
#include "proxy/retry_budget.h"
#include "proxy/upstream.h"
#include "wire/server.h"

namespace ringmaster::proxy {

class Relay;

// What a relay needs beside its exchange; taken from a pool.
struct RelayWorkspace {
  wire::ResponseReader reader;
  std::string out;
};

// What a worker remembers of a pool between requests.
struct PoolState {
  explicit PoolState(std::uint64_t seed) : pick(seed) {}
  balance::PickState pick;
  unsigned waiting = 0;  // requests, for a replica to become ready
};

struct ForwardOptions {
  const wire::Handler* pages = nullptr;  // how errors look to this listener's clients
  // If set, a replica's 404 is not forwarded: this answers instead (CONTRACT S1).
  std::function<io::Async<void>(wire::Exchange&)> on_not_found;
};

class Balancer {
 public:
  // `suspect` is called, on the worker's thread, when a replica refused a connection.
  using Suspect = std::function<void(std::shared_ptr<balance::Replica>)>;

  Balancer(io::Loop& loop, const config::Config& config, Suspect suspect);
  ~Balancer();

  // Gives the exchange a response: a replica's, or 502, 503 or 504 with the reason.
  io::Async<void> forward(wire::Exchange& exchange, std::string_view pool, const ForwardOptions& options);

  void adopt(std::shared_ptr<const balance::View> view);
  void ready() { became_ready_.notify(); }
  void exited(const std::shared_ptr<balance::Replica>& replica);

  const balance::View& view() const { return *view_; }

 private:
  friend class Relay;
  // Of a replica that is in the view.
  Upstream& upstream(const balance::PoolView& pool, const balance::Replica& replica);
  void release(Upstream& upstream);
  PoolState& pool_state(std::string_view pool);

  io::Loop& loop_;
  const config::Config& config_;
  Suspect suspect_;
  std::shared_ptr<const balance::View> view_;
  std::vector<std::unique_ptr<Upstream>> upstreams_;  // by the replica's cell; those of the view, made when first used
  std::vector<std::unique_ptr<Upstream>> retired_;    // out of the view, still used by attempts
  wire::ObjectPool<RelayWorkspace> workspaces_;
  std::map<std::string, PoolState, std::less<>> pool_states_;
  RetryBudget budget_;
  io::Signal became_ready_;
};

}  // namespace ringmaster::proxy
