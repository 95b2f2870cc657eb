// from two servers to six by requests, and on to as many as a policy takes by computation.
#include "lab/experiments.h"
#include "lab/picture.h"
#include "lab/shares.h"
#include "lab/statistics.h"

namespace ringmaster::lab {

using balance::Policy;
using balance::Probing;

namespace {

constexpr std::array<unsigned, 16> kSizes = {2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, 56, 100, 200, 500, 1000};
constexpr std::uint64_t kIds = kIdLast - kIdFirst + 1;
constexpr unsigned kRingMost = 56;  // nine virtual servers of each fill 504 of 512 slots

std::vector<Case> measured_cases() {
  return {ring_case("s1", Probing::linear), ring_case("xxhash", Probing::linear), policy_case(Policy::rendezvous, Case::Law::chance),
          policy_case(Policy::least_requests, Case::Law::load)};
}

std::vector<Case> computed_cases() {
  return {ring_case("s1", Probing::linear),
          ring_case("s2", Probing::quadratic),
          ring_case("xxhash", Probing::linear),
          policy_case(Policy::rendezvous, Case::Law::chance),
          policy_case(Policy::maglev, Case::Law::chance),
          policy_case(Policy::random, Case::Law::chance),
          policy_case(Policy::round_robin, Case::Law::turns),
          policy_case(Policy::least_requests, Case::Law::load)};
}

// The figures of one server count, a column for each case.
Table wide(const std::string& name, const std::string& title, const std::vector<Case>& cases, bool shown) {
  Table table{name, title, {"N"}, {}, shown};
  for (const Case& each : cases) table.columns.push_back(each.name);
  return table;
}

Async<void> compute(Lab& lab, Section& section) {
  const std::uint64_t step = lab.choose<std::uint64_t>(1, 9);  // of the request ids
  const std::vector<Case> cases = computed_cases();
  Table table = wide("scaling_computed", "The busiest server's load ÷ the mean, computed", cases, true);
  std::vector<std::string> names;
  for (const Case& each : cases) names.push_back(each.name);
  for (const unsigned servers : kSizes) {
    std::vector<std::string> row = {std::to_string(servers)};
    for (const Case& each : cases) {
      co_await lab.pause(Duration::zero());
      if (lab.interrupted()) co_return;
      if (each.policy == Policy::ring && servers > kRingMost) {
        row.emplace_back();
        continue;
      }
      const auto shares = balance::is_hashing(each.policy) ? expected_shares(each, servers, step) : simulated_shares(each, servers, kIds / step);
      row.push_back(cell(spread_of(shares).max_to_mean));
    }
    table.add(std::move(row));
  }
  section.pictures.push_back(
      {"scaling_computed", "How uneven: load of the busiest server ÷ mean, by number of servers",
       lines(table, "N", names,
             {"servers (N)", "busiest server ÷ mean", true, true,
              "set xrange [1.8:1100]\nset yrange [0.9:25]\nset xtics (2, 3, 4, 6, 8, 12, 16, 24, 32, 56, 100, 200, 500, 1000)\nset ytics "
              "(1, 1.5, 2, 3, 5, 10, 20)\n"})});
  section.tables.push_back(std::move(table));
}

Async<Result<void>> measure(Lab& lab, Table& deviation, Table& rate, Table& counts, Section& section) {
  const std::vector<Case> cases = measured_cases();
  std::map<unsigned, std::vector<std::string>> deviations;
  std::map<unsigned, std::vector<std::string>> rates;
  Result<void> outcome;
  for (const Case& each : cases) {
    if (lab.interrupted() || !outcome) break;
    auto stack = co_await lab.stack(demo_servers(2) + each.settings);
    if (!stack) {
      outcome = std::unexpected(stack.error());
      break;
    }
    section.configured(each.name, (*stack)->configuration());
    for (unsigned servers = 2; servers <= 6 && outcome && !lab.interrupted(); ++servers) {
      outcome = co_await (*stack)->resize(servers);
      if (!outcome) break;
      const std::string what = "scaling, " + each.name + ", N = " + std::to_string(servers);
      const auto counted = co_await count_answers(lab, **stack, lab.requests(), what, section);
      if (!counted) {
        outcome = std::unexpected(counted.error());
        break;
      }
      const Spread spread = spread_of({counted->answers.begin(), counted->answers.end()});
      deviations[servers].push_back(cell(spread.deviation, 1));
      LoadPlan plan;  // the requests above are over too soon to tell a rate
      plan.target = (*stack)->target("/home");
      plan.duration = lab.choose<Duration>(std::chrono::seconds(1), std::chrono::milliseconds(250));
      const std::string rate_what = what + ", throughput";
      const LoadResult rated = co_await lab.load(std::move(plan), rate_what, section);
      rates[servers].push_back(cell(rated.rate(), 0));
      counts.add({each.name, std::to_string(servers), cell(spread.mean, 1), cell(spread.deviation, 1), cell(spread.max_to_mean), cell(rated.rate(), 0)});
      section.numbers[each.name + ", N = " + std::to_string(servers) + ", standard deviation"] = spread.deviation;
    }
    co_await (*stack)->stop();
  }
  for (auto* from : {&deviations, &rates}) {
    for (auto& [servers, cells] : *from) {
      cells.resize(cases.size());
      cells.insert(cells.begin(), std::to_string(servers));
      (from == &deviations ? deviation : rate).add(std::move(cells));
    }
  }
  co_return outcome;
}

}  // namespace

Async<Result<void>> scaling(Lab& lab, Section& section) {
  section.title = "More servers";
  const std::vector<Case> cases = measured_cases();
  Table counts{"scaling", "Requests per server, and throughput", {"policy", "N", "mean", "standard deviation", "max ÷ mean", "requests per second"}, {}, true};
  Table deviation = wide("scaling_deviation", "Standard deviation of the requests per server", cases, false);
  Table rate = wide("scaling_rate", "Requests per second", cases, false);
  section.done = "For N = 2 to 6 servers " + cell(lab.requests()) +
                 " requests were sent and counted; then, up to 56 servers on the ring and 1,000 otherwise, each policy was asked where it would send " +
                 (lab.settings().quick ? "every ninth of the" : "each of the") +
                 " 900,000 request ids, or as many requests with 64 in flight where it looks at no id.";
  const auto outcome = co_await measure(lab, deviation, rate, counts, section);
  std::vector<std::string> names;
  for (const Case& each : cases) names.push_back(each.name);
  if (!deviation.rows.empty() && !deviation.rows.front()[3].empty()) {
    section.pictures.push_back({"scaling", "How evenly " + cell(lab.requests()) + " requests spread over N servers",
                                lines(deviation, "N", names, {"servers (N)", "standard deviation of requests per server", false, false, "set xtics 1\n"})});
    section.pictures.push_back({"scaling_rate", "Throughput by number of servers, all on this machine",
                                lines(rate, "N", names, {"servers (N)", "requests per second", false, false, "set xtics 1\n"})});
    const auto& first = deviation.rows.front();
    const auto& last = deviation.rows.back();
    section.outcome = "The mean is requests ÷ N by its nature, but its standard deviation was " + first[1] + " at N = " + first[0] + " and " + last[1] +
                      " at N = " + last[0] + " with S1's functions, against " + first[3] + " and " + last[3] + " by rendezvous hashing.";
    section.why =
        "On the ring a server's share is the length of the gaps before its nine places, and that varies much unless there are many places; rendezvous and "
        "maglev give every server the same "
        "share of ids, so that only chance is left, which the computed picture shows as well: at 1,000 servers each has " +
        cell(kIds / lab.choose<std::uint64_t>(1, 9) / 1000) +
        " ids on average, and the busiest of so many has more than that; throughputs are those of balancer, servers and load together on the same processors.";
  }
  section.tables.push_back(std::move(counts));
  section.tables.push_back(std::move(deviation));
  section.tables.push_back(std::move(rate));
  if (outcome && !lab.interrupted()) co_await compute(lab, section);
  co_return outcome;
}

}  // namespace ringmaster::lab
