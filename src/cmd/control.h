// The commands that talk to a running Ringmaster through its admin API: status, add, rm, logs, stop.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cmd/admin_call.h"

namespace ringmaster::cmd {

struct ControlOptions {
  AdminAddress admin;
  std::string pool;  // empty: the only one there is
  std::int64_t count = 0;
  std::vector<std::string> names;
  bool json = false;
  bool watch = false;    // status: again every second
  bool ready = false;    // status: only whether every pool can serve
  std::string replica;   // logs: whose
  bool follow = false;   // logs: what comes, too
  bool no_wait = false;  // stop: do not wait for the end
};

// Each prints its result, or one line to standard error. Exit code: 0, or 1 when it failed.
int run_status(const ControlOptions& options);
int run_add(const ControlOptions& options);
int run_rm(const ControlOptions& options);
int run_logs(const ControlOptions& options);
int run_stop(const ControlOptions& options);

}  // namespace ringmaster::cmd
