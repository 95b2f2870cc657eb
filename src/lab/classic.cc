// 10,000 requests to three servers on the slotted ring with the printed functions, timed, as all the classic systems did.
#include "lab/experiments.h"
#include "lab/picture.h"
#include "lab/shares.h"
#include "lab/statistics.h"

namespace ringmaster::lab {

Async<Result<void>> classic(Lab& lab, Section& section) {
  static constexpr std::uint64_t kRequests = 10000;
  const std::uint64_t requests = lab.settings().requests == 0 ? kRequests : lab.settings().requests;
  const int rounds = lab.choose(5, 3);
  const Case ring = ring_case("s1", balance::Probing::linear);
  section.title = "So many requests to three servers, as the classic systems were tried";
  section.why =
      "Connections are kept and used again, and the balancer keeps its own to the servers, so that a request is a few system calls and no handshake; published "
      "runs of such "
      "systems took 15 to 52 s for 10,000.";
  auto stack = co_await lab.stack(demo_servers(3) + ring.settings);
  if (!stack) co_return std::unexpected(stack.error());
  section.configured("classic", (*stack)->configuration());
  const std::string where = (*stack)->ours() ? "three servers on the slotted ring with H(i) = i² + 2i + 17 and Φ(i,j) = i² + j² + 2j + 25, all on this machine"
                                             : "the Ringmaster at " + lab.settings().target->host;
  const std::string path = (*stack)->target("/home").path;
  Table runs{"classic", "Each run", {"run", "requests", "seconds", "requests per second", "median ms", "99 % ms", "failed"}, {}, true};
  std::vector<double> seconds;
  std::uint64_t good = 0;
  std::uint64_t sent = 0;
  Result<void> outcome;
  for (int round = 1; round <= rounds && !lab.interrupted(); ++round) {
    const std::string what = "classic, run " + std::to_string(round);
    const auto counts = co_await count_answers(lab, **stack, requests, what, section);
    if (!counts) {
      outcome = std::unexpected(counts.error());
      break;
    }
    const LoadResult& load = counts->load;
    good += load.good;
    sent += load.sent;
    seconds.push_back(std::chrono::duration<double>(load.took).count());
    runs.add({std::to_string(round), cell(load.good), cell(seconds.back()), cell(load.rate(), 0), cell(base::to_ms(load.latency.percentile(0.5))),
              cell(base::to_ms(load.latency.percentile(0.99))), cell(load.failed + load.refused)});
  }
  co_await (*stack)->stop();
  section.done = cell(requests) + " requests for " + path + " were sent over 64 connections to " + where + ", " + std::to_string(seconds.size()) + " times.";
  if (!seconds.empty()) {
    section.numbers["seconds"] = median(seconds);
    section.outcome = cell(good) + " of " + cell(sent) + " were answered well; a run took " + cell(median(seconds)) + " s (median).";
    section.pictures.push_back(
        {"classic", "Seconds for " + cell(requests) + " requests, each run", bars(runs, "run", {"seconds"}, {"run", "seconds", false, false, {}})});
  }
  section.tables.push_back(std::move(runs));
  co_return outcome;
}

}  // namespace ringmaster::lab
