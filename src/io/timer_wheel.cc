#include "io/timer_wheel.h"

#include <algorithm>
#include <bit>

namespace ringmaster::io {

using base::Time;

static constexpr base::Duration kTick = std::chrono::microseconds(100);

std::uint64_t TimerWheel::tick_of(Time t) const {
  if (t <= start_) return 0;
  return static_cast<std::uint64_t>((t - start_) / kTick);
}

void TimerWheel::set(Timer& timer, Time when) {
  timer.unlink();
  if (when == base::kNever) return;
  // Rounded up: a timer is never early. The current tick is already done, so the next one is the soonest.
  timer.tick_ = std::max(tick_of(when + kTick - base::Duration(1)), now_ + 1);
  place(timer);
}

void TimerWheel::place(Timer& timer) {
  static constexpr std::uint64_t kReach = (1ULL << (kSlotBits * kLevels)) - 1;
  const std::uint64_t tick = std::min<std::uint64_t>(timer.tick_, now_ + kReach - (1ULL << (kSlotBits * (kLevels - 1))));
  // The highest bit in which the tick differs from now decides the level: below it, the slot number is unambiguous.
  const std::uint64_t difference = tick ^ now_;
  const unsigned level = difference == 0 ? 0 : std::min(kLevels - 1, (static_cast<unsigned>(std::bit_width(difference)) - 1) / kSlotBits);
  const auto slot = static_cast<unsigned>((tick >> (kSlotBits * level)) % kSlots);
  slots_[level][slot].push_back(timer);
  occupied_[level] |= 1ULL << slot;
}

void TimerWheel::deal(unsigned level, unsigned slot) {
  Slot due;
  due.splice_back(slots_[level][slot]);
  occupied_[level] &= ~(1ULL << slot);
  while (Timer* timer = due.pop_front()) place(*timer);
}

void TimerWheel::advance(Time now) {
  const std::uint64_t target = tick_of(now);
  while (now_ < target) {
    const Time soonest = next();
    if (soonest == base::kNever || tick_of(soonest) > target) {
      now_ = target;  // nothing is occupied on the way
      return;
    }
    now_ = tick_of(soonest);
    for (unsigned level = kLevels - 1; level > 0; --level) {
      const std::uint64_t below = (1ULL << (kSlotBits * level)) - 1;
      if ((now_ & below) == 0) deal(level, static_cast<unsigned>((now_ >> (kSlotBits * level)) % kSlots));
    }
    const auto slot = static_cast<unsigned>(now_ % kSlots);
    occupied_[0] &= ~(1ULL << slot);
    Slot due;
    due.splice_back(slots_[0][slot]);
    while (Timer* timer = due.pop_front()) timer->fire();
  }
}

Time TimerWheel::next() const {
  std::uint64_t soonest = UINT64_MAX;
  for (unsigned level = 0; level < kLevels; ++level) {
    const unsigned shift = kSlotBits * level;
    const std::uint64_t position = now_ >> shift;  // this level's slot that now_ is in
    // Rotated so that bit 0 is the slot after the current one. The current slot itself comes last: what is in it
    // lies a whole turn ahead.
    const std::uint64_t ahead = std::rotr(occupied_[level], static_cast<int>((position + 1) % kSlots));
    if (ahead == 0) continue;
    const std::uint64_t steps = static_cast<std::uint64_t>(std::countr_zero(ahead)) + 1;
    soonest = std::min(soonest, (position + steps) << shift);
  }
  return soonest == UINT64_MAX ? base::kNever : start_ + kTick * static_cast<std::int64_t>(soonest);
}

}  // namespace ringmaster::io
