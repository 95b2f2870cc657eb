#include "io/scope.h"

#include "io/loop.h"

namespace ringmaster::io {

Scope::Join::Join(Scope& scope) : FiberWait(scope.loop()), scope_(scope) {}

Scope::Root Scope::run(Async<void> body) { co_await body; }

void Scope::spawn(Async<void> body) {
  const Root root = run(std::move(body));
  RootPromise& promise = root.frame.promise();
  promise.scope = this;
  promise.member.cancelled = cancelled_;
  fibers_.push_back(promise.member);
  root.frame.resume();
}

void Scope::cancel() {
  if (std::exchange(cancelled_, true)) return;
  fibers_.for_each([](Member& fiber) { fiber.cancel(); });
}

void Scope::ended() {
  if (fibers_.empty() && joiner_ != nullptr) joiner_->wake(Code::ok);
}

}  // namespace ringmaster::io
