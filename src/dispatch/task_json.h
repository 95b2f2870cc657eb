// A task as JSON, as the API and callbacks show it.
#pragma once

#include <nlohmann/json.hpp>

#include "task/task.h"

namespace ringmaster::dispatch {

// "2026-01-31T12:00:00.000Z"
std::string format_time(task::Millis time);

// The result as JSON: what it is if it was JSON, else a string.
nlohmann::json result_json(const task::Task& task);

nlohmann::json task_json(const task::Task& task);

}  // namespace ringmaster::dispatch
