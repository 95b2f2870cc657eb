// Keys of very different popularity (Zipf), by each hashing policy, with and without bounded load (Mirrokni, Thorup and
// Zadimoghaddam, 2016).
#include "lab/experiments.h"
#include "lab/picture.h"
#include "lab/shares.h"
#include "lab/statistics.h"

namespace ringmaster::lab {

using namespace std::chrono_literals;

Async<Result<void>> hotkey(Lab& lab, Section& section) {
  static constexpr unsigned kServers = 4;
  static constexpr std::uint32_t kKeys = 1000;
  static constexpr double kExponent = 1.2;
  static constexpr double kWorkMs = 5;
  static constexpr double kOffered = 0.6;
  const double capacity = kServers * 1000 / kWorkMs;
  const Zipf zipf(kKeys, kExponent);
  section.title = "Hot keys, and bounded load";
  section.done = "1,000 keys, of which the most popular has " + cell(zipf.share(0) * 100, 0) +
                 " % of all requests (Zipf, exponent 1.2), were asked for at random times at " + cell(kOffered * 100, 0) +
                 " % of what four servers can do, each of which takes 5 ms for a request and serves one at a time.";
  Table table{"hotkey", "Each policy", {"policy", "bounded load", "busiest server %", "requests per second", "median ms", "99 % ms", "unfinished"}, {}, true};
  Table shares{"hotkey_latency", "", {"policy", "without bound", "bounded load 1.25"}, {}, false};
  Result<void> outcome;
  for (const std::string policy : {"rendezvous", "maglev", "ring"}) {
    std::vector<std::string> row = {policy};
    for (const std::string bound : {"0", "1.25"}) {
      if (lab.interrupted() || !outcome) break;
      auto stack = co_await lab.stack(demo_servers(kServers) + "policy = \"" + policy + "\"\nkey = \"query:i\"\nbounded_load = " + bound + "\n" +
                                      (policy == "ring" ? "[pool.web.ring]\nfunctions = \"xxhash\"\n" : ""));
      if (!stack) {
        outcome = std::unexpected(stack.error());
        break;
      }
      section.configuration = (*stack)->configuration();
      std::map<std::string, double, std::less<>> answers;
      LoadPlan plan;
      plan.target = (*stack)->target("/work/5");
      plan.arrivals = LoadPlan::Arrivals::poisson;
      plan.rate = capacity * kOffered;
      plan.connections = 4000;
      plan.duration = lab.choose(8s, 2s);
      plan.path_of = [&](std::uint64_t) { return "/work/5?i=" + std::to_string(zipf.draw(lab.random())); };
      plan.check = [&](const Answer& answer) {
        ++answers[std::string(answer.server)];
        return std::string();
      };
      const std::string what = "hotkey, " + policy + (bound == "0" ? ", not bounded" : ", bounded load 1.25");
      const LoadResult load = co_await lab.load(std::move(plan), what, section);
      co_await (*stack)->stop();
      double busiest = 0;
      for (const auto& [server, count] : answers) busiest = std::max(busiest, count);
      const double share = load.good == 0 ? 0 : busiest * 100 / static_cast<double>(load.good);
      const double p99 = base::to_ms(load.latency.percentile(0.99));
      table.add({policy, bound == "0" ? "none" : bound, cell(share, 1), cell(load.rate(), 0), cell(base::to_ms(load.latency.percentile(0.5)), 1), cell(p99, 1),
                 cell(load.unfinished)});
      row.push_back(cell(p99, 1));
      const std::string name = policy + (bound == "0" ? ", not bounded" : ", bounded");
      section.numbers[name + ", 99 % ms"] = p99;
      section.numbers[name + ", busiest server %"] = share;
    }
    if (row.size() == 3) shares.add(std::move(row));
  }
  if (!shares.rows.empty()) {
    section.outcome = "By rendezvous hashing the busiest server got " + table.rows[0][2] + " % of the requests without a bound and " + table.rows[1][2] +
                      " % with bounded load, and 99 % were answered within " + table.rows[0][5] + " ms and " + table.rows[1][5] + " ms.";
    section.why =
        "Without a bound all requests of the hot key go to one server, which has no more than a quarter of the capacity, so its queue grows for as long as the "
        "load lasts; "
        "bounded load sends on to the key's next server whatever would give one more than 1.25 times its share of what is in flight.";
    section.pictures.push_back({"hotkey", "99 % of requests are answered within: hot keys, with and without bounded load",
                                bars(shares, "policy", {"without bound", "bounded load 1.25"}, {"", "milliseconds", false, true, {}})});
  }
  section.tables.push_back(std::move(table));
  section.tables.push_back(std::move(shares));
  co_return outcome;
}

}  // namespace ringmaster::lab
