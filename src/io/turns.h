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
      if (turns_ == nullptr) return;
      turns_->taken_ = false;
      turns_->freed_.notify_one();
    }

   private:
    Turns* turns_;
  };

  // Error: cancelled.
  Async<Result<Turn>> take(Loop& loop) {
    while (taken_) {
      const Code woken = co_await freed_.wait(loop);
      if (woken != Code::cancelled) continue;
      if (!taken_) freed_.notify_one();
      co_return base::fail(Code::cancelled);
    }
    taken_ = true;
    co_return Turn(*this);
  }

 private:
  bool taken_ = false;
  Signal freed_;
};

}  // namespace ringmaster::io
