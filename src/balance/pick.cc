#include "balance/pick.h"

#include <xxhash.h>

#include <algorithm>

namespace ringmaster::balance {

std::uint64_t hash_of(std::string_view text) { return XXH3_64bits(text.data(), text.size()); }

static bool usable(const Replica& replica, std::span<Replica* const> tried) {
  return replica.ready() && !replica.exited.load(std::memory_order_relaxed) && std::ranges::find(tried, &replica) == tried.end();
}

// Highest random weight (Thaler and Ravishankar, 1998): over slots, so a slot's next replica inherits its keys.
static Replica* pick_rendezvous(const PoolView& pool, std::uint64_t key, std::span<Replica* const> tried) {
  Replica* best = nullptr;
  std::uint64_t best_weight = 0;
  for (const auto& replica : pool.replicas) {
    const std::uint64_t weight = base::Random(key ^ (replica->slot * 0xd6e8feb86659fd93ULL)).next();
    if ((best == nullptr || weight > best_weight) && usable(*replica, tried)) {
      best = replica.get();
      best_weight = weight;
    }
  }
  return best;
}

static Replica* pick_ring(const PoolView& pool, std::uint64_t key, std::span<Replica* const> tried) {
  if (pool.replicas.empty()) return nullptr;
  const Ring& ring = pool.ring;
  std::uint32_t slot = ring.hash(key);
  for (std::uint32_t walked = 0; walked < ring.slots();) {
    const std::uint32_t occupied = ring.occupied_from(slot);
    if (occupied == Ring::kNobody) return nullptr;
    Replica* replica = pool.replicas[ring.owner(occupied)].get();
    if (usable(*replica, tried)) return replica;
    walked += (occupied + ring.slots() - slot) % ring.slots() + 1;
    slot = (occupied + 1) % ring.slots();
  }
  return nullptr;
}

static Replica* pick_round_robin(const PoolView& pool, std::span<Replica* const> tried, PickState& state) {
  const std::size_t count = pool.replicas.size();
  for (std::size_t i = 0; i < count; ++i) {
    Replica* replica = pool.replicas[state.turn++ % count].get();
    if (usable(*replica, tried)) return replica;
  }
  return nullptr;
}

// The least of all up to 16 replicas; above that, of two random ones (Mitzenmacher, 2001), or of all if neither will do.
static Replica* pick_least_requests(const PoolView& pool, std::span<Replica* const> tried, PickState& state) {
  static constexpr std::size_t kScanMax = 16;
  const auto count = static_cast<std::uint32_t>(pool.replicas.size());
  if (count == 0) return nullptr;
  if (count > kScanMax) {
    Replica* a = pool.replicas[state.random.below(count)].get();
    Replica* b = pool.replicas[state.random.below(count)].get();
    const bool a_usable = usable(*a, tried);
    const bool b_usable = usable(*b, tried);
    if (a_usable && b_usable) return a->in_flight() <= b->in_flight() ? a : b;
    if (a_usable || b_usable) return a_usable ? a : b;
  }
  Replica* best = nullptr;
  std::uint32_t least = 0;
  const std::uint32_t first = state.turn++;  // equals take turns
  for (std::uint32_t i = 0; i < count; ++i) {
    Replica* replica = pool.replicas[(first + i) % count].get();
    if (!usable(*replica, tried)) continue;
    const std::uint32_t in_flight = replica->in_flight();
    if (best == nullptr || in_flight < least) {
      best = replica;
      least = in_flight;
    }
  }
  return best;
}

Replica* pick(const PoolView& pool, std::uint64_t key, std::span<Replica* const> tried, PickState& state) {
  switch (pool.policy) {
    case Policy::rendezvous: return pick_rendezvous(pool, key, tried);
    case Policy::ring: return pick_ring(pool, key, tried);
    case Policy::round_robin: return pick_round_robin(pool, tried, state);
    case Policy::least_requests: return pick_least_requests(pool, tried, state);
  }
  return nullptr;
}

std::string_view name(Phase phase) {
  switch (phase) {
    case Phase::starting: return "starting";
    case Phase::ready: return "ready";
    case Phase::suspect:
    case Phase::unhealthy: return "unhealthy";
    case Phase::draining: return "draining";
    case Phase::backing_off: return "backing_off";
  }
  return "unknown";
}

base::Result<Key> Key::parse(std::string_view text) {
  if (text == "request_id") return Key{Kind::request_id, ""};
  if (text == "path") return Key{Kind::path, ""};
  if (text == "source") return Key{Kind::source, ""};
  const std::size_t colon = text.find(':');
  const std::string_view kind = text.substr(0, colon);
  const std::string name(colon == std::string_view::npos ? std::string_view{} : text.substr(colon + 1));
  if (!name.empty()) {
    if (kind == "header") return Key{Kind::header, name};
    if (kind == "cookie") return Key{Kind::cookie, name};
    if (kind == "query") return Key{Kind::query, name};
  }
  return base::fail(base::Code::invalid, "a key is one of request_id, path, source, header:NAME, cookie:NAME, query:NAME");
}

}  // namespace ringmaster::balance
