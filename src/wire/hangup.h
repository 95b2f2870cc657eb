// While it lives, a client that hangs up cancels the fiber that works for it: no replica is kept busy for nobody.
// A client that had ended its sending side before (printf … | nc -N) is served all the same.
#pragma once

#include "io/watch.h"

namespace ringmaster::wire {

class HangupGuard final : public io::Wait {
 public:
  HangupGuard(io::Watch& client, io::Fiber& fiber) : Wait(client.loop()), client_(client), fiber_(fiber) {
    if (client.hung_up() || client.hangup != nullptr) return;
    begin(base::kNever);
    client.hangup = this;
  }
  ~HangupGuard() override { abandon(); }
  void done() override { fiber_.cancel(); }

 private:
  void detach() override { client_.hangup = nullptr; }
  io::Watch& client_;
  io::Fiber& fiber_;
};

}  // namespace ringmaster::wire
