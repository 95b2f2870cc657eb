#include "balance/pick.h"

#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "balance/admission.h"

namespace ringmaster::balance {

std::uint64_t hash_of(std::string_view text) { return XXH3_64bits(text.data(), text.size()); }

namespace {

// Up to so many replicas all are looked at; above, two random ones (Mitzenmacher, "The power of two choices", 2001).
constexpr std::uint32_t kScanMax = 16;

// One pick: what holds for all candidates is worked out once.
class Picking {
 public:
  Picking(const PoolView& pool, std::uint64_t key, std::span<Replica* const> tried, PickState& state)
      : pool_(pool), key_(key), tried_(tried), state_(state), panic_(pool.status->panic(pool.panic_below_percent)) {}

  Replica* by_policy();
  bool usable(const Replica& replica) const { return eligible(replica) && fits(replica); }
  bool eligible(const Replica& replica) const {
    if (!replica.ready() && !(panic_ && replica.doubtful())) return false;
    return tried_.empty() || std::ranges::find(tried_, &replica) == tried_.end();
  }

 private:
  std::uint32_t count() const { return static_cast<std::uint32_t>(pool_.replicas.size()); }
  Replica& at(std::uint32_t index) const { return *pool_.replicas[index]; }

  bool fits(const Replica& replica) const { return !pool_.counted() || has_room(pool_, replica, std::uint64_t{replica.in_flight()} + 1); }

  // Highest random weight (Thaler and Ravishankar, 1998): over slots, so a slot's next replica inherits its keys. Nearly
  // always the best has room; only if it has not are the others asked.
  Replica* rendezvous() {
    Replica* best = rendezvous([this](const Replica& replica) { return eligible(replica); });
    return best == nullptr || fits(*best) ? best : rendezvous([this](const Replica& replica) { return usable(replica); });
  }
  template <class F>
  Replica* rendezvous(F candidate) {
    Replica* best = nullptr;
    double best_score = 0;
    std::uint64_t best_hash = 0;
    for (std::uint32_t i = 0; i < count(); ++i) {
      const std::uint64_t hash = base::Random(key_ ^ pool_.slot_hashes[i]).next();
      if (pool_.equal_weights) {
        if ((best == nullptr || hash > best_hash) && candidate(at(i))) {
          best = &at(i);
          best_hash = hash;
        }
        continue;
      }
      // The weighted score is w / -ln(u), u even over (0, 1). As -ln(u) >= 1 - u, most lose without a logarithm.
      const double u = (static_cast<double>(hash >> 11) + 0.5) * 0x1.0p-53;
      if (best != nullptr && at(i).weight <= best_score * (1 - u)) continue;
      const double score = at(i).weight / -std::log(u);
      if ((best == nullptr || score > best_score) && candidate(at(i))) {
        best = &at(i);
        best_score = score;
      }
    }
    return best;
  }

  Replica* ring() {
    if (count() == 0) return nullptr;
    const Ring& ring = *pool_.ring;
    std::uint32_t slot = ring.hash(key_);
    for (std::uint32_t walked = 0; walked < ring.slots();) {
      const std::uint32_t occupied = ring.occupied_from(slot);
      if (occupied == Ring::kNobody) return nullptr;
      Replica& replica = at(ring.owner(occupied));
      if (usable(replica)) return &replica;
      walked += (occupied + ring.slots() - slot) % ring.slots() + 1;
      slot = (occupied + 1) % ring.slots();
    }
    return nullptr;
  }

  // The entry's replica, or that of the next entry which has a usable one. The way goes by a fixed stride, prime to the
  // table's size, so that one replica's keys overflow to all others and not to its neighbour in the table.
  Replica* maglev() {
    const Maglev& table = *pool_.maglev;
    if (table.size() == 0) return nullptr;
    const std::uint64_t mixed = base::Random(key_).next();
    std::uint64_t entry = mixed % table.size();
    const std::uint64_t stride = 1 + (mixed >> 32) % (table.size() - 1);
    static constexpr int kStepsMax = 64;
    for (int step = 0; step < kStepsMax; ++step) {
      Replica& replica = at(table.at(static_cast<std::uint32_t>(entry)));
      if (usable(replica)) return &replica;
      entry = (entry + stride) % table.size();
    }
    // Nearly all are ill or full: in the order of slots, from a place that is the key's.
    for (std::uint32_t i = 0; i < count(); ++i) {
      Replica& replica = at(static_cast<std::uint32_t>((mixed + i) % count()));
      if (usable(replica)) return &replica;
    }
    return nullptr;
  }

  // A share of its weight while it is new: caches are cold, code is not compiled yet. Never for hashing policies: keys
  // would move twice.
  double warmth(const Replica& replica) const {
    static constexpr double kLeast = 0.1;
    if (pool_.slow_start == base::Duration::zero()) return 1;
    const base::Duration age = state_.now - replica.ready_since.load(std::memory_order_relaxed);
    if (age >= pool_.slow_start) return 1;
    return std::max(kLeast, static_cast<double>(age.count()) / static_cast<double>(pool_.slow_start.count()));
  }
  bool too_cold(const Replica& replica) {
    const double share = warmth(replica);
    return share < 1 && state_.random.unit() >= share;
  }

  double load(const Replica& replica) const {
    const double in_flight = 1.0 + replica.in_flight() + replica.averages.phantoms(state_.now);
    double work = in_flight;
    if (pool_.policy == Policy::peak_ewma) {
      // One of which nothing is known gets one request, and no more until it has answered.
      static constexpr double kUnknown = 1;  // second
      const double latency = replica.averages.latency(state_.now);
      work *= latency > 0 ? latency : in_flight > 1 ? kUnknown : 1e-6;
    }
    if (!pool_.equal_weights) work /= replica.weight;
    const double warm = warmth(replica);
    return warm < 1 ? work / warm : work;
  }

  // The least load of all, equals taking turns; above kScanMax of two, or of all if neither of these will do.
  Replica* least_loaded() {
    if (count() == 0) return nullptr;
    if (count() > kScanMax) {
      Replica& a = at(state_.random.below(count()));
      Replica& b = at(state_.random.below(count()));
      const bool a_usable = usable(a);
      const bool b_usable = usable(b);
      if (a_usable && b_usable) return load(a) <= load(b) ? &a : &b;
      if (a_usable || b_usable) return a_usable ? &a : &b;
    }
    Replica* best = nullptr;
    double least = std::numeric_limits<double>::infinity();
    std::uint32_t index = state_.turn++ % count();
    for (std::uint32_t i = 0; i < count(); ++i) {
      Replica& replica = at(index);
      if (++index == count()) index = 0;
      const double its = usable(replica) ? load(replica) : std::numeric_limits<double>::infinity();
      const bool better = its < least;
      best = better ? &replica : best;
      least = better ? its : least;
    }
    return best;
  }

  // The first usable one from `first` on; those that are still warming up are passed over if another will do.
  Replica* scan(std::uint32_t first) {
    Replica* cold = nullptr;
    for (std::uint32_t i = 0; i < count(); ++i) {
      Replica& replica = at((first + i) % count());
      if (!usable(replica)) continue;
      if (!too_cold(replica)) return &replica;
      if (cold == nullptr) cold = &replica;
    }
    return cold;
  }

  // A replica that cannot takes no turn, so its neighbour does not get two.
  Replica* round_robin() {
    for (std::uint32_t i = 0; i < count(); ++i) {
      Replica& replica = at(state_.turn++ % count());
      if (usable(replica) && !too_cold(replica)) return &replica;
    }
    return scan(0);
  }

  // In turns of the table that prepare() made.
  Replica* weighted() {
    const auto& turns = *pool_.turns;
    const std::size_t tries = std::min<std::size_t>(turns.size(), 64);
    for (std::size_t i = 0; i < tries; ++i) {
      Replica& replica = at(turns[state_.turn++ % turns.size()]);
      if (usable(replica) && !too_cold(replica)) return &replica;
    }
    return count() == 0 ? nullptr : scan(state_.turn++ % count());
  }

  Replica* random() {
    if (count() == 0) return nullptr;
    for (int i = 0; i < 8; ++i) {
      const auto& turns = *pool_.turns;
      const std::uint32_t drawn = pool_.equal_weights ? state_.random.below(count()) : turns[state_.random.below(static_cast<std::uint32_t>(turns.size()))];
      Replica& replica = at(drawn);
      if (usable(replica) && !too_cold(replica)) return &replica;
    }
    return scan(state_.random.below(count()));
  }

  Replica* first_available() {
    for (const auto& replica : pool_.replicas) {
      if (usable(*replica)) return replica.get();
    }
    return nullptr;
  }

  const PoolView& pool_;
  std::uint64_t key_;
  std::span<Replica* const> tried_;
  PickState& state_;
  bool panic_;
};

Replica* Picking::by_policy() {
  switch (pool_.policy) {
    case Policy::rendezvous: return rendezvous();
    case Policy::ring: return ring();
    case Policy::maglev: return maglev();
    case Policy::least_requests:
    case Policy::peak_ewma: return least_loaded();
    case Policy::round_robin: return round_robin();
    case Policy::weighted: return weighted();
    case Policy::random: return random();
    case Policy::first_available: return first_available();
  }
  return nullptr;
}

}  // namespace

Replica* pick(const PoolView& pool, std::uint64_t key, std::span<Replica* const> tried, PickState& state) {
  // Nobody there: said at once, however many there might be.
  const PoolStatus& status = *pool.status;
  if (status.ready.load(std::memory_order_relaxed) == 0 && !status.panic(pool.panic_below_percent)) return nullptr;
  return Picking(pool, key, tried, state).by_policy();
}

bool is_eligible(const PoolView& pool, const Replica& replica, std::span<Replica* const> tried) {
  PickState state(0);
  return Picking(pool, 0, tried, state).eligible(replica);
}

}  // namespace ringmaster::balance
