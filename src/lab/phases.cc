// S4's evaluation: 50 threads with 10 requests each, to servers that register themselves and whose processor is the limit;
// with two servers, with one of them stopped, and with it back.
#include <cmath>
#include <thread>

#include "io/listener.h"
#include "lab/experiments.h"
#include "lab/picture.h"
#include "lab/statistics.h"
#include "task/expression.h"

namespace ringmaster::lab {

using namespace std::chrono_literals;

namespace {

constexpr unsigned kThreads = 50;
constexpr unsigned kEach = 10;

// A server beside the Ringmaster, which announces itself to it.
struct Server {
  Endpoint at;
  std::unique_ptr<Program> program;
};

Result<void> start(Lab& lab, Server& server, const std::string& balancer) {
  if (server.at.family == Endpoint::Family::none) {
    const auto port = io::free_port(lab.loop().system());
    if (!port) return std::unexpected(port.error());
    server.at = *port;
  }
  const std::string id = std::to_string(server.at.port);
  auto program = Program::start(
      lab.loop(), {"replica", "--listen", base::to_string(server.at), "--server-id", id, "--name", "server-" + id, "--register", "http://" + balancer});
  if (!program) return std::unexpected(program.error());
  server.program = std::move(*program);
  return {};
}

std::uint64_t next_prime(std::uint64_t number) {
  number |= 1;
  while (!task::is_prime(number, [] { return false; })) number += 2;
  return number;
}

// The time that one request for /prime/n takes, as the median of some.
Async<double> time_of(Lab& lab, Stack& stack, std::uint64_t number, Section& section) {
  LoadPlan plan;
  plan.target = stack.target("/prime/" + std::to_string(number));
  plan.connections = 1;
  plan.requests = 5;
  plan.timeout = 60s;
  const std::string what = "phases, /prime/" + std::to_string(number) + " alone";
  const LoadResult load = co_await lab.load(std::move(plan), what, section);
  co_return base::to_ms(load.latency.percentile(0.5));
}

// A prime for which a request takes about `ms` here. Trial division takes as long as the number's root.
Async<std::uint64_t> calibrate(Lab& lab, Stack& stack, double ms, Section& section) {
  static constexpr std::uint64_t kFirst = 1000000007ULL * 1000;
  static constexpr int kRounds = 3;
  std::uint64_t number = next_prime(kFirst);
  for (int round = 0; round < kRounds && !lab.interrupted(); ++round) {
    const double took = co_await time_of(lab, stack, number, section);
    if (took <= 0) break;
    const double factor = ms / took;
    if (factor > 0.95 && factor < 1.05) break;
    number = next_prime(static_cast<std::uint64_t>(std::min(static_cast<double>(number) * factor * factor, 4e18)));
  }
  co_return number;
}

struct Phase {
  std::string name;
  LoadResult load;
};

Async<Phase> run_phase(Lab& lab, Stack& stack, std::string name, std::uint64_t number, Section& section) {
  LoadPlan plan;
  plan.target = stack.target("/prime/" + std::to_string(number));
  plan.connections = kThreads;
  plan.per_connection = kEach;
  plan.timeout = 120s;
  const std::string answer = "{\"number\":" + std::to_string(number) + ",\"prime\":true}";
  plan.check = [answer](const Answer& got) { return got.body == answer ? std::string() : std::string("an answer that is not right"); };
  const std::string what = "phases, " + name;
  Phase phase{std::move(name), {}};
  phase.load = co_await lab.load(std::move(plan), what, section);
  co_return phase;
}

// Waits until so many servers are ready to the balancer.
Async<Result<void>> until_active(Lab& lab, Stack& stack, const std::array<Server, 2>& servers, unsigned n) {
  static constexpr Duration kLongest = 30s;
  const Time deadline = lab.loop().now() + kLongest;
  while (true) {
    const auto seen = co_await stack.replicas();
    if (seen && std::ranges::count_if(*seen, &ReplicaSeen::ready) == n) co_return Result<void>{};
    if (lab.interrupted()) co_return base::fail(base::Code::cancelled);
    for (const Server& server : servers) {
      if (server.program && !server.program->running())
        co_return base::fail(base::Code::exited, "a server has ended; it said: " + server.program->last_words());
    }
    if (lab.loop().now() > deadline) co_return base::fail(base::Code::timeout, "the balancer does not see " + std::to_string(n) + " active servers");
    co_await lab.pause(20ms);
  }
}

Async<Result<void>> run_phases(Lab& lab, Stack& stack, std::array<Server, 2>& servers, double ms, std::vector<Phase>& phases, Table& table, Section& section) {
  const std::string balancer = base::to_string(stack.target("/").endpoint);
  const std::uint64_t number = co_await calibrate(lab, stack, ms, section);
  const double alone = co_await time_of(lab, stack, number, section);
  static constexpr double kNear = 0.15;
  if (std::abs(alone / ms - 1) > kNear)
    section.faults.push_back("one request takes " + cell(alone, 1) + " ms here, where " + cell(ms, 0) +
                             " ms were wanted: the machine is busy, or its speed changes");
  const std::string work = cell(ms, 0) + " ms";
  for (int i = 0; i < 3 && !lab.interrupted(); ++i) {
    static constexpr std::array kNames = {"two servers", "one stopped", "it is back"};
    if (i == 1) {  // killed, so that it cannot say good-bye: a health check has to find out
      servers[1].program->kill();
      co_await servers[1].program->stop();
      servers[1].program.reset();
    }
    if (i == 2) {
      const auto started = start(lab, servers[1], balancer);
      if (!started) co_return started;
    }
    const unsigned expected = i == 1 ? 1 : 2;
    const auto active = co_await until_active(lab, stack, servers, expected);
    if (!active) co_return active;
    const std::string name = work + ", " + kNames.at(static_cast<std::size_t>(i));
    Phase phase = co_await run_phase(lab, stack, name, number, section);
    const LoadResult& load = phase.load;
    const auto latency = [&](double share) { return cell(base::to_ms(load.latency.percentile(share)), 0); };
    table.add({work, std::to_string(i + 1), kNames.at(static_cast<std::size_t>(i)), std::to_string(number), cell(alone, 1), cell(load.good),
               std::to_string(kThreads * kEach), cell(std::chrono::duration<double>(load.took).count(), 1), cell(load.rate(), 2),
               cell(base::to_ms(load.latency.mean()), 0), latency(0.5), latency(0.99)});
    section.numbers[name + ", successful"] = load.good;
    section.numbers[name + ", requests per second"] = load.rate();
    phases.push_back(std::move(phase));
  }
  co_return Result<void>{};
}

void conclude(const std::vector<Phase>& phases, const Table& table, Section& section) {
  section.tables.push_back(table);
  if (phases.size() < 3) return;
  Table wide{"phases_rate", "", {"phase", "requests per second"}, {}, false};
  Table latency{"phases_latency", "", {"phase", "median", "99 %"}, {}, false};
  std::string sentence;
  for (std::size_t i = 0; i < phases.size(); ++i) {
    const LoadResult& load = phases[i].load;
    wide.add({phases[i].name, cell(load.rate(), 2)});
    latency.add({phases[i].name, cell(base::to_ms(load.latency.percentile(0.5)), 0), cell(base::to_ms(load.latency.percentile(0.99)), 0)});
    if (i % 3 != 2) continue;
    const double ratio = phases[i - 2].load.rate() <= 0 ? 0 : phases[i - 1].load.rate() / phases[i - 2].load.rate();
    const double back = phases[i - 2].load.rate() <= 0 ? 0 : phases[i].load.rate() / phases[i - 2].load.rate();
    sentence += (sentence.empty() ? "Work of " : "; work of ") + table.rows[i][0] + ": " + table.rows[i - 2][5] + ", " + table.rows[i - 1][5] + " and " +
                table.rows[i][5] + " of " + table.rows[i][6] + " requests were successful, at " + table.rows[i - 2][8] + ", " + table.rows[i - 1][8] + " and " +
                table.rows[i][8] + " a second, so one server did " + cell(ratio, 2) + " of what two did, and the two again " + cell(back, 2) +
                " of what they had done before";
  }
  section.outcome = sentence + ".";
  section.pictures.push_back({"phases", "Throughput with two servers, with one, and with two again",
                              bars(wide, "phase", {"requests per second"},
                                   {"", "requests per second", false, true, "set xtics rotate by -25 left\nset bmargin 7\nset rmargin 10\n"})});
  section.pictures.push_back({"phases_latency", "How long a request took (50 threads wait for the servers' processors)",
                              bars(latency, "phase", {"median", "99 %"}, {"", "milliseconds", false, true, "set xtics rotate by -25 left\nset bmargin 9\n"})});
  section.tables.push_back(std::move(wide));
  section.tables.push_back(std::move(latency));
}

}  // namespace

Async<Result<void>> phases(Lab& lab, Section& section) {
  section.title = "Two busy servers, one stopped, and back";
  const unsigned processors = std::thread::hardware_concurrency();
  section.done = std::string("50 threads sent 10 requests each for /prime/{n} to servers that register themselves, n chosen so that one request takes about ") +
                 lab.choose("50 and then 450", "5 and then 20") +
                 " ms here: with two servers, with one of them killed (and that found out by a health check), and with it back.";
  section.why =
      "Primes are found by trial division on one thread of each server, so a server is worth one processor, and this machine has " +
      std::to_string(processors) + ": " +
      (processors >= 2
           ? "one for each server, so that one does half of what two do, and a little more as far as the two share theirs with the balancer and the load"
           : "the two servers share it, so that one does nearly as much as both") +
      "; a request waits for those that came before it, so the mean latency is 50 threads divided by the throughput.";
  auto stack = co_await lab.stack(
      "replicas = 0\nslow_start = \"0ms\"\nhealth = {path = \"/health_check\", when = \"idle\", interval = \"200ms\"}\nregister = {from = "
      "[\"127.0.0.0/8\"]}\n\n[timeouts]\nresponse = \"120s\"\n");
  if (!stack) co_return std::unexpected(stack.error());
  section.configured("phases", (*stack)->configuration());
  std::array<Server, 2> servers;
  const std::string balancer = base::to_string((*stack)->target("/").endpoint);
  Result<void> outcome;
  for (Server& server : servers) {
    if (outcome) outcome = start(lab, server, balancer);
  }
  if (outcome) outcome = co_await until_active(lab, **stack, servers, 2);
  Table table{
      "phases",
      "Each phase",
      {"work", "phase", "servers", "n", "one request alone, ms", "successful", "of", "seconds", "requests per second", "mean ms", "median ms", "99 % ms"},
      {},
      true};
  std::vector<Phase> all;
  for (const double ms : {lab.choose(50.0, 5.0), lab.choose(450.0, 20.0)}) {
    if (!outcome || lab.interrupted()) break;
    outcome = co_await run_phases(lab, **stack, servers, ms, all, table, section);
  }
  for (Server& server : servers) {
    if (server.program) co_await server.program->stop();
  }
  co_await (*stack)->stop();
  conclude(all, table, section);
  co_return outcome;
}

}  // namespace ringmaster::lab
