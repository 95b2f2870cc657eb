#include "supervise/container_spec.h"

#include <algorithm>

#include "base/json.h"
#include "base/names.h"

namespace ringmaster::supervise {

using base::Endpoint;
using nlohmann::json;

static constexpr std::string_view kInside = "/run/ringmaster";  // where a container has the folder of its socket
static constexpr std::string_view kSocketName = "/s";

std::string socket_folder(const ContainerHost& host, const std::string& pool, std::uint32_t slot, std::uint64_t epoch) {
  return host.run_dir + "/" + pool + "." + std::to_string(slot) + "." + std::to_string(epoch);
}

Endpoint socket_endpoint(const ContainerHost& host, const Launch& launch) {
  return Endpoint::unix_socket(socket_folder(host, launch.pool.name, launch.slot, launch.epoch) + std::string(kSocketName));
}

// The socket, as the container sees it: it has its own folder, or all of the volume.
static std::string socket_inside(const ContainerHost& host, const Launch& launch) {
  const std::string folder = socket_folder(host, launch.pool.name, launch.slot, launch.epoch).substr(host.run_dir.size());
  return std::string(kInside) + (launch.pool.container.socket_volume.empty() ? "" : folder) + std::string(kSocketName);
}

static json command_of(const ContainerHost& host, const Launch& launch) {
  json command = json::array();
  for (std::string word : launch.pool.container.command) {
    word = base::replace_all(word, "{socket}", socket_inside(host, launch));
    word = base::replace_all(word, "{port}", std::to_string(launch.pool.container.port));
    word = base::replace_all(word, "{slot}", std::to_string(launch.slot));
    command.push_back(base::replace_all(word, "{name}", launch.name));
  }
  return command;
}

static json environment_of(const Launch& launch) {
  json environment = launch.pool.environment;
  const auto add = [&](const std::string& name, const std::string& value) {
    const bool configured = std::ranges::any_of(launch.pool.environment, [&](const std::string& entry) { return entry.starts_with(name + "="); });
    if (!configured) environment.push_back(name + "=" + value);
  };
  add("SERVER_ID", std::to_string(launch.slot));
  add("SERVER_NAME", launch.name);
  if (!launch.pool.container.on_unix_socket()) add("PORT", std::to_string(launch.pool.container.port));
  return environment;
}

static json mounts_of(const ContainerHost& host, const Launch& launch) {
  const config::Container& settings = launch.pool.container;
  json mounts = json::array();
  const auto add = [&](const std::string& source, std::string_view target, bool read_only) {
    mounts.push_back({{"Type", source.starts_with('/') ? "bind" : "volume"}, {"Source", source}, {"Target", target}, {"ReadOnly", read_only}});
  };
  for (const std::string& mount : settings.mounts) {  // checked: source:target[:ro]
    const std::size_t colon = mount.find(':');
    const bool read_only = mount.ends_with(":ro");
    add(mount.substr(0, colon), mount.substr(colon + 1, mount.size() - colon - 1 - (read_only ? 3 : 0)), read_only);
  }
  if (settings.on_unix_socket()) {
    add(settings.socket_volume.empty() ? socket_folder(host, launch.pool.name, launch.slot, launch.epoch) : settings.socket_volume, kInside, false);
  }
  return mounts;
}

static json host_config(const ContainerHost& host, const Launch& launch) {
  const config::Container& settings = launch.pool.container;
  json result = {{"NetworkMode", settings.network},
                 {"CapDrop", {"ALL"}},
                 {"SecurityOpt", {"no-new-privileges=true"}},
                 {"ReadonlyRootfs", !settings.writable},
                 {"Tmpfs", {{"/tmp", "rw,nosuid,nodev,size=64m"}}},
                 {"PidsLimit", settings.processes_max},
                 {"RestartPolicy", {{"Name", "no"}}},  // that is our work
                 {"LogConfig", {{"Type", "json-file"}, {"Config", {{"max-size", "10m"}, {"max-file", "2"}}}}},
                 {"Mounts", mounts_of(host, launch)}};
  if (settings.memory_bytes > 0) result["Memory"] = result["MemorySwap"] = settings.memory_bytes;
  if (settings.cpus > 0) result["NanoCpus"] = static_cast<std::int64_t>(settings.cpus * 1e9);
  if (settings.published) {
    const json binding = {{"HostIp", "127.0.0.1"}, {"HostPort", ""}};
    result["PortBindings"][std::to_string(settings.port) + "/tcp"] = json::array({binding});
  }
  return result;
}

json container_spec(const ContainerHost& host, const Launch& launch) {
  const config::Container& settings = launch.pool.container;
  json spec = {{"Image", settings.image},
               {"Hostname", launch.name},
               {"Healthcheck", {{"Test", {"NONE"}}}},  // we check, whatever the image would have Docker do
               {"Env", environment_of(launch)},
               {"HostConfig", host_config(host, launch)},
               {"NetworkingConfig", {{"EndpointsConfig", {{settings.network, {{"Aliases", {launch.name}}}}}}}},
               {"Labels",
                {{label::kInstance, host.instance},
                 {label::kPool, launch.pool.name},
                 {label::kSlot, std::to_string(launch.slot)},
                 {label::kEpoch, std::to_string(launch.epoch)},
                 {label::kName, launch.name},
                 {label::kConfig, container_config(host, launch.pool)}}}};
  if (!settings.command.empty()) spec["Cmd"] = command_of(host, launch);
  if (settings.published) spec["ExposedPorts"][std::to_string(settings.port) + "/tcp"] = json::object();
  if (!settings.user.empty()) {
    spec["User"] = settings.user;
  } else if (settings.on_unix_socket() && !host.user.empty()) {
    spec["User"] = host.user;
  }
  return spec;
}

std::string container_config(const ContainerHost& host, const config::Pool& pool) {
  const Launch anyone{pool, 0, 0, "-", {}, {}};
  const config::Container& settings = pool.container;
  const json all = {settings.image, command_of(host, anyone), environment_of(anyone), host_config(host, anyone), settings.port, settings.user,
                    host.user,      settings.on_unix_socket()};
  std::uint64_t hash = 14695981039346656037ULL;  // FNV-1a: the same in every build, which std::hash need not be
  for (const char c : base::json_text(all)) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  return std::to_string(hash);
}

}  // namespace ringmaster::supervise
