// What each worker counts. Plain numbers of one thread: nothing on the hot path is shared or locked. Who wants to see them
// asks each worker for a copy, on its own loop, and adds them up (admin/metrics).
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "balance/replica.h"
#include "base/clock.h"

namespace ringmaster::proxy {

// A histogram with the few fixed bounds that monitoring wants.
struct LatencyBuckets {
  static constexpr std::array<double, 14> kBounds = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10};  // seconds
  std::array<std::uint64_t, kBounds.size() + 1> counts{};
  double sum = 0;

  void record(base::Duration latency) {
    const double seconds = std::chrono::duration<double>(latency).count();
    std::size_t i = 0;
    while (i < kBounds.size() && seconds > kBounds[i]) ++i;
    ++counts[i];
    sum += seconds;
  }
  void add(const LatencyBuckets& other) {
    for (std::size_t i = 0; i < counts.size(); ++i) counts[i] += other.counts[i];
    sum += other.sum;
  }
};

// Answers by class: 1xx (tunnels) to 5xx, at [0] to [4].
struct Answers {
  std::array<std::uint64_t, 5> by_class{};
  LatencyBuckets latency;
  std::uint64_t bytes_received = 0;  // of bodies
  std::uint64_t bytes_sent = 0;

  void record(unsigned status, base::Duration took) {
    if (status >= 100 && status < 600) ++by_class[status / 100 - 1];
    latency.record(took);
  }
  void add(const Answers& other) {
    for (std::size_t i = 0; i < by_class.size(); ++i) by_class[i] += other.by_class[i];
    latency.add(other.latency);
    bytes_received += other.bytes_received;
    bytes_sent += other.bytes_sent;
  }
};

struct RouteMetrics {
  Answers answers;            // that clients got
  std::uint64_t aborted = 0;  // the client left, or its answer broke off
  std::uint64_t limited = 0;  // 429
  std::uint64_t retries = 0;
  std::uint64_t in_flight = 0;  // now
  void add(const RouteMetrics& other) {
    answers.add(other.answers);
    aborted += other.aborted, retries += other.retries, limited += other.limited, in_flight += other.in_flight;
  }
};

struct PoolMetrics {
  Answers answers;  // that its replicas gave
  std::uint64_t retries = 0;
  std::uint64_t retries_denied = 0;  // by the budget
  std::uint64_t hedges = 0;
  std::uint64_t queued = 0;          // requests that had to wait
  std::uint64_t refused_full = 0;    // 503: no room, and none in the queue
  std::uint64_t queue_timeouts = 0;  // 503: waited too long
  std::uint64_t tunnels = 0;         // open now
  void add(const PoolMetrics& other) {
    answers.add(other.answers);
    retries += other.retries, retries_denied += other.retries_denied, hedges += other.hedges, queued += other.queued;
    refused_full += other.refused_full, queue_timeouts += other.queue_timeouts, tunnels += other.tunnels;
  }
};

struct ReplicaMetrics {
  Answers answers;             // that it gave
  std::uint64_t failures = 0;  // no usable answer
  std::uint64_t connections_opened = 0;
  std::uint64_t connections_idle = 0;  // kept, now
  void add(const ReplicaMetrics& other) {
    answers.add(other.answers);
    failures += other.failures, connections_opened += other.connections_opened, connections_idle += other.connections_idle;
  }
};

// A worker's copy of it all.
struct WorkerMetrics {
  std::size_t worker = 0;            // its number
  std::vector<RouteMetrics> routes;  // of the configuration; the last one: requests that no route took
  std::vector<PoolMetrics> pools;
  std::vector<std::pair<std::shared_ptr<balance::Replica>, ReplicaMetrics>> replicas;
  std::uint64_t connections = 0;  // of clients, now
  std::uint64_t accepted = 0;
  std::uint64_t refused = 0;
  std::map<unsigned, std::uint64_t> rejected;  // requests that were no proper HTTP, by the status that they got
};

}  // namespace ringmaster::proxy
