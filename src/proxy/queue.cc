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
  if (before == 0 && window_began_.load(std::memory_order_relaxed) == base::kNever) begin_window(loop.now());
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

void PoolQueue::begin_window(base::Time now) {
  window_completed_.store(status_->completed.load(std::memory_order_relaxed), std::memory_order_relaxed);
  window_began_.store(now, std::memory_order_relaxed);
}

// Only a time in which somebody waited all along tells what the pool can do; and completions come in bunches, so that it
// takes a number of them, or a long time, to know their rate.
void PoolQueue::sample(base::Time now) {
  const base::Time began = window_began_.load(std::memory_order_relaxed);
  if (began == base::kNever) return;
  if (length() == 0) {
    window_began_.store(base::kNever, std::memory_order_relaxed);
    return;
  }
  const std::uint64_t done = status_->completed.load(std::memory_order_relaxed) - window_completed_.load(std::memory_order_relaxed);
  const double seconds = std::chrono::duration<double>(now - began).count();
  const bool enough = (done >= 50 && seconds >= 0.1) || (done >= 10 && seconds >= 1) || seconds >= 10;
  if (!enough) return;
  const double rate = static_cast<double>(done) / seconds;
  const double old = per_second_.load(std::memory_order_relaxed);
  per_second_.store(old == 0 ? rate : (old + rate) / 2, std::memory_order_relaxed);
  begin_window(now);
}

Duration PoolQueue::time_to_drain(const balance::PoolView& pool, base::Time now) const {
  double rate = per_second_.load(std::memory_order_relaxed);
  if (rate <= 0) {
    // Never measured yet: by Little's law, from what is in flight and how long it took of late; but no faster than what has
    // been seen since the queue began.
    double latencies = 0;
    for (const auto& replica : pool.replicas) latencies += replica->averages.latency(now);
    const auto in_flight = static_cast<double>(status_->in_flight.load(std::memory_order_relaxed));
    if (latencies > 0) rate = in_flight * static_cast<double>(pool.replicas.size()) / latencies;
    if (const base::Time began = window_began_.load(std::memory_order_relaxed); began < now) {
      const auto done = static_cast<double>(status_->completed.load(std::memory_order_relaxed) - window_completed_.load(std::memory_order_relaxed));
      const double seen = (done + 1) / std::chrono::duration<double>(now - began).count();
      rate = rate <= 0 ? seen : std::min(rate, seen);
    }
  }
  if (rate <= 0) return std::chrono::seconds(1);
  const double seconds = (length() + 1) / rate;
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(std::min(seconds, 3600.0)));
}

}  // namespace ringmaster::proxy
