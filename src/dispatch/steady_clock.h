// The wall clock as retention believes it: what is deleted by a clock that was wrong for a moment is gone for good. It goes on with
// the monotonic clock; a step of the wall clock is believed once it has lasted for an hour.
#pragma once

#include <optional>
#include <utility>

#include "base/clock.h"
#include "task/task.h"

namespace ringmaster::dispatch {

class SteadyClock {
 public:
  // `wall`: milliseconds of the wall clock at `now`. Called now and then, with a `now` that never goes back.
  task::Millis read(task::Millis wall, base::Time now) {
    static constexpr task::Millis kNoStep = 60'000;  // more than any slewing between two calls
    static constexpr base::Duration kBelieved = std::chrono::hours(1);
    if (!last_) {
      last_ = wall;
      at_ = now;
    }
    *last_ += (now - std::exchange(at_, now)) / std::chrono::milliseconds(1);
    const bool stepped = wall - *last_ > kNoStep || *last_ - wall > kNoStep;
    if (stepped && !stepped_at_) stepped_at_ = now;
    if (!stepped || now - *stepped_at_ >= kBelieved) {
      last_ = wall;
      stepped_at_.reset();
    }
    return *last_;
  }

 private:
  std::optional<task::Millis> last_;
  base::Time at_{};
  std::optional<base::Time> stepped_at_;
};

}  // namespace ringmaster::dispatch
