#include "proxy/balancer.h"

#include <algorithm>

#include "proxy/relay.h"

namespace ringmaster::proxy {

Balancer::Balancer(io::Loop& loop, const config::Config& config, Suspect suspect)
    : loop_(loop), config_(config), suspect_(std::move(suspect)), view_(std::make_shared<balance::View>()), budget_(loop.now()) {}

Balancer::~Balancer() = default;

io::Async<void> Balancer::forward(wire::Exchange& exchange, std::string_view pool, const ForwardOptions& options) {
  budget_.request(loop_.now());
  auto workspace = workspaces_.take();
  {
    Relay relay(*this, exchange, pool, options, *workspace);
    co_await relay.run();
  }
  workspaces_.put(std::move(workspace));
}

Upstream& Balancer::upstream(const balance::PoolView& pool, const balance::Replica& replica) {
  if (upstreams_.size() <= replica.cell_index) upstreams_.resize(replica.cell_index + 1);
  std::unique_ptr<Upstream>& upstream = upstreams_[replica.cell_index];
  if (!upstream) {
    const auto shared = std::ranges::find(pool.replicas, &replica, [](const auto& r) { return r.get(); });
    CHECK(shared != pool.replicas.end());
    upstream = std::make_unique<Upstream>(loop_, *shared, config_.timeouts.replica_idle);
  }
  CHECK(&upstream->replica() == &replica);
  return *upstream;
}

PoolState& Balancer::pool_state(std::string_view pool) {
  const auto found = pool_states_.find(pool);
  return found != pool_states_.end() ? found->second : pool_states_.emplace(pool, loop_.random().next()).first->second;
}

void Balancer::release(Upstream& upstream) {
  if (--upstream.users > 0 || !upstream.retired) return;
  std::erase_if(retired_, [&](const auto& candidate) { return candidate.get() == &upstream; });
}

void Balancer::adopt(std::shared_ptr<const balance::View> view) {
  std::vector<std::unique_ptr<Upstream>> kept(upstreams_.size());
  for (const balance::PoolView& pool : view->pools) {
    for (const auto& replica : pool.replicas) {
      if (replica->cell_index >= upstreams_.size()) continue;
      std::unique_ptr<Upstream>& old = upstreams_[replica->cell_index];
      if (old && &old->replica() == replica.get()) kept[replica->cell_index] = std::move(old);
    }
  }
  for (std::unique_ptr<Upstream>& gone : upstreams_) {
    if (!gone) continue;
    gone->retired = true;
    gone->connections().close_idle();
    if (gone->users > 0) retired_.push_back(std::move(gone));
  }
  upstreams_ = std::move(kept);
  view_ = std::move(view);
  became_ready_.notify();
}

void Balancer::exited(const std::shared_ptr<balance::Replica>& replica) {
  const auto tell = [&](const std::unique_ptr<Upstream>& upstream) {
    if (upstream && &upstream->replica() == replica.get()) upstream->exited();
  };
  std::ranges::for_each(upstreams_, tell);
  std::ranges::for_each(retired_, tell);
}

}  // namespace ringmaster::proxy
