// CONTRACT S0's calls, as thin aliases of what the task API does: POST /tasks, GET /get-tasks, GET /tasks/{id}. The listener's
// workers ask; this answers on the control loop.
#pragma once

#include "admin/task_request.h"
#include "dispatch/dispatcher.h"

namespace ringmaster::admin {

class ClassicTasks {
 public:
  struct Reply {
    unsigned status = 0;
    std::string body;
    std::string extra;              // header lines
    std::vector<task::Task> tasks;  // a list's: made into the body where it is asked for, since that may take a while
  };

  // For the first queue of the listener's pool. `scope`: of the control loop, where the work is done.
  ClassicTasks(const config::Config& config, dispatch::Dispatcher& dispatcher, io::Scope& scope) : config_(config), dispatcher_(dispatcher), scope_(scope) {}

  static bool takes(std::string_view path);
  // From a worker's fiber, on its loop. `body`: of a POST.
  io::Async<base::Result<Reply>> answer(io::Loop& here, std::string method, std::string path, std::string body, std::string queue);

 private:
  io::Async<Reply> answer_here(std::string method, std::string path, std::string body, std::string queue);
  io::Async<Reply> submit(std::string body, std::string queue);
  io::Async<Reply> list(std::string queue);
  io::Async<Reply> show(std::string id, std::string queue);

  const config::Config& config_;
  dispatch::Dispatcher& dispatcher_;
  io::Scope& scope_;
};

}  // namespace ringmaster::admin
