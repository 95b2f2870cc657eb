#include "io/timer_wheel.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "base/random.h"

namespace ringmaster::io {
namespace {

using namespace std::chrono_literals;
using base::Time;

struct Recorder final : Timer {
  std::vector<int>* fired = nullptr;
  int id = 0;
  void fire() override { fired->push_back(id); }
};

TEST(TimerWheel, FiresInOrderAndNeverEarly) {
  const Time start{};
  TimerWheel wheel(start);
  std::vector<int> fired;
  Recorder late;
  late.fired = &fired;
  late.id = 2;
  Recorder soon;
  soon.fired = &fired;
  soon.id = 1;
  wheel.set(late, start + 70ms);
  wheel.set(soon, start + 3ms);
  EXPECT_EQ(wheel.next(), start + 3ms);
  wheel.advance(start + 2ms);
  EXPECT_TRUE(fired.empty());
  wheel.advance(start + 3ms);
  EXPECT_EQ(fired, std::vector<int>({1}));
  wheel.advance(start + 69ms);
  EXPECT_EQ(fired.size(), 1U);
  wheel.advance(start + 70ms);
  EXPECT_EQ(fired, std::vector<int>({1, 2}));
  EXPECT_EQ(wheel.next(), base::kNever);
}

TEST(TimerWheel, AClearedTimerDoesNotFire) {
  TimerWheel wheel(Time{});
  std::vector<int> fired;
  Recorder timer;
  timer.fired = &fired;
  wheel.set(timer, Time{} + 5ms);
  TimerWheel::clear(timer);
  wheel.advance(Time{} + 1s);
  EXPECT_TRUE(fired.empty());
}

// Against a plain model: many random timers over all levels, advanced in random steps.
TEST(TimerWheel, AgreesWithASortedListOverAllLevels) {
  base::Random random(7);
  for (int round = 0; round < 50; ++round) {
    Time now = Time{} + base::Duration(static_cast<std::int64_t>(random.next() % 1'000'000'000'000ULL));
    TimerWheel wheel(now);
    std::vector<int> fired;
    std::vector<std::unique_ptr<Recorder>> timers;
    std::vector<Time> due;
    for (int i = 0; i < 60; ++i) {
      timers.push_back(std::make_unique<Recorder>());
      timers.back()->fired = &fired;
      timers.back()->id = i;
      const auto reach = std::chrono::milliseconds(1ULL << random.below(34));
      due.push_back(now + std::chrono::milliseconds(1 + static_cast<std::int64_t>(random.next() % static_cast<std::uint64_t>(reach.count()))));
      wheel.set(*timers.back(), due.back());
    }
    while (wheel.next() != base::kNever) {
      // In simulated time one may jump straight to next(); a real loop also wakes in between.
      now = random.below(2) == 0 ? wheel.next() : now + std::chrono::milliseconds(random.below(1U << random.below(30)));
      wheel.advance(now);
      std::size_t expected = 0;
      for (const Time t : due) expected += t <= now ? 1 : 0;
      EXPECT_EQ(fired.size(), expected);
      for (const int id : fired) EXPECT_LE(due[static_cast<std::size_t>(id)], now);
    }
    EXPECT_EQ(fired.size(), timers.size());
  }
}

}  // namespace
}  // namespace ringmaster::io
