// One worker's half of the data plane: the current view, its connections to the replicas, and what it counts.
//
// A Balancer lives on its worker's loop. The engine's control thread talks to it by post(): adopt() when membership
// changes, exited() when a replica's process has ended.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "balance/pick.h"
#include "base/histogram.h"
#include "config/config.h"
#include "http/serialize.h"
#include "proxy/retry_budget.h"
#include "proxy/shared.h"
#include "proxy/sticky.h"
#include "proxy/upstream.h"
#include "wire/server.h"

namespace ringmaster::proxy {

// What an attempt needs beside its exchange; taken from a pool.
struct AttemptWorkspace {
  wire::ResponseReader reader;
  std::string out;
  std::string extra;
};

// What a worker remembers of a pool between requests.
struct PoolState {
  PoolState(const config::Pool& its_settings, PoolQueue& its_queue, std::uint64_t seed, base::Time now)
      : settings(its_settings),
        queue(its_queue),
        pick(seed),
        budget(now, its_settings.retry.budget_percent, its_settings.retry.budget_per_second),
        sticky(its_settings) {}

  // How long to wait for an answer before a second replica is asked as well; zero: never.
  base::Duration hedge_delay(base::Time now);

  const config::Pool& settings;
  PoolQueue& queue;
  balance::PickState pick;
  RetryBudget budget;
  Sticky sticky;
  PoolMetrics metrics;
  base::Histogram response_times;  // for hedging; kept only if that is on

 private:
  base::Duration hedge_delay_{};
  base::Time hedge_computed_at_{};
};

// Answers a replica's 404 instead of forwarding it (CONTRACT S1).
using NotFound = std::function<io::Async<void>(wire::Exchange&)>;

// What has been decided about a request before a replica is chosen. All that it refers to outlives the request.
struct Forwarding {
  std::size_t pool = 0;                              // its index
  const wire::Handler* pages = nullptr;              // how errors look to this listener's clients
  const NotFound* on_not_found = nullptr;            // null: a 404 is forwarded
  std::string_view path;                             // as the replica shall see it
  http::Forwarded forwarded;                         // what it is told of the client
  const http::FieldEdits* request_fields = nullptr;  // the route's changes
  const http::FieldEdits* response_fields = nullptr;
  std::string_view extra;                      // whole lines for the request
  std::span<const std::string_view> replaced;  // fields that `extra` has instead of the client's
  const config::Listener* listener = nullptr;  // where it came in
  bool buffered = true;                        // a small body is awaited whole
  std::size_t buffer_bytes = 0;                // what is small, if more than the connection's buffer
};

class Balancer {
 public:
  using Record = std::shared_ptr<balance::Replica>;
  // Calls to the control thread, made on the worker's.
  struct Reports {
    std::function<void(const Record&)> suspect;  // it refused a connection: check it
    std::function<void(const Record&)> failing;  // so many errors in a row, or (health when idle) one: take it out
  };

  Balancer(io::Loop& loop, const config::Config& config, Shared& shared, Reports reports);
  ~Balancer();
  io::Async<void> stop();  // before the destructor

  // `departed`: replicas that the present view has and the new one has not. Returns the old view, for the caller to destroy
  // where it costs nobody time.
  std::shared_ptr<const balance::View> adopt(std::shared_ptr<const balance::View> view, const std::vector<Record>& departed);
  void exited(const Record& replica);

  io::Loop& loop() { return loop_; }
  const balance::View& view() const { return *view_; }
  PoolState& pool(std::size_t index) { return *pools_[index]; }
  AccessLog& access_log() { return access_log_; }
  std::vector<RouteMetrics>& route_metrics() { return route_metrics_; }  // by route; the last one: no route
  // All that has been counted, but for connections.
  WorkerMetrics metrics() const;

 private:
  friend class Relay;
  friend class Attempt;
  friend class Pinned;
  // Of a replica that is in the view.
  Upstream& upstream(const balance::PoolView& pool, const balance::Replica& replica);
  void release(Upstream& upstream);

  io::Loop& loop_;
  const config::Config& config_;
  Reports reports_;
  std::shared_ptr<const balance::View> view_;
  std::vector<std::unique_ptr<Upstream>> upstreams_;  // by the replica's cell; made when first used
  std::vector<std::unique_ptr<Upstream>> retired_;    // out of the view, still used by attempts
  wire::ObjectPool<AttemptWorkspace> workspaces_;
  std::vector<std::unique_ptr<PoolState>> pools_;
  std::vector<RouteMetrics> route_metrics_;
  AccessLog access_log_;
};

}  // namespace ringmaster::proxy
