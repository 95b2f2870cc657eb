// The classic API of the five teaching systems, on the traffic port: GET /rep and /get, POST /add, DELETE /rm; and,
// if the listener's pool has a queue, /tasks and /get-tasks; if its servers may register, /server_up, /server_down and /servers.
// Everything else is balanced. Runs on a worker's loop.
#pragma once

#include "admin/classic_tasks.h"
#include "admin/operations.h"
#include "admin/registration.h"
#include "config/config.h"
#include "proxy/frontend.h"

namespace ringmaster::admin {

class ClassicApi final : public wire::Handler {
 public:
  // `listener`: its index. `tasks`: null when no queue is configured.
  ClassicApi(const config::Config& config, std::size_t listener, proxy::Shared& shared, proxy::Balancer& balancer, Operations& operations, ClassicTasks* tasks);

  io::Async<void> handle(wire::Exchange& exchange) override;
  ErrorPage error_page(unsigned status, std::string_view why) const override;
  void refused(const Refused& refused) override { frontend_.refused(refused); }

 private:
  std::string_view refusal(const wire::Exchange& exchange) const;
  io::Async<void> call(wire::Exchange& exchange, std::string_view allowed);
  io::Async<void> change(wire::Exchange& exchange, link::Command::Act act);
  io::Async<void> task_call(wire::Exchange& exchange);
  std::vector<std::string> names() const;

  const config::Listener& listener_;
  proxy::Balancer& balancer_;
  Operations& operations_;
  ClassicTasks* tasks_;
  std::string queue_;  // of the listener's pool; empty: its servers have /tasks for themselves
  Registration registration_;
  proxy::Frontend frontend_;
};

}  // namespace ringmaster::admin
