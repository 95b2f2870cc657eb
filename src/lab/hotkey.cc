// Keys of very different popularity (Zipf), by each hashing policy, with and without bounded load (Mirrokni, Thorup and
// Zadimoghaddam, 2016).
#include "lab/experiments.h"
#include "lab/picture.h"
#include "lab/statistics.h"

namespace ringmaster::lab {

using namespace std::chrono_literals;

namespace {

constexpr unsigned kServers = 4;
constexpr std::uint32_t kKeys = 1000;
constexpr double kExponent = 1.3;
constexpr double kCapacity = 1000 / kWorkMs;  // of a server, requests a second
constexpr double kOffered = 0.7;              // of what all can do

struct Found {
  double busiest_percent = 0;
  double p99_ms = 0;  // of all requests, whether they were answered or not
  LoadResult load;
};

Async<Found> measure(Lab& lab, Stack& stack, std::string what, Section& section) {
  const Zipf zipf(kKeys, kExponent);
  std::map<std::string, double, std::less<>> answers;
  LoadPlan plan = work_plan(lab, stack, kServers * kCapacity * kOffered, lab.choose(8s, 3s));
  plan.path_of = [&, path = plan.target.path](std::uint64_t) { return path + "?i=" + std::to_string(zipf.draw(lab.random())); };
  plan.check = [&](const Answer& answer) {
    if (answer.status == 200) ++answers[std::string(answer.server)];
    return std::string();
  };
  Found found;
  found.load = co_await lab.load(std::move(plan), what, section);
  double busiest = 0;
  for (const auto& [server, count] : answers) busiest = std::max(busiest, count);
  found.busiest_percent = found.load.good == 0 ? 0 : busiest * 100 / static_cast<double>(found.load.good);
  found.p99_ms = base::to_ms(found.load.waited.percentile(0.99));
  co_return found;
}

}  // namespace

Async<Result<void>> hotkey(Lab& lab, Section& section) {
  const std::string patience = std::to_string(work_patience(lab).count());
  section.title = "Hot keys, and bounded load";
  section.done = "1,000 keys, of which the most popular has " + cell(Zipf(kKeys, kExponent).share(0) * 100, 0) +
                 " % of all requests (Zipf, exponent 1.3), were asked for at random times at " + cell(kOffered * 100, 0) +
                 " % of what four servers can do, each of which takes 5 ms for a request and serves one at a time.";
  Table table{"hotkey",
              "Each policy; waiting counts all requests, those too that were given up after " + patience + " s",
              {"policy", "bounded load", "busiest server %", "answered per second", "waited: median ms", "waited: 99 % ms", "not answered"},
              {},
              true};
  Table waiting{"hotkey_waiting", "", {"policy", "without bound", "bounded load 1.25"}, {}, false};
  Result<void> outcome;
  for (const std::string policy : {"rendezvous", "maglev", "ring"}) {
    std::vector<std::string> row = {policy};
    for (const std::string bound : {"0", "1.25"}) {
      if (lab.interrupted() || !outcome) break;
      std::string settings = demo_servers(kServers) + "key = \"query:i\"\n";
      settings.append("policy = \"").append(policy).append("\"\nbounded_load = ").append(bound).append("\n");
      if (policy == "ring") settings += "[pool.web.ring]\nfunctions = \"xxhash\"\n";
      auto stack = co_await lab.stack(settings);
      if (!stack) {
        outcome = std::unexpected(stack.error());
        break;
      }
      const std::string name = policy + (bound == "0" ? ", not bounded" : ", bounded load 1.25");
      section.configured(name, (*stack)->configuration());
      const std::string what = "hotkey, " + name;
      const Found found = co_await measure(lab, **stack, what, section);
      co_await (*stack)->stop();
      table.add({policy, bound == "0" ? "none" : bound, cell(found.busiest_percent, 1), cell(found.load.rate(), 0),
                 cell(base::to_ms(found.load.waited.percentile(0.5)), 1), cell(found.p99_ms, 1),
                 cell(found.load.unfinished + found.load.failed + found.load.refused)});
      row.push_back(cell(found.p99_ms, 1));
      section.numbers[name + ", 99 % waited ms"] = found.p99_ms;
      section.numbers[name + ", busiest server %"] = found.busiest_percent;
    }
    if (row.size() == 3) waiting.add(std::move(row));
  }
  if (!waiting.rows.empty()) {
    section.outcome = "By rendezvous hashing the busiest server got " + table.rows[0][2] + " % of the requests without a bound and " + table.rows[1][2] +
                      " % with bounded load, and 99 % of the requests waited at most " + table.rows[0][5] + " ms and " + table.rows[1][5] + " ms.";
    section.why =
        "A server is a quarter of the capacity, and 36 % of what is offered is all that it can do: one that gets more has a line that grows for as long as the "
        "load lasts; "
        "bounded load sends on to the key's next server whatever would give one more than 1.25 times its share of what is in flight.";
    section.pictures.push_back({"hotkey", "Hot keys: how long 99 % of the requests wait at most, with and without bounded load",
                                bars(waiting, "policy", {"without bound", "bounded load 1.25"}, {"", "milliseconds", false, true, {}})});
  }
  section.tables.push_back(std::move(table));
  section.tables.push_back(std::move(waiting));
  co_return outcome;
}

}  // namespace ringmaster::lab
