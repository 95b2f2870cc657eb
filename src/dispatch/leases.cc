// Pull workers, for those who cannot be reached; and what operators set of a queue.
#include "dispatch/queue.h"

namespace ringmaster::dispatch {

using base::Source;

Async<Result<std::vector<LivePtr>>> Dispatcher::lease(std::string name, std::string worker, std::size_t most, Millis lease, Time deadline) {
  const auto named = queue_named(name);
  if (!named) co_return std::unexpected(named.error());
  Queue& queue = **named;
  std::vector<LivePtr> leased;
  while (true) {
    while (leased.size() < most && can_begin(queue)) {
      const LivePtr live = take_first(queue);
      if (live == nullptr) break;
      task::begin_attempt(live->task, worker, now());
      live->task.progress.lease_until = now() + lease;
      live->leased = true;
      ++queue.in_progress;
      ++queue.figures.attempts;
      leased.push_back(live);
    }
    if (!leased.empty() || stopping_) break;
    const Code woken = co_await queue.arrived.wait(loop_, deadline);
    if (woken != Code::ok) break;
  }
  std::vector<unsigned> attempts;
  for (const LivePtr& live : leased) {
    attempts.push_back(live->task.progress.attempt);
    scope_.spawn(save(live));
  }
  std::vector<bool> written;
  for (const LivePtr& live : leased) written.push_back(co_await await_commit(live));
  // Only those that are on disk, and the worker's still: while one was waited for, the lease of another may have run out, and
  // somebody else may have it.
  std::vector<LivePtr> given;
  for (std::size_t i = 0; i < leased.size(); ++i) {
    if (written[i] && leased[i]->leased && leased[i]->task.progress.attempt == attempts[i]) given.push_back(leased[i]);
  }
  co_return given;
}

// The task, if the worker still has it.
static Result<LivePtr> still_leased(Result<LivePtr> found, unsigned attempt) {
  if (!found) return found;
  if (const auto present = task::check_attempt((*found)->task, attempt); !present) return std::unexpected(present.error());
  if ((*found)->leased) return found;
  return base::fail(Code::exists, "this attempt was offered to a replica, and is not leased to a worker", Source::client);
}

Async<Result<LivePtr>> Dispatcher::heartbeat(std::uint64_t id, unsigned attempt, Millis lease) {
  auto found = co_await find(id);
  const auto leased = still_leased(std::move(found), attempt);
  if (!leased) co_return leased;
  (*leased)->task.progress.lease_until = now() + lease;
  co_return co_await save_and_tell(*leased);
}

Async<Result<LivePtr>> Dispatcher::conclude(std::uint64_t id, unsigned attempt, task::Outcome outcome) {
  auto found = co_await find(id);
  const auto leased = still_leased(std::move(found), attempt);
  if (!leased) co_return leased;
  const LivePtr& live = *leased;
  Queue& queue = queue_of(*live);
  queue.figures.failures += outcome.kind == task::Outcome::Kind::success ? 0 : 1;
  if (auto ended = task::conclude(live->task, attempt, std::move(outcome), queue.back_off, now(), loop_.random()); !ended) {
    co_return std::unexpected(ended.error());
  }
  live->leased = false;
  --queue.in_progress;
  wake(queue);
  co_return co_await save_and_tell(live);
}

// --- queues ---

std::vector<QueueView> Dispatcher::queues() const {
  std::vector<QueueView> views;
  for (const auto& [name, queue] : queues_) {
    QueueView& view = views.emplace_back(QueueView{&queue->settings, queue->state, 0, queue->pending.size(), queue->in_progress, queue->figures});
    view.scheduled = queue->live - std::min(queue->live, view.pending + view.in_progress);
  }
  return views;
}

Async<Result<void>> Dispatcher::set_queue(std::string name, std::optional<bool> paused, std::optional<unsigned> in_progress_max) {
  const auto named = queue_named(name);
  if (!named) co_return std::unexpected(named.error());
  Queue& queue = **named;
  if (paused) queue.wanted.paused = *paused;
  if (in_progress_max) queue.wanted.in_progress_max = *in_progress_max;
  const QueueState wanted = queue.wanted;
  auto commit = journal_->commit(wanted);
  const auto written = co_await commit;
  if (!written) {
    queue.wanted = queue.state;
    co_return written;
  }
  queue.state = wanted;
  wake(queue);
  co_return Result<void>{};
}

}  // namespace ringmaster::dispatch
