#include "balance/pick.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "balance/admission.h"
#include "balance/model.h"

namespace ringmaster::balance {
namespace {

constexpr std::uint64_t kKeys = 20000;

class HashingPolicy : public testing::TestWithParam<Policy> {};
INSTANTIATE_TEST_SUITE_P(All, HashingPolicy, testing::Values(Policy::rendezvous, Policy::ring, Policy::maglev));

TEST_P(HashingPolicy, KeepsKeysWhenAReplicaIsReplaced) {
  Model model(GetParam(), 5);
  std::map<std::uint64_t, std::uint32_t> before;
  for (std::uint64_t key = 0; key < kKeys; ++key) before[key] = model.key_to(key);
  model.add(3, 2);  // the next epoch of slot 3
  for (std::uint64_t key = 0; key < kKeys; ++key) ASSERT_EQ(model.key_to(key), before[key]);
}

TEST_P(HashingPolicy, MovesOnlyTheKeysOfAnUnhealthySlotAndGivesThemBack) {
  Model model(GetParam(), 5);
  std::map<std::uint64_t, std::uint32_t> before;
  for (std::uint64_t key = 0; key < kKeys; ++key) before[key] = model.key_to(key);
  model.at(2).set_phase(Phase::unhealthy);
  for (std::uint64_t key = 0; key < kKeys; ++key) {
    if (before[key] == 2) {
      ASSERT_NE(model.key_to(key), 2U);
    } else {
      ASSERT_EQ(model.key_to(key), before[key]);
    }
  }
  model.at(2).set_phase(Phase::ready);
  for (std::uint64_t key = 0; key < kKeys; ++key) ASSERT_EQ(model.key_to(key), before[key]);
}

TEST_P(HashingPolicy, TriesEveryReplicaOnceAndThenNobody) {
  Model model(GetParam(), 4);
  for (std::uint64_t key = 0; key < 100; ++key) {
    std::vector<Replica*> tried;
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t slot = model.key_to(key, tried);
      ASSERT_NE(slot, 0U);
      tried.push_back(&model.at(slot));
    }
    EXPECT_EQ(model.key_to(key, tried), 0U);
  }
}

TEST(Rendezvous, AddingOneMovesItsShareAndNothingBetweenOldSlots) {
  for (std::uint32_t n = 1; n <= 12; ++n) {
    Model model(Policy::rendezvous, n);
    std::map<std::uint64_t, std::uint32_t> before;
    for (std::uint64_t key = 0; key < kKeys; ++key) before[key] = model.key_to(hash_of(std::to_string(key)));
    model.add(n + 1);
    std::uint64_t moved = 0;
    for (std::uint64_t key = 0; key < kKeys; ++key) {
      const std::uint32_t now = model.key_to(hash_of(std::to_string(key)));
      if (now == before[key]) continue;
      ASSERT_EQ(now, n + 1) << "a key moved between old slots";
      ++moved;
    }
    const double p = 1.0 / (n + 1);
    const double sigma = std::sqrt(static_cast<double>(kKeys) * p * (1 - p));
    EXPECT_NEAR(static_cast<double>(moved), static_cast<double>(kKeys) * p, 5 * sigma) << n;
  }
}

TEST(Rendezvous, SpreadsSixDigitIdsEvenly) {
  Model model(Policy::rendezvous, 6);
  std::map<std::uint32_t, double> counts;
  base::Random random(3);
  for (int i = 0; i < 60000; ++i) ++counts[model.key_to(draw_request_id(random))];
  double chi = 0;
  for (const auto& [slot, count] : counts) chi += (count - 10000) * (count - 10000) / 10000;
  EXPECT_LT(chi, 20.5);  // 5 degrees of freedom, p = 0.001
}

TEST(RoundRobin, TakesTurnsAndSkipsTheUnhealthy) {
  Model model(Policy::round_robin, 3);
  EXPECT_EQ(model.key_to(0), 1U);
  EXPECT_EQ(model.key_to(0), 2U);
  EXPECT_EQ(model.key_to(0), 3U);
  model.at(1).set_phase(Phase::unhealthy);
  EXPECT_EQ(model.key_to(0), 2U);
  EXPECT_EQ(model.key_to(0), 3U);
  EXPECT_EQ(model.key_to(0), 2U);
}

TEST(LeastRequests, PrefersTheIdleAndCountsOtherGenerations) {
  Model model(Policy::least_requests, 3);
  Ticket one;
  Ticket two;
  ASSERT_TRUE(try_admit(model.pool, model.at(1), one));
  ASSERT_TRUE(try_admit(model.pool, model.at(2), two));
  EXPECT_EQ(model.key_to(0), 3U);
  Cell draining{};
  model.at(3).other_cells.push_back(&draining);
  draining.in_flight = 2;
  EXPECT_EQ(model.at(3).in_flight(), 2U);
  EXPECT_NE(model.key_to(0), 3U);
}

TEST(LeastRequests, FindsTheOnlyReadyOneOfMany) {
  Model model(Policy::least_requests, 40);
  for (std::uint32_t slot = 1; slot <= 40; ++slot) model.at(slot).set_phase(slot == 33 ? Phase::ready : Phase::starting);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(model.key_to(0), 33U);
}

TEST(Pick, FindsNobodyInAnEmptyPool) {
  for (const Policy policy : {Policy::rendezvous, Policy::ring, Policy::maglev, Policy::least_requests, Policy::peak_ewma, Policy::round_robin,
                              Policy::weighted, Policy::random, Policy::first_available}) {
    Model model(policy, 0);
    EXPECT_EQ(model.key_to(7), 0U);
  }
}

TEST(Key, IsReadFromText) {
  EXPECT_EQ(Key::parse("header:X-User")->name, "X-User");
  EXPECT_EQ(Key::parse("request_id")->kind, Key::Kind::request_id);
  EXPECT_FALSE(Key::parse("header:").has_value());
  EXPECT_FALSE(Key::parse("colour").has_value());
}

}  // namespace
}  // namespace ringmaster::balance
