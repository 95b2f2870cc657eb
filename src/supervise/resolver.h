// Names of listed servers: looked up at the start and then again and again, so that a service that grows or moves behind its
// name is followed. A name that cannot be looked up leaves things as they are.
#pragma once

#include "supervise/fleet.h"

namespace ringmaster::supervise {

class Resolver {
 public:
  Resolver(io::Loop& loop, const config::Config& config, Fleet& fleet) : loop_(loop), config_(config), fleet_(fleet), scope_(loop) {}
  // Seats the servers that are given by address, and begins to look up the others.
  void start();
  io::Async<void> stop();

 private:
  io::Async<void> follow(const config::Pool& pool, std::string server);

  io::Loop& loop_;
  const config::Config& config_;
  Fleet& fleet_;
  io::Scope scope_;
};

}  // namespace ringmaster::supervise
