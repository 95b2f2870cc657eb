// Replicas as child processes of the master: each in a session of its own, with its output in our log, listening on a
// Unix socket ({socket}, or an inherited one with listen_fds) or on a loopback port ({port}, PORT).
#pragma once

#include "supervise/runtime.h"

namespace ringmaster::supervise {

// Whom a pool's processes run as; nothing: the master's own user. Error: there is no such user or group.
base::Result<std::optional<io::User>> user_of(io::System& system, const config::Pool& pool);

// A pool with a user has a folder of its own for its sockets, run_dir/<pool>, which that user may write to.
class ProcessRuntime final : public Runtime {
 public:
  // `run_dir`: where sockets go; absolute, since replicas may have another working directory.
  ProcessRuntime(io::Loop& loop, std::string run_dir);

  io::Async<base::Result<std::unique_ptr<Running>>> start(Launch launch) override;

 private:
  base::Result<base::Endpoint> endpoint_for(const Launch& launch);
  std::vector<std::string> command_of(const Launch& launch, const base::Endpoint& endpoint) const;
  static std::vector<std::string> environment_of(const Launch& launch, const base::Endpoint& endpoint);

  io::Loop& loop_;
  std::string run_dir_;
  std::string own_executable_;
};

}  // namespace ringmaster::supervise
