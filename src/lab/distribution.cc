// how many of so many requests each server gets, for each policy, against what it should be.
#include <cmath>

#include "lab/experiments.h"
#include "lab/picture.h"
#include "lab/shares.h"
#include "lab/statistics.h"

namespace ringmaster::lab {

using balance::Policy;
using balance::Probing;

static constexpr unsigned kFewest = 2;
static constexpr unsigned kMost = 6;

// Bounded load is off: it would send requests elsewhere whenever many are in flight, and is measured by `hotkey`.
static std::vector<Case> cases() {
  std::vector<Case> all = {policy_case(Policy::rendezvous, Case::Law::chance), policy_case(Policy::maglev, Case::Law::chance)};
  for (const char* preset : {"s1", "s2", "xxhash"}) {
    for (const Probing probing : {Probing::linear, Probing::quadratic}) all.push_back(ring_case(preset, probing));
  }
  all.push_back(policy_case(Policy::random, Case::Law::chance));
  all.push_back(policy_case(Policy::round_robin, Case::Law::turns));
  all.push_back(policy_case(Policy::weighted, Case::Law::turns, "weights = [1, 2, 3]\n"));
  all.back().weights = {1, 2, 3};
  all.push_back(policy_case(Policy::least_requests, Case::Law::load));
  all.push_back(policy_case(Policy::peak_ewma, Case::Law::load));
  all.push_back(policy_case(Policy::first_available, Case::Law::none, "max_in_flight = 32\n"));
  return all;
}

namespace {

struct Found {
  Table counts{"distribution", "", {"policy", "N", "server", "requests", "expected"}, {}, false};
  Table summary{"distribution_summary",
                "Spread, and how often chance alone would bring a difference from the expected shares as large as this",
                {"policy", "N", "standard deviation", "max ÷ mean", "chi-square", "p"},
                {},
                true};
  Table three{"distribution_three", "", {"policy", "server 1", "server 2", "server 3"}, {}, false};
  double least_p = 1;
  unsigned judged = 0;
};

void add(Found& found, const std::string& name, bool by_chance, const Counts& counts, const std::vector<double>& shares) {
  const std::vector<double> values(counts.answers.begin(), counts.answers.end());
  const Spread spread = spread_of(values);
  const auto n = std::to_string(values.size());
  const bool comparable = shares.size() == values.size();
  const bool judge = by_chance && comparable;
  const double p = judge ? goodness_of_fit(counts.answers, shares) : NAN;
  if (judge) {
    found.least_p = std::min(found.least_p, p);
    ++found.judged;
  }
  const auto total = static_cast<double>(counts.load.good);
  for (std::size_t i = 0; i < values.size(); ++i) {
    found.counts.add({name, n, counts.servers[i], cell(counts.answers[i]), comparable ? cell(total * shares[i], 1) : ""});
  }
  found.summary.add({name, n, cell(spread.deviation, 1), cell(spread.max_to_mean), comparable ? cell(chi_square(counts.answers, shares), 2) : "", cell(p, 4)});
  if (values.size() == 3) found.three.add({name, cell(counts.answers[0]), cell(counts.answers[1]), cell(counts.answers[2])});
}

// `must_agree`: counts that are no chance are a fault.
void conclude(const Lab& lab, const Found& found, bool must_agree, Section& section) {
  const auto ratio_of = [&](const std::string& name) {
    for (const auto& row : found.summary.rows) {
      if (row[0] == name && row[1] == "3") return row[3];
    }
    return std::string("?");
  };
  for (const auto& row : found.summary.rows) {
    if (row[1] == "3") section.numbers[row[0] + ", N = 3, max ÷ mean"] = std::strtod(row[3].c_str(), nullptr);
  }
  section.tables = {found.counts, found.summary};
  if (must_agree && !is_chance(found.least_p, found.judged)) {
    section.faults.push_back("of " + std::to_string(found.judged) + " comparisons one has p = " + cell(found.least_p, 9) +
                             ": the counts do not agree with the exact shares");
  }
  if (found.three.rows.empty()) return;
  section.tables.push_back(found.three);
  section.pictures.push_back({"distribution", cell(lab.requests()) + " requests over three servers, by policy",
                              bars(found.three, "policy", {"server 1", "server 2", "server 3"},
                                   {"", "requests answered", false, false, "set xtics rotate by -35 left\nset bmargin 9\n"})});
  if (ratio_of("ring s2 quadratic") == "?") return;
  section.outcome = "With three servers the busiest got " + ratio_of("rendezvous") + " times the mean by rendezvous hashing, but " +
                    ratio_of("ring s1 linear") + " times on the ring with S1's printed functions and " + ratio_of("ring s2 quadratic") +
                    " times with S2's; of " + std::to_string(found.judged) +
                    " comparisons with the exact expectation the least likely had p = " + cell(found.least_p, 4) +
                    (is_chance(found.least_p, found.judged) ? ", as chance has it." : ", which is no chance.");
}

Async<Result<void>> measure(Lab& lab, Stack& stack, const Case& each, Found& found, Section& section) {
  for (unsigned servers = kFewest; servers <= kMost && !lab.interrupted(); ++servers) {
    const auto sized = co_await stack.resize(servers);
    if (!sized) co_return std::unexpected(sized.error());
    const std::string what = "distribution, " + each.name + ", N = " + std::to_string(servers);
    const auto counts = co_await count_answers(lab, stack, lab.requests(), what, section);
    if (!counts) co_return std::unexpected(counts.error());
    std::vector<double> shares;
    if (each.law != Case::Law::none) shares = expected_shares(each, servers);
    add(found, each.name, each.law == Case::Law::chance, *counts, shares);
  }
  co_return Result<void>{};
}

Async<Result<void>> measure_running(Lab& lab, Found& found, Section& section) {
  auto stack = co_await lab.stack({});
  if (!stack) co_return std::unexpected(stack.error());
  const std::string what = "distribution";
  const auto counts = co_await count_answers(lab, **stack, lab.requests(), what, section);
  const bool known = (*stack)->has_admin();
  co_await (*stack)->stop();
  if (!counts) co_return std::unexpected(counts.error());
  const std::vector<double> even(counts->answers.size(), 1.0 / static_cast<double>(std::max<std::size_t>(counts->answers.size(), 1)));
  add(found, "as it is configured", true, *counts, even);
  section.done = cell(counts->load.sent) + " requests were sent to " + lab.settings().target->host + lab.settings().target->path +
                 ", and the answers were counted by the server that they name" +
                 (known ? "." : "; whether they tell the truth is not known without --admin, nor whether there are servers that never answered.");
  section.why =
      "What is expected here is an even spread by chance: p is how often chance alone would be as uneven as this, so a very small one says that the policy is "
      "not even.";
  conclude(lab, found, false, section);
  section.outcome = counts->answers.empty() ? "Nothing was answered."
                                            : std::to_string(counts->answers.size()) + " servers answered; the busiest got " + found.summary.rows.front()[3] +
                                                  " times the mean, p = " + found.summary.rows.front()[5] + ".";
  co_return Result<void>{};
}

}  // namespace

Async<Result<void>> distribution(Lab& lab, Section& section) {
  Found found;
  section.title = "Requests per server, by policy";
  if (lab.settings().target) co_return co_await measure_running(lab, found, section);
  section.done = "For each policy, and for N = 2 to 6 servers, " + cell(lab.requests()) +
                 " requests over 64 connections were counted by the server that answered, and compared with the exact expectation: what the policy does with "
                 "every one of the 900,000 request ids.";
  section.why =
      "Good hashing spreads random ids as evenly as chance allows; the printed polynomials do not, since they put the places of all servers side by side on "
      "the ring, and the one long gap "
      "that is left falls to one server (see functions); policies that take turns are exact but for what is under way, those that look at the load are as even "
      "as the servers are equal at "
      "that moment, and first_available fills one server before it uses the next.";
  Result<void> outcome;
  for (const Case& each : cases()) {
    if (lab.interrupted() || !outcome) break;
    auto stack = co_await lab.stack(demo_servers(kFewest) + each.settings);
    if (!stack) {
      outcome = std::unexpected(stack.error());
      break;
    }
    section.configured(each.name, (*stack)->configuration());
    outcome = co_await measure(lab, **stack, each, found, section);
    co_await (*stack)->stop();
  }
  conclude(lab, found, true, section);
  co_return outcome;
}

}  // namespace ringmaster::lab
