// The requests of one pool that wait: for room on a replica, or for a replica to become ready. First in, first out over all
// workers, bounded in length and time. A mutex guards it, which only those who wait, and who give back while somebody
// waits, ever take.
//
//   enter ─▶ looking ──found room──▶ leave
//     │        │ in vain  ▲
//     │        ▼          │ woken
//     └────▶ sleeping ────┘
//
// The invariant: whoever sleeps has looked in vain since the last thing that could have helped him, or somebody is looking
// now who will wake him. So
// - what is given back wakes the first sleeper, who is *owed* that room: if he cannot use it (his retry may not go there), he
//   wakes the next;
// - who enters while another is looking sleeps *fresh*, without having looked: he is woken once those before him are done;
// - what is given back while nobody sleeps is *missed*: whoever is about to sleep looks again.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <set>

#include "balance/view.h"
#include "config/config.h"
#include "io/loop.h"

namespace ringmaster::proxy {

class PoolQueue final : public balance::Waiters {
 public:
  PoolQueue(const config::Pool& settings, std::shared_ptr<balance::PoolStatus> status);

  struct Place {
    explicit Place(io::Loop& its_loop) : loop(its_loop) {}
    io::Loop& loop;  // of the worker whose request it is; the next two are its, too
    io::Signal signal;
    bool notified = false;
    std::uint64_t number = 0;  // in the order of arrival
    bool looking = false;      // this and the next: guarded by the queue's mutex
    bool owed = false;
  };
  using PlacePtr = std::shared_ptr<Place>;

  // At the end of the queue; null when it is full. `look`: it is his turn at once; else he waits first.
  PlacePtr enter(io::Loop& loop, bool& look);
  // Awaits a turn to look: ok, timeout or cancelled.
  io::Async<base::Code> wait(PlacePtr place, base::Time deadline);
  // `used`: he has found room.
  void leave(const PlacePtr& place, bool used);

  // Any thread.
  void capacity_released() override;
  void wake_all();

  std::uint32_t length() const { return status_->waiting.load(std::memory_order_seq_cst); }

  // How long it takes until all who wait now, and one more, have been let in, by the rate of late.
  base::Duration time_to_drain(const balance::PoolView& pool, base::Time now) const;
  // Measures the rate of completions; called every kSample.
  void sample(base::Time now);
  static constexpr base::Duration kSample = std::chrono::milliseconds(50);

 private:
  // With the mutex held.
  void wake(std::map<std::uint64_t, PlacePtr>::iterator sleeper, bool owed);
  void pass_on(bool owed, std::uint64_t after);
  bool stop_looking(Place& place);
  void begin_window(base::Time now);

  const config::Pool& settings_;
  std::shared_ptr<balance::PoolStatus> status_;  // its `waiting` is written here only, with the mutex held
  std::mutex mutex_;
  std::uint64_t next_number_ = 1;
  std::map<std::uint64_t, PlacePtr> sleeping_;  // by number
  std::set<std::uint64_t> fresh_;               // of these
  unsigned looking_ = 0;
  bool missed_ = false;
  std::atomic<double> per_second_ = 0;  // completions while somebody waited; 0: not known yet
  // What is being measured: begun when the first had to wait, or when the last measurement was complete.
  std::atomic<base::Time> window_began_ = base::kNever;
  std::atomic<std::uint64_t> window_completed_ = 0;
};

}  // namespace ringmaster::proxy
