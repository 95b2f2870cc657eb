#include "dispatch/steady_clock.h"

#include <gtest/gtest.h>

namespace ringmaster::dispatch {
namespace {

using namespace std::chrono_literals;

constexpr task::Millis kStart = 1'800'000'000'000;
constexpr task::Millis kDay = 86'400'000;

TEST(SteadyClock, DoesNotFollowAStepThatIsTakenBack) {
  SteadyClock clock;
  const base::Time begun{};
  EXPECT_EQ(clock.read(kStart, begun), kStart);
  EXPECT_EQ(clock.read(kStart + 2000, begun + 2s), kStart + 2000);
  EXPECT_EQ(clock.read(kStart + 8 * kDay, begun + 4s), kStart + 4000);
  EXPECT_EQ(clock.read(kStart + 6000, begun + 6s), kStart + 6000);
}

TEST(SteadyClock, BelievesAStepThatLasts) {
  SteadyClock clock;
  const base::Time begun{};
  clock.read(kStart, begun);
  for (int minute = 1; minute <= 60; ++minute) {
    EXPECT_EQ(clock.read(kStart + kDay + minute * 60'000, begun + minute * 1min), kStart + minute * 60'000);
  }
  EXPECT_EQ(clock.read(kStart + kDay + 61 * 60'000, begun + 61min), kStart + kDay + 61 * 60'000);
}

TEST(SteadyClock, FollowsAClockThatIsSlewed) {
  SteadyClock clock;
  const base::Time begun{};
  clock.read(kStart, begun);
  EXPECT_EQ(clock.read(kStart + 2500, begun + 2s), kStart + 2500);
}

}  // namespace
}  // namespace ringmaster::dispatch
