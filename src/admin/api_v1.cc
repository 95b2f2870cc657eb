#include "admin/api_v1.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "admin/change_request.h"
#include "admin/guard.h"
#include "admin/metrics.h"
#include "admin/openapi.h"
#include "admin/task_request.h"
#include "base/json.h"
#include "http/target.h"

namespace ringmaster::admin {

using base::Code;
using http::Method;
using io::Async;
using nlohmann::json;
using Act = link::Command::Act;

static std::string dump(const json& value) { return base::json_text(value) + "\n"; }

ApiV1::ApiV1(const config::Config& config, const proxy::Registry& registry, Operations& operations, dispatch::Dispatcher* dispatcher, Collect collect,
             std::function<std::uint64_t()> dropped_log_bytes, About about, Tokens tokens)
    : config_(config),
      registry_(registry),
      operations_(operations),
      dispatcher_(dispatcher),
      tasks_(config, dispatcher, *this),
      collect_(std::move(collect)),
      dropped_log_bytes_(std::move(dropped_log_bytes)),
      about_(std::move(about)),
      tokens_(std::move(tokens)) {}

wire::Handler::ErrorPage ApiV1::error_page(unsigned status, std::string_view why) const {
  return {"application/problem+json", dump({{"type", "about:blank"}, {"title", http::reason_phrase(status)}, {"status", status}, {"detail", why}})};
}

static bool is_reading(Method method) { return method == Method::get || method == Method::head; }

// Answers those who may not, and says whether the others may go on.
Async<bool> ApiV1::may_pass(wire::Exchange& exchange) {
  const http::RequestHead& head = exchange.request();
  const bool reading = is_reading(head.method);
  if (exchange.path() == "/healthz" || exchange.path() == "/readyz") co_return true;
  if (!is_of_own_user(exchange)) {
    audit(exchange, "", "refused: another user's process");
    co_await wire::reply_error(exchange, *this, 403, "the Unix socket is for root and for the user that Ringmaster runs as");
    co_return false;
  }
  if (tokens_.write.empty()) {
    if (is_local_host(head.authority)) co_return true;
    co_await wire::reply_error(exchange, *this, 403, kForeignHost);
    co_return false;
  }
  if (shows_token(exchange, tokens_.write)) co_return true;
  const bool reader = shows_token(exchange, tokens_.read);
  if (reader && reading) co_return true;
  if (!reading) audit(exchange, "", "refused: no token that allows it");
  if (reader) {
    co_await wire::reply_error(exchange, *this, 403, "this token may only read");
  } else {
    co_await wire::reply_error(exchange, *this, 401, "show the token: Authorization: Bearer TOKEN", "WWW-Authenticate: Bearer\r\n");
  }
  co_return false;
}

Async<void> ApiV1::handle(wire::Exchange& exchange) {
  const http::RequestHead& head = exchange.request();
  if (head.fields.find(http::FieldId::origin) != nullptr) {
    co_await wire::reply_error(exchange, *this, 403, "requests from web pages (with an Origin) are refused");
    co_return;
  }
  const bool passes = co_await may_pass(exchange);
  if (!passes) co_return;
  const bool reading = is_reading(head.method);
  // A web page can make its visitor's browser send a form without asking first; JSON it cannot.
  if (!reading && !may_be_json(exchange)) {
    co_await wire::reply_error(exchange, *this, 415, "send JSON: Content-Type: application/json");
    co_return;
  }
  if (TasksApi::takes(exchange.path())) {
    co_await tasks_.handle(exchange);
  } else if (reading) {
    co_await read(exchange, exchange.path());
  } else {
    co_await write(exchange, exchange.path());
  }
}

Async<void> ApiV1::reply(wire::Exchange& exchange, const json& value, unsigned status) { co_await exchange.reply(status, "application/json", dump(value)); }

Async<void> ApiV1::read(wire::Exchange& exchange, std::string_view path) {
  static constexpr std::string_view kPool = "/v1/pools/";
  static constexpr std::string_view kOutput = "/output";
  if (path == "/healthz") {
    const json value = {{"status", "ok"}};
    co_await reply(exchange, value);
  } else if (path == "/readyz") {
    const bool ready = !stopping_ && all_pools_serve();
    json value = {{"status", ready ? "ready" : stopping_ ? "stopping" : "not ready"}};
    // For people: traffic goes on without the store of tasks.
    if (dispatcher_ != nullptr) value["tasks"] = dispatcher_->not_ready().empty() ? "ready" : dispatcher_->not_ready();
    co_await reply(exchange, value, ready ? 200 : 503);
  } else if (path == "/metrics") {
    co_await metrics(exchange);
  } else if (path == "/v1/openapi.json") {
    co_await exchange.reply(200, "application/json", kOpenApi);
  } else if (path == "/v1/status") {
    co_await reply(exchange, status(exchange.loop().now()));
  } else if (path == "/v1/pools") {
    json pools = json::array();
    for (const config::Pool& settings : config_.pools) pools.push_back(pool(settings, false));
    const json value = {{"pools", pools}};
    co_await reply(exchange, value);
  } else if (path.starts_with(kPool) && path.ends_with(kOutput)) {
    co_await output(exchange, std::string(path.substr(kPool.size(), path.size() - kPool.size() - kOutput.size())));
  } else if (path.starts_with(kPool) && config_.find_pool(path.substr(kPool.size())) != nullptr) {
    co_await reply(exchange, pool(*config_.find_pool(path.substr(kPool.size())), true));
  } else {
    co_await wire::reply_error(exchange, *this, 404, "there is nothing at '" + std::string(path) + "'");
  }
}

Async<void> ApiV1::metrics(wire::Exchange& exchange) {
  const std::vector<proxy::WorkerMetrics> workers = co_await collect_();
  const auto stat = exchange.loop().system().read_file("/proc/self/stat");
  const auto ticks = static_cast<unsigned>(::sysconf(_SC_CLK_TCK));
  const auto page = static_cast<unsigned>(::sysconf(_SC_PAGESIZE));
  const ProcessFigures process = stat ? parse_process_figures(*stat, ticks, page) : ProcessFigures{};
  const std::string text = render_metrics(config_, registry_, workers, dispatcher_, process, about_.engine, dropped_log_bytes_());
  co_await exchange.reply(200, "text/plain; version=0.0.4; charset=utf-8", text);
}

Async<void> ApiV1::write(wire::Exchange& exchange, std::string_view path) {
  static constexpr std::string_view kPool = "/v1/pools/";
  static constexpr std::string_view kReplicas = "/replicas";
  static constexpr std::string_view kSize = "/size";
  const Method method = exchange.request().method;
  if (path == "/v1/stop" && method == Method::post) {
    link::Command command;
    command.act = Act::stop;
    const link::Outcome outcome = co_await operations_.execute(command);
    audit(exchange, "", outcome.code == Code::ok ? "done" : "refused: " + outcome.detail);
    // The master, for whoever wants to await its end: its number alone could be another's, elsewhere.
    io::System& system = exchange.loop().system();
    const pid_t master = ::getppid();
    const json value = {{"status", outcome.code == Code::ok ? "stopping" : outcome.detail},
                        {"master", {{"pid", master}, {"start", system.start_time(master)}, {"boot", system.boot_id()}}}};
    co_await reply(exchange, value, 202);
  } else if (path.starts_with(kPool) && path.ends_with(kReplicas) && path.size() > kPool.size() + kReplicas.size()) {
    if (method == Method::post || method == Method::delete_) {
      co_await change_pool(exchange, path.substr(kPool.size(), path.size() - kPool.size() - kReplicas.size()));
    } else {
      co_await wire::reply_error(exchange, *this, 405, "this takes POST and DELETE", "Allow: POST, DELETE\r\n");
    }
  } else if (path.starts_with(kPool) && path.ends_with(kSize) && path.size() > kPool.size() + kSize.size()) {
    if (method == Method::put) {
      co_await resize(exchange, path.substr(kPool.size(), path.size() - kPool.size() - kSize.size()));
    } else {
      co_await wire::reply_error(exchange, *this, 405, "this takes PUT", "Allow: PUT\r\n");
    }
  } else {
    co_await wire::reply_error(exchange, *this, 404, "there is nothing to do at '" + std::string(path) + "'");
  }
}

static unsigned status_of(Code code) {
  switch (code) {
    case Code::not_found: return 404;
    case Code::exists:
    case Code::conflict:
    case Code::too_large: return 409;
    case Code::timeout: return 504;
    case Code::disk_full: return 507;
    case Code::unavailable: return 503;
    default: return 400;
  }
}

// The body of a change. Error: that has been replied.
Async<base::Result<link::Command>> ApiV1::read_change(wire::Exchange& exchange) {
  const auto body = co_await read_json_body(exchange, *this, kChangeBytesMax);
  if (!body) co_return base::fail(Code::invalid);
  // A size may be 0.
  auto command = exchange.request().method == Method::put ? parse_size(*body) : parse_change(*body, "names");
  const bool keyed = command && take_key(exchange.request(), *command);
  if (!command || !keyed) {
    co_await wire::reply_error(exchange, *this, 400, command ? std::string(kBadKey) : command.error().detail);
    co_return base::fail(Code::invalid);
  }
  co_return command;
}

Async<void> ApiV1::tell(wire::Exchange& exchange, const link::Command& command, const link::Outcome& outcome) {
  audit(exchange, "n=" + std::to_string(command.count), outcome.code == Code::ok ? "done" : "refused: " + outcome.detail);
  if (outcome.code != Code::ok) {
    co_await wire::reply_error(exchange, *this, status_of(outcome.code), outcome.detail);
    co_return;
  }
  const json value = {{"pool", command.pool}, {"n", outcome.names.size()}, {"names", outcome.names}};
  co_await reply(exchange, value);
}

Async<void> ApiV1::change_pool(wire::Exchange& exchange, std::string_view pool_name) {
  auto command = co_await read_change(exchange);
  if (!command) co_return;
  command->act = exchange.request().method == Method::post ? Act::add : Act::remove;
  command->pool = pool_name;
  const link::Outcome outcome = co_await operations_.execute(*command);
  co_await tell(exchange, *command, outcome);
}

Async<void> ApiV1::resize(wire::Exchange& exchange, std::string_view pool_name) {
  auto command = co_await read_change(exchange);
  if (!command) co_return;
  command->act = Act::resize;
  command->pool = pool_name;
  const link::Outcome outcome = co_await operations_.execute(*command);
  co_await tell(exchange, *command, outcome);
}

// What a replica has written of late.
Async<void> ApiV1::output(wire::Exchange& exchange, std::string pool) {
  link::Command command;
  command.act = Act::output;
  command.pool = std::move(pool);
  const std::string_view query = exchange.request().query;
  const auto name = query_value(query, "name");
  if (!name) {
    co_await wire::reply_error(exchange, *this, 400, "name is missing: whose output?");
    co_return;
  }
  command.names.push_back(*name);
  const std::string since = query_value(query, "since").value_or("0");
  const char* end = since.data() + since.size();
  if (const auto read = std::from_chars(since.data(), end, command.since); read.ec != std::errc{} || read.ptr != end) {
    co_await wire::reply_error(exchange, *this, 400, "since must be the number that the last answer named as next");
    co_return;
  }
  const link::Outcome outcome = co_await operations_.execute(command);
  if (outcome.code != Code::ok) {
    co_await wire::reply_error(exchange, *this, status_of(outcome.code), outcome.detail);
    co_return;
  }
  const json value = {{"lines", outcome.names}, {"next", outcome.next}};
  co_await reply(exchange, value);
}

bool ApiV1::all_pools_serve() const {
  return std::ranges::all_of(config_.pools, [&](const config::Pool& settings) {
    const auto replicas = registry_.replicas(settings.name);
    return replicas.empty() || std::ranges::any_of(replicas, [](const auto& replica) { return replica->ready(); });
  });
}

json ApiV1::status(base::Time now) const {
  json pools = json::array();
  for (const config::Pool& settings : config_.pools) pools.push_back(pool(settings, false));
  json listeners = json::array();
  for (const config::Listener& listener : config_.listeners) {
    listeners.push_back({{"address", base::to_string(listener.address)}, {"pool", listener.pool}, {"classic", listener.classic}});
  }
  return {{"version", about_.version},
          {"engine",
           {{"number", about_.engine},
            {"pid", about_.pid},
            {"workers", about_.workers},
            {"uptime_s", std::chrono::duration_cast<std::chrono::seconds>(now - about_.started).count()}}},
          {"listeners", listeners},
          {"pools", pools}};
}

json ApiV1::pool(const config::Pool& settings, bool with_ring) const {
  json replicas = json::array();
  unsigned ready = 0;
  for (const auto& replica : registry_.replicas(settings.name)) {
    ready += replica->ready() ? 1 : 0;
    replicas.push_back({{"slot", replica->slot},
                        {"name", replica->name},
                        {"state", balance::name(replica->phase())},
                        {"epoch", replica->epoch},
                        {"origin", balance::name(replica->origin)},
                        {"pid", replica->pid},
                        {"container", replica->container},
                        {"endpoint", base::to_string(replica->endpoint)},
                        {"weight", replica->weight},
                        {"ejected", replica->ejected()},
                        {"in_flight", replica->in_flight()},
                        {"requests", replica->requests()},
                        {"failures", replica->failures()}});
  }
  json result = {{"name", settings.name}, {"policy", balance::name(settings.policy)}, {"ready", ready}, {"replicas", replicas}};
  result["waiting"] = registry_.status(settings.name)->waiting.load();
  result["queue_length"] = settings.queue_length;
  result["max_in_flight"] = settings.max_in_flight;
  if (with_ring && settings.policy == balance::Policy::ring) result["ring"] = ring(settings);
  return result;
}

// Every occupied slot of the ring, clockwise, with the virtual servers' classic names.
json ApiV1::ring(const config::Pool& settings) const {
  const auto view = registry_.last_view();
  const balance::PoolView* pool = view->find(settings.name);
  json layout = json::array();
  if (pool->ring == nullptr) return layout;  // it had no room: see Registry::view()
  for (std::uint32_t slot = 0; slot < pool->ring->slots(); ++slot) {
    const std::uint32_t owner = pool->ring->owner(slot);
    if (owner == balance::Ring::kNobody) continue;
    const balance::Replica& replica = *pool->replicas[owner];
    layout.push_back({{"slot", slot}, {"server", replica.slot}, {"virtual", replica.name + "_VN" + std::to_string(pool->ring->virtual_number(slot))}});
  }
  return {{"slots", settings.ring.slots}, {"virtual_servers", settings.ring.virtual_servers}, {"layout", layout}};
}

}  // namespace ringmaster::admin
