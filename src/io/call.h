// A call into another loop's thread: an Async that runs there, and whose value is awaited here.
#pragma once

#include <functional>
#include <memory>

#include "io/loop.h"

namespace ringmaster::io {

namespace detail {

template <class T>
struct Answer {
  std::optional<T> value;  // touched on the asking loop only: it travels as a posted call
  Signal signal;
};

template <class T>
Async<void> run_for(Loop& there, std::shared_ptr<Answer<T>> answer, std::function<Async<T>()> work) {
  auto running = work();
  T value = co_await running;
  there.post([answer, value = std::move(value)]() mutable {
    answer->value = std::move(value);
    answer->signal.notify();
  });
}

}  // namespace detail

// Runs `work()` as a fiber of `scope`, on its loop, and awaits what it gives. Error cancelled: the asking fiber was; the work
// goes on. The asking loop must live until the scope has been joined.
template <class T>
Async<Result<T>> call(Scope& scope, Loop& here, std::function<Async<T>()> work) {
  const auto answer = std::make_shared<detail::Answer<T>>();
  scope.loop().post([&scope, &here, answer, work = std::move(work)] { scope.spawn(detail::run_for<T>(here, answer, work)); });
  while (!answer->value) {
    const Code woken = co_await answer->signal.wait(here);
    if (woken == Code::cancelled) co_return base::fail(Code::cancelled);
  }
  co_return std::move(*answer->value);
}

}  // namespace ringmaster::io
