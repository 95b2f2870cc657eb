// A program that the lab runs for an experiment: a Ringmaster, or a server beside it. What it writes is kept for the case
// that it fails.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "io/process.h"

namespace ringmaster::lab {

class Program {
 public:
  // `arguments` of this very binary.
  static base::Result<std::unique_ptr<Program>> start(io::Loop& loop, std::vector<std::string> arguments);
  ~Program();  // after stop()

  bool running() const { return running_; }
  std::string last_words() const;  // the last lines that it wrote
  void kill() { process_.signal(9); }
  // SIGTERM, and SIGKILL if that does not help soon. Ends when it has ended.
  io::Async<void> stop();

 private:
  Program(io::Loop& loop, io::Child child);
  io::Async<void> follow();

  io::Loop& loop_;
  io::Process process_;
  bool running_ = true;
  std::deque<std::string> lines_;
  io::Signal ended_;
  io::Scope scope_;
};

}  // namespace ringmaster::lab
