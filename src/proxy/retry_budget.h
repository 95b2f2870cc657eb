// How many retries are allowed: a share of the requests, and at least some a second. When many requests fail at once,
// trying each again would multiply the load just when it hurts (Twitter Finagle's RetryBudget is the model).
#pragma once

#include <algorithm>

#include "base/clock.h"

namespace ringmaster::proxy {

class RetryBudget {
 public:
  // By default a fifth of the requests, and at least three a second.
  explicit RetryBudget(base::Time now, unsigned percent = 20, unsigned per_second = 3)
      : share_(percent / 100.0), per_second_(per_second), tokens_(per_second), at_(now) {}

  void request(base::Time now) {
    refill(now);
    tokens_ = std::min(kTokensMax, tokens_ + share_);
  }

  // False: no retry now.
  bool spend(base::Time now) {
    refill(now);
    if (tokens_ < 1) return false;
    tokens_ -= 1;
    return true;
  }

 private:
  static constexpr double kTokensMax = 1000;  // what a quiet time can save up

  void refill(base::Time now) {
    tokens_ = std::min(kTokensMax, tokens_ + per_second_ * std::chrono::duration<double>(now - at_).count());
    at_ = now;
  }

  double share_;
  double per_second_;
  double tokens_;
  base::Time at_;
};

}  // namespace ringmaster::proxy
