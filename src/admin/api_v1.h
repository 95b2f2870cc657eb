// The admin API, on an address of its own: health of the program, what there is, and changes. Errors are problem details
// (RFC 9457). Runs on the engine's control loop.
//
//   GET /healthz  /readyz  /metrics  /v1/status  /v1/pools  /v1/pools/{pool}
//   POST|DELETE /v1/pools/{pool}/replicas   {"n": 1, "names": ["S5"]}     PUT /v1/pools/{pool}/size   {"n": 5}
//   POST /v1/stop   GET /v1/openapi.json   and tasks: tasks_api.h
//
// Who reaches a loopback address can stop servers, and a web page can make a browser reach it: so a request with an
// Origin is refused, the Host must be a name of this machine, and bodies must say that they are JSON.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "admin/operations.h"
#include "admin/tasks_api.h"
#include "config/config.h"
#include "proxy/metrics.h"
#include "proxy/registry.h"
#include "wire/server.h"

namespace ringmaster::admin {

class ApiV1 final : public wire::Handler {
 public:
  struct About {
    std::string version;
    std::uint64_t engine = 0;  // its number
    std::int64_t pid = 0;
    unsigned workers = 0;
    base::Time started{};
  };
  // Empty: none. With one, whoever shows it may do everything from anywhere; else loopback and the Unix socket may.
  struct Tokens {
    std::string write;
    std::string read;  // for GET and HEAD only
  };

  // Awaits a copy of what every worker has counted, in their order.
  using Collect = std::function<io::Async<std::vector<proxy::WorkerMetrics>>()>;

  // `dispatcher`: null when no queue is configured.
  ApiV1(const config::Config& config, const proxy::Registry& registry, Operations& operations, dispatch::Dispatcher* dispatcher, Collect collect,
        std::function<std::uint64_t()> dropped_log_bytes, About about, Tokens tokens);

  io::Async<void> handle(wire::Exchange& exchange) override;
  ErrorPage error_page(unsigned status, std::string_view why) const override;
  // From now on /readyz says no: who asks it should send its clients elsewhere.
  void begin_stop() { stopping_ = true; }

 private:
  io::Async<bool> may_pass(wire::Exchange& exchange);
  io::Async<void> resize(wire::Exchange& exchange, std::string_view pool);
  io::Async<base::Result<link::Command>> read_change(wire::Exchange& exchange);
  io::Async<void> tell(wire::Exchange& exchange, const link::Command& command, const link::Outcome& outcome);
  io::Async<void> read(wire::Exchange& exchange, std::string_view path);
  io::Async<void> write(wire::Exchange& exchange, std::string_view path);
  io::Async<void> metrics(wire::Exchange& exchange);
  io::Async<void> output(wire::Exchange& exchange, std::string pool);
  io::Async<void> change_pool(wire::Exchange& exchange, std::string_view pool);
  io::Async<void> reply(wire::Exchange& exchange, const nlohmann::json& value, unsigned status = 200);
  nlohmann::json status(base::Time now) const;
  nlohmann::json pool(const config::Pool& settings, bool with_ring) const;
  nlohmann::json ring(const config::Pool& settings) const;
  bool all_pools_serve() const;

  const config::Config& config_;
  const proxy::Registry& registry_;
  Operations& operations_;
  dispatch::Dispatcher* dispatcher_;
  TasksApi tasks_;
  Collect collect_;
  std::function<std::uint64_t()> dropped_log_bytes_;
  About about_;
  Tokens tokens_;
  bool stopping_ = false;
};

}  // namespace ringmaster::admin
