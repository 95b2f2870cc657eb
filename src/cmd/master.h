// The master: owns listeners, configuration and replicas, and keeps an engine running. It parses nothing that comes from
// a network client.
#pragma once

#include <memory>

#include "config/config.h"
#include "io/loop.h"
#include "supervise/docker_runtime.h"
#include "supervise/engine_child.h"
#include "supervise/fleet.h"
#include "supervise/process_runtime.h"
#include "supervise/resolver.h"
#include "supervise/server_runtime.h"

namespace ringmaster::cmd {

class Master {
 public:
  Master(io::Loop& loop, const config::Config& config);
  ~Master();

  // Takes the state directory, opens the listeners, starts the engine and the fleet. Errors name what is in the way.
  base::Result<void> start();

  // Until stop() has been called and everything has ended.
  io::Async<void> run();
  void stop();

  // Where the listeners and the admin API are, ports that were 0 filled in.
  const std::vector<base::Endpoint>& listening() const { return listening_; }
  const base::Endpoint& admin() const { return admin_; }
  const supervise::Fleet& fleet() const { return *fleet_; }

 private:
  io::Async<void> end_in_any_case();
  base::Result<void> read_tokens();
  base::Result<void> open_listeners();
  base::Result<base::Endpoint> open_group(const base::Endpoint& address, std::uint32_t members, std::vector<int>& descriptors, bool dual_stack = false);
  void write_addresses();
  base::Result<void> prepare_directories(const std::string& directory);
  base::Result<void> prepare_for_engine_user(const std::string& directory);
  base::Result<void> prepare_for_users(const std::string& directory);
  base::Result<supervise::Runtimes> make_runtimes();

  io::Loop& loop_;
  const config::Config& config_;
  std::uint32_t workers_;
  std::unique_ptr<supervise::StateFile> state_;
  std::vector<io::Handle> sockets_;
  supervise::EngineChild::Listening handed_over_;
  std::vector<base::Endpoint> listening_;
  base::Endpoint admin_;
  std::unique_ptr<supervise::ProcessRuntime> processes_;
  std::unique_ptr<supervise::DockerRuntime> containers_;  // if a pool has an image
  std::unique_ptr<supervise::ServerRuntime> servers_;
  std::unique_ptr<supervise::EngineChild> engine_;
  std::unique_ptr<supervise::Fleet> fleet_;
  std::unique_ptr<supervise::Resolver> resolver_;
  bool stopping_ = false;
  io::Signal stop_wanted_;
};

// The `up` command.
int run_master(const config::Config& config);

}  // namespace ringmaster::cmd
