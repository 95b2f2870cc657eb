// How many keys change their server when one is added, removed or replaced.
#include <charconv>

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
  for (const Policy policy : {Policy::rendezvous, Policy::maglev, Policy::round_robin, Policy::weighted, Policy::random, Policy::least_requests,
                              Policy::peak_ewma, Policy::first_available}) {
    const Case each = policy_case(policy, Case::Law::chance);
    std::string settings = "policy = \"" + each.name + "\"\n" + key;
    if (balance::is_hashing(policy)) settings += "bounded_load = 0\n";
    if (policy == Policy::first_available) settings += "max_in_flight = 32\n";
    all.push_back({each, settings});
  }
  for (const char* preset : {"s1", "s2", "xxhash"}) {
    const Case each = ring_case(preset, Probing::linear);
    all.push_back({each, "policy = \"ring\"\n" + key + "[pool.web.ring]\nfunctions = \"" + preset + "\"\nprobing = \"linear\"\n"});
  }
  return all;
}

using Owners = std::vector<std::uint16_t>;  // of each key, the number of the server that answered

constexpr std::uint64_t kKeysMax = 100000;

Async<Result<Owners>> ask(Lab& lab, Stack& stack, std::uint64_t keys, std::string what, Section& section) {
  Owners owners(keys);
  LoadPlan plan;
  plan.target = stack.target("/home");
  plan.paths = {"/home?i={i}"};
  plan.requests = keys;
  plan.check = [&](const Answer& answer) {
    const auto [end, error] = std::from_chars(answer.server.data(), answer.server.data() + answer.server.size(), owners[answer.number]);
    return error == std::errc{} ? std::string() : std::string("an answer that does not name its server");
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

// Five servers; one more; one of the first goes; one is killed and replaced.
Async<Result<Moves>> measure(Lab& lab, Stack& stack, const std::string& name, Section& section) {
  const std::uint64_t keys = std::min(lab.requests(), kKeysMax);
  const std::string what = "churn, " + name;
  std::array<Owners, 4> owners;
  for (std::size_t step = 0; step < owners.size(); ++step) {
    Result<void> changed;
    if (step == 1) changed = co_await stack.resize(kServers + 1);
    if (step == 2) {
      const auto seen = co_await stack.replicas();
      if (!seen) co_return std::unexpected(seen.error());
      changed = co_await stack.remove((*seen)[1].name);
      if (changed) changed = co_await stack.until_ready(kServers);
    }
    if (step == 3) {
      const auto seen = co_await stack.replicas();
      if (!seen) co_return std::unexpected(seen.error());
      const auto killed = co_await stack.kill(seen->front());
      if (!killed) co_return std::unexpected(killed.error());
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
Async<void> compute(Lab& lab, Section& section) {
  static constexpr std::array<unsigned, 11> kSizes = {2, 3, 4, 5, 6, 8, 12, 16, 24, 36, 55};
  static constexpr std::uint64_t kStep = 9;
  Table table{"churn_computed", "Keys that move when one server is added to N, in percent, computed", {"N", "an even share"}, {}, true};
  std::vector<Case> cases;
  for (const Candidate& candidate : candidates()) {
    if (!balance::is_hashing(candidate.each.policy)) continue;
    cases.push_back(candidate.each);
    table.columns.push_back(candidate.each.name);
  }
  for (const unsigned servers : kSizes) {
    co_await lab.pause(Duration::zero());
    if (lab.interrupted()) co_return;
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
    section.configured(candidate.each.name, (*stack)->configuration());
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
  section.done = "The same " + cell(std::min(lab.requests(), kKeysMax)) +
                 " keys were asked for before and after a sixth server was added to five, after the second of the six was removed, and after another was "
                 "killed and replaced; the servers that "
                 "answered were compared.";
  if (!table.rows.empty()) {
    const auto& first = table.rows.front();
    section.outcome = "By rendezvous hashing " + first[1] + " % of the keys moved when a server was added, " + first[2] + " % when it was removed, and " +
                      first[3] + " % when one was replaced.";
    section.why =
        "Rendezvous and maglev give a new server an even share, one key in six (16.67 %), and take it from all others alike; the share of a server that goes "
        "is all that moves then, and nothing "
        "moves for a replacement, since hashing is over slots and the next one sits in the same slot; on the ring a new server takes as much as the gaps that "
        "it happens to cut, so that "
        "printed functions which move few keys do so because the new server gets hardly any; policies that know no keys send a key anywhere at any time.";
    section.pictures.push_back(
        {"churn", "Keys that change their server, five servers and one more",
         bars(table, "policy", {"added", "removed", "replaced"}, {"", "keys that moved, %", false, false, "set xtics rotate by -30 left\n"})});
  }
  section.tables.push_back(std::move(table));
  if (outcome && !lab.interrupted()) co_await compute(lab, section);
  co_return outcome;
}

}  // namespace ringmaster::lab
