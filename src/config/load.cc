#include "config/load.h"

#include <map>
#include <set>

#include "config/parts.h"
#include "http/characters.h"

namespace ringmaster::config {

using base::Code;
using base::Result;
using namespace std::chrono_literals;

std::string to_string(const std::string& file, const std::vector<Fault>& faults) {
  std::string text;
  for (const Fault& fault : faults) {
    text += file + ":" + std::to_string(fault.line) + ":" + std::to_string(fault.column) + ": " + fault.message + "\n";
  }
  return text;
}

Result<void> read_endpoint(const std::string& text, Endpoint& endpoint) {
  auto parsed = Endpoint::parse(text);
  if (!parsed) return std::unexpected(parsed.error());
  endpoint = std::move(*parsed);
  return {};
}

Result<void> read_key(const std::string& text, balance::Key& key) {
  auto parsed = balance::Key::parse(text);
  if (!parsed) return std::unexpected(parsed.error());
  key = std::move(*parsed);
  return {};
}

Result<void> read_path(const std::string& text, std::string& path) {
  if (!text.starts_with('/') || !http::all(text, http::kTarget) || text.contains('#')) return base::fail(Code::invalid, "it must be a path such as /heartbeat");
  path = text;
  return {};
}

Result<void> read_field_name(const std::string& text, std::string& name) {
  if (!http::is_token(text) || text.size() > 100) return base::fail(Code::invalid, "'" + text + "' is no header name");
  name = text;
  return {};
}

bool is_own_field(std::string_view name) {
  static constexpr std::array<std::string_view, 9> kOwn = {"connection", "content-length", "transfer-encoding", "host",  "upgrade",
                                                           "te",         "trailer",        "keep-alive",        "expect"};
  return std::ranges::any_of(kOwn, [&](std::string_view own) { return http::equals_ignoring_case(own, name); });
}

bool is_field_value(std::string_view text) { return http::all(text, http::kFieldValue); }

void read_networks(Reader& reader, std::string_view key, std::vector<base::Network>& networks) {
  std::vector<std::string> texts;
  reader.texts(key, texts);
  for (const std::string& text : texts) {
    if (auto network = base::Network::parse(text)) {
      networks.push_back(*network);
    } else {
      reader.faults().add(reader.source(), std::string(key) + ": " + network.error().detail);
    }
  }
}

namespace {

void read_error_pages(const toml::table& pages, Listener& listener, Faults& faults) {
  for (const auto& [key, node] : pages) {
    unsigned status = 0;
    const auto text = node.value_exact<std::string>();
    const char* end = key.data() + key.str().size();
    const bool good = std::from_chars(key.data(), end, status).ptr == end && status >= 400 && status <= 599;
    if (good && text) {
      listener.error_pages[status] = *text;
    } else {
      faults.add(node.source(), "error_pages are texts by status, 400 to 599: {\"502\" = \"<h1>sorry</h1>\"}");
    }
  }
  if (listener.classic) faults.add(pages.source(), "a classic listener's errors are in the form that its clients expect: no error_pages");
}

Listener read_listener(const toml::table& table, const Config& config, Faults& faults) {
  Listener listener;
  Reader reader(table, "[[listener]]", faults);
  reader.parsed("address", [&](const std::string& text) { return read_endpoint(text, listener.address); });
  if (table.get("address") == nullptr) faults.add(table.source(), "a listener needs an address, such as \"127.0.0.1:5000\"");
  if (listener.address.family == Endpoint::Family::unix_path) faults.add(table.source(), "a listener's address must be an IP address with a port");
  reader.text("pool", listener.pool);
  if (config.find_pool(listener.pool) == nullptr) {
    std::string known;
    for (const Pool& pool : config.pools) known += (known.empty() ? "" : ", ") + pool.name;
    const toml::node* node = table.get("pool");
    faults.add(node == nullptr ? table.source() : node->source(),
               "the listener's pool '" + listener.pool + "' does not exist; there is: " + (known.empty() ? "none" : known));
  }
  reader.flag("classic", listener.classic);
  read_networks(reader, "classic_from", listener.classic_from);
  read_networks(reader, "trusted", listener.trusted);
  reader.bytes("body_bytes_max", listener.body_bytes_max);
  reader.parsed("forwarded", [&](const std::string& text) -> Result<void> {
    static constexpr std::array<std::string_view, 4> kStyles = {"off", "x-forwarded", "rfc7239", "both"};
    const auto style = std::ranges::find(kStyles, text);
    if (style == kStyles.end()) return base::fail(Code::invalid, "it is off, x-forwarded, rfc7239 or both");
    listener.forwarded = static_cast<ForwardedStyle>(style - kStyles.begin());
    return {};
  });
  reader.flag("dual_stack", listener.dual_stack);
  if (listener.dual_stack && listener.address.family != Endpoint::Family::v6) {
    faults.add(table.get("dual_stack")->source(), "only an IPv6 address, such as \"[::]:5000\", can take IPv4 clients as well");
  }
  reader.flag("error_detail", listener.error_detail);
  with_table(reader, "error_pages", [&](const toml::table& pages) { read_error_pages(pages, listener, faults); });
  reader.flag("proxy_protocol", listener.proxy_protocol);
  if (listener.proxy_protocol && listener.trusted.empty()) {
    faults.add(table.source(), "proxy_protocol needs trusted = [\"10.0.0.0/8\"]: whose word about the client's address is taken");
  }
  const bool open = !listener.address.is_loopback() || listener.proxy_protocol || !listener.trusted.empty();
  if (listener.classic && open && listener.classic_from.empty()) {
    faults.add(table.source(),
               "a classic listener beyond loopback, or behind another balancer, lets everybody add and remove servers: "
               "list who may in classic_from = [\"10.0.0.0/8\"]");
  }
  reader.finish();
  return listener;
}

void read_timeouts(const toml::table& table, Timeouts& timeouts, Faults& faults) {
  Reader reader(table, "[timeouts]", faults);
  reader.duration("head", timeouts.head, 1ms);
  reader.duration("body", timeouts.body, 1ms);
  reader.duration("idle", timeouts.idle, 1ms);
  reader.duration("connect", timeouts.connect, 1ms);
  reader.duration("replica_idle", timeouts.replica_idle, 1ms);
  reader.duration("response", timeouts.response, 1ms);
  reader.duration("stream", timeouts.stream, 1ms);
  reader.duration("tunnel", timeouts.tunnel, 1ms);
  reader.duration("linger", timeouts.linger, 1ms);
  reader.finish();
}

void read_admin(const toml::table& table, Config& config, Faults& faults) {
  Reader reader(table, "[admin]", faults);
  reader.parsed("address", [&](const std::string& text) { return read_endpoint(text, config.admin); });
  reader.text("token_file", config.admin_token_file);
  reader.text("read_token_file", config.admin_read_token_file);
  if (!config.admin.is_loopback() && config.admin_token_file.empty()) {
    faults.add(table.source(), "without a token_file the admin address must be a loopback address: whoever reaches it can stop your servers");
  }
  if (!config.admin_read_token_file.empty() && config.admin_token_file.empty()) {
    faults.add(table.source(), "a read_token_file needs a token_file: else everybody may do everything");
  }
  reader.finish();
}

void read_listeners(Reader& reader, const toml::table& root, Config& config, Faults& faults) {
  const toml::node* node = reader.find("listener");
  const toml::array* listeners = node == nullptr ? nullptr : node->as_array();
  if (listeners == nullptr) {
    faults.add(root.source(), "there is no [[listener]]: nothing would be served");
    return;
  }
  static constexpr std::size_t kListenersMax = 100;
  if (listeners->size() > kListenersMax) faults.add(node->source(), "there can be at most 100 listeners");
  std::set<std::string> addresses = {base::to_string(config.admin)};
  for (const toml::node& element : *listeners) {
    const toml::table* table = element.as_table();
    if (table == nullptr) {
      faults.add(element.source(), "write each listener as a [[listener]] table");
      continue;
    }
    config.listeners.push_back(read_listener(*table, config, faults));
    const Endpoint& address = config.listeners.back().address;
    if (address.port != 0 && !addresses.insert(base::to_string(address)).second) {
      faults.add(table->source(), "the address " + base::to_string(address) + " is used twice");
    }
  }
}

void read_access_log(const toml::table& table, AccessLog& log, Faults& faults) {
  Reader reader(table, "[access_log]", faults);
  reader.parsed("format", [&](const std::string& text) -> Result<void> {
    using Format = AccessLog::Format;
    log.format = text == "common" ? Format::common : text == "json" ? Format::json : Format::off;
    return text == "off" || text == "common" || text == "json" ? Result<void>{} : base::fail(Code::invalid, "it is off, common or json");
  });
  reader.text("path", log.path);
  reader.number("sample", log.sample, 0, 1);
  reader.finish();
}

void read_trace(const toml::table& table, Trace& trace, Faults& faults) {
  Reader reader(table, "[trace]", faults);
  reader.flag("traceparent", trace.traceparent);
  reader.parsed("request_id", [&](const std::string& text) -> Result<void> {
    trace.request_id.clear();
    if (is_own_field(text)) return base::fail(Code::invalid, "'" + text + "' frames or routes the message");
    return text.empty() ? Result<void>{} : read_field_name(text, trace.request_id);
  });
  reader.finish();
}

void read_routes(Reader& reader, Config& config, Faults& faults) {
  const toml::node* node = reader.find("route");
  if (node == nullptr) return;
  static constexpr std::size_t kRoutesMax = 10000;
  const toml::array* routes = node->as_array();
  if (routes == nullptr || routes->size() > kRoutesMax || !std::ranges::all_of(*routes, [](const toml::node& route) { return route.is_table(); })) {
    faults.add(node->source(), "write each route as a [[route]] table; there can be 10000");
    return;
  }
  for (const toml::node& route : *routes) config.routes.push_back(read_route(*route.as_table(), config, faults));
  check_route_conflicts(*routes, config.routes, faults);
}

// Each replica has a counter in a block of fixed size; those that still drain, too.
void check_capacity(const toml::table& root, const Config& config, Faults& faults) {
  static constexpr std::uint64_t kForDraining = 384;
  static constexpr std::uint64_t kMost = balance::kCellsMax - kForDraining;
  std::uint64_t most = 0;
  for (const Pool& pool : config.pools) most += pool.replicas_max;
  if (most <= kMost) return;
  faults.add(root.get("pool")->source(),
             "the replicas_max of all pools together are " + std::to_string(most) + "; there can be at most " + std::to_string(kMost));
}

// What is neither of a listener nor of a pool.
void read_process(Reader& reader, const toml::table& root, Config& config, Faults& faults) {
  reader.text("state_dir", config.state_dir);
  if (config.state_dir.empty()) faults.add(root.get("state_dir")->source(), "state_dir must name a directory");
  reader.text("engine_user", config.engine_user);
  reader.duration("engine_timeout", config.engine_timeout, 0ms);
  static constexpr Duration kEngineTimeoutMin = 100ms;
  if (config.engine_timeout != Duration::zero() && config.engine_timeout < kEngineTimeoutMin) {
    faults.add(root.get("engine_timeout")->source(), "engine_timeout must be at least 100ms, or 0ms for never");
  }
  config.docker = Endpoint::unix_socket("/var/run/docker.sock");
  reader.parsed("docker", [&](const std::string& text) -> Result<void> {
    if (!text.starts_with("unix:/")) return base::fail(Code::invalid, "it must be unix:/path: over TCP the engine could reach it, too");
    return read_endpoint(text, config.docker);
  });
  reader.count("workers", config.workers, 0, 256);
  reader.count("connections_max", config.connections_max, 1, 1'000'000);
  reader.count("connections_per_address_max", config.connections_per_address_max, 0, 1'000'000);
  reader.count("body_rate_min", config.body_rate_min, 0, 1'000'000'000);
  reader.count("response_rate_min", config.response_rate_min, 0, 1'000'000'000);
  reader.bytes("linger_bytes_max", config.linger_bytes_max);
}

void read_config(const toml::table& root, Config& config, Faults& faults) {
  Reader reader(root, "the file", faults);
  read_process(reader, root, config, faults);
  with_table(reader, "timeouts", [&](const toml::table& table) { read_timeouts(table, config.timeouts, faults); });
  with_table(reader, "admin", [&](const toml::table& table) { read_admin(table, config, faults); });
  with_table(reader, "pool", [&](const toml::table& pools) {
    for (const auto& [key, node] : pools) {
      if (const toml::table* table = node.as_table()) {
        config.pools.push_back(read_pool(std::string(key.str()), *table, faults));
      } else {
        faults.add(node.source(), "write each pool as a table: [pool." + std::string(key.str()) + "]");
      }
    }
  });
  // Containers' names are Docker's, whatever pool they are in.
  std::set<std::string> names;
  for (const Pool& pool : config.pools) {
    for (unsigned slot = pool.replicas - pool.containers + 1; slot <= pool.replicas; ++slot) {
      if (names.insert(pool.initial_name(slot)).second) continue;
      faults.add(root.get("pool")->source(),
                 "two containers would be called '" + pool.initial_name(slot) + "': give those of pool '" + pool.name + "' names = […]");
    }
  }
  check_capacity(root, config, faults);
  if (config.pools.empty()) faults.add(root.source(), "there is no pool: write one as [pool.web] with a command");
  read_listeners(reader, root, config, faults);
  for (const Pool& pool : config.pools) {
    const bool classic = std::ranges::any_of(config.listeners, [&](const Listener& listener) { return listener.classic && listener.pool == pool.name; });
    if (pool.registration.allowed && !classic) {
      faults.add(root.get("pool")->source(), "servers cannot register with pool '" + pool.name + "': no listener with classic = true has it");
    }
  }
  read_routes(reader, config, faults);
  with_table(reader, "access_log", [&](const toml::table& table) { read_access_log(table, config.access_log, faults); });
  with_table(reader, "trace", [&](const toml::table& table) { read_trace(table, config.trace, faults); });
  with_table(reader, "tasks", [&](const toml::table& table) { read_tasks(table, config.tasks, faults); });
  with_table(reader, "queue", [&](const toml::table& queues) {
    std::map<std::pair<unsigned, unsigned>, Queue> by_place;  // a table has its members by name, but the first in the file is the default
    for (const auto& [key, node] : queues) {
      if (const toml::table* table = node.as_table()) {
        by_place.emplace(std::pair(node.source().begin.line, node.source().begin.column), read_queue(std::string(key.str()), *table, config, faults));
      } else {
        faults.add(node.source(), "write each queue as a table: [queue." + std::string(key.str()) + "]");
      }
    }
    for (auto& [place, queue] : by_place) config.queues.push_back(std::move(queue));
  });
  reader.finish();
}

}  // namespace

static void parse_into(Config& config, const std::string& text, Faults& faults) {
  config.admin = Endpoint::loopback(5001);
  try {
    const toml::table root = toml::parse(text, config.file);
    read_config(root, config, faults);
  } catch (const toml::parse_error& error) {
    faults.add(error.source(), std::string(error.description()));
  }
}

std::vector<std::string> unmentioned_settings(const std::string& text) {
  Config config;
  Faults faults;
  parse_into(config, text, faults);
  return faults.unmentioned();
}

std::variant<Config, std::vector<Fault>> parse(const std::string& file, std::string text) {
  Config config;
  config.file = file;
  Faults faults;
  parse_into(config, text, faults);
  if (!faults.empty()) return faults.take();
  config.text = std::move(text);
  return config;
}

}  // namespace ringmaster::config
