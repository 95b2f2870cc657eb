// One server that is 20 times slower than the others: who notices?
#include "io/listener.h"
#include "lab/experiments.h"
#include "lab/picture.h"
#include "lab/statistics.h"

namespace ringmaster::lab {

using namespace std::chrono_literals;

namespace {

constexpr unsigned kServers = 4;
constexpr unsigned kSlowness = 20;
constexpr double kRate = 300;  // half of what the three fast ones can do

// Servers of our own, listed in the pool: the first is the slow one.
struct Servers {
  std::vector<std::unique_ptr<Program>> programs;
  std::string list;  // of their addresses, as TOML

  Result<void> start(Lab& lab) {
    for (unsigned i = 1; i <= kServers; ++i) {
      const auto port = io::free_port(lab.loop().system());
      if (!port) return std::unexpected(port.error());
      const std::string address = base::to_string(*port);
      auto program =
          Program::start(lab.loop(), {"replica", "--listen", address, "--server-id", std::to_string(i), "--slowness", std::to_string(i == 1 ? kSlowness : 1)});
      if (!program) return std::unexpected(program.error());
      programs.push_back(std::move(*program));
      list += (list.empty() ? "\"" : ", \"") + address + "\"";
    }
    return {};
  }
};

// Of all requests, the percentage that was sent to the slow one.
Async<double> sent_to_slow(Stack& stack) {
  const auto seen = co_await stack.replicas();
  double all = 0;
  double slow = 0;
  for (std::size_t i = 0; seen && i < seen->size(); ++i) {
    all += static_cast<double>((*seen)[i].requests);
    if ((*seen)[i].slot == 1) slow = static_cast<double>((*seen)[i].requests);
  }
  co_return all == 0 ? 0 : slow * 100 / all;
}

Async<Result<void>> measure(Lab& lab, const Servers& servers, std::string policy, Table& table, Section& section) {
  std::string settings = "servers = [" + servers.list + "]\nreplicas = 0\nslow_start = \"0ms\"\nhealth = {path = \"/heartbeat\"}\npolicy = \"" +
                         policy.substr(0, policy.find(' ')) + "\"\n";
  if (policy.starts_with("rendezvous")) settings += "key = \"request_id\"\nbounded_load = " + std::string(policy == "rendezvous" ? "0" : "1.25") + "\n";
  auto stack = co_await lab.stack(settings);
  if (!stack) co_return std::unexpected(stack.error());
  section.configured(policy, (*stack)->configuration());
  const std::string what = "slow, " + policy;
  LoadPlan plan = work_plan(lab, **stack, kRate, lab.choose(8s, 3s));
  const LoadResult load = co_await lab.load(std::move(plan), what, section, false);
  const double to_slow = co_await sent_to_slow(**stack);
  co_await (*stack)->stop();
  const auto waited = [&](double share) { return base::to_ms(load.waited.percentile(share)); };
  table.add({policy, cell(to_slow, 1), cell(waited(0.5), 1), cell(waited(0.9), 1), cell(waited(0.99), 1), cell(load.failed + load.refused + load.unfinished)});
  section.numbers[policy + ", 99 % waited ms"] = waited(0.99);
  section.numbers[policy + ", to the slow server %"] = to_slow;
  co_return Result<void>{};
}

}  // namespace

Async<Result<void>> slow(Lab& lab, Section& section) {
  const std::string patience = std::to_string(work_patience(lab).count());
  section.title = "One slow server";
  section.done =
      "Requests of 5 ms came at random times, 300 a second, to four servers that serve one at a time; one of them takes 20 times as long (100 ms) for each.";
  Servers servers;
  Result<void> outcome = servers.start(lab);
  Table table{"slow",
              "Each policy; waiting counts all requests, those too that were given up after " + patience + " s",
              {"policy", "to the slow server %", "median ms", "90 % ms", "99 % ms", "not answered"},
              {},
              true};
  for (const std::string policy : {"round_robin", "random", "rendezvous", "rendezvous bounded", "least_requests", "peak_ewma"}) {
    if (outcome && !lab.interrupted()) outcome = co_await measure(lab, servers, policy, table, section);
  }
  for (const auto& program : servers.programs) co_await program->stop();
  if (table.rows.size() == 6) {
    const auto& rows = table.rows;
    section.outcome = "99 % of the requests waited at most " + rows[0][4] + " ms by round_robin (" + rows[0][5] + " were given up after " + patience + " s), " +
                      rows[3][4] + " ms by rendezvous with bounded load, " + rows[4][4] + " ms by least_requests and " + rows[5][4] +
                      " ms by peak_ewma, which sent the slow server " + rows[5][1] + " % of them.";
    section.why =
        "The slow server can do 10 requests a second, 3 % of what comes; policies that look at no load send it a quarter, so that its line grows; "
        "least_requests sees that its requests stay, "
        "bounded load limits how many may be there, and peak_ewma knows how long they took before it sends the next.";
    section.pictures.push_back(
        {"slow", "One server of four is 20 times slower: how long requests wait, by policy",
         bars(table, "policy", {"median ms", "90 % ms", "99 % ms"}, {"", "milliseconds", false, true, "set xtics rotate by -25 left\n"})});
  }
  section.tables.push_back(std::move(table));
  co_return outcome;
}

}  // namespace ringmaster::lab
