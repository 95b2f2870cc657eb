// `ringmaster task …`: tasks, from the command line.
#pragma once

#include <cstdint>
#include <string>

#include "cmd/admin_call.h"

namespace ringmaster::cmd {

struct TaskOptions {
  AdminAddress admin;
  std::string id;
  // submit
  std::string type;
  std::string payload;  // JSON; empty: {}
  std::string queue;    // empty: the first
  std::string file;     // one task as JSON in each line, "-": standard input; instead of the two above
  std::int64_t delay_ms = 0;
  std::int64_t priority = 0;
  unsigned wait_s = 0;
  // list
  std::string state;
  unsigned limit = 20;
  bool json = false;
};

// Each prints its result, or one line to standard error. Exit code: 0; 1 when it failed (wait, and submit that waits: when the
// task did not end well); 2 for what is not JSON.
int run_task_submit(const TaskOptions& options);
int run_task_get(const TaskOptions& options);
int run_task_wait(const TaskOptions& options);
int run_task_list(const TaskOptions& options);
int run_task_cancel(const TaskOptions& options);
int run_task_retry(const TaskOptions& options);

}  // namespace ringmaster::cmd
