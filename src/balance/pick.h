// The choice of a replica for a request: policy, weight, health, room, and what has been tried already. Allocates nothing.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "balance/view.h"
#include "base/clock.h"
#include "base/random.h"

namespace ringmaster::balance {

// What a worker remembers between picks.
struct PickState {
  explicit PickState(std::uint64_t seed) : random(seed), turn(static_cast<std::uint32_t>(seed)) {}
  base::Random random;
  std::uint32_t turn;  // of the policies that take turns; workers begin at different ones
  base::Time now{};    // set before each pick: for averages and slow start
};

// A request id as the classic systems drew it: even over 100000 … 999999.
inline std::uint64_t draw_request_id(base::Random& random) { return 100000 + random.below(900000); }

// The hash of a key that is text.
std::uint64_t hash_of(std::string_view text);

// The best replica that gets requests, has room and is not in `tried`, by the pool's policy; null when there is none. For
// the hashing policies the order in which a key's replicas come up is always the same, so overflow and retries are stable,
// too. Costs O(1) for maglev and ring, and for the others above 16 replicas as long as most are usable; rendezvous is linear.
Replica* pick(const PoolView& pool, std::uint64_t key, std::span<Replica* const> tried, PickState& state);

// Whether it gets requests now, room or not: for sticky sessions.
bool is_eligible(const PoolView& pool, const Replica& replica, std::span<Replica* const> tried);

}  // namespace ringmaster::balance
