#include "admin/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <map>

namespace ringmaster::admin {

using proxy::Answers;
using proxy::LatencyBuckets;

namespace {

// One family after the other: all samples of a name have to stand together.
class Writer {
 public:
  void family(std::string_view name, std::string_view type, std::string_view help) {
    name_ = name;
    fmt::format_to(std::back_inserter(text_), "# HELP ringmaster_{} {}\n# TYPE ringmaster_{} {}\n", name, help, name, type);
  }
  template <class T>
  void sample(std::string_view labels, T value) {
    fmt::format_to(std::back_inserter(text_), "ringmaster_{}{}{}{} {}\n", name_, labels.empty() ? "" : "{", labels, labels.empty() ? "" : "}", value);
  }
  void histogram(std::string_view labels, const LatencyBuckets& latency) {
    const std::string_view comma = labels.empty() ? "" : ",";
    std::uint64_t below = 0;
    for (std::size_t i = 0; i < latency.counts.size(); ++i) {
      below += latency.counts[i];
      const std::string bound = i < LatencyBuckets::kBounds.size() ? fmt::format("{}", LatencyBuckets::kBounds[i]) : "+Inf";
      fmt::format_to(std::back_inserter(text_), "ringmaster_{}_bucket{{{}{}le=\"{}\"}} {}\n", name_, labels, comma, bound, below);
    }
    fmt::format_to(std::back_inserter(text_), "ringmaster_{}_sum{{{}}} {}\nringmaster_{}_count{{{}}} {}\n", name_, labels, latency.sum, name_, labels, below);
  }
  std::string take() { return std::move(text_); }

 private:
  std::string name_;
  std::string text_;
};

// A label's value: backslash, quote and line feed are escaped.
std::string escaped(std::string_view value) {
  std::string text;
  for (const char c : value) {
    if (c == '\n') {
      text += "\\n";
      continue;
    }
    if (c == '"' || c == '\\') text += '\\';
    text += c;
  }
  return text;
}

struct Labelled {
  std::string labels;
  const Answers* answers;
};

void write_answers(Writer& out, std::string_view of, std::string_view help, const std::vector<Labelled>& all) {
  out.family(fmt::format("{}_responses_total", of), "counter", fmt::format("Responses {}, by class of status.", help));
  for (const auto& [labels, answers] : all) {
    for (std::size_t i = 0; i < answers->by_class.size(); ++i) out.sample(fmt::format("{},class=\"{}xx\"", labels, i + 1), answers->by_class[i]);
  }
  out.family(fmt::format("{}_response_seconds", of), "histogram", fmt::format("Time of the responses {}.", help));
  for (const auto& [labels, answers] : all) out.histogram(labels, answers->latency);
  out.family(fmt::format("{}_received_bytes_total", of), "counter", fmt::format("Bytes of bodies received: {}.", help));
  for (const auto& [labels, answers] : all) out.sample(labels, answers->bytes_received);
  out.family(fmt::format("{}_sent_bytes_total", of), "counter", fmt::format("Bytes of bodies sent: {}.", help));
  for (const auto& [labels, answers] : all) out.sample(labels, answers->bytes_sent);
}

void write_routes(Writer& out, const config::Config& config, const std::vector<proxy::WorkerMetrics>& workers) {
  std::vector<proxy::RouteMetrics> sums(config.routes.size() + 1);
  for (const proxy::WorkerMetrics& worker : workers) {
    for (std::size_t i = 0; i < sums.size() && i < worker.routes.size(); ++i) sums[i].add(worker.routes[i]);
  }
  std::vector<Labelled> all;
  for (std::size_t i = 0; i < sums.size(); ++i) {
    all.push_back({fmt::format("route=\"{}\"", i < config.routes.size() ? escaped(config.routes[i].name) : "default"), &sums[i].answers});
  }
  write_answers(out, "route", "that clients got", all);
  const auto each = [&](std::string_view name, std::string_view type, std::string_view help, auto value) {
    out.family(name, type, help);
    for (std::size_t i = 0; i < sums.size(); ++i) out.sample(all[i].labels, value(sums[i]));
  };
  each("route_in_flight", "gauge", "Requests in flight.", [](const auto& r) { return r.in_flight; });
  each("route_aborted_total", "counter", "Exchanges that did not end clean: the client left, or its response broke off.",
       [](const auto& r) { return r.aborted; });
  each("route_retries_total", "counter", "Tries beside the first.", [](const auto& r) { return r.retries; });
  each("route_limited_total", "counter", "Requests refused with 429.", [](const auto& r) { return r.limited; });
}

void write_pools(Writer& out, const config::Config& config, const proxy::Registry& registry, const std::vector<proxy::WorkerMetrics>& workers) {
  std::vector<proxy::PoolMetrics> sums(config.pools.size());
  for (const proxy::WorkerMetrics& worker : workers) {
    for (std::size_t i = 0; i < sums.size() && i < worker.pools.size(); ++i) sums[i].add(worker.pools[i]);
  }
  std::vector<Labelled> all;
  for (std::size_t i = 0; i < sums.size(); ++i) all.push_back({fmt::format("pool=\"{}\"", config.pools[i].name), &sums[i].answers});
  write_answers(out, "pool", "that a pool's replicas gave", all);
  out.family("pool_in_flight", "gauge", "Requests in flight.");
  for (const config::Pool& pool : config.pools) {
    std::uint64_t in_flight = 0;
    for (const auto& replica : registry.replicas(pool.name)) in_flight += replica->in_flight();
    out.sample(fmt::format("pool=\"{}\"", pool.name), in_flight);
  }
  const auto each = [&](std::string_view name, std::string_view type, std::string_view help, auto value) {
    out.family(name, type, help);
    for (std::size_t i = 0; i < sums.size(); ++i) {
      out.sample(fmt::format("pool=\"{}\"", config.pools[i].name), value(sums[i], *registry.status(config.pools[i].name)));
    }
  };
  using M = const proxy::PoolMetrics&;
  using S = const balance::PoolStatus&;
  each("pool_ready", "gauge", "Replicas that get requests.", [](M, S s) { return s.ready.load(); });
  each("pool_ejected", "gauge", "Replicas that were taken out for their errors.", [](M, S s) { return s.ejected.load(); });
  each("pool_queue", "gauge", "Requests that wait for a replica.", [](M, S s) { return s.waiting.load(); });
  each("pool_queued_total", "counter", "Requests that had to wait.", [](M m, S) { return m.queued; });
  each("pool_queue_timeouts_total", "counter", "Requests that waited in vain.", [](M m, S) { return m.queue_timeouts; });
  each("pool_refused_total", "counter", "Requests refused because the queue was full.", [](M m, S) { return m.refused_full; });
  each("pool_retries_total", "counter", "Requests tried on another replica.", [](M m, S) { return m.retries; });
  each("pool_retries_denied_total", "counter", "Retries that the budget did not allow.", [](M m, S) { return m.retries_denied; });
  each("pool_hedges_total", "counter", "Second attempts beside a slow first one.", [](M m, S) { return m.hedges; });
  each("pool_tunnels", "gauge", "Upgraded connections.", [](M m, S) { return m.tunnels; });
}

void write_replicas(Writer& out, const config::Config& config, const proxy::Registry& registry, const std::vector<proxy::WorkerMetrics>& workers) {
  std::map<const balance::Replica*, proxy::ReplicaMetrics> sums;
  for (const proxy::WorkerMetrics& worker : workers) {
    for (const auto& [replica, metrics] : worker.replicas) sums[replica.get()].add(metrics);
  }
  std::vector<std::pair<std::string, const balance::Replica*>> replicas;
  std::vector<Labelled> all;
  for (const config::Pool& pool : config.pools) {
    for (const auto& replica : registry.replicas(pool.name)) {
      if (replica->phase() == balance::Phase::draining) continue;  // its successor may have the same name and slot
      replicas.emplace_back(fmt::format("pool=\"{}\",slot=\"{}\",replica=\"{}\"", pool.name, replica->slot, escaped(replica->name)), replica.get());
      all.push_back({replicas.back().first, &sums[replica.get()].answers});
    }
  }
  write_answers(out, "replica", "that replicas gave", all);
  const auto each = [&](std::string_view name, std::string_view type, std::string_view help, auto value) {
    out.family(name, type, help);
    for (const auto& [labels, replica] : replicas) out.sample(labels, value(*replica, sums[replica]));
  };
  using R = const balance::Replica&;
  using M = const proxy::ReplicaMetrics&;
  each("replica_up", "gauge", "1 if it gets requests.", [](R r, M) { return r.ready() ? 1 : 0; });
  each("replica_in_flight", "gauge", "Requests in flight.", [](R r, M) { return r.in_flight(); });
  each("replica_requests_total", "counter", "Requests begun.", [](R r, M) { return r.requests(); });
  each("replica_failures_total", "counter", "Requests without a usable answer.", [](R r, M) { return r.failures(); });
  each("replica_ejections_total", "counter", "Times that it was taken out for its errors.", [](R r, M) { return r.ejections.load(); });
  each("replica_connections_idle", "gauge", "Connections kept for the next request.", [](R, M m) { return m.connections_idle; });
  each("replica_connections_opened_total", "counter", "Connections made to it.", [](R, M m) { return m.connections_opened; });
}

void write_queues(Writer& out, const dispatch::Dispatcher& dispatcher) {
  const std::vector<dispatch::QueueView> views = dispatcher.queues();
  const auto each = [&](std::string_view name, std::string_view type, std::string_view help, auto value) {
    out.family(name, type, help);
    for (const auto& view : views) out.sample(fmt::format("queue=\"{}\"", view.settings->name), value(view));
  };
  using V = const dispatch::QueueView&;
  each("tasks_pending", "gauge", "Tasks that wait for a place.", [](V v) { return v.pending; });
  each("tasks_scheduled", "gauge", "Tasks that wait for their time, or are being written.", [](V v) { return v.scheduled; });
  each("tasks_in_progress", "gauge", "Tasks that are being worked at.", [](V v) { return v.in_progress; });
  each("queue_paused", "gauge", "1 if it is paused.", [](V v) { return v.state.paused ? 1 : 0; });
  each("tasks_accepted_total", "counter", "Tasks accepted.", [](V v) { return v.figures.accepted; });
  each("tasks_refused_total", "counter", "Tasks refused: no room, or nobody free.", [](V v) { return v.figures.refused; });
  each("task_attempts_total", "counter", "Attempts begun.", [](V v) { return v.figures.attempts; });
  each("task_attempts_failed_total", "counter", "Attempts that failed.", [](V v) { return v.figures.failures; });
  each("task_offers_declined_total", "counter", "Offers that a replica declined, being busy.", [](V v) { return v.figures.unavailable; });
  out.family("tasks_ended_total", "counter", "Tasks that came to their end, by state.");
  for (const auto& view : views) {
    for (std::size_t i = static_cast<std::size_t>(task::State::done); i < task::kStateNames.size(); ++i) {
      out.sample(fmt::format("queue=\"{}\",state=\"{}\"", view.settings->name, task::kStateNames.at(i)), view.figures.ended.at(i));
    }
  }
  const dispatch::Journal::Figures& journal = dispatcher.journal_figures();
  out.family("store_commits_total", "counter", "Transactions of the tasks' store.");
  out.sample("", journal.commits);
  out.family("store_writes_total", "counter", "Writes in them: how many share a sync.");
  out.sample("", journal.writes);
  out.family("store_failures_total", "counter", "Transactions that failed.");
  out.sample("", journal.failures);
  out.family("store_seconds_total", "counter", "Time in them.");
  out.sample("", std::chrono::duration<double>(journal.busy).count());
}

}  // namespace

ProcessFigures parse_process_figures(std::string_view stat, unsigned ticks_per_second, unsigned page_bytes) {
  ProcessFigures figures;
  const std::size_t name_end = stat.rfind(')');  // the name may hold spaces
  if (name_end == std::string_view::npos) return figures;
  std::vector<std::uint64_t> fields;
  for (std::string_view rest = stat.substr(name_end + 1); !rest.empty();) {
    const std::size_t space = rest.find(' ');
    const std::string_view word = rest.substr(0, space);
    std::uint64_t number = 0;
    std::from_chars(word.data(), word.data() + word.size(), number);
    fields.push_back(number);
    rest = space == std::string_view::npos ? std::string_view{} : rest.substr(space + 1);
  }
  if (fields.size() < 24 || ticks_per_second == 0) return figures;  // proc(5): utime is 14th, stime 15th, rss 24th; ours begin with the 2nd's end
  figures.cpu_seconds = static_cast<double>(fields[12] + fields[13]) / ticks_per_second;
  figures.resident_bytes = fields[22] * page_bytes;
  return figures;
}

std::string render_metrics(const config::Config& config, const proxy::Registry& registry, const std::vector<proxy::WorkerMetrics>& workers,
                           const dispatch::Dispatcher* dispatcher, const ProcessFigures& process, std::uint64_t engine, std::uint64_t dropped_log_bytes) {
  Writer out;
  write_routes(out, config, workers);
  write_pools(out, config, registry, workers);
  write_replicas(out, config, registry, workers);
  if (dispatcher != nullptr) write_queues(out, *dispatcher);
  out.family("worker_connections", "gauge", "Connections of clients.");
  const auto each_worker = [&](auto value) {
    for (const proxy::WorkerMetrics& worker : workers) out.sample(fmt::format("worker=\"{}\"", worker.worker), value(worker));
  };
  each_worker([](const auto& worker) { return worker.connections; });
  out.family("worker_accepted_total", "counter", "Connections accepted.");
  each_worker([](const auto& worker) { return worker.accepted; });
  out.family("worker_refused_connections_total", "counter", "Connections refused: too many from one address.");
  each_worker([](const auto& worker) { return worker.refused; });
  out.family("worker_rejected_total", "counter", "Requests that were no proper HTTP, or came too slowly; by the status of the answer, 0: none.");
  for (const proxy::WorkerMetrics& worker : workers) {
    for (const auto& [status, count] : worker.rejected) out.sample(fmt::format("worker=\"{}\",status=\"{}\"", worker.worker, status), count);
  }
  out.family("access_log_dropped_bytes_total", "counter", "Lines of the access log that could not be written.");
  out.sample("", dropped_log_bytes);
  out.family("engine", "gauge", "Which engine this is: it grows when one is replaced, and then counters begin anew.");
  out.sample("", engine);
  // The names that Prometheus' own libraries give, so that usual dashboards show them.
  return out.take() + fmt::format(
                          "# HELP process_cpu_seconds_total CPU time of the engine.\n# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total {}\n"
                          "# HELP process_resident_memory_bytes Memory of the engine.\n# TYPE process_resident_memory_bytes gauge\n"
                          "process_resident_memory_bytes {}\n",
                          process.cpu_seconds, process.resident_bytes);
}

}  // namespace ringmaster::admin
