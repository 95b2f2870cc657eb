// The programs of the simulated processes: the real master and engine, and a server that keeps a ledger.
#pragma once

#include "scenario.h"

namespace ringmaster::sim {

// `ringmaster engine`.
class EngineProgram final : public io::SimProgram {
 public:
  explicit EngineProgram(io::SimProcess& process) : engine_(process.loop(), process.systems[0]->adopt(3)) { process.loop().root().spawn(live()); }
  void kill() override {}  // its link has broken: that ends it
  bool ended() const override { return ended_; }

 private:
  Async<void> live() {
    co_await engine_.run();
    ended_ = true;
  }
  cmd::Engine engine_;
  bool ended_ = false;
};

// `ringmaster up`.
class MasterProgram final : public io::SimProgram {
 public:
  MasterProgram(io::SimProcess& process, const config::Config& config) : master_(process.loop(), config) {
    const auto started = master_.start();
    failure_ = started ? "" : base::describe(started.error());
    if (started) {
      process.loop().root().spawn(live());
    } else {
      ended_ = true;
    }
  }
  void kill() override { master_.stop(); }
  bool ended() const override { return ended_; }
  cmd::Master& master() { return master_; }
  const std::string& failure() const { return failure_; }

 private:
  Async<void> live() {
    co_await master_.run();
    ended_ = true;
  }
  cmd::Master master_;
  std::string failure_;
  bool ended_ = false;
};

// A server as a pool's command starts it: "server SOCKET SLOT [work]". Answers any path with its slot and the request's id, and
// takes tasks at /task.
class ServerProgram final : public io::SimProgram, public wire::Handler {
 public:
  ServerProgram(io::SimProcess& process, Ledger& ledger, TaskSide& tasks);
  void kill() override;
  bool ended() const override { return ended_; }
  Async<void> handle(wire::Exchange& exchange) override;
  void slow_down() { slow_ = true; }

 private:
  Async<void> end();
  void trouble();
  io::Loop& loop_;
  Ledger& ledger_;
  TaskSide& tasks_;
  bool for_tasks_;
  unsigned slot_;
  bool slow_ = false;
  std::vector<Execution*> present_;
  wire::Server server_;
  bool ended_ = false;
};

}  // namespace ringmaster::sim
