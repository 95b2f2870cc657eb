#include "lab/lab.h"

#include <algorithm>
#include <cmath>

#include "lab/experiments.h"

namespace ringmaster::lab {

using namespace std::chrono_literals;

std::span<const Experiment> experiments() {
  static constexpr std::array kAll = {
      Experiment{"classic", "10,000 requests to three servers with the printed hash functions, timed", true, classic},
      Experiment{"distribution", "Requests per server, for each policy, against what it should be", true, distribution},
      Experiment{"scaling", "Two to six servers, and on to 1,000 by computation: how even, how fast", false, scaling},
      Experiment{"recovery", "Servers killed under load: what clients see, and how soon the next one serves", true, recovery},
      Experiment{"functions", "Hash functions and virtual servers of the slotted ring: how uneven, and why", false, functions},
      Experiment{"churn", "Keys that move when a server is added, removed or replaced", false, churn},
      Experiment{"phases", "Two busy servers, one stopped, and back: throughput and latency", false, phases},
      Experiment{"hotkey", "Keys of very different popularity, with and without bounded load", false, hotkey},
      Experiment{"slow", "One server 20 times slower than the others, for each policy", false, slow},
      Experiment{"overload", "From a tenth of the capacity to five times as much: what is served, and what is refused", false, overload},
  };
  return kAll;
}

std::string demo_servers(unsigned replicas) {
  return "command = [\"{ringmaster}\", \"replica\", \"--listen\", \"unix:{socket}\", \"--name\", \"{name}\"]\nhealth = {path = \"/heartbeat\"}\nslow_start = "
         "\"0ms\"\nreplicas = " +
         std::to_string(replicas) + "\n";
}

std::chrono::seconds work_patience(const Lab& lab) { return lab.choose(10s, 3s); }

LoadPlan work_plan(const Lab& lab, const Stack& stack, double rate, Duration duration) {
  LoadPlan plan;
  plan.target = stack.target("/work/" + cell(kWorkMs, 0));
  plan.arrivals = LoadPlan::Arrivals::poisson;
  plan.rate = rate;
  plan.duration = duration;
  plan.connections = 8000;
  plan.timeout = work_patience(lab);
  return plan;
}

std::uint64_t Lab::requests() const {
  if (settings_.requests != 0) return settings_.requests;
  return choose<std::uint64_t>(10000, 2000);
}

Async<Result<std::unique_ptr<Stack>>> Lab::stack(std::string pool) {
  if (settings_.target) co_return co_await Stack::join(loop_, interrupt_, *settings_.target, settings_.admin);
  co_return co_await Stack::start(loop_, interrupt_, std::move(pool));
}

Async<void> Lab::pause(Duration duration) { co_await interrupt_.until(loop_, loop_.now() + duration); }

static Async<void> show(io::Loop& loop, Progress& progress, const Load& load) {
  static constexpr Duration kEvery = 200ms;
  while (true) {
    const base::Code slept = co_await loop.sleep(kEvery);
    if (slept == base::Code::cancelled) co_return;
    progress.show(load);
  }
}

static std::string describe(const LoadResult& result) {
  std::string text = cell(result.good) + " good answers in " + cell(std::chrono::duration<double>(result.took).count(), 2) + " s, " + cell(result.rate(), 0) +
                     "/s, median " + cell(base::to_ms(result.latency.percentile(0.5))) + " ms, 99 % within " +
                     cell(base::to_ms(result.latency.percentile(0.99))) + " ms";
  if (result.refused + result.failed > 0) text += "; not good: " + result.describe_faults();
  if (result.unfinished > 0) text += "; unfinished: " + cell(result.unfinished);
  return text;
}

Async<LoadResult> Lab::load(LoadPlan plan, std::string what, Section& section, bool faults_matter) {
  plan.server_field = settings_.server_field;
  plan.seed = random_.next();
  Load load(loop_, std::move(plan), interrupt_);
  progress_.begin(what);
  io::Scope showing(loop_);
  showing.spawn(show(loop_, progress_, load));
  co_await load.run();
  showing.cancel();
  co_await showing.join();
  const LoadResult& result = load.result();
  progress_.end(what + ": " + describe(result));
  section.interrupted |= result.interrupted;
  if (!result.ended_because.empty() && faults_matter) section.faults.push_back(what + ": " + result.ended_because);
  if (faults_matter && result.refused + result.failed > 0) {
    section.faults.push_back(what + ": " + cell(result.refused + result.failed) + " of " + cell(result.sent) +
                             " requests were not answered well: " + result.describe_faults());
  }
  co_return result;
}

// Where what servers say of themselves and what the balancer has counted differ, one of them is wrong; unless others used it, too.
static void compare_counts(const Counts& counts, const std::vector<ReplicaSeen>& before, const std::vector<ReplicaSeen>& after, const std::string& what,
                           Section& section) {
  static constexpr double kTolerance = 0.01;
  static constexpr double kFew = 5;
  const auto differ = [](double a, double b) { return std::abs(a - b) > std::max(a, b) * kTolerance + kFew; };
  if (before.size() != after.size()) return;
  double all_sent = 0;
  for (std::size_t i = 0; i < after.size(); ++i) {
    if (before[i].name != after[i].name || before[i].pid != after[i].pid || before[i].requests > after[i].requests) return;  // replaced meanwhile
    all_sent += static_cast<double>(after[i].requests - before[i].requests);
  }
  if (differ(all_sent, static_cast<double>(counts.load.good))) return;  // others use it, too
  for (std::size_t i = 0; i < after.size(); ++i) {
    const auto sent = static_cast<double>(after[i].requests - before[i].requests);
    if (!differ(sent, static_cast<double>(counts.answers[i]))) continue;
    section.faults.push_back(what + ": " + cell(sent, 0) + " requests went to server " + std::to_string(after[i].slot) + ", but " + cell(counts.answers[i]) +
                             " answers say that they are from it: a server does not tell the truth about its id");
    return;
  }
}

Async<Result<Counts>> count_answers(Lab& lab, Stack& stack, std::uint64_t requests, std::string what, Section& section) {
  std::vector<ReplicaSeen> before;
  if (stack.has_admin()) {
    auto seen = co_await stack.replicas();
    if (!seen) co_return std::unexpected(seen.error());
    before = std::move(*seen);
  }
  std::map<std::string, std::uint64_t, std::less<>> by_server;
  LoadPlan plan;
  plan.target = stack.target("/home");
  plan.requests = requests;
  plan.check = [&](const Answer& answer) -> std::string {
    static constexpr std::size_t kServersMax = 10000;
    if (answer.server.empty()) return "an answer that does not name its server (--server-field tells where it does)";
    const auto known = by_server.find(answer.server);
    if (known != by_server.end()) {
      ++known->second;
    } else if (by_server.size() < kServersMax) {
      by_server.emplace(answer.server, 1);
    }
    return {};
  };
  Counts counts;
  counts.load = co_await lab.load(std::move(plan), what, section);
  for (const ReplicaSeen& replica : before) {
    counts.servers.push_back(std::to_string(replica.slot));
    std::uint64_t answers = 0;
    for (const std::string& id : {std::to_string(replica.slot), replica.name}) {
      const auto found = by_server.find(id);
      if (found == by_server.end()) continue;
      answers += found->second;
      by_server.erase(found);
    }
    counts.answers.push_back(answers);
  }
  for (const auto& [server, answers] : by_server) {
    if (stack.has_admin()) {
      std::string& fault = section.faults.emplace_back(what);
      fault.append(": ").append(cell(answers)).append(" answers say that they are from '").append(server).append("', and there is no such server");
      if (by_server.size() > 1) fault.append("; nor are ").append(std::to_string(by_server.size() - 1)).append(" others that were named");
      break;
    } else {
      counts.servers.push_back(server);
      counts.answers.push_back(answers);
    }
  }
  if (stack.has_admin() && counts.load.failed + counts.load.refused + counts.load.unfinished == 0) {
    const auto after = co_await stack.replicas();
    if (after) compare_counts(counts, before, *after, what, section);
  }
  co_return counts;
}

}  // namespace ringmaster::lab
