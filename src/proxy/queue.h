// The requests of one pool that wait: for room on a replica, or for a replica to become ready. First in, first out over all
// workers, bounded in length and time; a mutex guards it, which only those who wait, and who give back while somebody
// waits, ever take.
//
//   enter ─▶ sleeping ──woken by a release──▶ tries again ──▶ leaves with a ticket
//               ▲                                  │ somebody was faster: keeps its place
//               └──────────────────────────────────┘
#pragma once

#include <map>
#include <memory>
#include <mutex>

#include "balance/view.h"
#include "config/config.h"
#include "io/loop.h"

namespace ringmaster::proxy {

class PoolQueue final : public balance::Waiters {
 public:
  PoolQueue(const config::Pool& settings, std::shared_ptr<balance::PoolStatus> status);

  struct Place {
    explicit Place(io::Loop& its_loop) : loop(its_loop) {}
    io::Loop& loop;  // of the worker whose request it is; the rest is its, too
    io::Signal signal;
    bool notified = false;
    std::uint64_t number = 0;  // in the order of arrival
  };
  using PlacePtr = std::shared_ptr<Place>;

  // At the end of the queue; null when it is full. `first`: nobody was there before, so room that was given back meanwhile
  // is his: he has to look once more before he sleeps.
  PlacePtr enter(io::Loop& loop, bool& first);
  // Awaits a sign that it is worth another try: ok, timeout or cancelled.
  io::Async<base::Code> wait(PlacePtr place, base::Time deadline);
  void leave(const PlacePtr& place);

  // Any thread.
  void capacity_released() override;
  void wake_all();

  std::uint32_t length() const { return status_->waiting.load(std::memory_order_relaxed); }

  // How long it takes until all who wait now, and one more, have been let in, by the rate of late.
  base::Duration time_to_drain(const balance::PoolView& pool, base::Time now) const;
  // Measures the rate of completions; called every kSample.
  void sample(base::Time now);
  static constexpr base::Duration kSample = std::chrono::milliseconds(50);

 private:
  void begin_window(base::Time now);
  void wake(const PlacePtr& place);

  const config::Pool& settings_;
  std::shared_ptr<balance::PoolStatus> status_;
  std::mutex mutex_;
  std::uint64_t next_number_ = 0;                // guarded by mutex_, as the next
  std::map<std::uint64_t, PlacePtr> sleeping_;  // by number; those who were woken are out of it
  std::atomic<double> per_second_ = 0;           // completions while somebody waited; 0: not known yet
  // What is being measured: begun when the first had to wait, or when the last measurement was complete.
  std::atomic<base::Time> window_began_ = base::kNever;
  std::atomic<std::uint64_t> window_completed_ = 0;
};

}  // namespace ringmaster::proxy
