#include "proxy/balancer.h"

#include <algorithm>

namespace ringmaster::proxy {

using base::Duration;

Duration PoolState::hedge_delay(base::Time now) {
  static constexpr std::uint64_t kSamplesMin = 100;
  static constexpr Duration kEvery = std::chrono::milliseconds(500);
  if (settings.retry.hedge_percentile == 0 || response_times.total() < kSamplesMin) return Duration::zero();
  if (now - hedge_computed_at_ >= kEvery) {
    hedge_computed_at_ = now;
    hedge_delay_ = std::max<Duration>(response_times.percentile(settings.retry.hedge_percentile / 100.0), std::chrono::milliseconds(1));
    if (response_times.total() > 100 * kSamplesMin) response_times.age();
  }
  return hedge_delay_;
}

Balancer::Balancer(io::Loop& loop, const config::Config& config, Shared& shared, Reports reports)
    : loop_(loop),
      config_(config),
      reports_(std::move(reports)),
      view_(std::make_shared<balance::View>()),
      route_metrics_(config.routes.size() + 1),
      access_log_(loop, config.access_log, shared.access_log.get()) {
  for (std::size_t i = 0; i < config.pools.size(); ++i) {
    pools_.push_back(std::make_unique<PoolState>(config.pools[i], *shared.queues[i], loop.random().next(), loop.now()));
  }
}

Balancer::~Balancer() = default;

io::Async<void> Balancer::stop() { co_await access_log_.stop(); }

Upstream& Balancer::upstream(const balance::PoolView& pool, const balance::Replica& replica) {
  if (upstreams_.size() <= replica.cell_index) upstreams_.resize(replica.cell_index + 1);
  std::unique_ptr<Upstream>& upstream = upstreams_[replica.cell_index];
  if (!upstream) {
    auto shared = pool.seated(replica.slot);
    CHECK(shared.get() == &replica);
    upstream = std::make_unique<Upstream>(loop_, std::move(shared), config_.timeouts.replica_idle);
  }
  CHECK(&upstream->replica() == &replica);
  return *upstream;
}

void Balancer::release(Upstream& upstream) {
  if (--upstream.users > 0 || !upstream.retired) return;
  std::erase_if(retired_, [&](const auto& candidate) { return candidate.get() == &upstream; });
}

std::shared_ptr<const balance::View> Balancer::adopt(std::shared_ptr<const balance::View> view, const std::vector<Record>& departed) {
  for (const Record& replica : departed) {
    if (replica->cell_index >= upstreams_.size()) continue;
    std::unique_ptr<Upstream>& gone = upstreams_[replica->cell_index];
    if (!gone || &gone->replica() != replica.get()) continue;
    gone->retired = true;
    gone->connections().close_idle();
    if (gone->users > 0) retired_.push_back(std::move(gone));
    gone.reset();
  }
  return std::exchange(view_, std::move(view));
}

void Balancer::exited(const Record& replica) {
  const auto tell = [&](const std::unique_ptr<Upstream>& upstream) {
    if (upstream && &upstream->replica() == replica.get()) upstream->exited();
  };
  if (replica->cell_index < upstreams_.size()) tell(upstreams_[replica->cell_index]);
  std::ranges::for_each(retired_, tell);
}

WorkerMetrics Balancer::metrics() const {
  WorkerMetrics all;
  all.routes = route_metrics_;
  for (const auto& pool : pools_) all.pools.push_back(pool->metrics);
  for (const auto* upstreams : {&upstreams_, &retired_}) {
    for (const auto& upstream : *upstreams) {
      if (!upstream) continue;
      all.replicas.emplace_back(upstream->share(), upstream->metrics).second.connections_idle = upstream->connections().idle();
    }
  }
  return all;
}

}  // namespace ringmaster::proxy
