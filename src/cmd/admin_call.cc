#include "cmd/admin_call.h"

#include <cstdio>

#include "base/log.h"
#include "io/real_system.h"
#include "io/resolve.h"
#include "wire/client.h"

namespace ringmaster::cmd {

using io::Async;
using nlohmann::json;

// The first of the name's addresses that answers at all decides.
static Async<void> ask(io::Loop& loop, const std::string& admin, const wire::FetchRequest& request, unsigned timeout_s,
                       base::Result<wire::FetchResponse>& response) {
  const auto endpoints = co_await io::resolve(loop, admin);
  if (!endpoints) response = std::unexpected(endpoints.error());
  for (std::size_t i = 0; endpoints && !response && i < endpoints->size(); ++i) {
    response = co_await wire::fetch(loop, (*endpoints)[i], request, loop.now() + std::chrono::seconds(timeout_s), 64 << 20);
  }
  loop.stop();
}

std::optional<json> call(const std::string& admin, const std::string& method, const std::string& path, const json& body, unsigned timeout_s) {
  io::RealSystem system;
  io::Loop loop(system);
  wire::FetchRequest request;
  request.method = method;
  request.target = path;
  if (!body.is_null()) {
    request.body = body.dump(-1, ' ', false, json::error_handler_t::replace);
    request.headers = "Content-Type: application/json\r\n";
  }
  base::Result<wire::FetchResponse> response = base::fail(base::Code::internal);
  loop.root().spawn(ask(loop, admin, request, timeout_s, response));
  loop.run();
  if (!response) {
    std::fprintf(stderr, "ringmaster: no answer from the admin API at %s (%s); is Ringmaster running?\n", admin.c_str(),
                 base::describe(response.error()).c_str());
    return std::nullopt;
  }
  json answer = json::parse(response->body, nullptr, false);
  if (response->status >= 300 || answer.is_discarded()) {
    const std::string detail = answer.is_object() ? answer.value("detail", "") : base::log::printable(response->body);
    std::fprintf(stderr, "ringmaster: refused (%u)%s%s\n", response->status, detail.empty() ? "" : ": ", detail.c_str());
    return std::nullopt;
  }
  return answer;
}

}  // namespace ringmaster::cmd
