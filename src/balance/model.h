// A pool without servers, to see what a policy will do: Model m(Policy::ring, 3); m.key_to(17). For tests and for the lab.
#pragma once

#include <algorithm>
#include <deque>
#include <vector>

#include "balance/pick.h"
#include "base/check.h"

namespace ringmaster::balance {

class Model {
 public:
  // With `n` replicas, all ready. A ring must have room for them.
  explicit Model(Policy policy, std::uint32_t n = 0, RingSettings settings = printed_ring()) : settings_(std::move(settings)) {
    pool.policy = policy;
    for (std::uint32_t slot = 1; slot <= n; ++slot) seat(slot, 1, 1);
    rebuild();
  }
  void add(std::uint32_t slot, std::uint64_t epoch = 1, std::uint32_t weight = 1) {
    unseat(slot);
    seat(slot, epoch, weight);
    std::ranges::sort(pool.replicas, {}, [](const auto& r) { return r->slot; });
    rebuild();
  }
  void remove(std::uint32_t slot) {
    unseat(slot);
    rebuild();
  }
  Replica& at(std::uint32_t slot) {
    for (const auto& r : pool.replicas) {
      if (r->slot == slot) return *r;
    }
    std::abort();
  }
  std::uint32_t key_to(std::uint64_t key, std::vector<Replica*> tried = {}) {
    Replica* picked = pick(pool, key, tried, state);
    return picked == nullptr ? 0 : picked->slot;
  }
  static RingSettings printed_ring() {
    RingSettings settings;
    apply_preset("s1", settings);
    return settings;
  }
  PoolView pool;
  PickState state{42};

 private:
  void seat(std::uint32_t slot, std::uint64_t epoch, std::uint32_t weight) {
    auto replica = std::make_shared<Replica>();
    replica->weight = weight;
    replica->slot = slot;
    replica->epoch = epoch;
    replica->status = pool.status;
    replica->set_phase(Phase::ready);
    replica->set_seated(true);
    replica->cell = &cells_.emplace_back();
    pool.replicas.push_back(replica);
  }
  void unseat(std::uint32_t slot) {
    for (const auto& r : pool.replicas) {
      if (r->slot == slot) r->set_seated(false);
    }
    std::erase_if(pool.replicas, [&](const auto& r) { return r->slot == slot; });
  }
  void rebuild() { CHECK(prepare(pool, settings_, nullptr).has_value()); }
  RingSettings settings_;
  std::deque<Cell> cells_;
};

}  // namespace ringmaster::balance
