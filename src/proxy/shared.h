// What the workers of an engine have in common beside the view. Each part is safe for all of them at once.
#pragma once

#include <memory>
#include <vector>

#include "proxy/access_log.h"
#include "proxy/queue.h"
#include "proxy/rate_limiter.h"
#include "proxy/registry.h"
#include "proxy/route_table.h"

namespace ringmaster::proxy {

struct Shared {
  Shared(io::System& system, const config::Config& config, const Registry& registry) {
    for (const config::Pool& pool : config.pools) queues.push_back(std::make_unique<PoolQueue>(pool, registry.status(pool.name)));
    for (const config::Route& route : config.routes) limiters.push_back(route.rate.per_second == 0 ? nullptr : std::make_unique<RateLimiter>(route.rate));
    for (const config::Listener& listener : config.listeners) tables.push_back(std::make_unique<RouteTable>(config, listener));
    if (config.access_log.format != config::AccessLog::Format::off) access_log = std::make_unique<AccessLogFile>(system, config.access_log);
  }

  std::vector<std::unique_ptr<PoolQueue>> queues;         // by pool
  std::vector<std::unique_ptr<RateLimiter>> limiters;     // by route; null: no limit
  std::vector<std::unique_ptr<const RouteTable>> tables;  // by listener
  std::unique_ptr<AccessLogFile> access_log;              // null: off
};

}  // namespace ringmaster::proxy
