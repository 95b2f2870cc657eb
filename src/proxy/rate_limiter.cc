#include "proxy/rate_limiter.h"

#include <algorithm>

namespace ringmaster::proxy {

using base::Duration;
using base::Time;

RateLimiter::RateLimiter(const config::Rate& rate)
    : interval_(std::chrono::duration_cast<Duration>(std::chrono::seconds(1)) / std::max(1U, rate.per_second)),
      tolerance_(interval_ * (std::max(1U, rate.burst) - 1)) {}

Duration RateLimiter::ask(std::uint64_t key, Time now) {
  Shard& shard = shards_[key % kShards];
  const std::lock_guard lock(shard.mutex);
  if (!shard.sets) shard.sets = std::make_unique<std::array<Set, kKeysMax / kShards / kWays>>();
  Set& set = (*shard.sets)[(key / kShards) % shard.sets->size()];
  auto bucket = std::ranges::find(set, key, &Bucket::key);
  if (bucket == set.end()) {
    bucket = std::ranges::min_element(set, {}, &Bucket::full_at);
    bucket->key = key;  // and what had been used of it: else a few greedy keys could give each other fresh buckets
  }
  const Time full_at = std::max(bucket->full_at, now);
  if (full_at - now > tolerance_) return full_at - now - tolerance_;
  bucket->full_at = full_at + interval_;
  return Duration::zero();
}

}  // namespace ringmaster::proxy
