// A listening socket that hands its connections to a callback. Level-triggered, because the open file is shared with
// the master and, during an upgrade, with the next engine.
#pragma once

#include <functional>

#include "io/stream.h"

namespace ringmaster::io {

class Listener {
 public:
  // Called for each connection, on the loop's thread.
  using Accepted = std::function<void(Stream)>;

  Listener(Loop& loop, Handle listening) : watch_(loop, std::move(listening), Trigger::level) {}

  // Accepts until the fiber is cancelled. When descriptors run out it says so, rests 100 ms, and goes on.
  Async<void> serve(Accepted accepted);

  // Accepts what waits in the backlog, and closes the socket: who comes later is refused, not left waiting.
  void close(const Accepted& accepted);

  Endpoint local() const { return watch_.system().local_endpoint(watch_.fd()); }

  // Stops taking connections (they wait in the backlog), without a spin; and takes them again.
  void pause() {
    paused_ = true;
    watch_.pause();
  }
  void resume() {
    paused_ = false;
    watch_.resume();
  }

 private:
  Watch watch_;
  bool paused_ = false;
};

// A loopback port that is free now. Somebody may take it before whom it is meant for does.
Result<Endpoint> free_port(System& system);

}  // namespace ringmaster::io
