// TasksApi's calls for pull workers: lease, heartbeat, complete, fail.

#include "admin/tasks_api.h"
#include "base/json.h"
#include "base/names.h"
#include "dispatch/task_json.h"
#include "wire/hangup.h"

namespace ringmaster::admin {

using base::Code;
using base::Result;
using dispatch::LivePtr;
using io::Async;
using nlohmann::json;
using task::Millis;

static constexpr Millis kLeaseMax = 24LL * 3600 * 1000;

// A member of a body that is text.
static std::string text_of(const json& body, const char* name, std::string otherwise = {}) {
  const auto found = body.find(name);
  return found != body.end() && found->is_string() ? found->get<std::string>() : std::move(otherwise);
}

Async<void> TasksApi::lease(wire::Exchange& exchange, const json& body) {
  const auto most = number_of(body, "n", 1, 1, 1000);
  const auto lease_ms = number_of(body, "lease_ms", 30'000, 100, kLeaseMax);
  const auto wait = number_of(body, "wait_s", 0, 0, kTaskWaitMax);
  const std::string worker = text_of(body, "worker");
  std::string fault = !most ? most.error().detail : !lease_ms ? lease_ms.error().detail : !wait ? wait.error().detail : "";
  // It will stand in answers and in the log.
  if (!base::is_replica_name(worker)) fault = "'worker' must be the worker's name: letters, digits, ' _.-', at most 63, a letter or digit first";
  if (body.contains("queue") && !body["queue"].is_string()) fault = "'queue' must be a queue's name";
  if (!fault.empty()) {
    co_await wire::reply_error(exchange, pages_, 422, fault);
    co_return;
  }
  io::Fiber& fiber = co_await io::this_fiber();
  const wire::HangupGuard guard(exchange.client_watch(), fiber);
  const auto deadline = exchange.loop().now() + std::chrono::seconds(*wait);
  const std::string queue = text_of(body, "queue", config_.queues.front().name);
  const auto leased = co_await dispatcher_->lease(queue, worker, static_cast<std::size_t>(*most), *lease_ms, deadline);
  if (!leased) {
    co_await refuse(exchange, leased.error());
    co_return;
  }
  // The payload in the very bytes that were submitted.
  std::string tasks;
  for (const LivePtr& live : *leased) {
    json shown = dispatch::task_json(live->task);
    shown.erase("payload");
    std::string text = base::json_text(shown);
    text.back() = ',';
    tasks.append(tasks.empty() ? "" : ",").append(text).append("\"payload\":").append(live->task.spec.payload).append("}");
  }
  const std::string answer = "{\"tasks\":[" + tasks + "]}\n";
  co_await exchange.reply(200, "application/json", answer);
}

Async<void> TasksApi::report(wire::Exchange& exchange, std::string_view verb, const json& body) {
  const auto id = task::parse_id(text_of(body, "id"));
  const auto attempt = number_of(body, "attempt", 0, 1, UINT32_MAX);
  const auto lease_ms = number_of(body, "lease_ms", 30'000, 100, kLeaseMax);
  if (!id || !attempt || *attempt == 0 || !lease_ms) {
    std::string why = "the body must name the task's 'id' and the 'attempt' that was leased";
    if (!lease_ms) why = lease_ms.error().detail;
    co_await wire::reply_error(exchange, pages_, 422, why);
    co_return;
  }
  const auto number = static_cast<unsigned>(*attempt);
  Result<LivePtr> done = base::fail(Code::internal);
  if (verb == "heartbeat") {
    done = co_await dispatcher_->heartbeat(*id, number, *lease_ms);
  } else if (verb == "complete") {
    const auto result = body.find("result");
    task::Outcome outcome{task::Outcome::Kind::success, result == body.end() ? "" : base::json_text(*result), result == body.end() ? "" : "application/json"};
    if (outcome.text.size() > config_.tasks.result_bytes_max) {
      co_await wire::reply_error(exchange, pages_, 413, "the result has more than " + std::to_string(config_.tasks.result_bytes_max) + " bytes");
      co_return;
    }
    done = co_await dispatcher_->conclude(*id, number, std::move(outcome));
  } else {
    const auto final = body.find("final");
    const bool for_good = final != body.end() && final->is_boolean() && final->get<bool>();
    task::Outcome outcome{for_good ? task::Outcome::Kind::rejected : task::Outcome::Kind::failure,
                          text_of(body, "error", "the worker gave no reason").substr(0, 1000)};
    done = co_await dispatcher_->conclude(*id, number, std::move(outcome));
  }
  if (!done) {
    co_await refuse(exchange, done.error());
    co_return;
  }
  const json value = show((*done)->task);
  co_await reply_json(exchange, 200, value);
}

}  // namespace ringmaster::admin
