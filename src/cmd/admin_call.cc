#include "cmd/admin_call.h"

#include <unistd.h>

#include <cstdio>

#include "base/json.h"
#include "base/log.h"
#include "config/load.h"
#include "io/real_system.h"
#include "io/resolve.h"
#include "wire/client.h"

namespace ringmaster::cmd {

using io::Async;
using nlohmann::json;

// The first of the name's addresses that answers at all decides.
static Async<void> ask(io::Loop& loop, const std::vector<std::string>& admin, const wire::FetchRequest& request, unsigned timeout_s,
                       base::Result<wire::FetchResponse>& response) {
  // On to the next place only if nobody listens at this one: what was sent may have been done.
  for (std::size_t place = 0; place < admin.size() && !response && (place == 0 || response.error().code == base::Code::refused); ++place) {
    const auto endpoints = co_await io::resolve(loop, admin[place]);
    if (!endpoints) response = std::unexpected(endpoints.error());
    for (std::size_t i = 0; endpoints && !response && i < endpoints->size(); ++i) {
      response = co_await wire::fetch(loop, (*endpoints)[i], request, loop.now() + std::chrono::seconds(timeout_s), 64 << 20);
    }
  }
  loop.stop();
}

// As a URL or as it is.
static std::string bare(std::string text) {
  static constexpr std::string_view kScheme = "http://";
  if (text.starts_with(kScheme)) text.erase(0, kScheme.size());
  while (text.ends_with('/') && !text.starts_with("unix:")) text.pop_back();
  return text;
}

static std::string socket_in(const std::string& state_dir) { return state_dir + "/admin.sock"; }

// Nothing, after a line to standard error, if the configuration cannot be read. `token_file`: as it says, unless one was given.
static std::vector<std::string> locate(const AdminAddress& admin, std::string& token_file) {
  const std::string usual = socket_in(config::Config{}.state_dir);
  if (admin.config.empty() && (admin.given || ::access(usual.c_str(), W_OK) != 0)) return {bare(admin.address)};
  if (admin.config.empty()) return {"unix:" + usual, bare(admin.address)};  // the socket of one that has crashed may still be there
  io::RealSystem system;
  const auto text = system.read_file(admin.config);
  if (!text) {
    std::fprintf(stderr, "ringmaster: configuration: %s\n", base::describe(text.error()).c_str());
    return {};
  }
  const auto parsed = config::parse(admin.config, *text);
  if (const auto* faults = std::get_if<std::vector<config::Fault>>(&parsed)) {
    std::fputs(config::to_string(admin.config, *faults).c_str(), stderr);
    return {};
  }
  const auto& config = std::get<config::Config>(parsed);
  if (token_file.empty()) token_file = config.admin_token_file;
  if (const std::string socket = socket_in(config.state_dir); ::access(socket.c_str(), W_OK) == 0) return {"unix:" + socket};
  if (config.admin.port != 0 || config.admin.family == base::Endpoint::Family::unix_path) return {base::to_string(config.admin)};
  const auto chosen = system.read_file(config.state_dir + "/addresses.json");  // the system has chosen the port
  const json addresses = chosen ? base::parse_json(*chosen) : json();
  if (addresses.is_object()) return {addresses.value("admin", "")};
  std::fprintf(stderr, "ringmaster: %s leaves the admin API's port to the system, and %s/addresses.json is not there; is Ringmaster running?\n",
               admin.config.c_str(), config.state_dir.c_str());
  return {};
}

bool answers(const AdminAddress& admin) {
  io::RealSystem system;
  io::Loop loop(system);
  std::string token_file;
  const auto located = locate(admin, token_file);
  wire::FetchRequest request;
  request.target = "/healthz";
  base::Result<wire::FetchResponse> response = base::fail(base::Code::internal);
  static constexpr unsigned kSeconds = 2;
  loop.root().spawn(ask(loop, located, request, kSeconds, response));
  loop.run();
  return response.has_value();
}

std::optional<json> call(const AdminAddress& where, const std::string& method, const std::string& path, const json& body, unsigned timeout_s) {
  io::RealSystem system;
  io::Loop loop(system);
  wire::FetchRequest request;
  request.method = method;
  request.target = path;
  if (!body.is_null()) {
    request.body = base::json_text(body);
    request.headers += "Content-Type: application/json\r\n";
  }
  std::string token_file = where.token_file;
  const auto located = locate(where, token_file);
  if (located.empty()) return std::nullopt;
  if (!token_file.empty()) {
    const auto token = system.read_file(token_file);
    if (!token) {
      std::fprintf(stderr, "ringmaster: the token: %s\n", base::describe(token.error()).c_str());
      return std::nullopt;
    }
    request.headers += "Authorization: Bearer " + token->substr(0, token->find_first_of("\r\n")) + "\r\n";
  }
  const std::string& admin = located.front();
  base::Result<wire::FetchResponse> response = base::fail(base::Code::internal);
  loop.root().spawn(ask(loop, located, request, timeout_s, response));
  loop.run();
  if (!response) {
    std::fprintf(stderr, "ringmaster: no answer from the admin API at %s (%s); is Ringmaster running?\n", admin.c_str(),
                 base::describe(response.error()).c_str());
    return std::nullopt;
  }
  json answer = base::parse_json(response->body);
  if (response->status >= 300 || answer.is_discarded()) {
    const std::string detail = answer.is_object() ? answer.value("detail", "") : base::log::printable(response->body);
    std::fprintf(stderr, "ringmaster: refused (%u)%s%s\n", response->status, detail.empty() ? "" : ": ", detail.c_str());
    return std::nullopt;
  }
  return answer;
}

}  // namespace ringmaster::cmd
