#include "lab/statistics.h"

#include <gtest/gtest.h>

#include <cmath>

namespace ringmaster::lab {
namespace {

TEST(Statistics, TellHowEvenlySomethingIsSpread) {
  const Spread spread = spread_of({2, 4, 4, 4, 5, 5, 7, 9});
  EXPECT_DOUBLE_EQ(spread.mean, 5);
  EXPECT_DOUBLE_EQ(spread.deviation, 2);
  EXPECT_DOUBLE_EQ(spread.max_to_mean, 1.8);
  EXPECT_DOUBLE_EQ(spread_of({}).mean, 0);
  EXPECT_DOUBLE_EQ(median({3, 1, 2}), 2);
  EXPECT_DOUBLE_EQ(median({4, 1, 2, 3}), 2.5);
  EXPECT_DOUBLE_EQ(median({}), 0);
}

// Critical values from printed tables of the chi-square distribution.
TEST(Statistics, AgreeWithTheTablesOfChiSquare) {
  struct Row {
    unsigned degrees;
    double value;
    double p;
  };
  for (const Row& row : {Row{1, 3.841, 0.05}, Row{1, 10.828, 0.001}, Row{2, 5.991, 0.05}, Row{3, 11.345, 0.01}, Row{5, 11.070, 0.05}, Row{10, 18.307, 0.05},
                         Row{11, 31.264, 0.001}, Row{55, 73.311, 0.05}, Row{100, 124.342, 0.05}}) {
    EXPECT_NEAR(chi_square_p(row.value, row.degrees), row.p, row.p * 0.01) << row.degrees;
  }
  EXPECT_DOUBLE_EQ(chi_square_p(0, 4), 1);
}

TEST(Statistics, JudgeCountsByTheirShares) {
  EXPECT_DOUBLE_EQ(chi_square({60, 40}, {0.5, 0.5}), 4);
  EXPECT_NEAR(goodness_of_fit({60, 40}, {0.5, 0.5}), 0.0455, 0.0001);
  EXPECT_DOUBLE_EQ(goodness_of_fit({10, 0}, {1, 0}), 1);  // nothing to tell apart
  EXPECT_DOUBLE_EQ(goodness_of_fit({9, 1}, {1, 0}), 0);   // what came cannot be
  EXPECT_DOUBLE_EQ(goodness_of_fit({5, 5, 1}, {0.5, 0.5, 0}), 0);
}

TEST(Zipf, DrawsRanksByTheirShare) {
  const Zipf zipf(3, 1);  // 1 : 1/2 : 1/3
  EXPECT_NEAR(zipf.share(0), 6.0 / 11, 1e-12);
  EXPECT_NEAR(zipf.share(1), 3.0 / 11, 1e-12);
  base::Random random(3);
  std::vector<std::uint64_t> counts(3);
  for (int i = 0; i < 30000; ++i) ++counts[zipf.draw(random)];
  EXPECT_GT(goodness_of_fit(counts, {6.0 / 11, 3.0 / 11, 2.0 / 11}), 0.0001);
}

}  // namespace
}  // namespace ringmaster::lab
