// The stable record of one replica, and the shared figures of its pool: what changes all the time, beside the views that
// show it. Written by the engine's control thread; standing, counts and averages by anybody.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "balance/averages.h"
#include "balance/counters.h"
#include "base/endpoint.h"

namespace ringmaster::balance {

// What is known of a replica: the master's state and the prober's findings in one.
enum class Phase : std::uint8_t {
  starting,     // no check has succeeded yet
  ready,        // gets requests
  suspect,      // a worker could not connect; a check is on its way
  unhealthy,    // checks fail
  draining,     // finishes what it has, gets no more
  backing_off,  // it died too often and will be started again later
};
std::string_view name(Phase phase);  // as users see it: a suspect is "unhealthy"

// How it came to sit in its slot.
enum class Origin : std::uint8_t {
  process,     // started by us
  container,   // started by us
  server,      // somebody else's, named by the configuration
  registered,  // somebody else's, which announced itself
};
inline constexpr unsigned kOrigins = 4;
std::string_view name(Origin origin);
// Its end is told by the operating system or by Docker, and somebody comes in its place.
inline bool is_owned(Origin origin) { return origin == Origin::process || origin == Origin::container; }

// Told when capacity has been given back while somebody waits for it; on the thread that gave it.
class Waiters {
 public:
  virtual void capacity_released() = 0;

 protected:
  ~Waiters() = default;
};

// Figures of a pool that all workers share.
struct PoolStatus {
  // Of the replicas in the view: those that are healthy, and those that live but are unhealthy or ejected. Kept exact by
  // Replica's transitions.
  std::atomic<std::uint32_t> ready = 0;
  std::atomic<std::uint64_t> ready_weight = 0;
  std::atomic<std::uint32_t> doubtful = 0;
  std::atomic<std::uint64_t> doubtful_weight = 0;
  std::atomic<std::uint32_t> ejected = 0;
  std::atomic<base::Time> serving_since = base::Time{};  // when the first of the present ones became ready
  // Kept only for pools with a capacity or bounded load, which need it; else it would be one contended line for nothing.
  alignas(64) std::atomic<std::uint64_t> in_flight = 0;
  alignas(64) std::atomic<std::uint64_t> completed = 0;
  alignas(64) std::atomic<std::uint32_t> waiting = 0;  // requests in the queue
  Waiters* waiters = nullptr;                          // set before the first request, and then left alone
  // The same for tasks that wait for a ticket.
  std::atomic<bool> tasks_wait = false;
  Waiters* task_waiters = nullptr;

  // Below half healthy, health checks are less believable than replicas: all that live are used ("panic", as in Envoy).
  bool panic(unsigned below_percent) const {
    const std::uint64_t good = ready.load(std::memory_order_relaxed);
    const std::uint64_t bad = doubtful.load(std::memory_order_relaxed);
    return bad > 0 && good * 100 < (good + bad) * below_percent;
  }
};

// One epoch of a slot. What pick() looks at stands first.
class Replica {
  // One word for all that decides whether it gets requests, so that each change of it changes the pool's counts exactly once.
  std::atomic<std::uint32_t> standing_ = static_cast<std::uint32_t>(Phase::starting);

 public:
  std::uint32_t slot = 0;  // counted from 1
  std::uint32_t weight = 1;
  std::uint32_t cell_index = 0;
  Cell* cell = nullptr;                                // of this engine's generation; it may have been another replica's before
  std::vector<Cell*> other_cells;                      // of the generations that still drain
  std::atomic<base::Time> ready_since = base::Time{};  // for slow start; the beginning of time: long ago
  std::atomic<std::uint32_t> tasks = 0;                // of those in flight
  Averages averages;
  std::atomic<std::uint32_t> errors_in_a_row = 0;
  std::atomic<std::uint32_t> ejections = 0;
  std::uint64_t requests_before = 0;  // the cell's, when it became ours
  std::uint64_t failures_before = 0;
  std::shared_ptr<PoolStatus> status = std::make_shared<PoolStatus>();
  std::string pool;
  std::string name;
  std::uint64_t epoch = 0;
  base::Endpoint endpoint;
  Origin origin = Origin::process;
  std::int64_t pid = 0;                                 // 0: no process of ours
  std::string container;                                // its id; empty: none
  std::atomic<base::Time> last_request = base::Time{};  // for those who ask; kept for servers that are not ours

  Phase phase() const { return static_cast<Phase>(standing_.load(std::memory_order_relaxed) & kPhase); }
  bool ready() const { return is_ready(standing_.load(std::memory_order_relaxed)); }
  // It lives, but checks or answers speak against it: used only when most do so (PoolStatus::panic).
  bool doubtful() const { return is_doubtful(standing_.load(std::memory_order_relaxed)); }
  bool exited() const { return (standing_.load(std::memory_order_relaxed) & kExited) != 0; }    // its process is known to have ended
  bool ejected() const { return (standing_.load(std::memory_order_relaxed) & kEjected) != 0; }  // by its answers
  // Worth waiting for: it may be ready any moment.
  bool expected() const {
    const std::uint32_t standing = standing_.load(std::memory_order_relaxed);
    const auto now = static_cast<Phase>(standing & kPhase);
    return (now == Phase::starting && (standing & kSilent) == 0) || now == Phase::suspect || exited();
  }
  // It is not ours, and has not answered its first check: it may be away for long. False if that was known.
  bool mark_silent() {
    bool news = false;
    change([&](std::uint32_t s) {
      news = (s & kSilent) == 0;
      return s | kSilent;
    });
    return news;
  }

  void set_phase(Phase phase) {
    change([&](std::uint32_t s) { return (s & ~kPhase) | static_cast<std::uint32_t>(phase); });
  }
  // False, and no change, if the phase is not `from`.
  bool change_phase(Phase from, Phase to) {
    bool changed = false;
    change([&](std::uint32_t s) {
      changed = static_cast<Phase>(s & kPhase) == from;
      return changed ? (s & ~kPhase) | static_cast<std::uint32_t>(to) : s;
    });
    return changed;
  }
  void mark_exited() {
    change([](std::uint32_t s) { return s | kExited; });
  }
  void set_ejected(bool ejected) {
    change([&](std::uint32_t s) { return ejected ? s | kEjected : s & ~kEjected; });
  }
  // In and out of the view: only those in it count in the pool's status.
  void set_seated(bool seated) {
    change([&](std::uint32_t s) { return seated ? s | kSeated : s & ~kSeated; });
  }

  std::uint64_t requests() const { return cell->requests.load(std::memory_order_relaxed) - requests_before; }
  std::uint64_t failures() const { return cell->failures.load(std::memory_order_relaxed) - failures_before; }
  std::uint32_t in_flight() const {
    // Sequentially consistent, as those who wait for room rely on it: they announce themselves and then look here, while who
    // gives room back changes this and then looks for them (admission.cc). On ARM64 a relaxed read could miss both.
    std::uint32_t sum = cell->in_flight.load(std::memory_order_seq_cst);
    for (const Cell* other : other_cells) sum += other->in_flight.load(std::memory_order_seq_cst);
    return sum;
  }

 private:
  static constexpr std::uint32_t kPhase = 0xff;
  static constexpr std::uint32_t kExited = 0x100;
  static constexpr std::uint32_t kEjected = 0x200;
  static constexpr std::uint32_t kSeated = 0x400;
  static constexpr std::uint32_t kSilent = 0x800;

  static bool is_ready(std::uint32_t s) { return (s & (kPhase | kExited | kEjected)) == static_cast<std::uint32_t>(Phase::ready); }
  static bool is_doubtful(std::uint32_t s) {
    const auto phase = static_cast<Phase>(s & kPhase);
    return (s & kExited) == 0 && (phase == Phase::unhealthy || (phase == Phase::ready && (s & kEjected) != 0));
  }
  template <class F>
  void change(F f) {
    std::uint32_t before = standing_.load();
    std::uint32_t after = f(before);
    while (!standing_.compare_exchange_weak(before, after)) after = f(before);
    const auto count = [&](bool (*is)(std::uint32_t), std::atomic<std::uint32_t>& number, std::atomic<std::uint64_t>& total_weight) {
      const int difference = int{(after & kSeated) != 0 && is(after)} - int{(before & kSeated) != 0 && is(before)};
      if (difference == 0) return;
      number += static_cast<std::uint32_t>(difference);
      total_weight += static_cast<std::uint64_t>(std::int64_t{difference} * std::int64_t{weight});
    };
    count(is_ready, status->ready, status->ready_weight);
    count(is_doubtful, status->doubtful, status->doubtful_weight);
    const auto ejected_in = [](std::uint32_t s) { return (s & kSeated) != 0 && (s & kEjected) != 0 ? 1U : 0U; };
    status->ejected += ejected_in(after) - ejected_in(before);
  }
};

}  // namespace ringmaster::balance
