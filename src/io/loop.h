// The event loop: one per thread. It waits for readiness and timers and resumes the fibers that wanted them.
//
//   turn():  poll the system ─▶ mark watches, wake their waits ─▶ posted calls ─▶ timers ─▶ run what is ready
//
// Waking and running are apart: while events are being read no user code runs, so nothing can vanish under them.
// Thread rule: all of it on the loop's thread, but for post() and stop().
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <vector>

#include "base/random.h"
#include "io/scope.h"
#include "io/system.h"
#include "io/timer_wheel.h"
#include "io/wait.h"

namespace ringmaster::io {

class Loop {
 public:
  explicit Loop(System& system);
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;
  ~Loop();

  Time now() const { return now_; }  // of this turn
  System& system() { return system_; }
  base::Random& random() { return random_; }
  Scope& root() { return root_; }  // fibers that live as long as the loop

  // Runs until stop(); then cancels the root scope and goes on until its last fiber has ended.
  void run();
  void stop();                            // any thread
  void post(std::function<void()> call);  // any thread: `call` runs on the loop's, soon

  // One round, waiting at most `wait_max` for something to happen. True if anything ran.
  bool turn(Duration wait_max);
  Time next_timer() const { return wheel_.next(); }

  // Awaits `duration` going by. Code::timeout (the usual end) or Code::cancelled.
  class Sleep final : public FiberWait {
   public:
    Sleep(Loop& loop, Time until) : FiberWait(loop), until_(until) {}
    template <class P>
    bool await_suspend(std::coroutine_handle<P> frame) {
      return suspend(frame, until_);
    }
    Code await_resume() const { return cancelled() ? Code::cancelled : outcome(); }

   private:
    Time until_;
  };
  Sleep sleep(Duration duration) { return {*this, now_ + duration}; }

  // Awaits blocking work done on another thread: another loop's, or one for such work. Cannot be cancelled: the work may use
  // the caller's variables.
  class Background final : public FiberWait {
   public:
    Background(Loop& loop, Loop* where, std::function<void()> work) : FiberWait(loop), where_(where), work_(std::move(work)) {}
    template <class P>
    bool await_suspend(std::coroutine_handle<P> frame) {
      if (!suspend(frame, base::kNever)) return false;
      loop().start_background(*this);
      return true;
    }
    // False when the fiber had been cancelled before the work began.
    bool await_resume() const { return begun_; }
    void cancel() override {}

   private:
    friend class Loop;
    Loop* where_;
    std::function<void()> work_;
    bool begun_ = false;
  };
  Background background(std::function<void()> work) { return {*this, nullptr, std::move(work)}; }
  Background elsewhere(Loop& there, std::function<void()> work) { return {*this, &there, std::move(work)}; }

  // How many operations that need not wait a fiber may do before others get their turn.
  bool spend_budget() { return budget_ == 0 ? false : (--budget_, true); }

 private:
  friend class Wait;
  void run_ready();
  void run_posted();
  void start_background(Background& work);

  System& system_;
  Time now_;
  base::Random random_;
  bool any_order_;
  TimerWheel wheel_;
  base::IntrusiveList<Wait, ReadyTag> ready_;
  unsigned budget_ = 0;
  std::vector<Event> events_;
  std::mutex posted_mutex_;
  std::vector<std::function<void()>> posted_;  // guarded by posted_mutex_
  std::atomic<bool> has_posted_ = false;
  std::atomic<bool> stopping_ = false;
  Scope root_;
};

}  // namespace ringmaster::io
