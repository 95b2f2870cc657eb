#include "proxy/frontend.h"

#include <algorithm>
#include <ranges>

#include "http/trace.h"
#include "proxy/key.h"
#include "proxy/relay.h"

namespace ringmaster::proxy {

using base::Duration;
using config::ForwardedStyle;
using config::Route;
using io::Async;

static std::size_t index_of(const config::Config& config, const std::string& pool) {
  return static_cast<std::size_t>(std::ranges::find(config.pools, pool, &config::Pool::name) - config.pools.begin());
}

Frontend::Frontend(const config::Config& config, std::size_t listener, Shared& shared, Balancer& balancer, const wire::Handler* pages, NotFound on_not_found)
    : config_(config),
      listener_(config.listeners[listener]),
      shared_(shared),
      balancer_(balancer),
      routes_(*shared.tables[listener]),
      pages_(pages == nullptr ? *this : *pages),
      on_not_found_(std::move(on_not_found)),
      default_pool_(index_of(config, listener_.pool)),
      request_id_name_{config.trace.request_id} {
  for (const Route& route : config.routes) pool_of_route_.push_back(index_of(config, route.pool));
}

// --- who sent it ---

bool Frontend::trusts(const base::Endpoint& peer) const {
  return std::ranges::any_of(listener_.trusted, [&](const base::Network& network) { return network.contains(peer); });
}

// The address of one element of Forwarded (`for="[::1]:80";proto=http`) or X-Forwarded-For (`10.0.0.7`).
static std::optional<base::Endpoint> address_of(std::string_view element) {
  if (const std::size_t at = element.find("for="); at != std::string_view::npos) {
    element = element.substr(at + 4);
    element = element.substr(0, element.find(';'));
  }
  while (element.starts_with('"')) element.remove_prefix(1);
  while (element.ends_with('"')) element.remove_suffix(1);
  const bool bare_v6 = !element.starts_with('[') && std::ranges::count(element, ':') > 1;
  const bool has_port = element.starts_with('[') ? !element.ends_with(']') : !bare_v6 && element.contains(':');
  std::string text = bare_v6 ? "[" + std::string(element) + "]" : std::string(element);
  if (!has_port) text += ":0";
  const auto parsed = base::Endpoint::parse(text);
  if (!parsed || parsed->family == base::Endpoint::Family::unix_path) return std::nullopt;
  return *parsed;
}

// Trusted peers say whom they forward for; the list is read from its end, and the first that we do not trust is the client.
void Frontend::identify_client(wire::Exchange& exchange) const {
  std::vector<base::Endpoint> chain;
  bool known = true;
  for (const http::Field& field : exchange.request().fields) {
    if (field.id != http::FieldId::x_forwarded_for && field.id != http::FieldId::forwarded) continue;
    http::for_each_element(field.value, [&](std::string_view element) {
      const auto address = address_of(element);
      known &= address.has_value();
      if (address) chain.push_back(*address);
    });
  }
  if (!known) return;  // somebody's name in it: the peer is the last that is sure
  for (const base::Endpoint& address : chain | std::views::reverse) {
    exchange.set_client(address);
    if (!trusts(address)) return;
  }
}

// --- serving ---

Async<void> Frontend::handle(wire::Exchange& exchange) {
  const base::Time began = balancer_.loop().now();
  const auto matched = routes_.match(exchange.request(), exchange.path());
  const std::size_t index = matched.value_or(config_.routes.size());
  const Route* route = matched ? &config_.routes[index] : nullptr;
  ++balancer_.route_metrics()[index].in_flight;
  auto scratch = scratches_.take();
  scratch->extra.clear();
  scratch->request_id.clear();
  const bool trusted = !listener_.trusted.empty() && trusts(exchange.peer());
  if (trusted) identify_client(exchange);
  if (const auto refusal = refuse(exchange, route, index)) {
    co_await wire::reply_error(exchange, pages_, refusal->status, refusal->why, refusal->extra);
    finish(exchange, index, {}, *scratch, balancer_.loop().now() - began);
  } else if (route != nullptr && route->status != 0) {
    co_await answer(exchange, *route, *scratch);
    finish(exchange, index, {}, *scratch, balancer_.loop().now() - began);
  } else {
    const Forwarding forwarding = prepare(exchange, route, index, trusted, *scratch);
    Relay relay(balancer_, balancer_.pool(forwarding.pool), exchange, forwarding);
    co_await relay.run();
    finish(exchange, index, {relay.replica_name(), relay.tries()}, *scratch, balancer_.loop().now() - began);
  }
  scratches_.put(std::move(scratch));
}

// What breaks a limit, before a replica hears of it.
std::optional<Frontend::Refusal> Frontend::refuse(wire::Exchange& exchange, const Route* route, std::size_t index) {
  const std::uint64_t bytes_max = route != nullptr && route->body_bytes_max ? *route->body_bytes_max : listener_.body_bytes_max;
  const http::RequestHead& head = exchange.request();
  if (bytes_max != 0) {
    // If the length is given it is known now; else it ends as soon as it is too much.
    const std::uint64_t known = head.framing == http::Framing::length ? head.content_length : exchange.body_bytes_received();
    if (known > bytes_max) return Refusal{413, "the body has more than " + std::to_string(bytes_max) + " bytes", {}};
    exchange.limit_body(bytes_max);
  }
  RateLimiter* limiter = route == nullptr ? nullptr : shared_.limiters[index].get();
  if (limiter == nullptr) return std::nullopt;
  const Duration wait = limiter->ask(limit_key_of(route->rate.key, exchange), balancer_.loop().now());
  if (wait == Duration::zero()) return std::nullopt;
  ++balancer_.route_metrics()[index].limited;
  return Refusal{429, "too many requests, the limit is " + std::to_string(route->rate.per_second) + " a second",
                 "Retry-After: " + std::to_string(std::chrono::ceil<std::chrono::seconds>(wait).count()) + "\r\n"};
}

// "$path" and "$query" filled in. Both have been checked by the parser: nothing in them can end a line.
static std::string fill_in(const std::string& location, std::string_view path, std::string_view query) {
  std::string filled;
  for (std::size_t i = 0; i < location.size();) {
    const std::string_view rest = std::string_view(location).substr(i);
    if (rest.starts_with("$path")) {
      filled += path;
      i += 5;
    } else if (rest.starts_with("$query")) {
      filled += query;
      i += 6;
    } else {
      filled += location[i++];
    }
  }
  return filled;
}

Async<void> Frontend::answer(wire::Exchange& exchange, const Route& route, Scratch& scratch) {
  if (!route.location.empty()) scratch.extra = "Location: " + fill_in(route.location, exchange.path(), exchange.request().query) + "\r\n";
  for (const auto* fields : {&route.response_fields.set, &route.response_fields.add}) {
    for (const auto& [name, value] : *fields) scratch.extra.append(name).append(": ").append(value).append("\r\n");
  }
  co_await exchange.reply(route.status, route.body.empty() ? std::string_view{} : route.content_type, route.body, scratch.extra);
}

// A request id and a trace, unless it brought them.
void Frontend::append_trace(const wire::Exchange& exchange, Scratch& scratch, Forwarding& forwarding) {
  base::Random& random = balancer_.loop().random();
  const http::RequestHead& head = exchange.request();
  if (const std::string& name = config_.trace.request_id; !name.empty()) {
    const http::Field* given = head.fields.find(name);
    if (given != nullptr && http::is_request_id(given->value)) {
      scratch.request_id = given->value;
    } else {
      http::append_hex(scratch.request_id, random.next());
      scratch.extra.append(name).append(": ").append(scratch.request_id).append("\r\n");
      if (given != nullptr) forwarding.replaced = request_id_name_;
    }
  }
  if (!config_.trace.traceparent) return;
  static constexpr std::string_view kTraceparent = "traceparent";
  const http::Field* given = head.fields.find(kTraceparent);
  if (given != nullptr) return;  // whoever began it knows best, even what is wrong with it
  scratch.extra.append("traceparent: ");
  const std::uint64_t high = random.next();
  const std::uint64_t low = random.next();
  http::append_traceparent(scratch.extra, high, low, random.next());
  scratch.extra.append("\r\n");
}

Forwarding Frontend::prepare(const wire::Exchange& exchange, const Route* route, std::size_t index, bool trusted, Scratch& scratch) {
  Forwarding forwarding;
  forwarding.pool = route == nullptr ? default_pool_ : pool_of_route_[index];
  forwarding.pages = &pages_;
  forwarding.on_not_found = on_not_found_ ? &on_not_found_ : nullptr;
  forwarding.path = exchange.path();
  const ForwardedStyle style = listener_.forwarded;
  forwarding.forwarded = {exchange.peer_text(), "http", trusted, style == ForwardedStyle::x_forwarded || style == ForwardedStyle::both,
                          style == ForwardedStyle::rfc7239 || style == ForwardedStyle::both};
  if (route != nullptr) {
    if (!route->request_fields.empty()) forwarding.request_fields = &route->request_fields;
    if (!route->response_fields.empty()) forwarding.response_fields = &route->response_fields;
    if (route->replaces_prefix) {
      scratch.path.assign(route->new_prefix).append(exchange.path().substr(route->prefix.size()));
      if (scratch.path.empty()) scratch.path = "/";
      forwarding.path = scratch.path;
    }
  }
  append_trace(exchange, scratch, forwarding);
  forwarding.extra = scratch.extra;
  return forwarding;
}

void Frontend::finish(const wire::Exchange& exchange, std::size_t route, const Summary& summary, const Scratch& scratch, Duration took) {
  RouteMetrics& metrics = balancer_.route_metrics()[route];
  --metrics.in_flight;
  if (exchange.finished()) {
    metrics.answers.record(exchange.status(), took);
  } else {
    ++metrics.aborted;
  }
  metrics.answers.bytes_received += exchange.body_bytes_received();
  metrics.answers.bytes_sent += exchange.body_bytes_sent();
  AccessLog& log = balancer_.access_log();
  if (!log.wants(exchange.status())) return;
  const std::string_view name = route < config_.routes.size() ? std::string_view(config_.routes[route].name) : std::string_view{};
  log.add(exchange, {name, summary.replica, scratch.request_id, took, summary.tries});
}

}  // namespace ringmaster::proxy
