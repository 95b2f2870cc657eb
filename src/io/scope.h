// A scope owns fibers and joins them: structured concurrency. Nothing that a scope started outlives it.
//
// race() and all() are the two usual shapes: both wait until every branch has ended; race() cancels the others as soon
// as one has.
#pragma once

#include <array>
#include <tuple>
#include <utility>

#include "base/intrusive_list.h"
#include "io/wait.h"

namespace ringmaster::io {

class Loop;

class Scope {
 public:
  explicit Scope(Loop& loop) : loop_(loop) {}
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
  ~Scope() { CHECK(empty()); }  // cancel() and join() first

  // Starts `body` as a fiber of this scope, now, up to its first wait. In a cancelled scope its waits end at once.
  void spawn(Async<void> body);

  // Cancels all fibers, and those that are still to come.
  void cancel();
  bool cancelled() const { return cancelled_; }
  bool empty() const { return fibers_.empty(); }
  Loop& loop() const { return loop_; }

  // Awaits the end of all fibers. If the awaiting fiber is cancelled meanwhile, so is the scope, and it is still joined.
  class Join final : public FiberWait {
   public:
    explicit Join(Scope& scope);
    template <class P>
    bool await_suspend(std::coroutine_handle<P> frame) {
      Fiber* fiber = frame.promise().fiber;
      if (fiber->cancelled) scope_.cancel();
      if (scope_.empty()) return false;
      // A cancelled fiber joins too: only here does "cancelled" not mean "at once".
      const bool was = std::exchange(fiber->cancelled, false);
      suspend(frame, base::kNever);
      fiber->cancelled = was;
      scope_.joiner_ = this;
      return true;
    }
    void await_resume() const {}
    void cancel() override { scope_.cancel(); }

   private:
    void detach() override { scope_.joiner_ = nullptr; }
    Scope& scope_;
  };
  Join join() { return Join(*this); }

 private:
  struct Tag;
  struct Root;  // the coroutine around a fiber's body
  struct RootPromise;
  friend class RootedFiber;

  static Root run(Async<void> body);
  void ended();

  Loop& loop_;
  struct Member : Fiber, base::Link<Tag> {};
  base::IntrusiveList<Member, Tag> fibers_;
  Join* joiner_ = nullptr;
  bool cancelled_ = false;
};

// The coroutine that carries a fiber: its promise is the Fiber, and its end tells the scope.
struct Scope::RootPromise {
  Member member;
  Fiber* fiber = &member;
  Scope* scope = nullptr;

  static void* operator new(std::size_t bytes) { return allocate_frame(bytes); }
  static void operator delete(void* frame, std::size_t bytes) { free_frame(frame, bytes); }

  Root get_return_object();
  std::suspend_always initial_suspend() noexcept { return {}; }
  struct Final {
    bool await_ready() noexcept { return false; }
    void await_suspend(std::coroutine_handle<RootPromise> frame) noexcept {
      Scope* owner = frame.promise().scope;
      frame.destroy();
      owner->ended();
    }
    void await_resume() noexcept {}
  };
  Final final_suspend() noexcept { return {}; }
  void return_void() {}
  void unhandled_exception() { std::terminate(); }
};

struct Scope::Root {
  using promise_type = RootPromise;
  std::coroutine_handle<RootPromise> frame;
};

inline Scope::Root Scope::RootPromise::get_return_object() { return {std::coroutine_handle<RootPromise>::from_promise(*this)}; }

namespace detail {

template <class T>
Async<void> keep(Async<T> body, std::optional<T>& result, Scope& scope, int& winner, int index, bool cancel_others) {
  result.emplace(co_await body);
  if (winner < 0) winner = index;
  if (cancel_others) scope.cancel();
}

}  // namespace detail

template <class A, class B>
struct Both {
  int first_done;  // 0: `a` ended first; 1: `b`
  A a;
  B b;
};

// Runs both at once, waits for both.
template <class A, class B>
Async<Both<A, B>> all(Loop& loop, Async<A> a, Async<B> b) {
  Scope scope(loop);
  std::optional<A> first;
  std::optional<B> second;
  int winner = -1;
  scope.spawn(detail::keep(std::move(a), first, scope, winner, 0, false));
  scope.spawn(detail::keep(std::move(b), second, scope, winner, 1, false));
  co_await scope.join();
  co_return Both<A, B>{winner, std::move(*first), std::move(*second)};
}

// Runs both at once; when one has ended the other is cancelled, and its (usually cancelled) result is returned too.
template <class A, class B>
Async<Both<A, B>> race(Loop& loop, Async<A> a, Async<B> b) {
  Scope scope(loop);
  std::optional<A> first;
  std::optional<B> second;
  int winner = -1;
  scope.spawn(detail::keep(std::move(a), first, scope, winner, 0, true));
  scope.spawn(detail::keep(std::move(b), second, scope, winner, 1, true));
  co_await scope.join();
  co_return Both<A, B>{winner, std::move(*first), std::move(*second)};
}

}  // namespace ringmaster::io
