// How replicas are run: the seam between the fleet, which decides what should run, and processes, containers or
// addresses, which do.
#pragma once

#include <functional>
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
  base::Endpoint server;                         // of one that runs already: where
  std::function<void(std::string_view)> output;  // takes each line that it writes
};

// A started replica. Nothing is left of it once this is destroyed.
class Running {
 public:
  virtual ~Running() = default;
  virtual base::Endpoint endpoint() const = 0;          // where it listens, or will
  virtual std::int64_t pid() const { return 0; }        // of a process of ours
  virtual std::string container() const { return {}; }  // its id
  // Awaits its end: how it ended, for the log. Errors: timeout, cancelled.
  virtual io::Async<base::Result<std::string>> wait(base::Time deadline) = 0;
  virtual void terminate() = 0;  // asks it to end (SIGTERM)
  virtual void kill() = 0;       // ends it (SIGKILL)
};

class Runtime {
 public:
  virtual ~Runtime() = default;
  // Starts it, or finds it running as an earlier master left it. Errors say what is missing: the command, the image, a free
  // port. Cancelled: whatever of it exists will be removed.
  virtual io::Async<base::Result<std::unique_ptr<Running>>> start(Launch launch) = 0;
  // Why starts wait, if something is wrong that all of them need; else empty.
  virtual std::string trouble() const { return {}; }
};

// Which one runs what.
struct Runtimes {
  Runtime* process;
  Runtime* container;  // null if no pool has an image
  Runtime* server;
  Runtime& of(balance::Origin origin) const {
    return *(origin == balance::Origin::process ? process : origin == balance::Origin::container ? container : server);
  }
};

}  // namespace ringmaster::supervise
