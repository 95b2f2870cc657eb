// The few figures that experiments are judged by.
#pragma once

#include <cstdint>
#include <vector>

#include "base/random.h"

namespace ringmaster::lab {

// How evenly something is spread.
struct Spread {
  double mean = 0;
  double deviation = 0;    // standard deviation, of all values (not of a sample)
  double max_to_mean = 0;  // 1: perfectly even
};
Spread spread_of(const std::vector<double>& values);

double median(std::vector<double> values);  // 0 of none

// Pearson's chi-square of `counts` against the shares that were expected (which add up to 1). Infinite if something came
// that could not.
double chi_square(const std::vector<std::uint64_t>& counts, const std::vector<double>& shares);

// How often chance alone brings a chi-square of `value` or more, with so many degrees of freedom (at least 1).
double chi_square_p(double value, unsigned degrees);

// The same in one: of counts whose shares are expected; 1 when there is nothing to tell apart.
double goodness_of_fit(const std::vector<std::uint64_t>& counts, const std::vector<double>& shares);

// Whether the least likely of so many comparisons is still what chance brings: p at least 0.001 for all of them together
// (Bonferroni).
bool is_chance(double least_p, std::size_t comparisons);

// Ranks 0 … n-1, rank k drawn with a probability in proportion to 1 / (k+1)^s.
class Zipf {
 public:
  Zipf(std::uint32_t n, double s);
  std::uint32_t draw(base::Random& random) const;
  double share(std::uint32_t rank) const { return rank == 0 ? up_to_[0] : up_to_[rank] - up_to_[rank - 1]; }

 private:
  std::vector<double> up_to_;  // the shares of all ranks up to this
};

}  // namespace ringmaster::lab
