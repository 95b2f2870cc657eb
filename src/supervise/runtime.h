// How replicas are run: the seam between the fleet, which decides what should run, and processes, containers or
// addresses, which do. ProcessRuntime is the first implementation.
#pragma once

#include <memory>
#include <string>

#include "config/config.h"
#include "io/loop.h"

namespace ringmaster::supervise {

// One epoch of a slot, to be started.
struct Launch {
  const config::Pool& pool;
  std::uint32_t slot;
  std::uint64_t epoch;
  std::string name;
  base::Endpoint endpoint;  // from Runtime::endpoint_for
};

// A started replica. Destroyed only after wait() has given its end.
class Running {
 public:
  virtual ~Running() = default;
  virtual std::int64_t pid() const = 0;
  // Awaits its end: how it ended, for the log. Errors: timeout, cancelled.
  virtual io::Async<base::Result<std::string>> wait(base::Time deadline) = 0;
  virtual void terminate() = 0;  // asks it to end (SIGTERM)
  virtual void kill() = 0;       // ends it (SIGKILL)
};

class Runtime {
 public:
  virtual ~Runtime() = default;
  // Where this epoch will listen. Errors: no free port.
  virtual base::Result<base::Endpoint> endpoint_for(const config::Pool& pool, std::uint32_t slot, std::uint64_t epoch) = 0;
  // Errors: the command does not exist, or cannot be started; the detail says why.
  virtual base::Result<std::unique_ptr<Running>> start(const Launch& launch) = 0;
};

}  // namespace ringmaster::supervise
