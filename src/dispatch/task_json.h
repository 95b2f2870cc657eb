// A task as JSON, as the API and callbacks show it.
#pragma once

#include <nlohmann/json.hpp>

#include "task/task.h"

namespace ringmaster::dispatch {

// "2026-01-31T12:00:00.000Z"
std::string format_time(task::Millis time);

// JSON from outside, or a discarded value: for what is no JSON, and for what is nested deeper than 100, as writing such a value
// again would take a stack frame for each level.
nlohmann::json parse_json(std::string_view text);

// The result as JSON: what it is if it was JSON, else a string.
nlohmann::json result_json(const task::Task& task);

nlohmann::json task_json(const task::Task& task);

}  // namespace ringmaster::dispatch
