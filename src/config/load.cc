#include "config/load.h"

#include <sys/resource.h>

#include <set>

#include "base/names.h"
#include "config/reader.h"

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

namespace {

Result<void> read_endpoint(const std::string& text, Endpoint& endpoint) {
  auto parsed = Endpoint::parse(text);
  if (!parsed) return std::unexpected(parsed.error());
  endpoint = std::move(*parsed);
  return {};
}

Result<void> read_policy(const std::string& text, Pool& pool) {
  using balance::Policy;
  if (text == "rendezvous")
    pool.policy = Policy::rendezvous;
  else if (text == "ring")
    pool.policy = Policy::ring;
  else if (text == "least_requests")
    pool.policy = Policy::least_requests;
  else if (text == "round_robin")
    pool.policy = Policy::round_robin;
  else
    return base::fail(Code::invalid, "'" + text + "' is no policy; there are rendezvous, ring, least_requests, round_robin");
  return {};
}

Result<void> read_function(const std::string& text, bool allow_j, balance::RingFunction& function) {
  function.xxhash = text == "xxhash";
  if (function.xxhash) return {};
  auto polynomial = balance::Polynomial::parse(text, allow_j);
  if (!polynomial) return std::unexpected(polynomial.error());
  function.polynomial = std::move(*polynomial);
  return {};
}

void read_ring(const toml::table& table, Pool& pool, Faults& faults) {
  Reader reader(table, "[pool." + pool.name + ".ring]", faults);
  balance::RingSettings& ring = pool.ring;
  reader.parsed("functions", [&](const std::string& text) -> Result<void> {
    if (balance::apply_preset(text, ring)) return {};
    return base::fail(Code::invalid, "'" + text + "' is no preset; there are s1, s2, xxhash");
  });
  reader.parsed("request_function", [&](const std::string& text) { return read_function(text, false, ring.request_function); });
  reader.parsed("virtual_function", [&](const std::string& text) { return read_function(text, true, ring.virtual_function); });
  reader.parsed("probing", [&](const std::string& text) -> Result<void> {
    if (text != "linear" && text != "quadratic") return base::fail(Code::invalid, "it is linear or quadratic");
    ring.probing = text == "linear" ? balance::Probing::linear : balance::Probing::quadratic;
    return {};
  });
  reader.count("slots", ring.slots, 1, 1U << 20);
  reader.count("virtual_servers", ring.virtual_servers, 1, 1U << 16);
  reader.count("server_base", ring.server_base, 0, 1);
  reader.count("virtual_base", ring.virtual_base, 0, 1);
  reader.finish();
}

void read_health(const toml::table& table, Pool& pool, Faults& faults) {
  Reader reader(table, "[pool." + pool.name + ".health]", faults);
  Health& health = pool.health;
  reader.parsed("path", [&](const std::string& text) -> Result<void> {
    if (!text.starts_with('/') || text.find_first_of(" #\r\n") != std::string::npos) {
      return base::fail(Code::invalid, "it must be a path such as /heartbeat");
    }
    health.path = text;
    return {};
  });
  reader.duration("interval", health.interval, 10ms);
  reader.duration("timeout", health.timeout, 1ms);
  reader.duration("kill_after", health.kill_after, 100ms);
  reader.count("fall", health.fall, 1, 1000);
  reader.count("rise", health.rise, 1, 1000);
  reader.finish();
}

void read_limits(const toml::table& table, Pool& pool, Faults& faults) {
  Reader reader(table, "[pool." + pool.name + ".limits]", faults);
  const auto read = [&](std::string_view key, int resource, std::uint64_t unit) {
    unsigned value = 0;
    reader.count(key, value, 1, UINT32_MAX);
    if (value != 0) pool.limits.push_back({resource, value * unit});
  };
  read("open_files", RLIMIT_NOFILE, 1);
  read("memory_mb", RLIMIT_AS, 1ULL << 20);
  read("cpu_seconds", RLIMIT_CPU, 1);
  read("core_mb", RLIMIT_CORE, 1ULL << 20);
  reader.finish();
}

void read_environment(const toml::table& table, Pool& pool, Faults& faults) {
  for (const auto& [key, node] : table) {
    const auto value = node.value_exact<std::string>();
    if (!value) {
      faults.add(node.source(), "environment variable " + std::string(key.str()) + " must be text in quotes");
    } else {
      pool.environment.push_back(std::string(key.str()) + "=" + *value);
    }
  }
}

void read_names(Reader& reader, const toml::table& table, Pool& pool) {
  reader.texts("names", pool.names);
  const toml::node* node = table.get("names");
  std::set<std::string> seen;
  for (unsigned slot = 1; slot <= std::max<std::size_t>(pool.names.size(), pool.replicas); ++slot) {
    const std::string name = pool.initial_name(slot);
    if (!base::is_replica_name(name)) {
      reader.faults().add(node->source(), "'" + name + "' is no replica name: letters, digits, ' _.-', at most 63, a letter or digit first");
    } else if (!seen.insert(name).second) {
      reader.faults().add(node->source(), "the name '" + name + "' is given twice");
    }
  }
}

// Calls read(table) for the sub-table `key`, if there is one.
template <class F>
void with_table(Reader& reader, std::string_view key, F read) {
  const toml::node* node = reader.find(key);
  if (node == nullptr) return;
  if (const toml::table* table = node->as_table()) {
    read(*table);
  } else {
    reader.faults().add(node->source(), std::string(key) + " must be a table");
  }
}

void read_balancing(Reader& reader, const toml::table& table, Pool& pool, Faults& faults) {
  reader.parsed("key", [&](const std::string& text) -> Result<void> {
    auto key = balance::Key::parse(text);
    if (!key) return std::unexpected(key.error());
    pool.key = std::move(*key);
    return {};
  });
  const bool keyed = pool.key.kind != balance::Key::Kind::none;
  if (keyed) pool.policy = balance::Policy::rendezvous;
  reader.parsed("policy", [&](const std::string& text) { return read_policy(text, pool); });
  const bool hashing = pool.policy == balance::Policy::rendezvous || pool.policy == balance::Policy::ring;
  if (hashing && !keyed) {
    faults.add(table.get("policy")->source(), "this policy needs a key, such as key = \"request_id\" or \"header:X-User\"");
  }
  balance::apply_preset("s1", pool.ring);
  with_table(reader, "ring", [&](const toml::table& ring) { read_ring(ring, pool, faults); });
  const balance::RingSettings& ring = pool.ring;
  if (pool.policy == balance::Policy::ring && static_cast<std::uint64_t>(ring.virtual_servers) * pool.replicas > ring.slots) {
    faults.add(table.source(), std::to_string(pool.replicas) + " replicas with " + std::to_string(ring.virtual_servers) + " virtual servers each do not fit " +
                                   std::to_string(ring.slots) + " slots");
  }
}

Pool read_pool(std::string name, const toml::table& table, Faults& faults) {
  Pool pool;
  pool.name = std::move(name);
  Reader reader(table, "[pool." + pool.name + "]", faults);
  if (!base::is_pool_name(pool.name)) {
    faults.add(table.source(), "'" + pool.name + "' is no pool name: letters, digits, '_' and '-', at most 32");
  }
  reader.texts("command", pool.command);
  if (pool.command.empty() || pool.command[0].empty()) {
    faults.add(table.source(), "[pool." + pool.name + "] needs a command: what starts one of its servers");
  }
  reader.text("directory", pool.directory);
  reader.flag("listen_fds", pool.listen_fds);
  reader.duration("grace", pool.grace, 0ms);
  reader.duration("drain", pool.drain, 0ms);
  reader.duration("ready_timeout", pool.ready_timeout, 10ms);
  reader.count("replicas_max", pool.replicas_max, 1, 10000);
  reader.count("replicas", pool.replicas, 0, pool.replicas_max);
  reader.count("queue_length", pool.queue_length, 0, 1'000'000);
  reader.duration("queue_wait", pool.queue_wait, 0ms);
  read_names(reader, table, pool);
  read_balancing(reader, table, pool, faults);
  with_table(reader, "health", [&](const toml::table& health) { read_health(health, pool, faults); });
  with_table(reader, "limits", [&](const toml::table& limits) { read_limits(limits, pool, faults); });
  with_table(reader, "environment", [&](const toml::table& environment) { read_environment(environment, pool, faults); });
  reader.finish();
  return pool;
}

void read_classic_from(Reader& reader, Listener& listener) {
  std::vector<std::string> networks;
  reader.texts("classic_from", networks);
  for (const std::string& text : networks) {
    if (auto network = base::Network::parse(text)) {
      listener.classic_from.push_back(*network);
    } else {
      reader.faults().add(reader.source(), "classic_from: " + network.error().detail);
    }
  }
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
  read_classic_from(reader, listener);
  if (listener.classic && !listener.address.is_loopback() && listener.classic_from.empty()) {
    faults.add(table.source(),
               "a classic listener beyond loopback lets everybody add and remove servers: "
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
  reader.finish();
}

void read_admin(const toml::table& table, Config& config, Faults& faults) {
  Reader reader(table, "[admin]", faults);
  reader.parsed("address", [&](const std::string& text) { return read_endpoint(text, config.admin); });
  if (!config.admin.is_loopback()) {
    faults.add(table.source(), "the admin address must be a loopback address: whoever reaches it can stop your servers");
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

void read_config(const toml::table& root, Config& config, Faults& faults) {
  Reader reader(root, "the file", faults);
  reader.text("state_dir", config.state_dir);
  if (config.state_dir.empty()) faults.add(root.get("state_dir")->source(), "state_dir must name a directory");
  reader.count("workers", config.workers, 0, 256);
  reader.count("connections_max", config.connections_max, 1, 1'000'000);
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
  if (config.pools.empty()) faults.add(root.source(), "there is no pool: write one as [pool.web] with a command");
  read_listeners(reader, root, config, faults);
  reader.finish();
}

}  // namespace

std::variant<Config, std::vector<Fault>> parse(const std::string& file, std::string text) {
  Config config;
  config.file = file;
  config.admin = Endpoint::loopback(5001);
  Faults faults;
  try {
    const toml::table root = toml::parse(text, file);
    read_config(root, config, faults);
  } catch (const toml::parse_error& error) {
    faults.add(error.source(), std::string(error.description()));
  }
  if (!faults.empty()) return faults.take();
  config.text = std::move(text);
  return config;
}

}  // namespace ringmaster::config
