// Who a pool's replicas are: processes, containers, servers that run already, servers that announce themselves.
#include <sys/resource.h>

#include <array>
#include <set>

#include "base/names.h"
#include "config/parts.h"

namespace ringmaster::config {

using base::Code;
using base::Result;
using namespace std::chrono_literals;

namespace {

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
    } else if (slot <= pool.replicas && pool.initial_origin(slot) == balance::Origin::container && !base::is_container_name(name)) {
      reader.faults().add(node->source(), "'" + name + "' is no container name: at least two characters, without spaces");
    } else if (!seen.insert(name).second) {
      reader.faults().add(node->source(), "the name '" + name + "' is given twice");
    }
  }
}

// "volume:/path", "/host/path:/path:ro".
Result<void> check_mount(const std::string& text) {
  const std::size_t colon = text.find(':');
  const std::string target = colon == std::string::npos ? "" : text.substr(colon + 1, text.find(':', colon + 1) - colon - 1);
  const std::string mode = colon == std::string::npos ? "" : text.substr(colon + 1 + target.size());
  const std::string source = text.substr(0, colon);
  const bool named = base::is_replica_name(source) && !source.contains(' ');
  const bool good = (named || source.starts_with('/')) && target.starts_with('/') && (mode.empty() || mode == ":ro");
  return good ? Result<void>{}
              : base::fail(Code::invalid, "'" + text + "' is no mount: write volume:/path or /folder/here:/path, with :ro behind for read-only");
}

void read_container(const toml::table& table, Pool& pool, Faults& faults) {
  Reader reader(table, "[pool." + pool.name + ".container]", faults);
  Container& container = pool.container;
  reader.texts("command", container.command);
  reader.count("port", container.port, 1, 65535);
  reader.parsed("reach", [&](const std::string& text) -> Result<void> {
    container.published = text == "published";
    return text == "published" || text == "address" ? Result<void>{} : base::fail(Code::invalid, "it is address or published");
  });
  reader.text("network", container.network);
  reader.text("socket_volume", container.socket_volume);
  reader.texts("mounts", container.mounts);
  for (const std::string& mount : container.mounts) {
    if (const auto checked = check_mount(mount); !checked) faults.add(table.get("mounts")->source(), checked.error().detail);
  }
  reader.text("user", container.user);
  reader.flag("writable", container.writable);
  reader.bytes("memory", container.memory_bytes);
  reader.number("cpus", container.cpus, 0, 10000);
  reader.count("processes_max", container.processes_max, 1, 1'000'000);
  for (const std::string& word : container.command) {
    if (word.contains("{ringmaster}")) faults.add(table.get("command")->source(), "{ringmaster} is this program, which a container does not have");
  }
  static constexpr std::array<std::string_view, 5> kNotNetworks = {"", "host", "none", "bridge", "default"};
  if (std::ranges::find(kNotNetworks, container.network) != kNotNetworks.end()) {
    faults.add(table.get("network")->source(), "a container is reached over a network of its own: name one, such as \"ringmaster\"");
  }
  if (!container.socket_volume.empty() && !container.on_unix_socket()) {
    faults.add(table.get("socket_volume")->source(), "there is no {socket} in the container's command");
  }
  reader.finish();
}

void read_registration(const toml::table& table, Pool& pool, Faults& faults) {
  Reader reader(table, "[pool." + pool.name + ".register]", faults);
  pool.registration.allowed = true;
  read_networks(reader, "from", pool.registration.from);
  if (table.get("from") == nullptr) {
    for (const char* loopback : {"127.0.0.0/8", "::1/128"}) pool.registration.from.push_back(*base::Network::parse(loopback));
  }
  reader.text("token", pool.registration.token);
  if (!pool.registration.token.empty() && pool.registration.token.size() < 16) {
    faults.add(table.get("token")->source(), "token must be at least 16 characters: whoever guesses it gets traffic");
  }
  reader.count("per_peer_max", pool.registration.per_peer_max, 1, 10000);
  reader.finish();
}

// "10.0.0.7:80", "[::1]:80", "name:80"; names are looked up later.
void check_server(const toml::table& table, const std::string& text, Faults& faults) {
  unsigned port = 0;
  const std::size_t colon = text.rfind(':');
  const char* end = text.data() + text.size();
  const bool has_port = colon != std::string::npos && std::from_chars(text.data() + colon + 1, end, port).ptr == end && port >= 1 && port <= 65535;
  const auto address = base::Endpoint::parse(text);
  const std::string host = text.substr(0, colon);
  // What has only digits and dots is an address, or nothing.
  const bool is_name = !text.contains('[') && base::is_replica_name(host) && !text.contains(' ') && host.find_first_not_of("0123456789.") != std::string::npos;
  if (has_port && (is_name || address)) return;
  faults.add(table.get("servers")->source(), "'" + text + "' is no server: write 10.0.0.7:80, [fd00::7]:80 or name:80");
}

void read_kinds(Reader& reader, const toml::table& table, Pool& pool, Faults& faults) {
  reader.texts("command", pool.command);
  reader.text("image", pool.container.image);
  with_table(reader, "container", [&](const toml::table& container) { read_container(container, pool, faults); });
  reader.texts("servers", pool.servers);
  for (const std::string& server : pool.servers) check_server(table, server, faults);
  if (std::set<std::string>(pool.servers.begin(), pool.servers.end()).size() < pool.servers.size()) {
    faults.add(table.get("servers")->source(), "a server is listed twice");
  }
  with_table(reader, "register", [&](const toml::table& registration) { read_registration(registration, pool, faults); });
  if (table.contains("container") && pool.container.image.empty()) faults.add(table.get("container")->source(), "there is no image to make containers of");
  if (!pool.command.empty() && pool.command[0].empty()) faults.add(table.get("command")->source(), "the command is empty");
  if (!pool.starts_replicas() && pool.servers.empty() && !pool.registration.allowed) {
    faults.add(table.source(),
               "[pool." + pool.name + "] needs a command: what starts one of its servers; or an image, servers, or [pool." + pool.name + ".register]");
  }
}

// How many, and which of them are containers.
void read_counts(Reader& reader, const toml::table& table, Pool& pool, Faults& faults) {
  reader.count("replicas_max", pool.replicas_max, 1, 10000);
  if (!pool.starts_replicas()) pool.replicas = 0;
  reader.count("replicas", pool.replicas, 0, pool.replicas_max);
  const bool both = !pool.command.empty() && !pool.container.image.empty();
  pool.containers = pool.command.empty() ? pool.replicas : 0;
  if (both) {
    reader.count("containers", pool.containers, 0, pool.replicas);
    if (!table.contains("containers")) faults.add(table.source(), "with both a command and an image, say how many of the replicas are containers = N");
  } else if (reader.find("containers") != nullptr) {
    faults.add(table.get("containers")->source(), "containers = N is for pools that have both a command and an image");
  }
  if (!pool.starts_replicas() && pool.replicas > 0) faults.add(table.get("replicas")->source(), "there is neither a command nor an image to start them by");
}

}  // namespace

void read_sources(Reader& reader, const toml::table& table, Pool& pool, Faults& faults) {
  read_kinds(reader, table, pool, faults);
  reader.text("directory", pool.directory);
  reader.text("user", pool.user);
  reader.text("group", pool.group);
  if (!pool.group.empty() && pool.user.empty()) faults.add(table.get("group")->source(), "a group needs a user");
  reader.flag("listen_fds", pool.listen_fds);
  reader.duration("grace", pool.grace, 0ms);
  reader.duration("drain", pool.drain, 0ms);
  reader.duration("ready_timeout", pool.ready_timeout, 10ms);
  reader.duration("start_timeout", pool.start_timeout, 0ms);
  reader.count("output_lines_max", pool.output_lines_max, 0, 1'000'000);
  reader.duration("resolve_interval", pool.resolve_interval, 100ms);
  read_counts(reader, table, pool, faults);
  read_names(reader, table, pool);
  with_table(reader, "limits", [&](const toml::table& limits) { read_limits(limits, pool, faults); });
  with_table(reader, "environment", [&](const toml::table& environment) { read_environment(environment, pool, faults); });
}

}  // namespace ringmaster::config
