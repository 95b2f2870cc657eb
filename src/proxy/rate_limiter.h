// So many requests a second for each key, by token buckets, for all workers together. A bucket is one instant: when it
// would be full again (the generic cell rate algorithm, ITU-T I.371), so refilling needs no timer.
//
// Buckets are in a table of fixed size. When more keys are about than it has room for, the bucket that is nearest to full
// gets a new owner as it is: nobody gains a token by a flood of keys.
#pragma once

#include <array>
#include <memory>
#include <mutex>

#include "base/clock.h"
#include "config/config.h"

namespace ringmaster::proxy {

class RateLimiter {
 public:
  explicit RateLimiter(const config::Rate& rate);

  // Any thread. Zero: go on, a token has been taken. Else: how long until there is one.
  base::Duration ask(std::uint64_t key, base::Time now);

  static constexpr std::size_t kKeysMax = 16384;

 private:
  struct Bucket {
    std::uint64_t key = 0;
    base::Time full_at{};
  };
  static constexpr std::size_t kShards = 16;
  static constexpr std::size_t kWays = 4;
  using Set = std::array<Bucket, kWays>;
  struct Shard {
    std::mutex mutex;
    std::unique_ptr<std::array<Set, kKeysMax / kShards / kWays>> sets;  // made when first used
  };

  base::Duration interval_;   // between two tokens
  base::Duration tolerance_;  // what a whole burst takes to refill, but for one token
  std::array<Shard, kShards> shards_;
};

}  // namespace ringmaster::proxy
