// Tasks, queues and pull workers, on the admin API's address. Errors are problem details (RFC 9457).
//
//   POST /v1/tasks   GET /v1/tasks?…   GET /v1/tasks/{id}[/result|/events]   POST /v1/tasks/{id}:cancel|:retry|:resend
//   POST /v1/tasks:batch   GET|PUT /v1/queues[/{q}]   POST /v1/queues/{q}:pause|:resume
//   POST /v1/work:lease|:heartbeat|:complete|:fail
//
// src/admin/openapi.json describes all of it. Runs on the engine's control loop.
#pragma once

#include <nlohmann/json.hpp>

#include "admin/task_request.h"
#include "dispatch/dispatcher.h"
#include "wire/server.h"

namespace ringmaster::admin {

class TasksApi {
 public:
  // `pages`: how errors are told. `dispatcher`: null when no queue is configured.
  TasksApi(const config::Config& config, dispatch::Dispatcher* dispatcher, const wire::Handler& pages);

  static bool takes(std::string_view path);
  io::Async<void> handle(wire::Exchange& exchange);

 private:
  io::Async<void> get(wire::Exchange& exchange, std::string_view path);
  io::Async<void> post(wire::Exchange& exchange, std::string_view path);
  // A body as values and as bytes.
  struct Parsed {
    nlohmann::json value;
    std::string text;
  };
  io::Async<void> submit(wire::Exchange& exchange, const Parsed& body);
  io::Async<void> submit_batch(wire::Exchange& exchange, const Parsed& body);
  io::Async<void> submit_one(base::Result<Submission> submission, nlohmann::json& answer);
  io::Async<void> list(wire::Exchange& exchange);
  io::Async<void> show_task(wire::Exchange& exchange, std::uint64_t id);
  io::Async<void> show_result(wire::Exchange& exchange, std::uint64_t id);
  io::Async<void> stream_events(wire::Exchange& exchange, std::uint64_t id);
  io::Async<void> act(wire::Exchange& exchange, std::string_view id, std::string_view verb);
  io::Async<void> set_queue(wire::Exchange& exchange, std::string_view name, const nlohmann::json& body);
  io::Async<void> lease(wire::Exchange& exchange, const nlohmann::json& body);
  io::Async<void> report(wire::Exchange& exchange, std::string_view verb, const nlohmann::json& body);
  io::Async<base::Result<Parsed>> read_json(wire::Exchange& exchange, std::size_t bytes_max);

  io::Async<bool> wait_as_asked(wire::Exchange& exchange, const dispatch::LivePtr& live);
  io::Async<void> wait_for(wire::Exchange& exchange, const dispatch::LivePtr& live, unsigned seconds);
  io::Async<void> reply_json(wire::Exchange& exchange, unsigned status, const nlohmann::json& value, std::string extra = {});
  io::Async<void> refuse(wire::Exchange& exchange, const base::Error& error, std::string_view queue = {});
  nlohmann::json show(const task::Task& task) const;
  const dispatch::QueueView* find(const std::vector<dispatch::QueueView>& views, std::string_view name) const;

  const config::Config& config_;
  dispatch::Dispatcher* dispatcher_;
  const wire::Handler& pages_;
};

inline constexpr unsigned kTaskWaitMax = 300;  // seconds that a call waits at most

// The status of an error of the dispatcher.
unsigned status_of_task_error(base::Code code);

}  // namespace ringmaster::admin
