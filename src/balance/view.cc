#include "balance/view.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <queue>

namespace ringmaster::balance {

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

std::string_view name(Origin origin) {
  static constexpr std::array<std::string_view, 4> kNames = {"process", "container", "server", "registered"};
  return kNames[static_cast<std::size_t>(origin)];
}

std::string_view name(Policy policy) {
  static constexpr std::array<std::string_view, 9> kNames = {"rendezvous",  "ring",     "maglev", "least_requests", "peak_ewma",
                                                             "round_robin", "weighted", "random", "first_available"};
  return kNames[static_cast<std::size_t>(policy)];
}

bool is_hashing(Policy policy) { return policy == Policy::rendezvous || policy == Policy::ring || policy == Policy::maglev; }

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

// Whose turn it is: each index as often as its weight, evenly spread, by earliest deadline first. Weights are brought down
// together when the table would pass its bound.
static std::vector<std::uint32_t> make_turns(const std::vector<std::shared_ptr<Replica>>& replicas) {
  static constexpr std::uint64_t kTurnsMax = 1U << 16;
  std::uint32_t divisor = 0;
  for (const auto& replica : replicas) divisor = std::gcd(divisor, replica->weight);
  std::uint64_t total = 0;
  for (const auto& replica : replicas) total += replica->weight / divisor;
  const double scale = std::min(1.0, static_cast<double>(kTurnsMax) / static_cast<double>(std::max<std::uint64_t>(total, 1)));
  using Due = std::pair<double, std::uint32_t>;
  std::priority_queue<Due, std::vector<Due>, std::greater<>> queue;
  std::vector<double> period;
  std::uint64_t length = 0;
  for (std::uint32_t i = 0; i < replicas.size(); ++i) {
    const std::uint32_t reduced = replicas[i]->weight / divisor;
    const double share = std::max(1.0, std::round(reduced * scale));
    length += static_cast<std::uint64_t>(share);
    period.push_back(1 / share);
    queue.emplace(0.5 / share, i);
  }
  std::vector<std::uint32_t> turns;
  while (turns.size() < length) {
    const auto [due, index] = queue.top();
    queue.pop();
    turns.push_back(index);
    queue.emplace(due + period[index], index);
  }
  return turns;
}

static bool same_members(const PoolView& a, const PoolView& b) {
  return std::ranges::equal(a.replicas, b.replicas, [](const auto& x, const auto& y) { return x->slot == y->slot && x->weight == y->weight; });
}

base::Result<void> prepare(PoolView& pool, const RingSettings& ring, const PoolView* before) {
  const auto& replicas = pool.replicas;
  pool.equal_weights = std::ranges::all_of(replicas, [&](const auto& r) { return r->weight == replicas.front()->weight; });
  pool.slot_hashes.clear();
  if (pool.policy == Policy::rendezvous) {
    for (const auto& replica : replicas) pool.slot_hashes.push_back(replica->slot * 0xd6e8feb86659fd93ULL);
  }
  if (before != nullptr && before->policy == pool.policy && same_members(pool, *before)) {
    pool.ring = before->ring;
    pool.maglev = before->maglev;
    pool.turns = before->turns;
    return {};
  }
  if (pool.policy == Policy::ring) {
    std::vector<Ring::Server> servers;
    for (const auto& replica : replicas) servers.push_back({replica->slot, replica->weight});
    auto built = Ring::build(ring, servers);
    if (!built) return std::unexpected(built.error());
    pool.ring = std::make_shared<const Ring>(std::move(*built));
  } else if (pool.policy == Policy::maglev) {
    std::vector<Maglev::Member> members;
    for (const auto& replica : replicas) members.push_back({replica->slot, replica->weight});
    pool.maglev = std::make_shared<const Maglev>(members);
  } else if (pool.policy == Policy::weighted || pool.policy == Policy::random) {
    pool.turns = std::make_shared<const std::vector<std::uint32_t>>(make_turns(replicas));
  }
  return {};
}

}  // namespace ringmaster::balance
