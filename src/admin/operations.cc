#include "admin/operations.h"

namespace ringmaster::admin {

using base::Code;
using io::Async;
using link::Outcome;

static constexpr std::size_t kPendingMax = 100;

Operations::Operations(io::Loop& control, std::function<bool(const link::Command&)> send) : control_(control), send_(std::move(send)), scope_(control) {}

Async<Outcome> Operations::execute(link::Command command) {
  command.id = next_id_++;
  if (pending_.size() >= kPendingMax) co_return Outcome{0, Code::unavailable, "too many changes are waiting already", {}};
  if (!send_(command)) co_return Outcome{0, Code::unavailable, "the master does not answer", {}};
  const PendingPtr pending = pending_[command.id] = std::make_shared<Pending>();
  while (!pending->done) {
    const Code woken = co_await pending->signal.wait(control_);
    if (woken == Code::cancelled) break;
  }
  pending_.erase(command.id);
  if (!pending->done) co_return Outcome{0, Code::cancelled, "stopping", {}};
  co_return pending->outcome;
}

void Operations::finished(const Outcome& outcome) {
  const auto found = pending_.find(outcome.command);
  if (found == pending_.end()) return;
  found->second->outcome = outcome;
  found->second->done = true;
  found->second->signal.notify();
}

Async<Outcome> Operations::execute_from(io::Loop& here, link::Command command) {
  const std::function<Async<Outcome>()> work = [this, command] { return execute(command); };
  auto outcome = co_await io::call<Outcome>(scope_, here, work);
  if (!outcome) co_return Outcome{0, Code::cancelled, "the client has left", {}};
  co_return std::move(*outcome);
}

Async<void> Operations::stop() {
  scope_.cancel();
  co_await scope_.join();
}

}  // namespace ringmaster::admin
