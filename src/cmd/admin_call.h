// A call of a running Ringmaster's admin API, for the command line.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace ringmaster::cmd {

// The answer as JSON, or nothing after a line to standard error. `body`: null for none.
std::optional<nlohmann::json> call(const std::string& admin, const std::string& method, const std::string& path, const nlohmann::json& body,
                                   unsigned timeout_s = 60);

}  // namespace ringmaster::cmd
