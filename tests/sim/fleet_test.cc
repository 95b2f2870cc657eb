// The fleet alone, with simulated processes: when it starts which again. Time is simulated, so a minute costs nothing.
#include <gtest/gtest.h>

#include <csignal>

#include "base/log.h"
#include "programs.h"
#include "supervise/process_runtime.h"

namespace ringmaster::sim {
namespace {

// A process that does nothing, and ends by itself after `life`.
class Mortal final : public io::SimProgram {
 public:
  Mortal(io::SimProcess& process, Duration life) : loop_(process.loop()) { loop_.root().spawn(live(life)); }
  void kill() override { loop_.root().cancel(); }
  bool ended() const override { return ended_; }

 private:
  Async<void> live(Duration life) {
    co_await loop_.sleep(life);
    ended_ = true;
  }
  io::Loop& loop_;
  bool ended_ = false;
};

class FleetProgram final : public io::SimProgram {
 public:
  FleetProgram(io::SimProcess& process, const config::Config& config, std::vector<Time>& starts)
      : loop(process.loop()),
        state(*supervise::StateFile::open(*process.systems[0], "/s")),
        runtime(loop, "/s/run"),
        fleet(loop, config, {&runtime, nullptr, nullptr}, state,
              {[this, &starts](std::uint64_t, const link::ReplicaState& r) {
                 if (r.state == link::State::running) {
                   starts.push_back(loop.now());
                   // As an engine would report it.
                   fleet.health({r.pool, r.slot, r.epoch, true});
                 }
               },
               [](std::uint32_t) { return supervise::Work{}; }}) {
    fleet.seat_all(*state.load());
    fleet.start();
  }
  void kill() override { loop.root().spawn(end()); }
  bool ended() const override { return ended_; }
  Async<void> end() {
    const bool wound_up = co_await fleet.stop();
    CHECK(wound_up);
    ended_ = true;
  }
  io::Loop& loop;
  supervise::StateFile state;
  supervise::ProcessRuntime runtime;
  supervise::Fleet fleet;
  bool ended_ = false;
};

// The pauses, in milliseconds, between the starts of one server whose lives are as given (the last one repeats).
std::vector<double> pauses(const std::vector<Duration>& lives, Duration watched) {
  base::log::set_level(base::log::Level::off);
  auto parsed = config::parse("t", "[[listener]]\naddress=\"127.0.0.1:1\"\npool=\"web\"\n[pool.web]\ncommand=[\"mortal\",\"{socket}\"]\n");
  const config::Config config = std::get<config::Config>(parsed);
  std::vector<Time> starts;
  std::size_t born = 0;
  io::SimWorld world(5, {});
  world.install("mortal", [&](io::SimProcess& p) { return std::make_unique<Mortal>(p, lives[std::min(born++, lives.size() - 1)]); });
  world.install("fleet", [&](io::SimProcess& p) { return std::make_unique<FleetProgram>(p, config, starts); });
  io::SpawnRequest request;
  request.argv = {"fleet"};
  (void)world.spawn(nullptr, request);
  world.run([] { return false; }, world.now() + watched);
  std::vector<double> between;
  for (std::size_t i = 1; i < starts.size(); ++i) {
    between.push_back(base::to_ms(starts[i] - starts[i - 1]) - base::to_ms(lives[std::min(i - 1, lives.size() - 1)]));
  }
  return between;
}

TEST(Fleet, RestartsAtOnceAndBacksOffFromTheThirdEarlyDeath) {
  const std::vector<double> between = pauses({1ms}, 120s);
  ASSERT_GE(between.size(), 10U);
  EXPECT_LT(between[0], 10);
  EXPECT_LT(between[1], 10);
  double expected = 100;  // doubling, with a quarter of jitter either way, up to 30 s
  for (std::size_t i = 2; i < between.size(); ++i, expected = std::min(expected * 2, 30000.0)) {
    EXPECT_GT(between[i], expected * 0.74) << i;
    EXPECT_LT(between[i], expected * 1.26 + 20) << i;
  }
}

// Both are due in the same turn of the loop: max_unavailable (a quarter of five) allows for one.
TEST(Fleet, OfTwoThatAreIllSinceTheSameMomentOneIsReplacedAfterTheOther) {
  base::log::set_level(base::log::Level::off);
  auto parsed = config::parse("t",
                              "[[listener]]\naddress=\"127.0.0.1:1\"\npool=\"web\"\n[pool.web]\ncommand=[\"mortal\",\"{socket}\"]\nreplicas=5\n"
                              "[pool.web.health]\npath=\"/\"\nkill_after=\"1s\"\n");
  const config::Config config = std::get<config::Config>(parsed);
  std::vector<Time> starts;
  FleetProgram* program = nullptr;
  io::SimWorld world(5, {});
  world.install("mortal", [](io::SimProcess& p) { return std::make_unique<Mortal>(p, 1h); });
  world.install("fleet", [&](io::SimProcess& p) {
    auto made = std::make_unique<FleetProgram>(p, config, starts);
    program = made.get();
    return made;
  });
  io::SpawnRequest request;
  request.argv = {"fleet"};
  (void)world.spawn(nullptr, request);
  ASSERT_TRUE(world.run([&] { return starts.size() == 5; }, world.now() + 10s));
  for (const std::uint32_t slot : {2U, 4U}) program->fleet.health({"web", slot, program->fleet.snapshot().replicas[slot - 1].epoch, false});
  ASSERT_TRUE(world.run([&] { return starts.size() == 7; }, world.now() + 10s));
  EXPECT_GE(starts[6] - starts[5], 50ms);
}

TEST(Fleet, ADeathAfterHalfASecondOfServiceIsNotEarly) {
  for (const double pause : pauses({600ms}, 30s)) EXPECT_LT(pause, 10);
}

TEST(Fleet, TenSecondsOfServiceForgetTheBackOff) {
  // Four early deaths, a long life, early deaths again: the pauses begin anew.
  const std::vector<double> between = pauses({1ms, 1ms, 1ms, 1ms, 11s, 1ms}, 60s);
  ASSERT_GE(between.size(), 8U);
  EXPECT_GT(between[3], 140);
  EXPECT_LT(between[4], 10);
  EXPECT_LT(between[5], 10);
  EXPECT_LT(between[6], 10);
  EXPECT_GT(between[7], 70);
  EXPECT_LT(between[7], 150);
}

}  // namespace
}  // namespace ringmaster::sim
