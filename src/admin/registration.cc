#include "admin/registration.h"

#include <algorithm>

#include "admin/guard.h"
#include "base/json.h"
#include "base/log.h"
#include "base/names.h"
#include "dispatch/task_json.h"
#include "http/target.h"
#include "io/resolve.h"

namespace ringmaster::admin {

using base::Code;
using base::Duration;
using base::Endpoint;
using base::Result;
using http::Method;
using io::Async;
using nlohmann::json;

static constexpr std::size_t kBodyBytesMax = 16 << 10;
static constexpr std::string_view kJson = "application/json";
static constexpr std::string_view kScheme = "http://";

Registration::Registration(const config::Config& config, const config::Listener& listener, proxy::Balancer& balancer, Operations& operations,
                           const wire::Handler& pages)
    : config_(config), pool_(*config.find_pool(listener.pool)), balancer_(balancer), operations_(operations), pages_(pages) {}

bool Registration::takes(std::string_view path) const {
  return pool_.registration.allowed && (path == "/server_up" || path == "/server_down" || path == "/servers");
}

static unsigned status_of(Code code) {
  switch (code) {
    case Code::denied: return 403;
    case Code::not_found: return 404;
    case Code::exists:
    case Code::too_large: return 409;
    case Code::unavailable:
    case Code::cancelled: return 503;
    default: return 400;
  }
}

Result<void> Registration::may_register(const wire::Exchange& exchange) const {
  if (exchange.request().fields.find(http::FieldId::origin) != nullptr) return base::fail(Code::denied, "calls from web pages are refused");
  if (!base::any_contains(pool_.registration.from, exchange.client())) {
    return base::fail(Code::denied, "servers may not register from " + base::address_text(exchange.client()));
  }
  // From this machine by a name that is not its own: a web page's (DNS rebinding). Servers elsewhere call it by any name.
  if (pool_.registration.token.empty() && exchange.client().is_loopback() && !is_local_host(exchange.request().authority)) {
    return base::fail(Code::denied, std::string(kForeignHost));
  }
  if (!pool_.registration.token.empty() && !shows_token(exchange, pool_.registration.token)) {
    return base::fail(Code::denied, "the token is missing or wrong: send Authorization: Bearer TOKEN");
  }
  return {};
}

static Result<std::string> address_of(const std::string& url) {
  if (!url.starts_with(kScheme)) return base::fail(Code::invalid, "the url must begin with http://");
  static constexpr std::size_t kUrlBytesMax = 300;
  std::string_view authority;
  std::string_view rest;
  if (url.size() > kUrlBytesMax || !http::split_absolute(url, authority, rest) || (!rest.empty() && rest != "/")) {
    return base::fail(Code::invalid, "the url must be of the form http://10.0.0.7:5000, without a path");
  }
  return std::string(authority) + (http::host_of(authority) == authority ? ":80" : "");
}

Result<Announcement> parse_announcement(std::string_view text) {
  const json body = base::parse_json(text);
  if (body.is_discarded() || !body.is_object()) return base::fail(Code::invalid, "the body must be JSON such as {\"url\":\"http://10.0.0.7:5000\"}");
  const auto url = body.find("url");
  if (url == body.end() || !url->is_string()) return base::fail(Code::invalid, "url is missing");
  Announcement announcement;
  auto address = address_of(url->get<std::string>());
  if (!address) return std::unexpected(address.error());
  announcement.address = std::move(*address);
  if (const auto name = body.find("name"); name != body.end() && !name->is_null()) {
    if (name->is_string()) announcement.name = name->get<std::string>();
    if (!base::is_replica_name(announcement.name)) {
      return base::fail(Code::invalid, "the name must have letters, digits, ' _.-', at most 63, a letter or digit first");
    }
  }
  if (const auto ttl = body.find("ttl"); ttl != body.end() && !ttl->is_null()) {
    static constexpr std::int64_t kDay = 86400;
    if (!ttl->is_number_integer() || *ttl < 1 || *ttl > kDay) return base::fail(Code::invalid, "ttl must be whole seconds, 1 to 86400");
    announcement.ttl = std::chrono::seconds(ttl->get<std::int64_t>());
  }
  return announcement;
}

// Ourselves: requests would go round in circles, or reach the admin API. A port of ours at an address of this machine.
bool Registration::is_own(const wire::Exchange& exchange, const Endpoint& endpoint) const {
  io::System& system = exchange.client_watch().system();
  const auto has_port = [&](const Endpoint& address) { return address.port == endpoint.port; };
  const bool our_port = has_port(system.local_endpoint(exchange.client_watch().fd())) || has_port(config_.admin) ||
                        std::ranges::any_of(config_.listeners, [&](const config::Listener& listener) { return has_port(listener.address); });
  if (!our_port) return false;
  Endpoint any_port = endpoint;
  any_port.port = 0;
  return system.listen(any_port, {.backlog = 1}).has_value();
}

// Not an address of one machine: 0.0.0.0 and ::, multicast, and IPv4 in the clothes of IPv6, which would pass by the allow-list.
static bool is_odd(const Endpoint& endpoint) {
  const auto& bytes = endpoint.address;
  if (endpoint.family == Endpoint::Family::v4) return bytes[0] == 0 || bytes[0] >= 224;
  return bytes[0] == 0xff || (std::ranges::all_of(bytes.begin(), bytes.begin() + 10, [](std::uint8_t byte) { return byte == 0; }) && !endpoint.is_loopback());
}

bool Registration::may_speak_for(const wire::Exchange& exchange, const Endpoint& endpoint) const {
  if (!pool_.registration.token.empty()) return true;
  const Endpoint& client = exchange.client();
  return client.family == endpoint.family && client.address == endpoint.address;
}

// Looked up once, here and now: a name that leads elsewhere later changes nothing.
Async<Result<Endpoint>> Registration::locate(wire::Exchange& exchange, std::string address) const {
  const auto found = co_await io::resolve(exchange.loop(), address);
  if (!found) co_return std::unexpected(found.error());
  for (const Endpoint& endpoint : *found) {
    if (endpoint.family == Endpoint::Family::unix_path || endpoint.port == 0) break;
    if (is_odd(endpoint) || !base::any_contains(pool_.registration.from, endpoint)) continue;
    if (is_own(exchange, endpoint)) co_return base::fail(Code::invalid, "that is Ringmaster itself");
    if (!may_speak_for(exchange, endpoint)) {
      co_return base::fail(Code::denied, "without a token a server may only announce its own address, which is " + base::address_text(exchange.client()));
    }
    co_return endpoint;
  }
  co_return base::fail(Code::denied, "'" + base::log::printable(address, 80) + "' is not in a network from which servers may register");
}

Async<void> Registration::announce(wire::Exchange& exchange) {
  const bool up = exchange.path() == "/server_up";
  const auto body = co_await exchange.read_whole_body(kBodyBytesMax);
  if (!body) {
    co_await wire::reply_error(exchange, pages_, body.error().code == Code::too_large ? 413 : 400, base::describe(body.error()));
    co_return;
  }
  const auto announcement = parse_announcement(*body);
  if (!announcement) {
    co_await wire::reply_error(exchange, pages_, 400, announcement.error().detail);
    co_return;
  }
  const auto endpoint = co_await locate(exchange, announcement->address);
  if (!endpoint) {
    co_await wire::reply_error(exchange, pages_, status_of(endpoint.error().code), base::describe(endpoint.error()));
    co_return;
  }
  link::Command command;
  command.act = up ? link::Command::Act::server_up : link::Command::Act::server_down;
  command.pool = pool_.name;
  command.endpoint = *endpoint;
  command.ttl = announcement->ttl;
  if (!announcement->name.empty()) command.names.push_back(announcement->name);
  const link::Outcome outcome = co_await operations_.execute_from(exchange.loop(), command);
  audit(exchange, base::to_string(*endpoint), outcome.code == Code::ok ? "done" : "refused: " + outcome.detail);
  if (outcome.code != Code::ok) {
    co_await wire::reply_error(exchange, pages_, status_of(outcome.code), outcome.detail);
    co_return;
  }
  const std::string text = base::json_text({{"message", base::to_string(*endpoint) + (up ? " is registered" : " is taken out")}, {"status", "successful"}});
  co_await exchange.reply(200, kJson, text);
}

// For each: where, whether it gets traffic, and when it got some last.
std::string Registration::list(io::Loop& loop) const {
  json servers = json::array();
  const auto wall = loop.system().wall_now();
  const balance::PoolView* pool = balancer_.view().find(pool_.name);
  for (std::size_t i = 0; pool != nullptr && i < pool->replicas.size(); ++i) {
    const balance::Replica& replica = *pool->replicas[i];
    const bool has_url = replica.endpoint.family == Endpoint::Family::v4 || replica.endpoint.family == Endpoint::Family::v6;
    json server = {
        {"name", replica.name}, {"url", has_url ? json(std::string(kScheme) + base::to_string(replica.endpoint)) : json()}, {"active", replica.ready()}};
    const base::Time last = replica.last_request;
    const auto ago = std::chrono::duration_cast<std::chrono::milliseconds>(loop.now() - last);
    const auto at = std::chrono::duration_cast<std::chrono::milliseconds>(wall.time_since_epoch()) - ago;
    server["last_request"] = last == base::Time{} ? json() : json(dispatch::format_time(at.count()));
    servers.push_back(std::move(server));
  }
  return base::json_text({{"message", {{"N", servers.size()}, {"servers", servers}}}, {"status", "successful"}});
}

Async<void> Registration::handle(wire::Exchange& exchange, bool may_list) {
  const Method method = exchange.request().method;
  const bool listing = exchange.path() == "/servers";
  const auto allowed = may_register(exchange);
  if (!allowed && !(listing && may_list)) {
    co_await wire::reply_error(exchange, pages_, 403, allowed.error().detail);
  } else if (listing ? method != Method::get && method != Method::head : method != Method::post) {
    const std::string wanted = listing ? "GET, HEAD" : "POST";
    const std::string extra = "Allow: " + wanted + "\r\n";
    co_await wire::reply_error(exchange, pages_, 405, "this path takes " + wanted + " only", extra);
  } else if (listing) {
    co_await exchange.reply(200, kJson, list(exchange.loop()));
  } else {
    co_await announce(exchange);
  }
}

}  // namespace ringmaster::admin
