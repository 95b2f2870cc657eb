#include "proxy/queue.h"

#include <utility>

namespace ringmaster::proxy {

using base::Code;
using base::Duration;

PoolQueue::PoolQueue(const config::Pool& settings, std::shared_ptr<balance::PoolStatus> status) : settings_(settings), status_(std::move(status)) {
  status_->waiters = this;
}

PoolQueue::PlacePtr PoolQueue::enter(io::Loop& loop, bool& first) {
  const std::uint32_t before = status_->waiting.fetch_add(1, std::memory_order_seq_cst);
  if (before >= settings_.queue_length) {
    status_->waiting.fetch_sub(1, std::memory_order_seq_cst);
    return nullptr;
  }
  auto place = std::make_shared<Place>(loop);
  const std::lock_guard lock(mutex_);
  place->number = next_number_++;
  sleeping_.emplace(place->number, place);
  first = before == 0;
  return place;
}

io::Async<Code> PoolQueue::wait(PlacePtr place, base::Time deadline) {
  if (!place->notified) {
    const std::lock_guard lock(mutex_);
    sleeping_.emplace(place->number, place);  // again, if a try was in vain
  }
  while (!place->notified) {
    const Code woken = co_await place->signal.wait(place->loop, deadline);
    if (woken != Code::ok) co_return woken;
  }
  place->notified = false;
  co_return Code::ok;
}

void PoolQueue::leave(const PlacePtr& place) {
  bool pass_on = false;
  {
    const std::lock_guard lock(mutex_);
    // Woken, and perhaps he does not use what he was woken for; or there is more room than for him.
    const bool woken = sleeping_.erase(place->number) == 0;
    const std::uint64_t most = std::uint64_t{settings_.max_in_flight} * status_->ready.load(std::memory_order_relaxed);
    pass_on = woken && !sleeping_.empty() && (settings_.max_in_flight == 0 || status_->in_flight.load(std::memory_order_relaxed) < most);
  }
  status_->waiting.fetch_sub(1, std::memory_order_seq_cst);
  if (pass_on) capacity_released();
}

void PoolQueue::wake(const PlacePtr& place) {
  place->loop.post([place] {
    place->notified = true;
    place->signal.notify();
  });
}

void PoolQueue::capacity_released() {
  const std::lock_guard lock(mutex_);
  if (sleeping_.empty()) return;
  const auto first = sleeping_.begin();
  wake(first->second);
  sleeping_.erase(first);
}

void PoolQueue::wake_all() {
  const std::lock_guard lock(mutex_);
  for (const auto& [number, place] : sleeping_) wake(place);
  sleeping_.clear();
}

void PoolQueue::sample(base::Time now) {
  const std::uint64_t completed = status_->completed.load(std::memory_order_relaxed);
  const bool waits = length() > 0;
  // Only a time in which somebody waited all along tells what the pool can do.
  if (waits && waited_then_) {
    static constexpr double kNew = 0.3;
    const double rate = static_cast<double>(completed - sampled_completed_) / std::chrono::duration<double>(now - sampled_at_).count();
    const double old = per_second_.load(std::memory_order_relaxed);
    per_second_.store(old == 0 ? rate : old + (rate - old) * kNew, std::memory_order_relaxed);
  }
  waited_then_ = waits;
  sampled_at_ = now;
  sampled_completed_ = completed;
}

Duration PoolQueue::time_to_drain(const balance::PoolView& pool, base::Time now) const {
  double rate = per_second_.load(std::memory_order_relaxed);
  if (rate <= 0) {
    // Never measured yet: by Little's law, from what is in flight and how long it takes.
    double latencies = 0;
    for (const auto& replica : pool.replicas) latencies += replica->averages.latency(now);
    if (latencies > 0) rate = static_cast<double>(status_->in_flight.load(std::memory_order_relaxed)) * static_cast<double>(pool.replicas.size()) / latencies;
  }
  if (rate <= 0) return std::chrono::seconds(1);
  const double seconds = (length() + 1) / rate;
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(std::min(seconds, 3600.0)));
}

}  // namespace ringmaster::proxy
