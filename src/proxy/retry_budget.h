// How many retries are allowed: a fifth of the requests, and at least three a second. When many requests fail at once,
// trying each again would multiply the load just when it hurts (Twitter Finagle's RetryBudget is the model).
#pragma once

#include <algorithm>

#include "base/clock.h"

namespace ringmaster::proxy {

class RetryBudget {
 public:
  explicit RetryBudget(base::Time now) : at_(now) {}

  void request(base::Time now) {
    refill(now);
    tokens_ = std::min(kTokensMax, tokens_ + kShare);
  }

  // False: no retry now.
  bool spend(base::Time now) {
    refill(now);
    if (tokens_ < 1) return false;
    tokens_ -= 1;
    return true;
  }

 private:
  static constexpr double kShare = 0.2;
  static constexpr double kPerSecond = 3;
  static constexpr double kTokensMax = 1000;  // what a quiet time can save up

  void refill(base::Time now) {
    tokens_ = std::min(kTokensMax, tokens_ + kPerSecond * std::chrono::duration<double>(now - at_).count());
    at_ = now;
  }

  double tokens_ = kPerSecond;
  base::Time at_;
};

}  // namespace ringmaster::proxy
