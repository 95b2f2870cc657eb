// GET /metrics: what the workers have counted, in the Prometheus text format (version 0.0.4).
#pragma once

#include <string>
#include <vector>

#include "config/config.h"
#include "dispatch/dispatcher.h"
#include "proxy/metrics.h"
#include "proxy/registry.h"

namespace ringmaster::admin {

// What the operating system says of the engine's process; zeros where it says nothing.
struct ProcessFigures {
  double cpu_seconds = 0;
  std::uint64_t resident_bytes = 0;
};
// Of Linux's /proc/self/stat.
ProcessFigures parse_process_figures(std::string_view stat, unsigned ticks_per_second, unsigned page_bytes);

// `dispatcher`: null when no queue is configured.
std::string render_metrics(const config::Config& config, const proxy::Registry& registry, const std::vector<proxy::WorkerMetrics>& workers,
                           const dispatch::Dispatcher* dispatcher, const ProcessFigures& process, std::uint64_t engine, std::uint64_t dropped_log_bytes);

}  // namespace ringmaster::admin
