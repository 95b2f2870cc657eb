// How many keys change their server when one is added, removed or replaced.
#include "lab/experiments.h"
#include "lab/picture.h"
#include "lab/shares.h"
#include "lab/statistics.h"

namespace ringmaster::lab {

using balance::Model;
using balance::Policy;
using balance::Probing;

namespace {

constexpr unsigned kServers = 5;

struct Candidate {
  Case each;
  std::string keyed;  // its pool's settings, with the key in the query
};

std::vector<Candidate> candidates() {
  std::vector<Candidate> all;
  const std::string key = "key = \"query:i\"\n";
  for (const auto& [name, policy] :
       {std::pair{"rendezvous", Policy::rendezvous}, {"maglev", Policy::maglev}, {"round_robin", Policy::round_robin}, {"random", Policy::random}}) {
    Case each;
    each.name = name;
    each.policy = policy;
    all.push_back({each, "policy = \"" + each.name + "\"\n" + key + (balance::is_hashing(policy) ? "bounded_load = 0\n" : "")});
  }
  for (const char* preset : {"s1", "xxhash"}) {
    const Case each = ring_case(preset, Probing::linear);
    all.push_back({each, "policy = \"ring\"\n" + key + "[pool.web.ring]\nfunctions = \"" + preset + "\"\n"});
  }
  return all;
}

using Owners = std::vector<std::string>;  // of each key, the server that answered

Async<Result<Owners>> ask(Lab& lab, Stack& stack, std::uint64_t keys, std::string what, Section& section) {
  Owners owners(keys);
  LoadPlan plan;
  plan.target = stack.target("/home");
  plan.paths = {"/home?i={i}"};
  plan.requests = keys;
  plan.check = [&](const Answer& answer) {
    owners[answer.number] = answer.server;
    return std::string();
  };
  const LoadResult load = co_await lab.load(std::move(plan), what, section);
  if (load.interrupted) co_return base::fail(base::Code::cancelled);
  co_return owners;
}

double moved(const Owners& before, const Owners& after) {
  double count = 0;
  for (std::size_t i = 0; i < before.size(); ++i) count += before[i] == after[i] ? 0 : 1;
  return count * 100 / static_cast<double>(std::max<std::size_t>(before.size(), 1));
}

struct Moves {
  double added = 0;
  double removed = 0;
  double replaced = 0;
};

// Five servers; one more; that one goes again; one is killed and replaced.
Async<Result<Moves>> measure(Lab& lab, Stack& stack, const std::string& name, Section& section) {
  const std::uint64_t keys = lab.requests();
  const std::string what = "churn, " + name;
  std::array<Owners, 4> owners;
  for (std::size_t step = 0; step < owners.size(); ++step) {
    Result<void> changed;
    if (step == 1) changed = co_await stack.resize(kServers + 1);
    if (step == 2) {
      const auto seen = co_await stack.replicas();
      if (!seen) co_return std::unexpected(seen.error());
      changed = co_await stack.remove(seen->back().name);
      if (changed) changed = co_await stack.until_ready(kServers);
    }
    if (step == 3) {
      const auto seen = co_await stack.replicas();
      if (!seen) co_return std::unexpected(seen.error());
      stack.kill(seen->front());
      changed = co_await stack.until_replaced(seen->front());
    }
    if (!changed) co_return std::unexpected(changed.error());
    static constexpr std::array kSteps = {", before", ", one added", ", one removed", ", one replaced"};
    const std::string step_name = what + kSteps.at(step);
    auto asked = co_await ask(lab, stack, keys, step_name, section);
    if (!asked) co_return std::unexpected(asked.error());
    owners.at(step) = std::move(*asked);
  }
  co_return Moves{moved(owners[0], owners[1]), moved(owners[1], owners[2]), moved(owners[2], owners[3])};
}

// For any number of servers: computed, the last one being added.
void compute(const Lab& lab, Section& section) {
  static constexpr std::array<unsigned, 11> kSizes = {2, 3, 4, 5, 6, 8, 12, 16, 24, 36, 55};
  static constexpr std::uint64_t kStep = 9;
  Table table{"churn_computed", "Keys that move when one server is added to N, in percent, computed", {"N", "least possible"}, {}, true};
  std::vector<Case> cases;
  for (const Candidate& candidate : candidates()) {
    if (!balance::is_hashing(candidate.each.policy)) continue;
    cases.push_back(candidate.each);
    table.columns.push_back(candidate.each.name);
  }
  for (const unsigned servers : kSizes) {
    if (lab.interrupted()) return;
    std::vector<std::string> row = {std::to_string(servers), cell(100.0 / (servers + 1), 2)};
    for (const Case& each : cases) {
      Model before = model_of(each, servers);
      Model after = model_of(each, servers + 1);
      double count = 0;
      double all = 0;
      for (std::uint64_t id = kIdFirst; id <= kIdLast; id += kStep, ++all) count += before.key_to(id) == after.key_to(id) ? 0 : 1;
      row.push_back(cell(count * 100 / all, 2));
    }
    table.add(std::move(row));
  }
  const std::vector<std::string> names(table.columns.begin() + 1, table.columns.end());
  section.pictures.push_back(
      {"churn_computed", "Keys that move when one server joins N others, computed",
       lines(table, "N", names,
             {"servers before (N)", "keys that move, %", true, true, "set xrange [1.8:60]\nset xtics (2, 3, 4, 6, 8, 12, 16, 24, 36, 55)\n"})});
  section.tables.push_back(std::move(table));
}

}  // namespace

Async<Result<void>> churn(Lab& lab, Section& section) {
  section.title = "Keys that move";
  Table table{"churn", "Keys that changed their server, in percent (N = 5)", {"policy", "added", "removed", "replaced"}, {}, true};
  Result<void> outcome;
  for (const Candidate& candidate : candidates()) {
    if (lab.interrupted() || !outcome) break;
    auto stack = co_await lab.stack(demo_servers(kServers) + candidate.keyed);
    if (!stack) {
      outcome = std::unexpected(stack.error());
      break;
    }
    section.configuration = (*stack)->configuration();
    const auto moves = co_await measure(lab, **stack, candidate.each.name, section);
    co_await (*stack)->stop();
    if (!moves) {
      outcome = std::unexpected(moves.error());
      break;
    }
    table.add({candidate.each.name, cell(moves->added, 2), cell(moves->removed, 2), cell(moves->replaced, 2)});
    section.numbers[candidate.each.name + ", added, %"] = moves->added;
    section.numbers[candidate.each.name + ", removed, %"] = moves->removed;
    section.numbers[candidate.each.name + ", replaced, %"] = moves->replaced;
  }
  section.done = "The same " + cell(lab.requests()) +
                 " keys were asked for before and after a sixth server was added to five, after it was removed, and after one was killed and replaced; the "
                 "servers that answered were compared.";
  if (!table.rows.empty()) {
    const auto& first = table.rows.front();
    section.outcome = "By rendezvous hashing " + first[1] + " % of the keys moved when a server was added, " + first[2] + " % when it was removed, and " +
                      first[3] + " % when one was replaced.";
    section.why =
        "The least possible is 1 in 6, the new server's share (16.67 %), and none for a replacement, since hashing is over slots and the next one sits in the "
        "same slot; policies that know "
        "no keys send a key anywhere at any time, so five of six keys 'move' without any change; on the ring the new server's share, and so what moves, "
        "depends on the gaps that it happens to cut.";
    section.pictures.push_back({"churn", "Keys that change their server, five servers and one more",
                                bars(table, "policy", {"added", "removed", "replaced"}, {"", "keys that moved, %", false, false, {}})});
  }
  section.tables.push_back(std::move(table));
  if (outcome) compute(lab, section);
  co_return outcome;
}

}  // namespace ringmaster::lab
