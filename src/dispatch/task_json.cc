#include "dispatch/task_json.h"

#include <fmt/chrono.h>

#include "base/json.h"

namespace ringmaster::dispatch {

using nlohmann::json;

std::string format_time(task::Millis time) {
  const std::time_t seconds = time / 1000;
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", fmt::gmtime(seconds), time % 1000);
}

static json time_or_null(task::Millis time) { return time == 0 ? json() : json(format_time(time)); }
static json text_or_null(const std::string& text) { return text.empty() ? json() : json(text); }

json parse_json(std::string_view text) {
  static constexpr unsigned kDepthMax = 100;
  unsigned depth = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted && c == '\\') {
      ++i;
    } else if (c == '"') {
      quoted = !quoted;
    } else if (!quoted && (c == '[' || c == '{')) {
      if (++depth > kDepthMax) return json(json::value_t::discarded);
    } else if (!quoted && (c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
  return base::parse_json(text);
}

json result_json(const task::Task& task) {
  json parsed = parse_json(task.progress.result);
  return parsed.is_discarded() ? text_or_null(task.progress.result) : parsed;
}

json task_json(const task::Task& task) {
  const task::Spec& spec = task.spec;
  const task::Progress& progress = task.progress;
  json payload = parse_json(spec.payload);
  json value = {{"id", task::to_text(task.id)},
                {"queue", spec.queue},
                {"type", spec.type},
                {"payload", payload.is_discarded() ? json() : std::move(payload)},
                {"state", task::name(progress.state)},
                {"priority", spec.priority},
                {"attempt", progress.attempt},
                {"failures", progress.failures},
                {"failures_max", spec.failures_max},
                {"timeout_ms", spec.timeout},
                {"replica", text_or_null(progress.replica)},
                {"created_at", time_or_null(task.created)},
                {"run_at", time_or_null(progress.run_at)},
                {"deadline", time_or_null(progress.deadline)},
                {"started_at", time_or_null(progress.started)},
                {"finished_at", time_or_null(progress.finished)},
                {"result", result_json(task)},
                {"error", text_or_null(progress.error)}};
  if (!spec.unique_key.empty()) value["unique_key"] = spec.unique_key;
  if (progress.lease_until != 0) value["lease_until"] = time_or_null(progress.lease_until);
  if (!spec.callback.empty()) {
    static constexpr std::array<std::string_view, 4> kNames = {"not yet", "due", "told", "given up"};
    value["callback"] = {{"url", spec.callback}, {"state", kNames.at(static_cast<std::size_t>(progress.callback))}};
  }
  return value;
}

}  // namespace ringmaster::dispatch
