// A running child process: its end is awaited through a pidfd, so it is known at once and never mistaken.
#pragma once

#include "io/loop.h"
#include "io/watch.h"

namespace ringmaster::io {

class Process {
 public:
  Process(Loop& loop, Child child)
      : pid_(child.pid), output_(std::move(child.output)), child_(std::move(child)), ended_(loop, std::move(child_.pidfd), Trigger::level) {
    ended_.pause();
  }

  pid_t pid() const { return pid_; }

  // Awaits the end. Errors: timeout, cancelled.
  Async<Result<ExitStatus>> wait(Time deadline);

  // To the whole session of the child.
  void signal(int number);

  // The read end of its stdout and stderr; for read_lines(). Empty the second time.
  Handle take_output() { return std::move(output_); }

 private:
  pid_t pid_;
  Handle output_;
  Child child_;  // without its pidfd, which `ended_` has: signals go by pid, which cannot be another's before it is reaped
  Watch ended_;
  std::optional<ExitStatus> status_;
};

// Calls `line` for each line that comes, until the writing side is closed everywhere (children of the process may hold it
// open longer than the process lives); lines above 8 KiB are cut in two. Some 1.6 MB a second are read at most: who writes more
// has to wait at its pipe.
Async<void> read_lines(Loop& loop, Handle from, std::function<void(std::string_view)> line);

}  // namespace ringmaster::io
