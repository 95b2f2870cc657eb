#include "lab/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace ringmaster::lab {

Spread spread_of(const std::vector<double>& values) {
  if (values.empty()) return {};
  const auto n = static_cast<double>(values.size());
  Spread spread;
  spread.mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  double squares = 0;
  for (const double value : values) squares += (value - spread.mean) * (value - spread.mean);
  spread.deviation = std::sqrt(squares / n);
  spread.max_to_mean = spread.mean == 0 ? 0 : std::ranges::max(values) / spread.mean;
  return spread;
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::ranges::sort(values);
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double chi_square(const std::vector<std::uint64_t>& counts, const std::vector<double>& shares) {
  const auto total = static_cast<double>(std::accumulate(counts.begin(), counts.end(), std::uint64_t{0}));
  double sum = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const double expected = total * shares[i];
    const double off = static_cast<double>(counts[i]) - expected;
    if (expected > 0) {
      sum += off * off / expected;
    } else if (counts[i] > 0) {
      return std::numeric_limits<double>::infinity();
    }
  }
  return sum;
}

// Q(k/2, x/2), the incomplete gamma function, by its recurrence in steps of two degrees (Abramowitz and Stegun 26.4.8).
double chi_square_p(double value, unsigned degrees) {
  if (std::isinf(value)) return 0;
  const double half = value / 2;
  if (half <= 0) return 1;
  double p = degrees % 2 == 1 ? std::erfc(std::sqrt(half)) : std::exp(-half);
  for (double k = degrees % 2 == 1 ? 1 : 2; k < degrees; k += 2) {
    p += std::exp(k / 2 * std::log(half) - half - std::lgamma(k / 2 + 1));
  }
  return std::min(p, 1.0);
}

double goodness_of_fit(const std::vector<std::uint64_t>& counts, const std::vector<double>& shares) {
  const auto possible = std::ranges::count_if(shares, [](double share) { return share > 0; });
  const double value = chi_square(counts, shares);
  if (possible < 2) return std::isinf(value) ? 0 : 1;
  return chi_square_p(value, static_cast<unsigned>(possible) - 1);
}

bool is_chance(double least_p, std::size_t comparisons) {
  static constexpr double kSignificance = 0.001;
  return comparisons == 0 || least_p >= kSignificance / static_cast<double>(comparisons);
}

Zipf::Zipf(std::uint32_t n, double s) : up_to_(n) {
  double sum = 0;
  for (std::uint32_t rank = 0; rank < n; ++rank) up_to_[rank] = sum += std::pow(rank + 1.0, -s);
  for (double& share : up_to_) share /= sum;
}

std::uint32_t Zipf::draw(base::Random& random) const {
  const auto found = std::ranges::upper_bound(up_to_, random.unit());
  return static_cast<std::uint32_t>(std::min<std::ptrdiff_t>(found - up_to_.begin(), std::ssize(up_to_) - 1));
}

}  // namespace ringmaster::lab
