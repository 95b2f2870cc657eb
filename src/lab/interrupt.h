// Whether the person has had enough (Ctrl-C): what waits ends its wait and goes on with what it has.
#pragma once

#include "io/wait.h"

namespace ringmaster::lab {

class Interrupt {
 public:
  bool asked() const { return asked_; }
  void ask() {
    asked_ = true;
    signal_.notify();
  }
  // Awaits the time, or the interrupt.
  io::Signal::Waiter until(io::Loop& loop, base::Time deadline) { return signal_.wait(loop, deadline); }

 private:
  bool asked_ = false;
  io::Signal signal_;
};

}  // namespace ringmaster::lab
