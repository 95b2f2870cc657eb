#include "proxy/queue.h"

#include <utility>

namespace ringmaster::proxy {

using base::Code;
using base::Duration;

PoolQueue::PoolQueue(const config::Pool& settings, std::shared_ptr<balance::PoolStatus> status) : settings_(settings), status_(std::move(status)) {
  status_->waiters = this;
}

PoolQueue::PlacePtr PoolQueue::enter(io::Loop& loop, bool& look) {
  const std::lock_guard lock(mutex_);
  const std::uint32_t before = status_->waiting.load(std::memory_order_relaxed);
  if (before >= settings_.queue_length) return nullptr;
  if (before == 0) begin_window(loop.now());
  status_->waiting.store(before + 1, std::memory_order_seq_cst);
  auto place = std::make_shared<Place>(loop);
  place->number = next_number_++;
  look = looking_ == 0 && fresh_.empty();
  if (look) {
    place->looking = true;
    ++looking_;
  } else {
    sleeping_.emplace(place->number, place);
    fresh_.insert(place->number);
  }
  return place;
}

io::Async<Code> PoolQueue::wait(PlacePtr place, base::Time deadline) {
  {
    const std::lock_guard lock(mutex_);
    if (place->looking) {  // in vain
      if (std::exchange(missed_, false)) co_return Code::ok;
      const bool owed = stop_looking(*place);
      sleeping_.emplace(place->number, place);
      pass_on(owed, place->number);
    }
  }
  while (!place->notified) {
    const Code woken = co_await place->signal.wait(place->loop, deadline);
    if (woken != Code::ok) co_return woken;
  }
  place->notified = false;
  co_return Code::ok;
}

void PoolQueue::leave(const PlacePtr& place, bool used) {
  const std::lock_guard lock(mutex_);
  status_->waiting.store(status_->waiting.load(std::memory_order_relaxed) - 1, std::memory_order_seq_cst);
  sleeping_.erase(place->number);
  fresh_.erase(place->number);
  if (place->looking) {
    const bool owed = stop_looking(*place);
    pass_on(owed && !used, 0);
  }
  if (sleeping_.empty() && looking_ == 0) missed_ = false;
}

// What he was owed.
bool PoolQueue::stop_looking(Place& place) {
  place.looking = false;
  --looking_;
  return std::exchange(place.owed, false);
}

// Somebody has stopped looking. `owed`: there may be room that he could not use, for anybody behind `after`; else only those
// have to look who never did.
void PoolQueue::pass_on(bool owed, std::uint64_t after) {
  if (owed) {
    const auto next = sleeping_.upper_bound(after);
    if (next != sleeping_.end()) wake(next, true);
  } else if (!fresh_.empty() && looking_ == 0) {
    wake(sleeping_.find(*fresh_.begin()), false);
  }
}

void PoolQueue::wake(std::map<std::uint64_t, PlacePtr>::iterator sleeper, bool owed) {
  const PlacePtr place = sleeper->second;
  sleeping_.erase(sleeper);
  fresh_.erase(place->number);
  place->looking = true;
  place->owed = owed;
  ++looking_;
  place->loop.post([place] {
    place->notified = true;
    place->signal.notify();
  });
}

void PoolQueue::capacity_released() {
  const std::lock_guard lock(mutex_);
  if (sleeping_.empty()) {
    missed_ = looking_ > 0;
  } else {
    wake(sleeping_.begin(), true);
  }
}

void PoolQueue::wake_all() {
  const std::lock_guard lock(mutex_);
  missed_ = looking_ > 0;
  while (!sleeping_.empty()) wake(sleeping_.begin(), true);
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
