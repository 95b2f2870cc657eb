// What we ask Docker for: a container's whole description, from the configuration alone. Nothing that comes over the network
// is in it but its name, which has passed base::is_container_name.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "supervise/runtime.h"

namespace ringmaster::supervise {

// By these we know our own containers, whoever looks: ours are those with our instance.
namespace label {
inline constexpr const char* kInstance = "io.ringmaster.instance";  // of the state directory
inline constexpr const char* kPool = "io.ringmaster.pool";
inline constexpr const char* kSlot = "io.ringmaster.slot";
inline constexpr const char* kEpoch = "io.ringmaster.epoch";
inline constexpr const char* kName = "io.ringmaster.name";
inline constexpr const char* kConfig = "io.ringmaster.config";  // a hash of the pool's settings
}  // namespace label

struct ContainerHost {
  std::string instance;
  std::string run_dir;  // where sockets are, as the master sees it
  std::string user;     // "uid:gid" for containers with a socket, so that the engine may connect; empty: the image's
};

// The body of POST /containers/create.
nlohmann::json container_spec(const ContainerHost& host, const Launch& launch);

// Changes when a setting does that containers are made by.
std::string container_config(const ContainerHost& host, const config::Pool& pool);

// The folder, as the master sees it, in which this epoch's socket will be; and the socket.
std::string socket_folder(const ContainerHost& host, const std::string& pool, std::uint32_t slot, std::uint64_t epoch);
base::Endpoint socket_endpoint(const ContainerHost& host, const Launch& launch);

}  // namespace ringmaster::supervise
