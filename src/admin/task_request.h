// What clients send about tasks: JSON to values, each fault named. Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "config/config.h"
#include "task/task.h"

namespace ringmaster::admin {

struct Submission {
  task::Spec spec;
  bool now = false;
};

// One task, as POST /v1/tasks takes it. Errors: too_large for the payload; invalid for all else, with the member's name.
// `payload`: the bytes of its payload, which are kept as they are; empty: as the JSON library writes it.
base::Result<Submission> parse_submission(const nlohmann::json& body, const config::Config& config, task::Millis now, std::string_view payload = {});

// A member that is a whole number within bounds; `otherwise` if it is not there. Error invalid, with the member's name.
base::Result<task::Millis> number_of(const nlohmann::json& body, const char* name, task::Millis otherwise, task::Millis least, task::Millis most);

// "2026-01-31T12:00:00Z" or with milliseconds.
std::optional<task::Millis> parse_time(std::string_view text);

// The value of a query's parameter, percent-decoded; nothing if it is not there. `query` begins with '?' or is empty.
std::optional<std::string> query_value(std::string_view query, std::string_view name);

// "wait=30" of Prefer (RFC 7240): seconds; nothing without it.
std::optional<unsigned> parse_wait(std::string_view prefer);

}  // namespace ringmaster::admin
