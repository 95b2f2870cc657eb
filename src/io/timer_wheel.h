// Timers at a resolution of a tenth of a millisecond: set, clear and fire in O(1), without allocation.
//
// A hierarchy of wheels (Varghese and Lauck, 1987): level k has 64 slots of 64^k ticks each. A timer goes to the lowest
// level whose span covers its distance; when a level's slot comes due its timers are dealt out to the levels below.
// One bit a slot says whether it is occupied, so that finding the next timer is a count of trailing zeros.
//
//   level 0   |.|x|.|.|…   64 slots of 0.1 ms
//   level 1   |.|.|x|.|…   64 slots of 6.4 ms
//   …                      level 6 reaches 13 years; later deadlines are clamped to it
#pragma once

#include <array>
#include <cstdint>

#include "base/clock.h"
#include "base/intrusive_list.h"

namespace ringmaster::io {

struct TimerTag;

class Timer : public base::Link<TimerTag> {
 public:
  Timer() = default;
  virtual void fire() = 0;  // the deadline has passed; the timer is out of the wheel

 protected:
  ~Timer() = default;

 private:
  friend class TimerWheel;
  std::uint64_t tick_ = 0;
};

class TimerWheel {
 public:
  explicit TimerWheel(base::Time start) : start_(start) {}

  // Arms `timer` to fire in the first advance() at or after `when`; kNever only clears it.
  void set(Timer& timer, base::Time when);
  static void clear(Timer& timer) { timer.unlink(); }

  // Fires all that is due at `now`, in order of ticks. What they do may set and clear other timers.
  void advance(base::Time now);

  // When advance() should be called next; never late, sometimes early (a slot to deal out); kNever without timers.
  base::Time next() const;

 private:
  static constexpr unsigned kLevels = 7;
  static constexpr unsigned kSlotBits = 6;
  static constexpr unsigned kSlots = 1U << kSlotBits;
  using Slot = base::IntrusiveList<Timer, TimerTag>;

  void place(Timer& timer);
  void deal(unsigned level, unsigned slot);
  std::uint64_t tick_of(base::Time t) const;

  base::Time start_;
  std::uint64_t now_ = 0;                          // the last tick that advance() has done
  std::array<std::uint64_t, kLevels> occupied_{};  // a set bit may be stale (its timers were cleared), never missing
  mutable std::array<std::array<Slot, kSlots>, kLevels> slots_;
};

}  // namespace ringmaster::io
