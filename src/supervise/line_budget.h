// How many lines of a replica's output are logged: so many a second, and as many again at once. What is more is counted, not
// logged: a server that complains without end must not fill the disk, nor keep the master busy.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "base/clock.h"

namespace ringmaster::supervise {

class LineBudget {
 public:
  // `per_second`: 0: no limit.
  LineBudget(unsigned per_second, base::Time now) : per_second_(per_second), tokens_(per_second), at_(now) {}

  // False: it is too much, and has been counted.
  bool take(base::Time now) {
    if (per_second_ == 0) return true;
    tokens_ = std::min<double>(per_second_, tokens_ + per_second_ * std::chrono::duration<double>(now - at_).count());
    at_ = now;
    if (tokens_ < 1) {
      ++dropped_;
      return false;
    }
    tokens_ -= 1;
    return true;
  }
  // How many have been dropped since the last call.
  std::uint64_t take_dropped() { return std::exchange(dropped_, 0); }

 private:
  unsigned per_second_;
  double tokens_;
  base::Time at_;
  std::uint64_t dropped_ = 0;
};

}  // namespace ringmaster::supervise
