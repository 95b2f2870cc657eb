// Wait: something that a fiber waits for, with a deadline. Everything awaitable that is not a call is a Wait.
//
//        await            wake(outcome) · timer · cancel           the loop's next round
//   idle ─────▶ waiting ────────────────────────────────▶ queued ───────────────────────▶ done(): the fiber resumes
//
// wake() never resumes anybody itself: it queues. So whoever wakes cannot be surprised by what the woken fiber does.
#pragma once

#include <coroutine>

#include "base/clock.h"
#include "base/intrusive_list.h"
#include "io/async.h"
#include "io/timer_wheel.h"

namespace ringmaster::io {

using base::Code;
using base::Time;

class Loop;
struct ReadyTag;

class Wait : public base::Link<ReadyTag>, public Timer, public Cancellable {
 public:
  explicit Wait(Loop& loop) : loop_(loop) {}
  Wait(const Wait&) = delete;
  Wait& operator=(const Wait&) = delete;
  virtual ~Wait() = default;

  // Ends the wait with `outcome`; the first one counts. Nothing happens unless it is waiting.
  void wake(Code outcome);
  void cancel() override { wake(Code::cancelled); }
  void fire() final { wake(Code::timeout); }

  // Called by the loop once the wait has ended.
  virtual void done() = 0;

  Code outcome() const { return outcome_; }
  bool waiting() const { return waiting_; }
  Loop& loop() const { return loop_; }

 protected:
  void begin(Time deadline);  // idle → waiting
  void abandon();             // → idle, whatever it was, without done()
  virtual void detach() {}    // takes it off whatever would have woken it

 private:
  Loop& loop_;
  bool waiting_ = false;
  Code outcome_ = Code::ok;
};

// A Wait that a coroutine awaits: resumes it with the outcome.
class FiberWait : public Wait {
 public:
  using Wait::Wait;
  bool await_ready() const noexcept { return false; }

  void done() override {
    fiber_->waiting = nullptr;
    frame_.resume();
  }

 protected:
  // For await_suspend(). False: the fiber has been cancelled and goes on at once.
  template <class P>
  bool suspend(std::coroutine_handle<P> frame, Time deadline) {
    fiber_ = frame.promise().fiber;
    frame_ = frame;
    if (fiber_->cancelled) return false;
    fiber_->waiting = this;
    begin(deadline);
    return true;
  }
  bool cancelled() const { return fiber_->cancelled; }

 private:
  Fiber* fiber_ = nullptr;
  std::coroutine_handle<> frame_;
};

// Awaits nothing: gives the fiber that runs. `Fiber& fiber = co_await this_fiber();`
struct ThisFiber {
  Fiber* fiber = nullptr;
  bool await_ready() const noexcept { return false; }
  template <class P>
  bool await_suspend(std::coroutine_handle<P> frame) noexcept {
    fiber = frame.promise().fiber;
    return false;
  }
  Fiber& await_resume() const noexcept { return *fiber; }
};
inline ThisFiber this_fiber() { return {}; }

// An event without memory: wakes all who wait for it now.
class Signal {
  struct Tag;

 public:
  class Waiter final : public FiberWait, public base::Link<Tag> {
   public:
    Waiter(Loop& loop, Signal& signal, Time deadline) : FiberWait(loop), signal_(signal), deadline_(deadline) {}
    template <class P>
    bool await_suspend(std::coroutine_handle<P> frame) {
      if (!suspend(frame, deadline_)) return false;
      signal_.waiters_.push_back(*this);
      return true;
    }
    Code await_resume() const { return cancelled() ? Code::cancelled : outcome(); }

   private:
    void detach() override { static_cast<base::Link<Tag>*>(this)->unlink(); }
    Signal& signal_;
    Time deadline_;
  };

  // Awaits the next notify(): Code::ok, timeout or cancelled.
  Waiter wait(Loop& loop, Time deadline = base::kNever) { return {loop, *this, deadline}; }
  void notify() {
    while (Waiter* first = waiters_.front()) first->wake(Code::ok);
  }
  // Wakes the one that has waited longest, whose outcome is then ok even if its fiber is cancelled before it runs. False if
  // nobody waits.
  bool notify_one() {
    Waiter* first = waiters_.front();
    if (first != nullptr) first->wake(Code::ok);
    return first != nullptr;
  }

 private:
  base::IntrusiveList<Waiter, Tag> waiters_;
};

}  // namespace ringmaster::io
