// Coroutines: Async<T> is a function that can wait, and Fiber is one line of such calls.
//
//   Async<Result<int>> answer(Stream& s) { auto got = co_await s.read(buffer, deadline); … co_return 42; }
//
// An Async is lazy: it starts when it is awaited, and control passes between caller and callee without touching the
// loop. A Fiber is a chain of Asyncs that await each other, so at any moment it waits for at most one thing. cancel()
// makes that wait, and every later one, end with Code::cancelled; the fiber then runs to its own end. A frame is never
// destroyed in the middle: cleaning up is ordinary code and ordinary destructors.
//
// g++ 12 miscompiles some uses: name every awaited temporary that owns something, and keep co_await out of ?:, braced
// initialisers and default arguments.
#pragma once

#include <coroutine>
#include <exception>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/result.h"
#include "io/frame_pool.h"

namespace ringmaster::io {

// What a fiber can wait for; implemented by Wait (loop.h).
class Cancellable {
 public:
  // Makes the wait end with Code::cancelled, from the loop and not from inside this call.
  virtual void cancel() = 0;

 protected:
  ~Cancellable() = default;
};

struct Fiber {
  Cancellable* waiting = nullptr;
  bool cancelled = false;

  void cancel() {
    if (std::exchange(cancelled, true)) return;
    if (waiting != nullptr) waiting->cancel();
  }
};

template <class T>
class Async;

namespace detail {

struct PromiseBase {
  std::coroutine_handle<> continuation = std::noop_coroutine();
  Fiber* fiber = nullptr;

  static void* operator new(std::size_t bytes) { return allocate_frame(bytes); }
  static void operator delete(void* frame, std::size_t bytes) { free_frame(frame, bytes); }

  std::suspend_always initial_suspend() noexcept { return {}; }
  struct Final {
    bool await_ready() noexcept { return false; }
    template <class P>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<P> ended) noexcept {
      return ended.promise().continuation;
    }
    void await_resume() noexcept {}
  };
  Final final_suspend() noexcept { return {}; }
  void unhandled_exception() { std::terminate(); }  // no exceptions across modules (STYLE): this is a bug
};

template <class T>
struct Promise : PromiseBase {
  std::optional<T> value;
  Async<T> get_return_object();
  template <class U>
  void return_value(U&& v) {
    value.emplace(std::forward<U>(v));
  }
  T take() { return std::move(*value); }
};

template <>
struct Promise<void> : PromiseBase {
  Async<void> get_return_object();
  void return_void() {}
  void take() {}
};

}  // namespace detail

template <class T>
class [[nodiscard]] Async {
 public:
  using promise_type = detail::Promise<T>;
  using Frame = std::coroutine_handle<promise_type>;

  explicit Async(Frame frame) : frame_(frame) {}
  Async(Async&& other) noexcept : frame_(std::exchange(other.frame_, nullptr)) {}
  Async& operator=(Async&&) = delete;
  ~Async() {
    if (!frame_) return;
    CHECK(!started_ || frame_.done());
    frame_.destroy();
  }

  bool await_ready() const noexcept { return false; }
  template <class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> caller) noexcept {
    started_ = true;
    frame_.promise().continuation = caller;
    frame_.promise().fiber = caller.promise().fiber;
    return frame_;
  }
  T await_resume() { return frame_.promise().take(); }

 private:
  Frame frame_;
  bool started_ = false;
};

namespace detail {
template <class T>
Async<T> Promise<T>::get_return_object() {
  return Async<T>(Async<T>::Frame::from_promise(*this));
}
inline Async<void> Promise<void>::get_return_object() { return Async<void>(Async<void>::Frame::from_promise(*this)); }
}  // namespace detail

}  // namespace ringmaster::io
