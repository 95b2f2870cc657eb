#include "dispatch/dispatcher.h"

#include <algorithm>

#include "base/log.h"
#include "dispatch/queue.h"
#include "dispatch/sqlite_store.h"

namespace ringmaster::dispatch {

using base::Duration;
using base::Source;
using task::State;
using namespace std::chrono_literals;

static constexpr Duration kStoreRetry = 1s;  // a store that cannot be opened or written to

Dispatcher::Dispatcher(io::Loop& loop, const config::Config& config, std::string file) : loop_(loop), config_(config), file_(std::move(file)), scope_(loop) {
  for (const config::Queue& settings : config.queues) {
    queues_[settings.name] = std::make_unique<Queue>(settings, settings.back_off, settings.back_off_max);
    if (!settings.pool.empty()) waiters_[settings.pool] = std::make_unique<PoolWaiter>(*this, settings.pool);
  }
}

Dispatcher::~Dispatcher() = default;

Millis Dispatcher::now() const {
  return std::chrono::duration_cast<std::chrono::milliseconds>(loop_.system().wall_now().time_since_epoch()).count();
}

void Dispatcher::start() { scope_.spawn(open()); }

void Dispatcher::begin_stop() {
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
}

// --- the store ---

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
  std::vector<Task> tasks;
  std::vector<QueueState> states;
  while (true) {
    Result<void> opened = base::fail(Code::cancelled);
    auto opening = loop_.background([&] { opened = open_store(tasks, states); });
    co_await opening;
    if (opened) break;
    if (not_ready_ != base::describe(opened.error())) base::log::error("tasks: {}", base::describe(opened.error()));
    not_ready_ = base::describe(opened.error());
    const Code slept = co_await loop_.sleep(kStoreRetry);
    if (slept == Code::cancelled) co_return;
  }
  journal_ = std::make_unique<Journal>(loop_, *store_);
  not_ready_.clear();
  take_up(std::move(tasks), states);
  scope_.spawn(follow_clock());
  scope_.spawn(keep_house());
  adopt(view_);
}

// On another thread.
Result<void> Dispatcher::open_store(std::vector<Task>& tasks, std::vector<QueueState>& states) {
  auto opened = SqliteStore::open(file_, now());
  if (!opened) return std::unexpected(opened.error());
  if (!(*opened)->damage().empty()) base::log::error("tasks: {}", (*opened)->damage());
  auto live = (*opened)->live();
  if (!live) return std::unexpected(live.error());
  auto queues = (*opened)->queues();
  if (!queues) return std::unexpected(queues.error());
  const auto last = (*opened)->last_id();
  if (!last) return std::unexpected(last.error());
  tasks = std::move(*live);
  states = std::move(*queues);
  last_id_ = *last;
  store_ = std::move(*opened);
  return {};
}

// What the last owner left. Attempts that were under way have ended with it, but for those of pull workers.
void Dispatcher::take_up(std::vector<Task> tasks, const std::vector<QueueState>& states) {
  for (const QueueState& state : states) {
    if (const auto queue = queues_.find(state.queue); queue != queues_.end()) queue->second->state = queue->second->wanted = state;
  }
  const Millis time = now();
  std::size_t begun = 0;
  for (Task& task : tasks) {
    const auto live = std::make_shared<Live>();
    live->task = std::move(task);
    const auto found = queues_.find(live->task.spec.queue);
    if (found == queues_.end()) {
      base::log::warning("task {} waits in queue '{}', which is not configured", task::to_text(live->task.id), live->task.spec.queue);
      continue;
    }
    if (task::is_final(live->task.progress.state)) {
      scope_.spawn(tell(live));
      continue;
    }
    enter(live);
    if (live->task.progress.state == State::in_progress && live->task.progress.lease_until > time) {
      live->leased = true;
      ++found->second->in_progress;
      set_alarm(live);
    } else if (live->task.progress.state == State::in_progress) {
      ++begun;
      CHECK(task::conclude(live->task, live->task.progress.attempt, {task::Outcome::Kind::interrupted, "the engine ended during the attempt"},
                           found->second->back_off, time, loop_.random())
                .has_value());
      scope_.spawn(save(live));
    } else {
      saved(live);
    }
  }
  if (!live_.empty()) base::log::info("tasks: {} were left to do, {} of them had been begun", live_.size(), begun);
}

// Makes the task's progress durable, however long that takes.
Async<void> Dispatcher::save(LivePtr live) {
  const unsigned version = ++live->version;
  ++live->uncommitted;
  bool told = false;
  Result<void> written;
  while (true) {
    auto commit = journal_->commit(Update{live->task.id, live->task.progress});
    written = co_await commit;
    if (written || live->version != version) break;  // a later save has all of it
    if (!std::exchange(told, true)) base::log::error("task {} cannot be written: {}", task::to_text(live->task.id), base::describe(written.error()));
    const Code slept = co_await loop_.sleep(kStoreRetry);
    if (slept == Code::cancelled) break;  // the next owner knows less, and does it again
  }
  --live->uncommitted;
  if (written && live->version == version) saved(live);
  tell_changed(*live);
}

void Dispatcher::tell_changed(Live& live) {
  ++live.commits;
  live.changed.notify();
}

// Its present state is on disk: what follows from it.
void Dispatcher::saved(const LivePtr& live) {
  Queue& queue = queue_of(*live);
  const State state = live->task.progress.state;
  set_alarm(live);
  if (state == State::pending) {
    queue.pending.add(live->task, live);
    queue.arrived.notify();
    pump(queue.settings.pool);
  } else if (task::is_final(state) && live_.contains(live->task.id)) {
    ++queue.figures.ended[static_cast<std::size_t>(state)];
    if (config_.tasks.log) {
      const Progress& progress = live->task.progress;
      base::log::info("task {} is {}, by {}, attempt {}: {}", task::to_text(live->task.id), task::name(state), progress.replica, progress.attempt,
                      base::log::printable((state == State::done ? progress.result : progress.error).substr(0, 200)));
    }
    forget(*live);
    if (live->task.progress.callback == task::Callback::due && !stopping_) scope_.spawn(tell(live));
  }
}

Dispatcher::Queue& Dispatcher::queue_of(const Live& live) { return *queues_.find(live.task.spec.queue)->second; }

void Dispatcher::enter(const LivePtr& live) {
  live_[live->task.id] = live;
  ++queue_of(*live).live;
  if (!live->task.spec.unique_key.empty()) unique_[{live->task.spec.queue, live->task.spec.unique_key}] = live->task.id;
}

void Dispatcher::forget(const Live& live) {
  --queue_of(live).live;
  if (!live.task.spec.unique_key.empty()) unique_.erase({live.task.spec.queue, live.task.spec.unique_key});
  if (live.alarm != 0) alarms_.erase({live.alarm, live.task.id});
  live_.erase(live.task.id);
}

void Dispatcher::unqueue(const Live& live) { queue_of(live).pending.remove(live.task); }

// Somebody may begin now, of those who offer or of those who pull.
void Dispatcher::place_freed(Queue& queue) {
  queue.arrived.notify();
  pump(queue.settings.pool);
}

// --- time ---

void Dispatcher::set_alarm(const LivePtr& live) {
  const Millis alarm = task::next_alarm(live->task);
  if (alarm == live->alarm) return;
  if (live->alarm != 0) alarms_.erase({live->alarm, live->task.id});
  live->alarm = alarm;
  if (alarm == 0) return;
  alarms_.insert({alarm, live->task.id});
  if (alarms_.begin()->first == alarm) alarm_set_.notify();
}

Async<void> Dispatcher::follow_clock() {
  static constexpr Millis kLongest = 60'000;  // the wall clock may be set
  while (true) {
    const Millis time = now();
    while (!alarms_.empty() && alarms_.begin()->first <= time) {
      const LivePtr live = live_.at(alarms_.begin()->second);
      alarms_.erase(alarms_.begin());
      live->alarm = 0;
      ring(live);
    }
    const Millis wait = alarms_.empty() ? kLongest : std::min(alarms_.begin()->first - time, kLongest);
    const Code woken = co_await alarm_set_.wait(loop_, loop_.now() + std::chrono::milliseconds(std::max<Millis>(wait, 1)));
    if (woken == Code::cancelled) co_return;
  }
}

void Dispatcher::ring(const LivePtr& live) {
  Queue& queue = queue_of(*live);
  if (live->leased && live->task.progress.lease_until <= now()) {
    live->leased = false;
    --queue.in_progress;
    ++queue.figures.failures;
    const auto ended = task::conclude(live->task, live->task.progress.attempt, {task::Outcome::Kind::failure, "the worker's lease ran out"}, queue.back_off,
                                      now(), loop_.random());
    if (ended) scope_.spawn(save(live));
    place_freed(queue);
    return;
  }
  const bool waited = live->task.progress.state == State::pending;
  if (task::on_time(live->task, now())) {
    if (waited) unqueue(*live);
    scope_.spawn(save(live));
  } else {
    set_alarm(live);
  }
}

// Retention, in small steps, so that no commit waits long for one.
Async<void> Dispatcher::keep_house() {
  static constexpr std::size_t kStep = 500;
  const Retention retention{config_.tasks.keep / 1ms, config_.tasks.keep_max};
  while (true) {
    const auto deleted = co_await journal_->sweep(retention, now(), kStep);
    if (!deleted) base::log::warning("tasks: old ones could not be deleted: {}", base::describe(deleted.error()));
    const Code slept = co_await loop_.sleep(deleted && *deleted == kStep ? 20ms : 2s);
    if (slept == Code::cancelled) co_return;
  }
}

// --- submitting ---

Result<Dispatcher::Queue*> Dispatcher::queue_for(const task::Spec& spec) {
  if (!not_ready_.empty()) return base::fail(Code::unavailable, not_ready_);
  const auto found = queues_.find(spec.queue);
  if (found == queues_.end()) return base::fail(Code::not_found, "there is no queue '" + spec.queue + "'", Source::client);
  const auto& types = found->second->settings.types;
  if (!types.empty() && std::ranges::find(types, spec.type) == types.end()) {
    std::string known;
    for (const std::string& type : types) known += (known.empty() ? "" : ", ") + type;
    return base::fail(Code::invalid, "queue '" + spec.queue + "' does not take tasks of type '" + spec.type + "', but " + known, Source::client);
  }
  if (!spec.callback.empty()) {
    const bool allowed = std::ranges::any_of(config_.tasks.callbacks, [&](const std::string& base_url) {
      return spec.callback == base_url || (spec.callback.starts_with(base_url) && (base_url.ends_with('/') || spec.callback[base_url.size()] == '/'));
    });
    // Nor may it climb out of what is allowed, in any spelling.
    const bool climbs = std::ranges::any_of(std::array{"..", "%2e", "%2E", "\\"}, [&](const char* way) { return spec.callback.contains(way); });
    if (!allowed || climbs) return base::fail(Code::denied, "the callback's URL is not among those that [tasks] callbacks allows", Source::client);
  }
  return found->second.get();
}

Async<Result<LivePtr>> Dispatcher::submit(task::Spec spec, bool only_now) {
  const auto queue = queue_for(spec);
  if (!queue) co_return std::unexpected(queue.error());
  if (spec.idempotency_key.empty()) co_return co_await accept(**queue, std::move(spec), only_now);
  const std::string key = spec.idempotency_key;
  if (!keys_under_way_.insert(key).second) {
    co_return base::fail(Code::exists, "a request with this Idempotency-Key is under way", Source::client);
  }
  auto outcome = co_await replay(spec);
  if (outcome && *outcome == nullptr) outcome = co_await accept(**queue, std::move(spec), only_now);
  keys_under_way_.erase(key);
  co_return outcome;
}

// The task that the key brought before, or null.
Async<Result<LivePtr>> Dispatcher::replay(const task::Spec& spec) {
  Result<std::optional<std::pair<std::uint64_t, std::uint64_t>>> known = base::fail(Code::cancelled);
  auto looking = loop_.background([&] { known = store_->find_key(spec.idempotency_key); });
  co_await looking;
  if (!known) co_return std::unexpected(known.error());
  if (!*known) co_return LivePtr();
  if ((*known)->second != spec.fingerprint) {
    co_return base::fail(Code::invalid, "this Idempotency-Key was used for another request, task " + task::to_text((*known)->first), Source::client);
  }
  co_return co_await find((*known)->first);
}

Async<Result<LivePtr>> Dispatcher::accept(Queue& queue, task::Spec spec, bool only_now) {
  // Whoever can begin at once gets it in the same transaction; but nobody overtakes those who wait.
  std::optional<Place> place;
  const bool may_begin = spec.run_at <= now() && can_begin(queue) && queue.pending.empty();
  if (may_begin && (queue.settings.ask.empty() || only_now)) place = co_await choose_available(queue);
  if (place && !can_begin(queue)) place.reset();  // asking took its time
  const auto taken = unique_.find({spec.queue, spec.unique_key});
  if (!spec.unique_key.empty() && taken != unique_.end()) {
    co_return base::fail(Code::exists, "task " + task::to_text(taken->second) + " has this unique key, and is not done yet", Source::client);
  }
  if ((only_now && !place) || queue.live >= queue.settings.length_max || !not_ready_.empty()) {
    ++queue.figures.refused;
    if (!not_ready_.empty()) co_return base::fail(Code::unavailable, not_ready_);
    if (queue.live >= queue.settings.length_max) co_return base::fail(Code::full, "the queue is full: it has " + std::to_string(queue.live) + " tasks");
    co_return base::fail(Code::full, queue.state.paused ? "the queue is paused" : "all replicas are busy");
  }
  const auto live = std::make_shared<Live>();
  live->task.spec = std::move(spec);
  live->task.id = last_id_ = task::next_id(last_id_, now());
  task::admit(live->task, now());
  enter(live);
  if (place) {
    task::begin_attempt(live->task, place->replica->name, now());
    ++queue.in_progress;
  }
  live->uncommitted = 1;
  auto commit = journal_->commit(Insert{&live->task});
  const auto written = co_await commit;
  live->uncommitted = 0;
  live->refused = !written;
  if (!written) {
    if (place) --queue.in_progress;
    forget(*live);
    tell_changed(*live);
    place_freed(queue);
    co_return std::unexpected(written.error());
  }
  ++queue.figures.accepted;
  if (place) {
    scope_.spawn(run(queue, live, std::move(*place), true));
  } else {
    saved(live);
  }
  tell_changed(*live);
  co_return live;
}

// --- asking ---

Async<Result<LivePtr>> Dispatcher::find(std::uint64_t id) {
  if (!not_ready_.empty()) co_return base::fail(Code::unavailable, not_ready_);
  if (const auto found = live_.find(id); found != live_.end()) {
    const LivePtr live = found->second;
    co_await await_commit(live);
    if (live->refused) co_return base::fail(Code::not_found, "there is no task " + task::to_text(id), Source::client);
    co_return live;
  }
  Result<std::optional<Task>> stored = base::fail(Code::cancelled);
  auto looking = loop_.background([&] { stored = store_->find(id); });
  co_await looking;
  if (!stored) co_return std::unexpected(stored.error());
  if (!*stored) co_return base::fail(Code::not_found, "there is no task " + task::to_text(id), Source::client);
  const auto live = std::make_shared<Live>();
  live->task = std::move(**stored);
  co_return live;
}

Async<Result<std::vector<Task>>> Dispatcher::list(Filter filter, std::uint64_t before, std::size_t most) {
  if (!not_ready_.empty()) co_return base::fail(Code::unavailable, not_ready_);
  Result<std::vector<Task>> tasks = base::fail(Code::cancelled);
  auto looking = loop_.background([&] { tasks = store_->list(filter, before, most); });
  co_await looking;
  co_return tasks;
}

Async<void> Dispatcher::await_commit(const LivePtr& live) {
  while (live->uncommitted > 0) {
    const Code woken = co_await live->changed.wait(loop_);
    if (woken == Code::cancelled) co_return;
  }
}

Async<void> Dispatcher::await_end(const LivePtr& live, Time deadline) {
  co_await await_commit(live);
  while (!task::is_final(live->task.progress.state) && !stopping_) {
    const Code woken = co_await live->changed.wait(loop_, deadline);
    if (woken == Code::cancelled) co_return;
    co_await await_commit(live);
    if (woken == Code::timeout) co_return;
  }
}

Async<Result<LivePtr>> Dispatcher::cancel(std::uint64_t id) {
  auto found = co_await find(id);
  if (!found) co_return found;
  const LivePtr live = *found;
  if (!queues_.contains(live->task.spec.queue)) co_return base::fail(Code::not_found, "its queue is not configured any more", Source::client);
  const bool waited = live->task.progress.state == State::pending;
  if (const auto cancelled = task::cancel(live->task, now()); !cancelled) co_return std::unexpected(cancelled.error());
  if (waited) unqueue(*live);
  if (std::exchange(live->leased, false)) --queue_of(*live).in_progress;
  if (live->offering != nullptr) live->offering->cancel();
  place_freed(queue_of(*live));
  co_await save(live);
  co_return live;
}

Async<Result<LivePtr>> Dispatcher::retry(std::uint64_t id) {
  auto found = co_await find(id);
  if (!found) co_return found;
  const LivePtr live = *found;
  const task::Spec& spec = live->task.spec;
  if (!queues_.contains(spec.queue)) co_return base::fail(Code::not_found, "its queue '" + spec.queue + "' is not configured any more", Source::client);
  if (!spec.unique_key.empty() && unique_.contains({spec.queue, spec.unique_key})) {
    co_return base::fail(Code::exists, "another task has its unique key now", Source::client);
  }
  if (live_.contains(id)) co_return base::fail(Code::exists, "the task is " + std::string(task::name(live->task.progress.state)), Source::client);
  if (live->task.progress.callback == task::Callback::due) co_return base::fail(Code::exists, "its callback is being told first", Source::client);
  if (const auto again = task::retry(live->task, now()); !again) co_return std::unexpected(again.error());
  enter(live);
  co_await save(live);
  // Retention may have been quicker.
  Result<std::optional<Task>> stored = base::fail(Code::cancelled);
  auto looking = loop_.background([&] { stored = store_->find(id); });
  co_await looking;
  if (!stored || *stored) co_return live;
  if (live_.contains(id)) {
    unqueue(*live);
    forget(*live);
  }
  co_return base::fail(Code::not_found, "there is no task " + task::to_text(id), Source::client);
}

// --- pull workers ---

Async<Result<std::vector<LivePtr>>> Dispatcher::lease(std::string name, std::string worker, std::size_t most, Millis lease, Time deadline) {
  if (!not_ready_.empty()) co_return base::fail(Code::unavailable, not_ready_);
  const auto found = queues_.find(name);
  if (found == queues_.end()) co_return base::fail(Code::not_found, "there is no queue '" + name + "'", Source::client);
  Queue& queue = *found->second;
  std::vector<LivePtr> leased;
  while (true) {
    while (leased.size() < most && !queue.pending.empty() && can_begin(queue)) {
      const LivePtr live = *queue.pending.first();
      unqueue(*live);
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
  for (const LivePtr& live : leased) scope_.spawn(save(live));
  for (const LivePtr& live : leased) co_await await_commit(live);
  co_return leased;
}

// The task, if the worker still has it.
static Result<LivePtr> still_leased(Result<LivePtr> found, unsigned attempt) {
  if (!found) return found;
  const Progress& progress = (*found)->task.progress;
  if ((*found)->leased && progress.attempt == attempt) return found;
  return base::fail(Code::exists,
                    "attempt " + std::to_string(attempt) + " is over: the task is " + std::string(task::name(progress.state)) + ", attempt " +
                        std::to_string(progress.attempt),
                    Source::client);
}

Async<Result<LivePtr>> Dispatcher::heartbeat(std::uint64_t id, unsigned attempt, Millis lease) {
  auto found = co_await find(id);
  const auto leased = still_leased(std::move(found), attempt);
  if (!leased) co_return leased;
  (*leased)->task.progress.lease_until = now() + lease;
  co_await save(*leased);
  co_return leased;
}

Async<Result<LivePtr>> Dispatcher::conclude(std::uint64_t id, unsigned attempt, task::Outcome outcome) {
  auto found = co_await find(id);
  const auto leased = still_leased(std::move(found), attempt);
  if (!leased) co_return leased;
  const LivePtr live = *leased;
  Queue& queue = queue_of(*live);
  queue.figures.failures += outcome.kind == task::Outcome::Kind::success ? 0 : 1;
  if (auto ended = task::conclude(live->task, attempt, std::move(outcome), queue.back_off, now(), loop_.random()); !ended) {
    co_return std::unexpected(ended.error());
  }
  live->leased = false;
  --queue.in_progress;
  place_freed(queue);
  co_await save(live);
  co_return live;
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
  if (!not_ready_.empty()) co_return base::fail(Code::unavailable, not_ready_);
  const auto found = queues_.find(name);
  if (found == queues_.end()) co_return base::fail(Code::not_found, "there is no queue '" + name + "'", Source::client);
  Queue& queue = *found->second;
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
  place_freed(queue);
  co_return Result<void>{};
}

Duration Dispatcher::retry_after(std::string_view name) const {
  const auto found = queues_.find(name);
  if (found == queues_.end() || found->second->seconds_per_task == 0) return 1s;
  const double seconds = found->second->seconds_per_task * static_cast<double>(found->second->pending.size() + 1);
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(std::clamp(seconds, 0.001, 3600.0)));
}

const Journal::Figures& Dispatcher::journal_figures() const {
  static const Journal::Figures kNone;
  return journal_ ? journal_->figures() : kNone;
}

std::string Dispatcher::waits_for(const Live& live) const {
  const Progress& progress = live.task.progress;
  if (progress.state == State::scheduled) return progress.failures > 0 ? "its time: it failed, and is tried again then" : "its time";
  if (progress.state != State::pending) return {};
  const auto found = queues_.find(live.task.spec.queue);
  if (found == queues_.end()) return "its queue, which is not configured";
  const Queue& queue = *found->second;
  if (queue.state.paused) return "the queue to be resumed: it is paused";
  if (!queue.has_room()) return "others to end: the queue may have " + std::to_string(queue.in_progress_max()) + " in progress";
  if (!queue.pending.is_first(live.task)) return "its turn: others were there before it, or have a higher priority";
  if (queue.settings.pool.empty()) return "a pull worker";
  const balance::PoolView* pool = view_->find(queue.settings.pool);
  const auto count = [&](auto is) { return pool == nullptr ? 0 : std::ranges::count_if(pool->replicas, is); };
  const auto ready = count([](const auto& replica) { return replica->ready(); });
  if (ready == 0) return "a replica: none of pool '" + queue.settings.pool + "' is ready";
  const auto declined = count([&](const auto& replica) { return replica->ready() && holds_.contains(replica.get()); });
  if (declined > 0) return "a free replica: " + std::to_string(declined) + " of " + std::to_string(ready) + " said that they are busy";
  return "a free replica: all " + std::to_string(ready) + " are busy";
}

}  // namespace ringmaster::dispatch
