// Counts of durations on a log-linear scale: 128 steps to each doubling, so that a value is known to less than one per cent
// from a few nanoseconds to an hour (the scale of Gil Tene's HdrHistogram). A value; not shared between threads.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

#include "base/clock.h"

namespace ringmaster::base {

class Histogram {
 public:
  Histogram() : counts_(kBuckets) {}

  void record(Duration value) {
    const auto ns = static_cast<std::uint64_t>(std::max<std::int64_t>(value.count(), 0));
    ++counts_[bucket(ns)];
    ++total_;
    sum_ += static_cast<double>(ns);
  }
  std::uint64_t total() const { return total_; }

  // Exact; zero when there is none.
  Duration mean() const { return Duration(total_ == 0 ? 0 : static_cast<std::int64_t>(sum_ / static_cast<double>(total_))); }

  // The value that `share` (0 to 1) of all are at most, and at most 0.8 % more than that; zero when there is none.
  Duration percentile(double share) const {
    const auto wanted = static_cast<std::uint64_t>(share * static_cast<double>(total_));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i];
      if (seen > wanted || (seen == total_ && total_ > 0)) return Duration(highest(i));
    }
    return Duration::zero();
  }

  // Halves all counts: what is old weighs less and less.
  void age() {
    total_ = 0;
    sum_ /= 2;
    for (std::uint32_t& count : counts_) total_ += (count /= 2);
  }

 private:
  static constexpr unsigned kStepBits = 7;
  static constexpr unsigned kOctaves = 35;  // above the linear part: up to 2^42 ns
  static constexpr std::size_t kBuckets = (kOctaves + 1) << kStepBits;

  // Below 2^kStepBits each nanosecond has its own; above, an octave's leading bits choose the step.
  static std::size_t bucket(std::uint64_t ns) {
    if (ns < (1U << kStepBits)) return ns;
    const unsigned octave = static_cast<unsigned>(std::bit_width(ns)) - kStepBits - 1;
    const std::size_t index = (std::size_t{octave} << kStepBits) + (ns >> octave);
    return std::min(index, kBuckets - 1);
  }
  static std::int64_t highest(std::size_t index) {
    if (index < (2U << kStepBits)) return static_cast<std::int64_t>(index);
    const std::size_t octave = (index >> kStepBits) - 1;
    return static_cast<std::int64_t>((index - (octave << kStepBits) + 1) << octave) - 1;
  }

  std::vector<std::uint32_t> counts_;
  std::uint64_t total_ = 0;
  double sum_ = 0;  // ns
};

}  // namespace ringmaster::base
