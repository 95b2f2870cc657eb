// Servers that run without us: nothing is started, and nothing ended. "Running" is only that they are in the set.
#pragma once

#include "supervise/runtime.h"

namespace ringmaster::supervise {

class ServerRuntime final : public Runtime {
 public:
  explicit ServerRuntime(io::Loop& loop) : loop_(loop) {}
  io::Async<base::Result<std::unique_ptr<Running>>> start(Launch launch) override;

 private:
  io::Loop& loop_;
};

}  // namespace ringmaster::supervise
