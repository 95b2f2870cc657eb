// The dispatcher's begin and end: the store is opened, what the last owner left is taken up, and a stop waits for what is
// under way.
#include <algorithm>

#include "base/log.h"
#include "dispatch/dispatcher.h"
#include "dispatch/queue.h"
#include "dispatch/sqlite_store.h"

namespace ringmaster::dispatch {

using base::Duration;
using task::State;
using namespace std::chrono_literals;

void Dispatcher::start() { scope_.spawn(open()); }

Async<void> Dispatcher::finish_offers(Time deadline) {
  stopping_ = true;
  while (!offered_.empty()) {
    const Code woken = co_await offer_ended_.wait(loop_, deadline);
    if (woken != Code::ok) co_return;
  }
}

// Tasks that come while the store opens, after a start or a crash of ours, wait for it: until their deadline, or for some
// seconds. Whoever calls looks at not_ready_ next.
Async<void> Dispatcher::until_open(Millis deadline) {
  static constexpr Duration kPatience = 10s;
  static constexpr unsigned kWaitingMax = 10'000;
  if (!opening_ || wait_to_submit_ >= kWaitingMax) co_return;
  Time until = loop_.now() + kPatience;
  if (deadline != 0) until = std::min(until, loop_.now() + std::chrono::milliseconds(std::max<Millis>(deadline - now(), 0)));
  ++wait_to_submit_;
  while (opening_) {
    const Code woken = co_await opened_.wait(loop_, until);
    if (woken != Code::ok) break;
  }
  --wait_to_submit_;
}

void Dispatcher::end_opening() {
  opening_ = false;
  opened_.notify();
}

void Dispatcher::begin_stop() {
  end_opening();
  not_ready_ = "stopping";
  stopping_ = true;
  for (const auto& [name, queue] : queues_) queue->arrived.notify();
  for (const auto& [id, live] : live_) tell_changed(*live);
}

Async<void> Dispatcher::stop() {
  begin_stop();
  scope_.cancel();
  co_await scope_.join();
  for (const balance::PoolView& pool : view_->pools) {
    pool.status->tasks_wait = false;
    pool.status->task_waiters = nullptr;
  }
  journal_.reset();
  if (reader_) reader_->loop().stop();
  reader_.reset();
}

Async<void> Dispatcher::open() {
  while (!lock_) {  // an engine that has just died lets go of it in a moment
    auto locked = loop_.system().lock_file(file_ + ".lock");
    if (locked) {
      lock_ = std::move(*locked);
      break;
    }
    if (locked.error().code != Code::exists) not_ready_ = base::describe(locked.error());
    const Code slept = co_await loop_.sleep(20ms);
    if (slept == Code::cancelled) co_return;
  }
  reader_ = loop_.system().start_loop();
  Found found;
  while (true) {
    Result<void> opened = base::fail(Code::cancelled);
    auto opening = loop_.elsewhere(reader_->loop(), [&] { opened = open_store(found); });
    co_await opening;
    if (opened) break;
    if (not_ready_ != base::describe(opened.error())) base::log::error("tasks: {}", base::describe(opened.error()));
    not_ready_ = base::describe(opened.error());
    end_opening();
    const Code slept = co_await loop_.sleep(kStoreRetry);
    if (slept == Code::cancelled) co_return;
  }
  journal_ = std::make_unique<Journal>(loop_, *store_);
  take_up(found);
  not_ready_.clear();  // only now is anything begun: the most urgent of all, not the first that was read
  for (const std::uint64_t id : found.callbacks_due) scope_.spawn(tell(id));
  end_opening();
  scope_.spawn(follow_clock());
  scope_.spawn(keep_house());
  adopt(view_);
}

// On the reader's thread.
Result<void> Dispatcher::open_store(Found& found) {
  auto opened = SqliteStore::open(file_, now());
  if (!opened) return std::unexpected(opened.error());
  if (!(*opened)->damage().empty()) base::log::error("tasks: {}", (*opened)->damage());
  auto live = (*opened)->live();
  if (!live) return std::unexpected(live.error());
  auto queues = (*opened)->queues();
  if (!queues) return std::unexpected(queues.error());
  auto due = (*opened)->callbacks_due();
  if (!due) return std::unexpected(due.error());
  const auto last = (*opened)->last_id();
  if (!last) return std::unexpected(last.error());
  found = {std::move(*live), std::move(*queues), std::move(*due)};
  last_id_ = *last;
  store_ = std::move(*opened);
  return {};
}

// What the last owner left.
void Dispatcher::take_up(Found& found) {
  for (const QueueState& state : found.queues) {
    if (const auto queue = queues_.find(state.queue); queue != queues_.end()) queue->second->state = queue->second->wanted = state;
  }
  const Millis time = now();
  find_orphans(found.tasks, time);
  keep_places();  // before any task is begun
  for (Task& task : found.tasks) take_up_task(std::move(task), time);
  if (!live_.empty()) base::log::info("tasks: {} were left to do", live_.size());
}

// An attempt that was under way has ended with its owner, but for a pull worker's.
void Dispatcher::take_up_task(Task task, Millis time) {
  const auto found = queues_.find(task.spec.queue);
  if (found == queues_.end()) {
    base::log::warning("task {} waits in queue '{}', which is not configured", task::to_text(task.id), task.spec.queue);
    return;
  }
  const auto live = std::make_shared<Live>();
  live->task = std::move(task);
  enter(live);
  if (live->task.progress.state != State::in_progress) {
    saved(live);
  } else if (live->task.progress.lease_until > time) {
    live->leased = true;
    ++found->second->in_progress;
    set_alarm(live);
  } else {
    interrupt(live, *found->second, time);
  }
}

// Its attempt has ended with its engine: for us, though perhaps not for the replica.
void Dispatcher::interrupt(const LivePtr& live, Queue& queue, Millis time) {
  // Once is an accident; a task whose every attempt ends so is more likely the cause.
  static constexpr unsigned kCrashesMax = 3;
  using Kind = task::Outcome::Kind;
  task::Progress& progress = live->task.progress;
  const unsigned crashes = ++progress.crashes;
  const std::string why = "the engine ended during the attempt" + (crashes == 1 ? "" : ", " + std::to_string(crashes) + " times in a row");
  const Kind kind = crashes < kCrashesMax ? Kind::interrupted : Kind::rejected;
  CHECK(task::conclude(live->task, progress.attempt, {kind, why}, queue.back_off, time, loop_.random()).has_value());
  scope_.spawn(save(live));
}

void Dispatcher::find_orphans(const std::vector<Task>& tasks, Millis time) {
  for (const Task& task : tasks) {
    const task::Progress& progress = task.progress;
    const auto queue = queues_.find(task.spec.queue);
    const Millis until = progress.started + task.spec.timeout;
    const bool was_offered = progress.state == State::in_progress && progress.lease_until == 0;
    if (was_offered && queue != queues_.end() && until > time) orphans_.push_back({queue->second.get(), progress.replica, until});
  }
}

// per_replica holds over a crash of ours: an orphan's place stays taken until its attempt's time is over, unless the replica has
// gone, or can be asked whether it is free.
void Dispatcher::keep_places() {
  std::erase_if(orphans_, [&](const Orphan& orphan) {
    const balance::PoolView* pool = view_->find(orphan.queue->settings.pool);
    if (pool == nullptr) return orphan.until <= now();  // perhaps not yet told of
    const auto found = std::ranges::find(pool->replicas, orphan.replica, [](const auto& replica) { return replica->name; });
    if (found == pool->replicas.end()) return orphan.until <= now();
    balance::Ticket ticket;
    const bool keeps = question(*orphan.queue, **found).empty() && balance::try_admit_task(*pool, **found, ticket);
    if (keeps) scope_.spawn(keep_place(*found, std::move(ticket), orphan.until));
    return true;
  });
}

Async<void> Dispatcher::keep_place(std::shared_ptr<balance::Replica> replica, balance::Ticket ticket, Millis until) {
  const Code slept = co_await loop_.sleep(std::chrono::milliseconds(std::max<Millis>(until - now(), 0)));
  ticket.release();
  if (slept != Code::cancelled) pump(replica->pool);
}

}  // namespace ringmaster::dispatch
