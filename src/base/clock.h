// Time as the whole program counts it. Only io/system.h reads a clock; everybody else is handed a Time.
#pragma once

#include <chrono>
#include <cstdint>

namespace ringmaster::base {

using Duration = std::chrono::nanoseconds;

struct MonotonicClock {
  using rep = std::int64_t;
  using period = std::nano;
  using duration = Duration;
  using time_point = std::chrono::time_point<MonotonicClock>;
  static constexpr bool is_steady = true;  // NOLINT(readability-identifier-naming): std::chrono asks for this name
};

using Time = MonotonicClock::time_point;                 // monotonic; its zero means nothing
using WallTime = std::chrono::system_clock::time_point;  // for people and HTTP dates only

inline constexpr Time kNever = Time::max();

inline double to_ms(Duration d) { return std::chrono::duration<double, std::milli>(d).count(); }

}  // namespace ringmaster::base
