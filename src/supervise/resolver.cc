#include "supervise/resolver.h"

#include <algorithm>

#include "base/log.h"
#include "io/resolve.h"

namespace ringmaster::supervise {

using base::Code;
using base::Endpoint;
using io::Async;

void Resolver::start() {
  for (const config::Pool& pool : config_.pools) {
    for (const std::string& server : pool.servers) {
      if (const auto endpoint = Endpoint::parse(server)) {
        fleet_.set_servers(pool, server, {*endpoint});
      } else {
        scope_.spawn(follow(pool, server));
      }
    }
  }
}

Async<void> Resolver::follow(const config::Pool& pool, std::string server) {
  std::string complaint;
  while (true) {
    auto found = co_await io::resolve(loop_, server);
    if (scope_.cancelled()) co_return;
    const std::string now = found ? "" : base::describe(found.error());
    if (!now.empty() && now != complaint) base::log::warning("pool {}: {} cannot be looked up: {}", pool.name, server, now);
    if (now.empty() && !complaint.empty()) base::log::info("pool {}: {} is found again", pool.name, server);
    complaint = now;
    if (found) {
      // In an order that does not change from answer to answer.
      std::ranges::sort(*found, {}, [](const Endpoint& endpoint) { return base::to_string(endpoint); });
      const auto twice = std::ranges::unique(*found);
      found->erase(twice.begin(), twice.end());
      fleet_.set_servers(pool, server, *found);
    }
    const Code slept = co_await loop_.sleep(pool.resolve_interval);
    if (slept == Code::cancelled) co_return;
  }
}

Async<void> Resolver::stop() {
  scope_.cancel();
  co_await scope_.join();
}

}  // namespace ringmaster::supervise
