#include "proxy/frontend.h"

#include <algorithm>

#include "http/target.h"
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
      reads_paths_(std::ranges::any_of(config.routes, [](const Route& route) { return route.paths != config::Paths::normal; })) {
  for (const Route& route : config.routes) pool_of_route_.push_back(index_of(config, route.pool));
}

// --- who sent it ---

bool Frontend::trusts(const base::Endpoint& peer) const { return base::any_contains(listener_.trusted, peer); }

// "10.0.0.7", "10.0.0.7:80", "::1" or "[::1]:80"; nothing for what is no address ("unknown", "_hidden").
static std::optional<base::Endpoint> address_of(std::string_view text) {
  const bool bare_v6 = !text.starts_with('[') && std::ranges::count(text, ':') > 1;
  const bool has_port = text.starts_with('[') ? !text.ends_with(']') : !bare_v6 && text.contains(':');
  if (text.size() > 60 || text.starts_with("unix:")) return std::nullopt;
  std::string whole = bare_v6 ? "[" + std::string(text) + "]" : std::string(text);
  if (!has_port) whole += ":0";
  const auto parsed = base::Endpoint::parse(whole);
  return parsed ? std::optional(*parsed) : std::nullopt;
}

// Splits at `separator`, but not within quotes (RFC 7239 section 4), and trims.
template <class F>
static void split_quoted(std::string_view list, char separator, F f) {
  bool quoted = false;
  std::size_t begin = 0;
  for (std::size_t i = 0; i <= list.size(); ++i) {
    if (i < list.size() && list[i] == '"' && (i == 0 || list[i - 1] != '\\')) quoted = !quoted;
    if (i < list.size() && (quoted || list[i] != separator)) continue;
    std::string_view element = list.substr(begin, i - begin);
    begin = i + 1;
    while (element.starts_with(' ') || element.starts_with('\t')) element.remove_prefix(1);
    while (element.ends_with(' ') || element.ends_with('\t')) element.remove_suffix(1);
    if (!element.empty()) f(element);
  }
}

// Of `for="[::1]:80";proto=http`: what "for" says; empty without one.
static std::string_view forwarded_for(std::string_view element) {
  std::string_view found;
  split_quoted(element, ';', [&](std::string_view parameter) {
    if (parameter.size() < 4 || !http::equals_ignoring_case(parameter.substr(0, 4), "for=")) return;
    found = parameter.substr(4);
    if (found.size() >= 2 && found.starts_with('"') && found.ends_with('"')) found = found.substr(1, found.size() - 2);
  });
  return found;
}

// Trusted peers say whom they forward for. The list is read from its end: the first that we do not trust is the client, and
// what stands before it is only what that one says. One of the two fields counts, or a proxy that knows only one of them
// would pass on what a client wrote into the other.
bool Frontend::identify_client(wire::Exchange& exchange) const {
  if (listener_.trusted.empty() || !trusts(exchange.peer())) return false;
  static constexpr std::size_t kElementsMax = 16;  // from the end
  const http::Fields& fields = exchange.request().fields;
  const bool x_forwarded = fields.find(http::FieldId::x_forwarded_for) != nullptr;
  std::array<std::string_view, kElementsMax> last;
  std::size_t count = 0;
  for (const http::Field& field : fields) {
    if (field.id == http::FieldId::x_forwarded_for && x_forwarded) {
      http::for_each_element(field.value, [&](std::string_view element) { last[count++ % kElementsMax] = element; });
    } else if (field.id == http::FieldId::forwarded && !x_forwarded) {
      split_quoted(field.value, ',', [&](std::string_view element) { last[count++ % kElementsMax] = forwarded_for(element); });
    }
  }
  for (std::size_t back = 0; back < std::min(count, kElementsMax); ++back) {
    const auto address = address_of(last[(count - 1 - back) % kElementsMax]);
    if (!address) break;
    exchange.set_client(*address);
    if (!trusts(*address)) break;
  }
  return true;
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
  const bool trusted = identify_client(exchange);
  if (const auto refusal = refuse(exchange, route, index)) {
    co_await wire::reply_error(exchange, pages_, refusal->status, refusal->why, refusal->extra);
    finish(exchange, index, {{}, 0, refusal->why}, *scratch, balancer_.loop().now() - began);
  } else if (route != nullptr && route->status != 0) {
    co_await answer(exchange, *route, *scratch);
    finish(exchange, index, {}, *scratch, balancer_.loop().now() - began);
  } else {
    const Forwarding forwarding = prepare(exchange, route, index, trusted, *scratch);
    Relay relay(balancer_, balancer_.pool(forwarding.pool), exchange, forwarding);
    co_await relay.run();
    finish(exchange, index, {relay.replica_name(), relay.tries(), relay.reason()}, *scratch, balancer_.loop().now() - began);
  }
  scratches_.put(std::move(scratch));
}

// For the routes that care how paths are read. A raw path goes by the route that takes it as it stands, but only if that is
// also the one that its normal form belongs to: no way round another route's rules.
bool Frontend::misleads(const wire::Exchange& exchange, const Route* route, std::size_t index) const {
  const http::RequestHead& head = exchange.request();
  const bool normal = exchange.path() == head.path;
  if (route != nullptr && route->paths == config::Paths::strict) return !normal || http::is_ambiguous_path(head.path);
  if (normal) return false;
  const auto as_it_stands = routes_.match(head, head.path);
  const bool raw = (route != nullptr && route->paths == config::Paths::raw) || (as_it_stands && config_.routes[*as_it_stands].paths == config::Paths::raw);
  return raw && as_it_stands.value_or(config_.routes.size()) != index;
}

wire::Handler::ErrorPage Frontend::error_page(unsigned status, std::string_view why) const {
  if (const std::string* page = listener_.error_page(status)) return {"text/html; charset=utf-8", *page};
  return Handler::error_page(status, why);
}

void Frontend::refused(const Refused& refused) {
  AccessLog& log = balancer_.access_log();
  if (log.wants(refused.status)) log.add(refused);
}

// What breaks a limit, before a replica hears of it.
std::optional<Frontend::Refusal> Frontend::refuse(wire::Exchange& exchange, const Route* route, std::size_t index) {
  if (reads_paths_ && misleads(exchange, route, index)) return Refusal{400, "the path can be read in more ways than one", {}};
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

// "$host", "$path" and "$query" filled in. All have been checked by the parser: nothing in them can end a line. A backslash
// is escaped, as browsers take it for a slash: "/\evil.org" would lead away.
static std::string fill_in(const std::string& location, std::string_view host, std::string_view path, std::string_view query) {
  std::string filled;
  const auto append = [&](std::string_view text) {
    for (const char c : text) c == '\\' ? filled.append("%5C") : filled.append(1, c);
  };
  for (std::size_t i = 0; i < location.size();) {
    const std::string_view rest = std::string_view(location).substr(i);
    if (rest.starts_with("$path")) {
      append(path);
      i += 5;
    } else if (rest.starts_with("$query")) {
      append(query);
      i += 6;
    } else if (rest.starts_with("$host")) {
      append(http::host_of(host));
      i += 5;
    } else {
      filled += location[i++];
    }
  }
  return filled;
}

Async<void> Frontend::answer(wire::Exchange& exchange, const Route& route, Scratch& scratch) {
  if (!route.location.empty())
    scratch.extra = "Location: " + fill_in(route.location, exchange.request().authority, exchange.path(), exchange.request().query) + "\r\n";
  for (const auto* fields : {&route.response_fields.set, &route.response_fields.add}) {
    for (const auto& [name, value] : *fields) scratch.extra.append(name).append(": ").append(value).append("\r\n");
  }
  const bool typed = !route.body.empty() && !route.response_fields.drops("Content-Type");
  co_await exchange.reply(route.status, typed ? std::string_view(route.content_type) : std::string_view{}, route.body, scratch.extra);
}

// A request id and a trace, unless it brought them.
void Frontend::append_trace(const wire::Exchange& exchange, Scratch& scratch, Forwarding& forwarding) {
  base::Random& random = balancer_.loop().random();
  const http::RequestHead& head = exchange.request();
  std::size_t replaced = 0;
  if (const std::string& name = config_.trace.request_id; !name.empty()) {
    const http::Field* given = head.fields.find(name);
    if (given != nullptr && http::is_request_id(given->value)) {
      scratch.request_id = given->value;
    } else {
      http::append_hex(scratch.request_id, random.next());
      scratch.extra.append(name).append(": ").append(scratch.request_id).append("\r\n");
      if (given != nullptr) scratch.replaced[replaced++] = name;
    }
  }
  static constexpr std::string_view kTraceparent = "traceparent";
  const http::Field* given = config_.trace.traceparent ? head.fields.find(kTraceparent) : nullptr;
  // A broken one is as none, and what belongs to it goes with it (W3C Trace Context, section 3.2.2.5).
  const bool broken = given != nullptr && !http::is_traceparent(given->value);
  if (broken) {
    scratch.replaced[replaced++] = kTraceparent;
    scratch.replaced[replaced++] = "tracestate";
  }
  forwarding.replaced = std::span(scratch.replaced).first(replaced);
  if (!config_.trace.traceparent || (given != nullptr && !broken)) return;
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
  const bool raw = route != nullptr && route->paths == config::Paths::raw;
  forwarding.path = raw ? exchange.request().path : exchange.path();
  forwarding.listener = &listener_;
  const ForwardedStyle style = listener_.forwarded;
  forwarding.forwarded = {exchange.peer_text(), "http", trusted, style == ForwardedStyle::x_forwarded || style == ForwardedStyle::both,
                          style == ForwardedStyle::rfc7239 || style == ForwardedStyle::both};
  if (route != nullptr) {
    if (!route->request_fields.empty()) forwarding.request_fields = &route->request_fields;
    if (!route->response_fields.empty()) forwarding.response_fields = &route->response_fields;
    forwarding.buffered = route->request_buffering;
    forwarding.buffer_bytes = route->request_buffer_bytes;
    if (route->replaces_prefix) {
      scratch.path.assign(route->new_prefix).append(forwarding.path.substr(route->prefix.size()));
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
  if (summary.tries > 1) metrics.retries += summary.tries - 1;
  metrics.answers.bytes_received += exchange.body_bytes_received();
  metrics.answers.bytes_sent += exchange.body_bytes_sent();
  AccessLog& log = balancer_.access_log();
  if (!log.wants(exchange.status())) return;
  const std::string_view name = route < config_.routes.size() ? std::string_view(config_.routes[route].name) : std::string_view{};
  log.add(exchange, {name, summary.replica, scratch.request_id, took, summary.tries, summary.reason});
}

}  // namespace ringmaster::proxy
