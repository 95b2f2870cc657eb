// The Ringmaster that an experiment is about: one of the lab's own, on free ports and with a temporary folder, or one that
// runs already.
#pragma once

#include <nlohmann/json.hpp>

#include "lab/interrupt.h"
#include "lab/load.h"
#include "lab/program.h"

namespace ringmaster::lab {

// What the admin API knows of a replica.
struct ReplicaSeen {
  std::string name;
  unsigned slot = 0;
  std::int64_t pid = 0;
  std::uint64_t requests = 0;
  bool ready = false;
};

class Stack {
 public:
  // Starts one. `pool`: the settings of its pool "web", and more tables after them; the rest is the demo's. Ends when all replicas are ready.
  static Async<Result<std::unique_ptr<Stack>>> start(io::Loop& loop, Interrupt& interrupt, std::string pool);
  // One that runs: `admin` is the address of its admin API, or empty.
  static Async<Result<std::unique_ptr<Stack>>> join(io::Loop& loop, Interrupt& interrupt, Target target, const std::string& admin);
  ~Stack();  // after stop()

  bool ours() const { return program_ != nullptr; }
  bool has_admin() const { return admin_ != nullptr; }
  Target target(std::string path) const;
  const std::string& configuration() const { return configuration_; }

  Async<Result<std::vector<ReplicaSeen>>> replicas();
  // Adds or removes replicas until there are n, all ready; by the admin API.
  Async<Result<void>> resize(unsigned n);
  Async<Result<void>> remove(std::string name);
  // Waits until there are n that are ready.
  Async<Result<void>> until_ready(unsigned n);
  // Waits until another process is ready in its slot.
  Async<Result<void>> until_replaced(ReplicaSeen replica);
  // SIGKILL; tells when. Error: it is not known for certain to be a process that this Ringmaster has started on this machine.
  Async<Result<Time>> kill(ReplicaSeen replica);
  Async<void> stop();

 private:
  Stack(io::Loop& loop, Interrupt& interrupt) : loop_(loop), interrupt_(interrupt) {}
  void remove_folder();
  Async<Result<void>> find_addresses();
  template <class F>
  Async<Result<void>> until(F is_so);
  Async<Result<nlohmann::json>> call(std::string method, std::string path, std::string body = {});
  Async<Result<void>> change(std::string method, nlohmann::json body);

  io::Loop& loop_;
  Interrupt& interrupt_;
  std::string folder_;
  std::string configuration_;
  std::unique_ptr<Program> program_;
  std::unique_ptr<wire::ConnectionPool> admin_;
  std::string admin_host_;
  std::string pool_ = "web";
  Target target_;
};

}  // namespace ringmaster::lab
