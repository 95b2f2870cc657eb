// What workers read to route a request: an immutable View of all pools. A change of membership makes a new View; health
// and counts change all the time and live in the records that it points to (replica.h).
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "balance/maglev.h"
#include "balance/replica.h"
#include "balance/ring.h"

namespace ringmaster::balance {

enum class Policy : std::uint8_t { rendezvous, ring, maglev, least_requests, peak_ewma, round_robin, weighted, random, first_available };
inline constexpr unsigned kPolicies = 9;
std::string_view name(Policy policy);
bool is_hashing(Policy policy);  // needs a key

// What of a request decides where it goes, for the hashing policies.
struct Key {
  enum class Kind : std::uint8_t { none, request_id, path, header, cookie, query, source };
  Kind kind = Kind::none;
  std::string name;  // of the header, cookie or query parameter

  // "request_id", "path", "header:X", "cookie:X", "query:X" or "source".
  static base::Result<Key> parse(std::string_view text);
};

struct PoolView {
  std::string name;
  Policy policy = Policy::least_requests;
  Key key;
  std::uint32_t max_in_flight = 0;      // per replica; 0: no limit
  std::uint32_t tasks_max = 0;          // of these may be tasks; 0: no limit of their own
  std::uint32_t tasks_reserved = 0;     // of these are left to tasks
  std::uint32_t bound_thousandths = 0;  // of the fair share, for bounded load: 1250; 0: not bounded
  base::Duration slow_start{};
  unsigned panic_below_percent = 50;
  std::vector<std::shared_ptr<Replica>> replicas;  // in the order of their slots
  bool equal_weights = true;
  std::vector<std::uint64_t> slot_hashes;  // rendezvous: of each replica's slot
  // Tables of the policies that have one, for `replicas` by index.
  std::shared_ptr<const Ring> ring;
  std::shared_ptr<const Maglev> maglev;
  std::shared_ptr<const std::vector<std::uint32_t>> turns;  // weighted: who is next; random: the alternatives, see prepare()
  std::shared_ptr<PoolStatus> status = std::make_shared<PoolStatus>();

  // Who sits in the slot, or null.
  std::shared_ptr<Replica> seated(std::uint32_t slot) const {
    const auto seat = std::ranges::lower_bound(replicas, slot, {}, [](const auto& replica) { return replica->slot; });
    return seat == replicas.end() || (*seat)->slot != slot ? nullptr : *seat;
  }
  bool counted() const { return max_in_flight != 0 || bound_thousandths != 0; }
};

// Fills in what pick() needs beside the replicas: `equal_weights` and the tables. `before`: an older view of the pool, whose
// tables are used again if nothing changed that they depend on. Error: the ring has no room for so many.
base::Result<void> prepare(PoolView& pool, const RingSettings& ring, const PoolView* before);

struct View {
  std::vector<PoolView> pools;  // in the order of the configuration
  const PoolView* find(std::string_view name) const {
    for (const PoolView& pool : pools) {
      if (pool.name == name) return &pool;
    }
    return nullptr;
  }
};

}  // namespace ringmaster::balance
