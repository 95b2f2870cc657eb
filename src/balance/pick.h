// The choice of a replica for a request: policy, health, and what has been tried already. Allocates nothing.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "balance/view.h"
#include "base/random.h"

namespace ringmaster::balance {

// What a worker remembers between picks.
struct PickState {
  explicit PickState(std::uint64_t seed) : random(seed) {}
  base::Random random;
  std::uint32_t turn = 0;  // of round robin
};

// A request id as the classic systems drew it: even over 100000 … 999999.
inline std::uint64_t draw_request_id(base::Random& random) { return 100000 + random.below(900000); }

// The hash of a key that is text.
std::uint64_t hash_of(std::string_view text);

// The best replica that is ready and not in `tried`, by the pool's policy; null when there is none. For the hashing
// policies the order in which a key's replicas come up is always the same, so retries and overflow are stable, too.
Replica* pick(const PoolView& pool, std::uint64_t key, std::span<Replica* const> tried, PickState& state);

}  // namespace ringmaster::balance
