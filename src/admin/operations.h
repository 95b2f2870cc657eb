// Changes that only the master can make, asked for by the engine's APIs: each is a Command over the link, and its Outcome.
//
// execute() runs on the control loop; execute_from() lets a worker's fiber ask and wait on its own loop.
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "io/call.h"
#include "link/messages.h"

namespace ringmaster::admin {

class Operations {
 public:
  // `send` puts a command on the link; false when the link has no room.
  Operations(io::Loop& control, std::function<bool(const link::Command&)> send);

  io::Async<link::Outcome> execute(link::Command command);
  io::Async<link::Outcome> execute_from(io::Loop& here, link::Command command);

  // An outcome has come over the link.
  void finished(const link::Outcome& outcome);

  io::Async<void> stop();
  // Of the control loop: for other work that workers ask for. Joined by stop().
  io::Scope& scope() { return scope_; }

 private:
  struct Pending {
    link::Outcome outcome;
    bool done = false;
    io::Signal signal;
  };
  using PendingPtr = std::shared_ptr<Pending>;

  io::Loop& control_;
  std::function<bool(const link::Command&)> send_;
  std::uint64_t next_id_ = 1;
  std::map<std::uint64_t, PendingPtr> pending_;
  io::Scope scope_;
};

}  // namespace ringmaster::admin
