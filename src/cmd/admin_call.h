// A call of a running Ringmaster's admin API, for the command line.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace ringmaster::cmd {

// Where the admin API is, as the command line says it.
struct AdminAddress {
  std::string address = "127.0.0.1:5001";  // or "http://127.0.0.1:5001/", or "unix:/path"
  std::string config;                      // a configuration file that says it instead; empty: none
  std::string token_file;                  // whose first line is the token to show; empty: the configuration's, or none
  bool given = false;                      // `address` was; else a Unix socket of this user's Ringmaster counts more
};

// The answer as JSON, or nothing after a line to standard error. `body`: null for none.
std::optional<nlohmann::json> call(const AdminAddress& admin, const std::string& method, const std::string& path, const nlohmann::json& body,
                                   unsigned timeout_s = 60);

// Whether anything answers there at all.
bool answers(const AdminAddress& admin);

}  // namespace ringmaster::cmd
