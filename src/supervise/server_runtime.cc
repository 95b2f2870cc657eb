#include "supervise/server_runtime.h"

namespace ringmaster::supervise {

using base::Code;
using base::Result;
using io::Async;

namespace {

class Listed final : public Running {
 public:
  Listed(io::Loop& loop, base::Endpoint endpoint) : loop_(loop), endpoint_(std::move(endpoint)) {}
  base::Endpoint endpoint() const override { return endpoint_; }
  Async<Result<std::string>> wait(base::Time deadline) override {
    while (!struck_off_) {
      const Code woken = co_await struck_.wait(loop_, deadline);
      if (woken != Code::ok) co_return base::fail(woken);
    }
    co_return "is no longer listed";
  }
  void terminate() override { kill(); }
  void kill() override {
    struck_off_ = true;
    struck_.notify();
  }

 private:
  io::Loop& loop_;
  base::Endpoint endpoint_;
  bool struck_off_ = false;
  io::Signal struck_;
};

}  // namespace

Async<Result<std::unique_ptr<Running>>> ServerRuntime::start(Launch launch) { co_return std::make_unique<Listed>(loop_, std::move(launch.server)); }

}  // namespace ringmaster::supervise
