#include <gtest/gtest.h>

#include <map>
#include <set>

#include "balance/admission.h"
#include "balance/model.h"

namespace ringmaster::balance {
namespace {

using namespace std::chrono_literals;

constexpr base::Time kNow{std::chrono::hours(1)};

// How many of `picks` each slot got.
std::map<std::uint32_t, double> shares(Model& model, int picks) {
  std::map<std::uint32_t, double> got;
  for (int i = 0; i < picks; ++i) got[model.key_to(hash_of(std::to_string(i)))] += 1.0 / picks;
  return got;
}

class WeightedPolicy : public testing::TestWithParam<Policy> {};
INSTANTIATE_TEST_SUITE_P(All, WeightedPolicy, testing::Values(Policy::rendezvous, Policy::maglev, Policy::weighted, Policy::random));

TEST_P(WeightedPolicy, SpreadsInProportionToWeight) {
  Model model(GetParam(), 0);
  model.add(1, 1, 6);
  model.add(2, 1, 3);
  model.add(3, 1, 1);
  const auto got = shares(model, 60000);
  EXPECT_NEAR(got.at(1), 0.6, 0.01);
  EXPECT_NEAR(got.at(2), 0.3, 0.01);
  EXPECT_NEAR(got.at(3), 0.1, 0.01);
}

TEST(Ring, GivesAServerOfDoubleWeightTwiceTheVirtualServers) {
  Model model(Policy::ring, 0);
  model.add(1, 1, 2);
  model.add(2, 1, 1);
  std::map<std::uint32_t, int> seats;
  for (std::uint32_t slot = 0; slot < model.pool.ring->slots(); ++slot) ++seats[model.pool.ring->owner(slot)];
  EXPECT_EQ(seats[0], 18);
  EXPECT_EQ(seats[1], 9);
}

TEST(Rendezvous, ByWeightMovesOnlyWhatTheNewOneGets) {
  Model model(Policy::rendezvous, 0);
  for (std::uint32_t slot = 1; slot <= 4; ++slot) model.add(slot, 1, slot);
  std::map<std::uint64_t, std::uint32_t> before;
  for (std::uint64_t key = 0; key < 5000; ++key) before[key] = model.key_to(key);
  model.add(5, 1, 5);
  for (std::uint64_t key = 0; key < 5000; ++key) {
    const std::uint32_t now = model.key_to(key);
    EXPECT_TRUE(now == before[key] || now == 5) << key;
  }
}

TEST(Maglev, MovesFewKeysBesideThoseOfTheOneThatIsAdded) {
  Model model(Policy::maglev, 20);
  std::map<std::uint64_t, std::uint32_t> before;
  for (std::uint64_t key = 0; key < 20000; ++key) before[key] = model.key_to(key);
  model.add(21);
  int moved = 0;
  for (std::uint64_t key = 0; key < 20000; ++key) {
    const std::uint32_t now = model.key_to(key);
    moved += now != before[key] && now != 21 ? 1 : 0;
  }
  EXPECT_LT(moved, 20000 / 20);  // the paper's figure is a few per cent
}

TEST(Maglev, SpreadsTheKeysOfADeadReplicaOverAllOthers) {
  Model model(Policy::maglev, 10);
  std::set<std::uint32_t> heirs;
  std::vector<std::uint64_t> keys;
  for (std::uint64_t key = 0; key < 5000; ++key) {
    if (model.key_to(key) == 4) keys.push_back(key);
  }
  model.at(4).mark_exited();
  for (const std::uint64_t key : keys) heirs.insert(model.key_to(key));
  EXPECT_EQ(heirs.size(), 9U);
}

TEST(Weighted, TakesEvenlySpreadTurns) {
  Model model(Policy::weighted, 0);
  model.add(1, 1, 50);
  model.add(2, 1, 10);
  model.add(3, 1, 10);
  model.state.turn = 0;
  std::string order;
  for (int i = 0; i < 14; ++i) order += std::to_string(model.key_to(0));
  EXPECT_EQ(order, "11123111112311");
}

TEST(FirstAvailable, FillsOneAfterTheOther) {
  Model model(Policy::first_available, 3);
  model.pool.max_in_flight = 2;
  std::string order;
  std::vector<Ticket> tickets(6);
  for (Ticket& ticket : tickets) {
    Replica* picked = pick(model.pool, 0, {}, model.state);
    ASSERT_NE(picked, nullptr);
    ASSERT_TRUE(try_admit(model.pool, *picked, ticket));
    order += std::to_string(picked->slot);
  }
  EXPECT_EQ(order, "112233");
  EXPECT_EQ(pick(model.pool, 0, {}, model.state), nullptr);
  tickets[3].release();
  EXPECT_EQ(model.key_to(0), 2U);
}

TEST(LeastRequests, CountsWeights) {
  Model model(Policy::least_requests, 0);
  model.add(1, 1, 3);
  model.add(2, 1, 1);
  std::vector<Ticket> tickets(40);
  for (Ticket& ticket : tickets) ASSERT_TRUE(try_admit(model.pool, *pick(model.pool, 0, {}, model.state), ticket));
  EXPECT_EQ(model.at(1).in_flight(), 30U);
}

TEST(LeastRequests, DoesNotTakeAReplicaThatFailsAtOnceForAnIdleOne) {
  Model model(Policy::least_requests, 4);
  base::Time now = kNow;
  std::map<std::uint32_t, int> got;
  std::deque<std::pair<base::Time, Ticket>> busy;  // the others take 20 ms
  for (int i = 0; i < 20000; ++i, now += 100us) {
    while (!busy.empty() && busy.front().first <= now) busy.pop_front();
    model.state.now = now;
    Replica* picked = pick(model.pool, 0, {}, model.state);
    ++got[picked->slot];
    if (picked->slot == 2) {
      picked->averages.record(now, 50us, true);
    } else {
      Ticket ticket;
      ASSERT_TRUE(try_admit(model.pool, *picked, ticket));
      busy.emplace_back(now + 20ms, std::move(ticket));
    }
  }
  EXPECT_LT(got[2], 20000 / 50) << "2 s of requests: about one for each that is in flight elsewhere, and second";
}

TEST(LeastRequests, ForgivesAFailureWithinSecondsEvenWhenNobodyIsBusy) {
  Model model(Policy::least_requests, 2);
  model.at(1).averages.record(kNow, 50us, true);
  const auto share_of_it = [&](base::Duration later) {
    model.state.now = kNow + later;
    int picked = 0;
    for (int i = 0; i < 100; ++i) picked += pick(model.pool, 0, {}, model.state)->slot == 1 ? 1 : 0;
    return picked;
  };
  EXPECT_EQ(share_of_it(100ms), 0);
  EXPECT_EQ(share_of_it(5s), 50);
}

TEST(PeakEwma, PrefersTheFastAndTriesTheSlowAgain) {
  Model model(Policy::peak_ewma, 3);
  base::Time now = kNow;
  const auto serve = [&](int count) {
    int slow = 0;
    for (int i = 0; i < count; ++i, now += 10ms) {
      model.state.now = now;
      Replica* picked = pick(model.pool, 0, {}, model.state);
      slow += picked->slot == 1 ? 1 : 0;
      picked->averages.record(now, picked->slot == 1 ? 100ms : 5ms, false);
    }
    return slow;
  };
  serve(10);
  const int slow = serve(10000);  // 100 s
  EXPECT_GT(slow, 0);
  EXPECT_LT(slow, 100);
}

TEST(PeakEwma, ShunsAReplicaThatFailsFast) {
  Model model(Policy::peak_ewma, 3);
  base::Time now = kNow;
  int bad = 0;
  for (int i = 0; i < 5000; ++i, now += 1ms) {
    model.state.now = now;
    Replica* picked = pick(model.pool, 0, {}, model.state);
    bad += picked->slot == 3 ? 1 : 0;
    picked->averages.record(now, picked->slot == 3 ? 100us : 20ms, picked->slot == 3);
  }
  EXPECT_LT(bad, 50);
}

TEST(SlowStart, BeginsWithATenthOfTheShare) {
  for (const Policy policy : {Policy::random, Policy::round_robin, Policy::weighted}) {
    Model model(policy, 4);
    model.pool.slow_start = 10s;
    model.state.now = kNow;
    model.at(2).ready_since = kNow;
    EXPECT_NEAR(shares(model, 20000)[2], 0.1 / 3.1, 0.02) << name(policy);
    model.state.now = kNow + 5s;
    EXPECT_NEAR(shares(model, 20000)[2], 0.5 / 3.5, 0.03) << name(policy);
    model.state.now = kNow + 10s;
    EXPECT_NEAR(shares(model, 20000)[2], 0.25, 0.02) << name(policy);
  }
}

TEST(SlowStart, NeverAltersAHashingPolicy) {
  for (const Policy policy : {Policy::rendezvous, Policy::ring, Policy::maglev}) {
    Model model(policy, 4);
    std::map<std::uint64_t, std::uint32_t> before;
    for (std::uint64_t key = 0; key < 2000; ++key) before[key] = model.key_to(key);
    model.pool.slow_start = 10s;
    model.state.now = kNow;
    model.at(2).ready_since = kNow;
    for (std::uint64_t key = 0; key < 2000; ++key) ASSERT_EQ(model.key_to(key), before[key]);
  }
}

TEST(Panic, UsesAllThatLiveWhenFewerThanHalfAreHealthy) {
  Model model(Policy::random, 5);
  for (const std::uint32_t slot : {1U, 2U}) model.at(slot).set_phase(Phase::unhealthy);
  EXPECT_EQ(shares(model, 2000).size(), 3U);
  model.at(3).set_ejected(true);
  EXPECT_EQ(shares(model, 2000).size(), 5U);
  model.at(4).mark_exited();  // a process that has ended is no matter of opinion
  EXPECT_EQ(shares(model, 2000).size(), 4U);
  model.pool.panic_below_percent = 0;
  EXPECT_EQ(shares(model, 2000).size(), 1U);
}

TEST(Standing, KeepsThePoolsCountsExact) {
  Model model(Policy::random, 0);
  model.add(1, 1, 5);
  model.add(2, 1, 7);
  PoolStatus& status = *model.pool.status;
  EXPECT_EQ(status.ready_weight, 12U);
  model.at(2).set_ejected(true);
  EXPECT_EQ(status.ready, 1U);
  EXPECT_EQ(status.doubtful_weight, 7U);
  EXPECT_EQ(status.ejected, 1U);
  model.at(2).set_phase(Phase::unhealthy);
  EXPECT_EQ(status.doubtful, 1U);
  model.at(2).mark_exited();
  EXPECT_EQ(status.doubtful, 0U);
  model.remove(2);
  EXPECT_EQ(status.ejected, 0U);
  EXPECT_FALSE(model.at(1).change_phase(Phase::suspect, Phase::ready));
  EXPECT_EQ(status.ready, 1U);
  model.remove(1);
  EXPECT_EQ(status.ready_weight, 0U);
}

TEST(Scale, TenThousandReplicasAreWithinReachOfEveryPolicyButRendezvous) {
  for (const Policy policy : {Policy::maglev, Policy::least_requests, Policy::random}) {
    Model model(policy, 10000);
    std::set<std::uint32_t> seen;
    for (std::uint64_t key = 0; key < 50000; ++key) seen.insert(model.key_to(hash_of(std::to_string(key))));
    EXPECT_GT(seen.size(), 9500U) << name(policy);
  }
}

}  // namespace
}  // namespace ringmaster::balance
