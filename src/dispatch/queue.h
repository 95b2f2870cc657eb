// A queue as the dispatcher has it: its settings, who waits in it, and what it has counted.
#pragma once

#include "dispatch/dispatcher.h"

namespace ringmaster::dispatch {

struct Dispatcher::Queue {
  Queue(const config::Queue& s, base::Duration b, base::Duration m)
      : settings(s), back_off{b / std::chrono::milliseconds(1), m / std::chrono::milliseconds(1)} {
    state.queue = wanted.queue = s.name;
  }
  const config::Queue& settings;
  task::BackOff back_off;
  QueueState state;
  QueueState wanted;  // with the changes that are being committed
  task::Pending<LivePtr> pending;
  std::size_t live = 0;         // not final
  std::size_t in_progress = 0;  // offered or leased
  std::size_t turn = 0;         // round robin: who is next
  io::Signal arrived;           // for pull workers
  QueueFigures figures;
  // How fast it works off: a moving average of the time between two ends.
  Time last_end{};
  double seconds_per_task = 0;

  unsigned in_progress_max() const { return state.in_progress_max != 0 ? state.in_progress_max : settings.in_progress_max; }
  bool has_room() const { return in_progress_max() == 0 || in_progress < in_progress_max(); }
};

// Told by workers that a ticket is free while tasks wait for one; looks on the control loop.
struct Dispatcher::PoolWaiter final : balance::Waiters {
  PoolWaiter(Dispatcher& d, std::string p) : dispatcher(d), pool(std::move(p)) {}
  void capacity_released() override {
    if (posted.exchange(true)) return;
    dispatcher.loop_.post([this] {
      posted = false;
      dispatcher.pump(pool);
    });
  }
  Dispatcher& dispatcher;
  std::string pool;
  std::atomic<bool> posted = false;
};

}  // namespace ringmaster::dispatch
