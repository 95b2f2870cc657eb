// Whether the person has had enough (Ctrl-C): what waits ends its wait and goes on with what it has.
#pragma once

#include "io/loop.h"

namespace ringmaster::lab {

class Interrupt {
 public:
  bool asked() const { return asked_; }
  void ask() {
    asked_ = true;
    signal_.notify();
  }
  // Awaits the time, or the interrupt; no longer at all once that has come.
  io::Signal::Waiter until(io::Loop& loop, base::Time deadline) { return signal_.wait(loop, asked_ ? loop.now() : deadline); }

 private:
  bool asked_ = false;
  io::Signal signal_;
};

}  // namespace ringmaster::lab
