// Replicas as child processes of the master: each in a session of its own, with its output in our log, listening on a
// Unix socket ({socket}, or an inherited one with listen_fds) or on a loopback port ({port}, PORT).
#pragma once

#include "supervise/runtime.h"

namespace ringmaster::supervise {

class ProcessRuntime final : public Runtime {
 public:
  // `run_dir`: where sockets go; absolute, since replicas may have another working directory.
  ProcessRuntime(io::Loop& loop, std::string run_dir);

  base::Result<base::Endpoint> endpoint_for(const config::Pool& pool, std::uint32_t slot, std::uint64_t epoch) override;
  base::Result<std::unique_ptr<Running>> start(const Launch& launch) override;

 private:
  std::vector<std::string> command_of(const Launch& launch) const;
  static std::vector<std::string> environment_of(const Launch& launch);

  io::Loop& loop_;
  std::string run_dir_;
  std::string own_executable_;
};

}  // namespace ringmaster::supervise
