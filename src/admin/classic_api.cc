#include "admin/classic_api.h"

#include <algorithm>

#include "admin/change_request.h"
#include "admin/guard.h"
#include "base/json.h"
#include "base/log.h"

namespace ringmaster::admin {

using base::Code;
using http::Method;
using io::Async;
using nlohmann::json;
using Act = link::Command::Act;

static constexpr std::string_view kJson = "application/json";

// A path that the servers do not know is told in the balancer's own words (CONTRACT S1).
static proxy::NotFound not_found(const wire::Handler& pages) {
  return [&pages](wire::Exchange& exchange) -> Async<void> {
    const std::string why = "'" + std::string(exchange.path()) + "' endpoint does not exist in server replicas";
    co_await wire::reply_error(exchange, pages, 400, why);
  };
}

ClassicApi::ClassicApi(const config::Config& config, std::size_t listener, proxy::Shared& shared, proxy::Balancer& balancer, Operations& operations,
                       ClassicTasks* tasks)
    : listener_(config.listeners[listener]),
      balancer_(balancer),
      operations_(operations),
      tasks_(tasks),
      registration_(config, config.listeners[listener], balancer, operations, *this),
      frontend_(config, listener, shared, balancer, this, not_found(*this)) {
  const auto queue = std::ranges::find(config.queues, listener_.pool, &config::Queue::pool);
  if (tasks != nullptr && queue != config.queues.end()) queue_ = queue->name;
}

wire::Handler::ErrorPage ClassicApi::error_page(unsigned, std::string_view why) const {
  return {kJson, base::json_text({{"message", "<Error> " + std::string(why)}, {"status", "failure"}})};
}

static std::string listing(const std::vector<std::string>& names) {
  return base::json_text({{"message", {{"N", names.size()}, {"replicas", names}}}, {"status", "successful"}});
}

std::vector<std::string> ClassicApi::names() const {
  std::vector<std::string> names;
  if (const balance::PoolView* pool = balancer_.view().find(listener_.pool)) {
    for (const auto& replica : pool->replicas) names.push_back(replica->name);
  }
  return names;
}

// Why it may not call; empty: it may.
std::string_view ClassicApi::refusal(const wire::Exchange& exchange) const {
  const http::RequestHead& head = exchange.request();
  const bool open = listener_.classic_from.empty();  // then it is on loopback; the configuration sees to that
  if (!open && !base::any_contains(listener_.classic_from, exchange.client())) return "this address may not call it";
  if (open && !is_local_host(head.authority)) return kForeignHost;
  // A web page on another site could make its visitor's browser send this.
  if (head.fields.find(http::FieldId::origin) != nullptr) return "calls from web pages are refused";
  return {};
}

// Of a body that could not be read.
static unsigned status_of_body(Code code) { return code == Code::too_large ? 413 : code == Code::timeout ? 408 : 400; }

Async<void> ClassicApi::handle(wire::Exchange& exchange) {
  const std::string_view path = exchange.path();
  frontend_.identify_client(exchange);
  const bool list = path == "/rep" || path == "/get";
  if (list) {
    co_await call(exchange, "GET, HEAD");
  } else if (path == "/add") {
    co_await call(exchange, "POST");
  } else if (path == "/rm") {
    co_await call(exchange, "DELETE");
  } else if (registration_.takes(path)) {
    co_await registration_.handle(exchange, refusal(exchange).empty());
  } else if (!queue_.empty() && ClassicTasks::takes(path)) {
    co_await task_call(exchange);
  } else {
    co_await frontend_.handle(exchange);
  }
}

// A task is no change of the servers: but who may not make changes may not make work, either.
Async<void> ClassicApi::task_call(wire::Exchange& exchange) {
  const http::RequestHead& head = exchange.request();
  if (const std::string_view why = refusal(exchange); !why.empty()) {
    co_await wire::reply_error(exchange, *this, 403, why);
    co_return;
  }
  const auto body = co_await exchange.read_whole_body(kChangeBytesMax);
  if (!body) {
    co_await wire::reply_error(exchange, *this, status_of_body(body.error().code), base::describe(body.error()));
    co_return;
  }
  const auto reply = co_await tasks_->answer(exchange.loop(), std::string(head.method_text), std::string(exchange.path()), *body, queue_);
  if (!reply) {
    co_await wire::reply_error(exchange, *this, 503, "stopping", "Retry-After: 1\r\n");
    co_return;
  }
  co_await exchange.reply(reply->status, kJson, reply->body, reply->extra);
}

static bool is_one_of(std::string_view method, std::string_view allowed) {
  bool found = false;
  http::for_each_element(allowed, [&](std::string_view one) { found |= one == method; });
  return found;
}

Async<void> ClassicApi::call(wire::Exchange& exchange, std::string_view allowed) {
  const http::RequestHead& head = exchange.request();
  if (const std::string_view why = refusal(exchange); !why.empty()) {
    co_await wire::reply_error(exchange, *this, 403, why);
  } else if (!is_one_of(head.method_text, allowed)) {
    const std::string extra = "Allow: " + std::string(allowed) + "\r\n";
    co_await wire::reply_error(exchange, *this, 405, "this path takes " + std::string(allowed) + " only", extra);
  } else if (allowed.starts_with("GET")) {
    co_await exchange.reply(200, kJson, listing(names()));
  } else {
    co_await change(exchange, head.method == Method::post ? Act::add : Act::remove);
  }
}

static unsigned status_of(Code code) {
  switch (code) {
    case Code::timeout: return 500;  // "did not become ready"
    case Code::disk_full: return 507;
    case Code::conflict: return 409;
    case Code::unavailable:
    case Code::cancelled: return 503;
    default: return 400;
  }
}

Async<void> ClassicApi::change(wire::Exchange& exchange, Act act) {
  const auto body = co_await exchange.read_whole_body(kChangeBytesMax);
  if (!body) {
    co_await wire::reply_error(exchange, *this, status_of_body(body.error().code), base::describe(body.error()));
    co_return;
  }
  auto command = parse_change(*body, "hostnames");
  if (!command) {
    co_await wire::reply_error(exchange, *this, 400, command.error().detail);
    co_return;
  }
  command->act = act;
  command->pool = listener_.pool;
  if (!take_key(exchange.request(), *command)) {
    co_await wire::reply_error(exchange, *this, 400, kBadKey);
    co_return;
  }
  const link::Outcome outcome = co_await operations_.execute_from(exchange.loop(), *command);
  audit(exchange, "n=" + std::to_string(command->count), outcome.code == Code::ok ? "done" : "refused: " + outcome.detail);
  if (outcome.code == Code::ok) {
    co_await exchange.reply(200, kJson, listing(outcome.names));
  } else {
    co_await wire::reply_error(exchange, *this, status_of(outcome.code), outcome.detail);
  }
}

}  // namespace ringmaster::admin
