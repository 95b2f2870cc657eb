// One server that is 20 times slower than the others: who notices?
#include "lab/experiments.h"
#include "lab/picture.h"
#include "lab/statistics.h"

namespace ringmaster::lab {

using namespace std::chrono_literals;

Async<Result<void>> slow(Lab& lab, Section& section) {
  static constexpr unsigned kServers = 4;
  static constexpr unsigned kSlowness = 20;
  static constexpr double kRate = 300;  // half of what the three fast ones can do
  section.title = "One slow server";
  section.done =
      "Requests of 5 ms came at random times, 300 a second, to four servers that serve one at a time; one of them takes 20 times as long (100 ms) for each.";
  std::vector<std::unique_ptr<Program>> servers;
  std::vector<Endpoint> addresses;
  Result<void> outcome;
  for (unsigned i = 1; i <= kServers && outcome; ++i) {
    const auto port = free_port(lab.loop());
    if (!port) co_return std::unexpected(port.error());
    auto program = Program::start(
        lab.loop(), {"replica", "--listen", base::to_string(*port), "--server-id", std::to_string(i), "--slowness", std::to_string(i == 1 ? kSlowness : 1)});
    if (!program) {
      outcome = std::unexpected(program.error());
      break;
    }
    addresses.push_back(*port);
    servers.push_back(std::move(*program));
  }
  std::string list;
  for (const Endpoint& address : addresses) list += (list.empty() ? "\"" : ", \"") + base::to_string(address) + "\"";
  Table table{"slow", "Each policy", {"policy", "to the slow server %", "median ms", "90 % ms", "99 % ms", "unfinished"}, {}, true};
  for (const std::string policy : {"round_robin", "random", "rendezvous", "rendezvous bounded", "least_requests", "peak_ewma"}) {
    if (lab.interrupted() || !outcome) break;
    std::string settings = "policy = \"" + policy.substr(0, policy.find(' ')) + "\"\n";
    if (policy.starts_with("rendezvous")) settings += "key = \"request_id\"\nbounded_load = " + std::string(policy == "rendezvous" ? "0" : "1.25") + "\n";
    auto stack = co_await lab.stack("servers = [" + list + "]\nreplicas = 0\nslow_start = \"0ms\"\nhealth = {path = \"/heartbeat\"}\n" + settings);
    if (!stack) {
      outcome = std::unexpected(stack.error());
      break;
    }
    section.configuration = (*stack)->configuration();
    double to_slow = 0;
    LoadPlan plan;
    plan.target = (*stack)->target("/work/5");
    plan.arrivals = LoadPlan::Arrivals::poisson;
    plan.rate = kRate;
    plan.connections = 4000;
    plan.duration = lab.choose(8s, 2s);
    plan.check = [&](const Answer& answer) {
      if (answer.server == "1") ++to_slow;
      return std::string();
    };
    const std::string what = "slow, " + policy;
    const LoadResult load = co_await lab.load(std::move(plan), what, section, false);
    co_await (*stack)->stop();
    const auto latency = [&](double share) { return base::to_ms(load.latency.percentile(share)); };
    const double share = load.good == 0 ? 0 : to_slow * 100 / static_cast<double>(load.good);
    table.add(
        {policy, cell(share, 1), cell(latency(0.5), 1), cell(latency(0.9), 1), cell(latency(0.99), 1), cell(load.unfinished + load.failed + load.refused)});
    section.numbers[policy + ", 99 % ms"] = latency(0.99);
    section.numbers[policy + ", to the slow server %"] = share;
  }
  for (const auto& server : servers) co_await server->stop();
  if (table.rows.size() > 5) {
    section.outcome = "99 % of the requests were answered within " + table.rows[0][4] + " ms by round_robin, " + table.rows[3][4] +
                      " ms by rendezvous with bounded load, " + table.rows[4][4] + " ms by least_requests and " + table.rows[5][4] +
                      " ms by peak_ewma, which sent the slow server " + table.rows[5][1] + " % of the answered requests.";
    section.why =
        "Policies that look at no load give the slow server a quarter of the requests, seven times what it can do, so that its queue grows; least_requests "
        "sees that its requests stay, bounded load "
        "limits how many may be there, and peak_ewma knows how long they take before it sends the next.";
    section.pictures.push_back(
        {"slow", "One server of four is 20 times slower: how long requests take, by policy",
         bars(table, "policy", {"median ms", "90 % ms", "99 % ms"}, {"", "milliseconds", false, true, "set xtics rotate by -25 left\nset rmargin 10\n"})});
  }
  section.tables.push_back(std::move(table));
  co_return outcome;
}

}  // namespace ringmaster::lab
