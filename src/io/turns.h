// What only one fiber at a time may do: the others wait for their turn, in the order in which they came.
#pragma once

#include <utility>

#include "io/loop.h"

namespace ringmaster::io {

class Turns {
 public:
  // Held while one acts; its end is the next one's beginning. Ends before the Turns do.
  class Turn {
   public:
    explicit Turn(Turns& turns) : turns_(&turns) {}
    Turn(Turn&& other) noexcept : turns_(std::exchange(other.turns_, nullptr)) {}
    Turn& operator=(Turn&&) = delete;
    ~Turn() {
      if (turns_ != nullptr) turns_->pass_on();
    }

   private:
    Turns* turns_;
  };

  // Error: cancelled.
  Async<Result<Turn>> take(Loop& loop) {
    const Fiber& fiber = co_await this_fiber();
    if (fiber.cancelled) co_return base::fail(Code::cancelled);
    if (taken_) {
      auto waiting = freed_.wait(loop);
      const Code woken = co_await waiting;
      if (woken == Code::cancelled) {
        if (waiting.outcome() == Code::ok) pass_on();  // it was ours already
        co_return base::fail(Code::cancelled);
      }
    }
    taken_ = true;
    co_return Turn(*this);
  }

 private:
  // From hand to hand: whoever comes meanwhile must not get in between.
  void pass_on() { taken_ = freed_.notify_one(); }

  bool taken_ = false;
  Signal freed_;
};

}  // namespace ringmaster::io
