// What workers read to route a request: an immutable View of all pools, and the stable records that it points to.
//
// A change of membership makes a new View. Health and counts change all the time and so live in Replica and Cell, which
// outlive the views that show them.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "balance/counters.h"
#include "balance/ring.h"
#include "base/endpoint.h"

namespace ringmaster::balance {

enum class Policy : std::uint8_t { rendezvous, ring, least_requests, round_robin };

// What of a request decides where it goes, for the hashing policies.
struct Key {
  enum class Kind : std::uint8_t { none, request_id, path, header, cookie, query, source };
  Kind kind = Kind::none;
  std::string name;  // of the header, cookie or query parameter

  // "request_id", "path", "header:X", "cookie:X", "query:X" or "source".
  static base::Result<Key> parse(std::string_view text);
};

// What is known of a replica: the master's state and the prober's findings in one.
enum class Phase : std::uint8_t {
  starting,     // no check has succeeded yet
  ready,        // gets requests
  suspect,      // a worker could not connect; a check is on its way
  unhealthy,    // checks fail
  draining,     // finishes what it has, gets no more
  backing_off,  // it died too often and will be started again later
};
std::string_view name(Phase phase);  // as users see it: a suspect is "unhealthy"

// One epoch of a slot. Written by the engine's control thread, `phase` and the counts by anybody.
struct Replica {
  std::string pool;
  std::string name;
  std::uint32_t slot = 0;  // counted from 1
  std::uint64_t epoch = 0;
  base::Endpoint endpoint;
  std::int64_t pid = 0;
  std::uint32_t cell_index = 0;
  std::atomic<Phase> phase = Phase::starting;
  std::atomic<bool> exited = false;  // its process is known to have ended: failures need no other explanation
  Cell* cell = nullptr;              // of this engine's generation
  std::vector<Cell*> other_cells;    // of the generations that still drain

  bool ready() const { return phase.load(std::memory_order_relaxed) == Phase::ready; }
  // Worth waiting for: it may be ready any moment.
  bool expected() const {
    const Phase now = phase.load(std::memory_order_relaxed);
    return now == Phase::starting || now == Phase::suspect || exited.load(std::memory_order_relaxed);
  }
  std::uint32_t in_flight() const {
    std::uint32_t sum = cell->in_flight.load(std::memory_order_relaxed);
    for (const Cell* other : other_cells) sum += other->in_flight.load(std::memory_order_relaxed);
    return sum;
  }
};

struct PoolView {
  std::string name;
  Policy policy = Policy::least_requests;
  Key key;
  Ring ring;                                       // for Policy::ring
  std::vector<std::shared_ptr<Replica>> replicas;  // in the order of their slots
};

struct View {
  std::vector<PoolView> pools;
  const PoolView* find(std::string_view name) const {
    for (const PoolView& pool : pools) {
      if (pool.name == name) return &pool;
    }
    return nullptr;
  }
};

}  // namespace ringmaster::balance
