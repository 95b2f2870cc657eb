// What a replica's recent answers tell of it: how long they took, and how many failed. Written by all workers without
// locks: when two write at once one sample is lost, which an average can bear.
//
// What is old decays by 1 / (1 + t/4τ)⁴: an exponential's cheap cousin, with the same start and no call of exp().
#pragma once

#include <algorithm>
#include <atomic>

#include "base/clock.h"

namespace ringmaster::balance {

class Averages {
 public:
  // An answer came after `latency`, or a failure. A failure counts as an answer that took a second (or what it did take),
  // or a replica that fails at once would look like the fastest of all.
  void record(base::Time now, base::Duration latency, bool failed) {
    const double at = seconds(now.time_since_epoch());
    if (failed) {
      latency = std::max<base::Duration>(latency, kFailureCost);
      phantoms_.store(decayed(phantoms_, phantoms_at_, at, kPhantomDecay) + 1, std::memory_order_relaxed);
      phantoms_at_.store(at, std::memory_order_relaxed);
    }
    // Peaks are taken over at once, falls are averaged (Twitter Finagle's PeakEwma).
    const double sample = seconds(latency);
    const double old = latency_.load(std::memory_order_relaxed);
    const double age = std::max(0.0, at - latency_at_.load(std::memory_order_relaxed));
    const double weight = age / (age + kLatencyDecay);
    latency_.store(sample > old ? sample : old + (sample - old) * std::max(weight, kLeastWeight), std::memory_order_relaxed);
    latency_at_.store(at, std::memory_order_relaxed);
  }

  // Seconds; falls while nothing is heard, so that a replica that was slow once is tried again.
  double latency(base::Time now) const { return decayed(latency_, latency_at_, seconds(now.time_since_epoch()), kLatencyDecay); }

  // Failed requests still count as in flight for some seconds: "errors count as slow". What is left then is nothing, or a
  // replica that has failed once would lose every tie for ever.
  double phantoms(base::Time now) const {
    if (phantoms_.load(std::memory_order_relaxed) == 0) return 0;
    const double left = decayed(phantoms_, phantoms_at_, seconds(now.time_since_epoch()), kPhantomDecay);
    return left < kLeastPhantom ? 0 : left;
  }

 private:
  static constexpr std::chrono::seconds kFailureCost{1};
  static constexpr double kLatencyDecay = 10;  // seconds
  static constexpr double kPhantomDecay = 1;
  static constexpr double kLeastPhantom = 0.1;   // of a request
  static constexpr double kLeastWeight = 0.001;  // of a sample, however fast they come

  static double seconds(base::Duration d) { return std::chrono::duration<double>(d).count(); }
  static double decayed(const std::atomic<double>& value, const std::atomic<double>& at, double now, double decay) {
    const double age = std::max(0.0, now - at.load(std::memory_order_relaxed));
    const double root = 1 + age / (4 * decay);
    return value.load(std::memory_order_relaxed) / (root * root * root * root);
  }

  std::atomic<double> latency_ = 0;  // seconds
  std::atomic<double> latency_at_ = 0;
  std::atomic<double> phantoms_ = 0;
  std::atomic<double> phantoms_at_ = 0;
};

}  // namespace ringmaster::balance
