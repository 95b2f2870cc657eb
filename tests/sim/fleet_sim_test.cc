// Simulated runs of the whole program, each from one seed. A failure prints the seed; SIM_SEED=n runs that one alone, and
// SIM_SEEDS=n runs n of them.
//
// What must hold in every run: every request is answered once or refused; no POST is executed twice; N is kept; no key
// moves between healthy slots; everything recovers and stops. And the same seed gives the same trace.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "scenario.h"

namespace ringmaster::sim {
namespace {

std::uint64_t setting(const char* name, std::uint64_t otherwise) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe)
  return value == nullptr ? otherwise : std::strtoull(value, nullptr, 10);
}

// Half of the seeds have a sound network, so that deaths alone explain what goes wrong in them.
Options options_for(std::uint64_t seed) {
  Options options;
  if (seed % 2 == 1) {
    options.faults.reset = 0.03;
    options.faults.half_close = 0.01;
    options.faults.delay_max = 5ms;
  }
  return options;
}

TEST(Simulation, HoldsItsInvariantsOverManySeeds) {
  const std::uint64_t one = setting("SIM_SEED", 0);
  const std::uint64_t first = one != 0 ? one : 1;
  const std::uint64_t last = one != 0 ? one : setting("SIM_SEEDS", 200);
  unsigned requests = 0;
  unsigned answered = 0;
  unsigned deaths = 0;
  unsigned changes = 0;
  unsigned keyed = 0;
  for (std::uint64_t seed = first; seed <= last; ++seed) {
    const Result result = run(seed, options_for(seed));
    requests += result.requests;
    answered += result.answered;
    deaths += result.deaths;
    changes += result.changes;
    keyed += result.keyed;
    for (const std::string& what : result.broken) ADD_FAILURE() << "seed " << seed << ": " << what;
    EXPECT_GT(result.answered, 50U) << "seed " << seed;
    EXPECT_GT(result.keyed, 10U) << "seed " << seed;
    if (HasFailure()) break;
  }
  std::printf("%lu seeds: %u requests, %u answered with 200, %u compared by key, %u deaths, %u changes of the set\n", last - first + 1, requests, answered,
              keyed, deaths, changes);
}

TEST(Simulation, GivesTheSameTraceForTheSameSeed) {
  std::set<std::uint64_t> hashes;
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    const std::uint64_t hash = run(seed, options_for(seed)).trace_hash;
    EXPECT_EQ(run(seed, options_for(seed)).trace_hash, hash) << "seed " << seed;
    hashes.insert(hash);
  }
  EXPECT_EQ(hashes.size(), 5U);
}

// Without deaths and faults nothing may fail at all.
TEST(Simulation, AnswersEverythingInACalmWorld) {
  Options calm;
  calm.replica_kills_per_s = calm.engine_kills_per_s = calm.master_kills_per_s = 0;
  const Result result = run(7, calm);
  EXPECT_TRUE(result.broken.empty());
  EXPECT_EQ(result.answered, result.requests);
}

}  // namespace
}  // namespace ringmaster::sim
