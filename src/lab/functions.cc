// hash functions, probing and virtual servers of the slotted ring: how uneven each choice is, and why.
#include <cmath>

#include "lab/experiments.h"
#include "lab/picture.h"
#include "lab/shares.h"
#include "lab/statistics.h"

namespace ringmaster::lab {

using balance::Probing;
using balance::Ring;
using balance::RingSettings;

namespace {

constexpr std::uint32_t kLargeRing = 4096;
constexpr std::uint32_t kLargeMost = 200;  // virtual servers
constexpr double kWorst = 3;               // three servers, and one has it all

// Of each case, how many of the request ids fall on each ring slot.
using Residues = std::vector<std::vector<double>>;

struct Pair {
  std::string name;
  std::string request;  // H, or "xxhash"
  std::string placing;  // Φ
};

std::vector<Pair> pairs(const Settings& settings) {
  const auto printed = [](std::string name, std::string_view preset) {
    RingSettings ring;
    balance::apply_preset(preset, ring);
    return Pair{std::move(name), ring.request_function.text(), ring.virtual_function.text()};
  };
  std::vector<Pair> all = {printed("S1", "s1"),
                           printed("S2", "s2"),
                           {"variant 1", "i*i + 2*i + 199", "i*i + j*j + 2*i*j + 199"},
                           {"variant 2", "5*i + 21", "i^3 + 2*i + 15*j + 17"},
                           {"variant 3", "1427*i*i + 2503*i + 2003", "1249*i*i + 2287*j*j + 1663*j + 2287"},
                           printed("xxHash", "xxhash")};
  if (!settings.request_function.empty()) all.push_back({"yours", settings.request_function, settings.virtual_function});
  return all;
}

Result<balance::RingFunction> function_of(const std::string& text, bool allow_j) {
  auto parsed = balance::RingFunction::parse(text, allow_j);
  if (!parsed) return base::fail(parsed.error().code, "the function '" + text + "': " + base::describe(parsed.error()));
  return parsed;
}

Result<Case> case_of(const Pair& pair, Probing probing) {
  Case made;
  made.name = pair.name + " " + probing_name(probing);
  made.policy = balance::Policy::ring;
  made.settings = "policy = \"ring\"\nkey = \"request_id\"\n[pool.web.ring]\nrequest_function = \"" + pair.request + "\"\nvirtual_function = \"" +
                  pair.placing + "\"\nprobing = \"" + probing_name(probing) + "\"\n";
  const auto request = function_of(pair.request, false);
  if (!request) return std::unexpected(request.error());
  const auto placing = function_of(pair.placing, true);
  if (!placing) return std::unexpected(placing.error());
  made.ring.request_function = *request;
  made.ring.virtual_function = *placing;
  made.ring.probing = probing;
  return made;
}

Async<Residues> residues_of(Lab& lab, const std::vector<Case>& cases, std::uint32_t slots) {
  Residues all;
  for (const Case& each : cases) {
    co_await lab.pause(Duration::zero());
    std::vector<double>& counts = all.emplace_back(slots, 0);
    for (std::uint64_t id = kIdFirst; id <= kIdLast && !lab.interrupted(); ++id) ++counts[each.ring.request_function.evaluate(id, 0, slots)];
  }
  co_return all;
}

Result<Ring> build(RingSettings ring, unsigned servers, std::uint32_t virtual_servers) {
  ring.virtual_servers = virtual_servers;
  std::vector<Ring::Server> all;
  for (unsigned slot = 1; slot <= servers; ++slot) all.push_back({slot});
  return Ring::build(ring, all);
}

double imbalance(const RingSettings& settings, const std::vector<double>& counts, unsigned servers, std::uint32_t virtual_servers) {
  const auto ring = build(settings, servers, virtual_servers);
  if (!ring) return NAN;
  std::vector<double> loads(servers, 0);
  for (std::uint32_t slot = 0; slot < ring->slots(); ++slot) loads[ring->owner(ring->occupied_from(slot))] += counts[slot];
  return spread_of(loads).max_to_mean;
}

// From which K on the busiest of three servers has less than 1.25 times the mean.
std::string enough_virtual_servers(const Case& each, const std::vector<double>& counts) {
  static constexpr double kGood = 1.25;
  static constexpr unsigned kServers = 3;
  const std::uint32_t most = each.ring.slots / kServers;
  std::uint32_t k = most;
  while (k > 0 && imbalance(each.ring, counts, kServers, k) < kGood) --k;
  return k == most ? "none" : std::to_string(k + 1);
}

// A picture of the imbalance for each K, with a row for each case.
void draw_map(const std::vector<Case>& cases, const Residues& residues, unsigned servers, std::uint32_t slots, std::uint32_t most, const std::string& name,
              Section& section) {
  Table table{name, "", {"functions", "row", "K", "max ÷ mean"}, {}, false};
  std::vector<std::string> rows;
  for (std::size_t row = 0; row < cases.size(); ++row) {
    RingSettings ring = cases[row].ring;
    ring.slots = slots;
    rows.push_back(cases[row].name);
    for (std::uint32_t k = 1; k <= most; ++k) {
      table.add({cases[row].name, std::to_string(row), std::to_string(k), cell(imbalance(ring, residues[row], servers, k))});
    }
  }
  section.pictures.push_back({name,
                              "Load of the busiest server ÷ mean: N = " + std::to_string(servers) + " servers, M = " + std::to_string(slots) + " slots, exact",
                              map(table, "K", "row", "max ÷ mean", rows, {"virtual servers of each (K)", "", false, false, {}}, "busiest ÷ mean", 1, kWorst)});
  section.tables.push_back(std::move(table));
}

// Why: what H reaches, and where Φ puts the virtual servers.
void explain(const std::vector<Case>& cases, const Residues& residues, Section& section) {
  Table table{"functions_why",
              "Why: the residues that H reaches, and the gaps between virtual servers (N = 3, K = 9, M = 512)",
              {"functions", "H reaches", "the most hit slot's share %", "gaps: longest", "gaps: median", "slots that Φ hits first", "max ÷ mean"},
              {},
              true};
  Table gaps{"functions_gaps", "", {"rank"}, {}, false};
  std::vector<std::vector<double>> lengths;
  static constexpr unsigned kServers = 3;
  static constexpr std::uint32_t kVirtual = 9;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const Case& each = cases[i];
    const std::vector<double>& counts = residues[i];
    const auto reached = std::ranges::count_if(counts, [](double count) { return count > 0; });
    const auto ring = build(each.ring, kServers, kVirtual);
    if (!ring) continue;
    std::vector<double> of_case;
    std::uint32_t last = 0;
    std::uint32_t first = Ring::kNobody;
    for (std::uint32_t slot = 0; slot < ring->slots(); ++slot) {
      if (ring->owner(slot) == Ring::kNobody) continue;
      if (first == Ring::kNobody) {
        first = slot;
      } else {
        of_case.push_back(slot - last);
      }
      last = slot;
    }
    of_case.push_back(ring->slots() - last + first);
    std::ranges::sort(of_case, std::greater());
    std::vector<bool> hit(each.ring.slots, false);
    for (unsigned server = 0; server < kServers; ++server) {
      for (unsigned j = 0; j < kVirtual; ++j)
        hit[each.ring.virtual_function.evaluate(server + each.ring.server_base, j + each.ring.virtual_base, each.ring.slots)] = true;
    }
    table.add({each.name, cell(static_cast<std::uint64_t>(reached)), cell(std::ranges::max(counts) * 100 / (kIdLast - kIdFirst + 1), 2),
               cell(of_case.front(), 0), cell(median(of_case), 0), cell(static_cast<std::uint64_t>(std::ranges::count(hit, true))),
               cell(imbalance(each.ring, counts, kServers, kVirtual))});
    if (each.ring.probing == Probing::linear) {
      gaps.columns.push_back(each.name);
      lengths.push_back(std::move(of_case));
    }
  }
  for (std::size_t rank = 0; rank < kServers * kVirtual; ++rank) {
    std::vector<std::string> row = {std::to_string(rank + 1)};
    for (const auto& of_case : lengths) row.push_back(rank < of_case.size() ? cell(of_case[rank], 0) : "");
    gaps.add(std::move(row));
  }
  const std::vector<std::string> names(gaps.columns.begin() + 1, gaps.columns.end());
  section.pictures.push_back({"functions_gaps", "Gaps between virtual servers on the ring, longest first (N = 3, K = 9, linear probing)",
                              lines(gaps, "rank", names, {"gap, by rank", "ring slots", false, false, {}})});
  section.tables.push_back(std::move(table));
  section.tables.push_back(std::move(gaps));
}

struct Tried {
  Table counts{"functions",
               "Requests per server, and how often chance alone would bring a difference from the exact shares as large as this",
               {"functions", "N", "server", "requests", "expected"},
               {},
               false};
  Table summary{"functions_summary", "Real requests", {"functions", "N", "standard deviation", "max ÷ mean", "p"}, {}, true};
  Table wide{"functions_scaling", "", {"N"}, {}, false};
  double least_p = 1;
};

// again: N from 2 to 6, by requests.
Async<Result<void>> try_case(Lab& lab, const Case& each, Tried& tried, std::map<unsigned, std::vector<std::string>>& deviations, Section& section) {
  auto stack = co_await lab.stack(demo_servers(2) + each.settings);
  if (!stack) co_return std::unexpected(stack.error());
  section.configured(each.name, (*stack)->configuration());
  Result<void> outcome;
  for (unsigned servers = 2; servers <= 6 && !lab.interrupted(); ++servers) {
    outcome = co_await (*stack)->resize(servers);
    if (!outcome) break;
    const std::string what = "functions, " + each.name + ", N = " + std::to_string(servers);
    const auto counted = co_await count_answers(lab, **stack, lab.requests(), what, section);
    if (!counted) {
      outcome = std::unexpected(counted.error());
      break;
    }
    const auto shares = expected_shares(each, servers);
    const double p = goodness_of_fit(counted->answers, shares);
    const Spread spread = spread_of({counted->answers.begin(), counted->answers.end()});
    tried.least_p = std::min(tried.least_p, p);
    const auto total = static_cast<double>(counted->load.good);
    for (std::size_t i = 0; i < shares.size(); ++i) {
      tried.counts.add({each.name, std::to_string(servers), counted->servers[i], cell(counted->answers[i]), cell(total * shares[i], 1)});
    }
    tried.summary.add({each.name, std::to_string(servers), cell(spread.deviation, 1), cell(spread.max_to_mean), cell(p, 4)});
    deviations[servers].push_back(cell(spread.deviation, 1));
    if (servers == 3) section.numbers[each.name + ", N = 3, max ÷ mean"] = spread.max_to_mean;
  }
  co_await (*stack)->stop();
  co_return outcome;
}

// What came out, and why, from explain()'s table; its rows are in the order of the cases.
void tell(const std::vector<Case>& cases, const Residues& residues, const Tried& tried, Section& section) {
  const Table& why = *std::ranges::find(section.tables, "functions_why", &Table::name);
  const auto ratio = [&](std::size_t row) { return why.rows.at(row).back(); };
  const auto enough = [&](std::size_t row) { return enough_virtual_servers(cases[row], residues[row]); };
  const auto fact = [&](std::size_t row, std::size_t column) { return why.rows.at(row).at(column); };
  section.outcome = "With three servers and K = 9 the busiest server gets " + ratio(0) + " times the mean with S1's functions, " + ratio(3) +
                    " times with S2's (quadratic probing), and " + ratio(10) + " times with xxHash; requests " +
                    (is_chance(tried.least_p, tried.summary.rows.size()) ? "agreed" : "did not agree") + " with the exact shares (the least likely of " +
                    std::to_string(tried.summary.rows.size()) + " comparisons had p = " + cell(tried.least_p, 4) + ").";
  section.why = "H of S1 reaches only " + fact(0, 1) + " of the 512 slots, as a square has few remainders modulo a power of two, while that of S2 reaches " +
                fact(3, 1) + "; but with both Φ puts the places of all servers side by side and leaves one gap of " + fact(0, 3) + " and " + fact(3, 3) +
                " slots, which goes to one server, where xxHash reaches " + fact(10, 1) + " slots and its longest gap has " + fact(10, 3) +
                "; the number of virtual servers from which on the busiest of three has less than 1.25 times the mean is " + enough(0) + " with S1, " +
                enough(3) + " with S2, " + enough(8) + " with variant 3 (large, odd coefficients) and " + enough(10) + " with xxHash.";
}

}  // namespace

Async<Result<void>> functions(Lab& lab, Section& section) {
  section.title = "Hash functions and virtual servers";
  std::vector<Case> cases;
  for (const Pair& pair : pairs(lab.settings())) {
    for (const Probing probing : {Probing::linear, Probing::quadratic}) {
      auto made = case_of(pair, probing);
      if (!made) co_return std::unexpected(made.error());
      cases.push_back(std::move(*made));
    }
  }
  Tried tried;
  std::map<unsigned, std::vector<std::string>> deviations;
  Result<void> outcome;
  for (const Case& each : cases) {
    if (lab.interrupted() || !outcome) break;
    outcome = co_await try_case(lab, each, tried, deviations, section);
    if (each.ring.probing == Probing::linear) tried.wide.columns.push_back(each.name);
  }
  section.done = "Each pair of functions, with both kinds of probing, was tried with " + cell(lab.requests()) +
                 " requests for N = 2 to 6 servers and compared with the exact shares; and for every K from 1 up while N · K fits the ring the imbalance over "
                 "all 900,000 request ids was computed.";
  section.tables = {tried.counts, tried.summary};
  if (!is_chance(tried.least_p, tried.summary.rows.size()))
    section.faults.push_back("one comparison has p = " + cell(tried.least_p, 9) + ": the counts do not agree with the exact shares");
  if (lab.interrupted() || !outcome) co_return outcome;
  for (auto& [servers, cells] : deviations) {
    std::vector<std::string> row = {std::to_string(servers)};
    for (std::size_t i = 0; i < cells.size(); i += 2) row.push_back(cells[i]);  // linear and quadratic take turns
    tried.wide.add(std::move(row));
  }
  const std::vector<std::string> names(tried.wide.columns.begin() + 1, tried.wide.columns.end());
  section.pictures.push_back({"functions_scaling", "How evenly " + cell(lab.requests()) + " requests spread, by hash functions (linear probing)",
                              lines(tried.wide, "N", names, {"servers (N)", "standard deviation of requests per server", false, false, "set xtics 1\n"})});
  section.tables.push_back(tried.wide);
  const std::uint32_t slots = RingSettings{}.slots;
  const Residues residues = co_await residues_of(lab, cases, slots);
  const Residues of_large = co_await residues_of(lab, cases, kLargeRing);
  if (lab.interrupted()) co_return outcome;
  draw_map(cases, residues, 3, slots, slots / 3, "functions_map3", section);
  draw_map(cases, residues, 6, slots, slots / 6, "functions_map6", section);
  draw_map(cases, of_large, 3, kLargeRing, kLargeMost, "functions_large", section);
  explain(cases, residues, section);
  tell(cases, residues, tried, section);
  co_return outcome;
}

}  // namespace ringmaster::lab
