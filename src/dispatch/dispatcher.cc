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

Dispatcher::Dispatcher(io::Loop& loop, const config::Config& config, std::string file) : loop_(loop), config_(config), file_(std::move(file)), scope_(loop) {
  for (const config::Queue& settings : config.queues) {
    queues_[settings.name] = std::make_unique<Queue>(settings, settings.back_off, settings.back_off_max);
    if (!settings.pool.empty()) waiters_[settings.pool] = std::make_unique<PoolWaiter>(*this, settings.pool);
  }
}

Dispatcher::~Dispatcher() = default;

Millis Dispatcher::now() const { return std::chrono::duration_cast<std::chrono::milliseconds>(loop_.system().wall_now().time_since_epoch()).count(); }

// --- the store ---

// On the reader's thread.
template <class T>
Async<Result<T>> Dispatcher::read(std::function<Result<T>()> work) {
  if (!not_ready_.empty()) co_return base::fail(Code::unavailable, not_ready_);
  Result<T> result = base::fail(Code::cancelled);
  auto reading = loop_.elsewhere(reader_->loop(), [&] { result = work(); });
  co_await reading;
  co_return result;
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
    // Not again, if a later save has written all of it: what it wrote may have been changed since by others, who had found the
    // task in the store (its callback was told, or it is tried again).
    if (live->version != version) break;
  }
  --live->uncommitted;
  if (written && live->version == version) saved(live);
  tell_changed(*live);
}

void Dispatcher::tell_changed(Live& live) {
  ++live.commits;
  live.changed.notify();
}

// For callers: it is saved, but they need not wait for a disk that is full.
Async<Result<LivePtr>> Dispatcher::save_and_tell(LivePtr live) {
  scope_.spawn(save(live));
  const bool written = co_await await_commit(live);
  if (!written) co_return base::fail(Code::disk_full, "it is done, but cannot be written to the disk yet: see the log");
  co_return live;
}

// Its present state is on disk: what follows from it.
void Dispatcher::saved(const LivePtr& live) {
  if (!queues_.contains(live->task.spec.queue)) return;  // a callback of a queue that was taken out of the configuration
  Queue& queue = queue_of(*live);
  const State state = live->task.progress.state;
  set_alarm(live);
  if (state == State::pending) {
    queue.pending.add(live->task, live);
    wake(queue);
  } else if (task::is_final(state) && live_.contains(live->task.id)) {
    ++queue.figures.ended[static_cast<std::size_t>(state)];
    if (config_.tasks.log) {
      const Progress& progress = live->task.progress;
      base::log::info("task {} is {}, by {}, attempt {}: {}", task::to_text(live->task.id), task::name(state), progress.replica, progress.attempt,
                      base::log::printable((state == State::done ? progress.result : progress.error).substr(0, 200)));
    }
    count_end(queue);
    forget(*live);
    if (live->task.progress.callback == task::Callback::due && !stopping_) scope_.spawn(tell(live->task.id));
  }
}

// For retry_after().
void Dispatcher::count_end(Queue& queue) {
  const double since = std::min(std::chrono::duration<double>(loop_.now() - queue.last_end).count(), 60.0);
  if (queue.last_end != Time{}) queue.seconds_per_task += (since - queue.seconds_per_task) * (queue.seconds_per_task == 0 ? 1 : 0.1);
  queue.last_end = loop_.now();
}

Dispatcher::Queue& Dispatcher::queue_of(const Live& live) { return *queues_.find(live.task.spec.queue)->second; }

// What a task that is not done takes of the memory: its texts, and itself with its places in our tables.
static std::uint64_t cost_of(const task::Spec& spec) {
  static constexpr std::uint64_t kTables = 400;  // nodes of live_, of the queue's order, of alarms
  return sizeof(Live) + kTables + spec.payload.size() + spec.queue.size() + spec.type.size() + 2 * spec.unique_key.size() + spec.idempotency_key.size() +
         spec.callback.size();
}

void Dispatcher::enter(const LivePtr& live) {
  live_[live->task.id] = live;
  ++queue_of(*live).live;
  live_bytes_ += cost_of(live->task.spec);
  if (!live->task.spec.unique_key.empty()) unique_[{live->task.spec.queue, live->task.spec.unique_key}] = live->task.id;
}

void Dispatcher::forget(const Live& live) {
  --queue_of(live).live;
  live_bytes_ -= cost_of(live.task.spec);
  if (!live.task.spec.unique_key.empty()) unique_.erase({live.task.spec.queue, live.task.spec.unique_key});
  if (live.alarm != 0) alarms_.erase({live.alarm, live.task.id});
  live_.erase(live.task.id);
}

void Dispatcher::unqueue(const Live& live) { queue_of(live).pending.remove(live.task); }

// Somebody may begin now, of those who offer or of those who pull.
void Dispatcher::wake(Queue& queue) {
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
  static constexpr unsigned kAtOnce = 256;    // others have to have their turn, too
  while (true) {
    const Millis time = now();
    for (unsigned i = 0; i < kAtOnce && !alarms_.empty() && alarms_.begin()->first <= time; ++i) {
      const auto found = live_.find(alarms_.begin()->second);
      alarms_.erase(alarms_.begin());
      if (found == live_.end()) continue;
      const LivePtr live = found->second;
      live->alarm = 0;
      ring(live, time);
    }
    const Millis wait = alarms_.empty() ? kLongest : std::min(alarms_.begin()->first - time, kLongest);
    const Code woken = co_await alarm_set_.wait(loop_, loop_.now() + std::chrono::milliseconds(std::max<Millis>(wait, 1)));
    if (woken == Code::cancelled) co_return;
  }
}

void Dispatcher::ring(const LivePtr& live, Millis time) {
  Queue& queue = queue_of(*live);
  if (live->leased && live->task.progress.lease_until <= time) {
    live->leased = false;
    --queue.in_progress;
    ++queue.figures.failures;
    const auto ended = task::conclude(live->task, live->task.progress.attempt, {task::Outcome::Kind::failure, "the worker's lease ran out"}, queue.back_off,
                                      time, loop_.random());
    if (ended) scope_.spawn(save(live));
    wake(queue);
    return;
  }
  const bool waited = live->task.progress.state == State::pending;
  if (task::on_time(live->task, time)) {
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
    while (retrying_ > 0) {
      const Code woken = co_await swept_.wait(loop_);
      if (woken == Code::cancelled) co_return;
    }
    sweeping_ = true;
    const auto deleted = co_await journal_->sweep(retention, retention_clock_.read(now(), loop_.now()), kStep);
    sweeping_ = false;
    swept_.notify();
    if (!deleted) base::log::warning("tasks: old ones could not be deleted: {}", base::describe(deleted.error()));
    const Code slept = co_await loop_.sleep(deleted && *deleted == kStep ? 20ms : 2s);
    if (slept == Code::cancelled) co_return;
  }
}

// --- submitting ---

Result<Dispatcher::Queue*> Dispatcher::queue_named(std::string_view name) {
  if (!not_ready_.empty()) return base::fail(Code::unavailable, not_ready_);
  const auto found = queues_.find(name);
  if (found == queues_.end()) return base::fail(Code::not_found, "there is no queue '" + std::string(name) + "'", Source::client);
  return found->second.get();
}

Result<Dispatcher::Queue*> Dispatcher::queue_for(const task::Spec& spec) {
  const auto queue = queue_named(spec.queue);
  if (!queue) return queue;
  const auto& types = (*queue)->settings.types;
  if (!types.empty() && std::ranges::find(types, spec.type) == types.end()) {
    std::string known;
    for (const std::string& type : types) known += (known.empty() ? "" : ", ") + type;
    return base::fail(Code::invalid, "queue '" + spec.queue + "' does not take tasks of type '" + spec.type + "', but " + known, Source::client);
  }
  if (!spec.callback.empty() && !may_call(spec.callback)) {
    return base::fail(Code::denied, "the callback's URL is not among those that [tasks] callbacks allows", Source::client);
  }
  return queue;
}

Async<Result<LivePtr>> Dispatcher::submit(task::Spec spec, bool only_now) {
  co_await until_open(spec.deadline);
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
  using Known = std::optional<std::pair<std::uint64_t, std::uint64_t>>;
  const std::function<Result<Known>()> work = [&] { return store_->find_key(spec.idempotency_key); };
  const auto known = co_await read(work);
  if (!known) co_return std::unexpected(known.error());
  if (!*known) co_return LivePtr();
  if ((*known)->second != spec.fingerprint) {
    co_return base::fail(Code::invalid, "this Idempotency-Key was used for another request, task " + task::to_text((*known)->first), Source::client);
  }
  co_return co_await find((*known)->first);
}

// What keeps a task from being accepted.
Result<void> Dispatcher::refuse(Queue& queue, const task::Spec& spec, bool nobody_free) {
  if (!not_ready_.empty()) return base::fail(Code::unavailable, not_ready_);
  const auto taken = unique_.find({spec.queue, spec.unique_key});
  if (!spec.unique_key.empty() && taken != unique_.end()) {
    return base::fail(Code::exists, "task " + task::to_text(taken->second) + " has this unique key, and is not done yet", Source::client);
  }
  const auto full = [&](std::string why) {
    ++queue.figures.refused;
    return base::fail(Code::full, std::move(why));
  };
  if (queue.live >= queue.settings.length_max) return full("the queue is full: it has " + std::to_string(queue.live) + " tasks");
  if (live_bytes_ + cost_of(spec) > config_.tasks.waiting_bytes_max) return full("the tasks that wait have too many bytes");
  if (nobody_free) return full(queue.state.paused ? "the queue is paused" : "all replicas are busy");
  return {};
}

Async<Result<LivePtr>> Dispatcher::accept(Queue& queue, task::Spec spec, bool only_now) {
  // Whoever can begin at once gets it in the same transaction; but nobody overtakes those who wait.
  std::optional<Place> place;
  const auto give_back = [&] {
    if (!place) return;
    place.reset();
    wake(queue);
  };
  const bool may_begin = spec.run_at <= now() && can_begin(queue) && queue.pending.empty();
  if (may_begin && (!may_ask(queue) || only_now)) place = co_await choose_available(queue);
  const Millis time = now();
  if (!can_begin(queue) || spec.run_at > time) give_back();  // asking took its time, or somebody set the clock
  if (auto refused = refuse(queue, spec, only_now && !place); !refused) {
    give_back();
    co_return std::unexpected(refused.error());
  }
  const auto live = std::make_shared<Live>();
  live->task.spec = std::move(spec);
  live->task.id = last_id_ = task::next_id(last_id_, time);
  task::admit(live->task, time);
  enter(live);
  if (place) {
    task::begin_attempt(live->task, place->replica->name, time);
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
    give_back();
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
  std::optional<Task> stored;
  if (!live_.contains(id)) {
    const std::function<Result<std::optional<Task>>()> work = [&] { return store_->find(id); };
    auto looked = co_await read(work);
    if (!looked) co_return std::unexpected(looked.error());
    stored = std::move(*looked);
  }
  // It may have been taken up again meanwhile: then the one in memory is the task.
  if (const auto found = live_.find(id); found != live_.end()) {
    const LivePtr live = found->second;
    const bool written = co_await await_commit(live);
    if (!written) co_return base::fail(Code::disk_full, "what has become of it cannot be written to the disk yet: see the log");
    if (live->refused) co_return base::fail(Code::not_found, "there is no task " + task::to_text(id), Source::client);
    co_return live;
  }
  if (!stored) co_return base::fail(Code::not_found, "there is no task " + task::to_text(id), Source::client);
  const auto live = std::make_shared<Live>();
  live->task = std::move(*stored);
  co_return live;
}

Async<Result<std::vector<Task>>> Dispatcher::list(Filter filter, std::uint64_t before, std::size_t most) {
  const std::function<Result<std::vector<Task>>()> work = [&] { return store_->list(filter, before, most); };
  co_return co_await read(work);
}

Async<bool> Dispatcher::await_commit(const LivePtr& live) {
  static constexpr Duration kPatience = 5s;
  const Time deadline = loop_.now() + kPatience;
  while (live->uncommitted > 0) {
    const Code woken = co_await live->changed.wait(loop_, deadline);
    if (woken != Code::ok) co_return false;
  }
  co_return true;
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
  wake(queue_of(*live));
  co_return co_await save_and_tell(live);
}

Async<Result<LivePtr>> Dispatcher::resend(std::uint64_t id) {
  auto found = co_await find(id);
  if (!found) co_return found;
  const LivePtr live = *found;
  Progress& progress = live->task.progress;
  if (live->task.spec.callback.empty()) co_return base::fail(Code::invalid, "the task has no callback", Source::client);
  if (!task::is_final(progress.state)) co_return base::fail(Code::exists, "the task is " + std::string(task::name(progress.state)), Source::client);
  if (progress.callback == task::Callback::due) co_return base::fail(Code::exists, "its callback is being told", Source::client);
  progress.callback = task::Callback::due;
  auto saved_one = co_await save_and_tell(live);
  scope_.spawn(tell(id));
  co_return saved_one;
}

Async<Result<LivePtr>> Dispatcher::retry(std::uint64_t id) {
  ++retrying_;
  while (sweeping_) {
    const Code woken = co_await swept_.wait(loop_);
    if (woken == Code::cancelled) break;
  }
  auto outcome = co_await retry_kept(id);
  if (--retrying_ == 0) swept_.notify();
  co_return outcome;
}

Async<Result<LivePtr>> Dispatcher::retry_kept(std::uint64_t id) {
  auto found = co_await find(id);
  if (!found) co_return found;
  const LivePtr live = *found;
  const task::Spec& spec = live->task.spec;
  const auto queue = queues_.find(spec.queue);
  if (queue == queues_.end()) co_return base::fail(Code::not_found, "its queue '" + spec.queue + "' is not configured any more", Source::client);
  if (live_.contains(id)) co_return base::fail(Code::exists, "the task is " + std::string(task::name(live->task.progress.state)), Source::client);
  if (live->task.progress.callback == task::Callback::due) co_return base::fail(Code::exists, "its callback is being told first", Source::client);
  if (auto refused = refuse(*queue->second, spec, false); !refused) co_return std::unexpected(refused.error());
  if (const auto again = task::retry(live->task, now()); !again) co_return std::unexpected(again.error());
  enter(live);
  co_return co_await save_and_tell(live);
}

// --- figures ---

Duration Dispatcher::retry_after(std::string_view name) const {
  const auto found = queues_.find(name);
  if (found == queues_.end() || found->second->seconds_per_task == 0) return 1s;
  const double seconds = found->second->seconds_per_task * static_cast<double>(found->second->pending.size() + 1);
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(std::clamp(seconds, 0.001, 3600.0)));
}

const Journal::Figures& Dispatcher::journal_figures() const {
  static const Journal::Figures none;
  return journal_ ? journal_->figures() : none;
}

std::string Dispatcher::waits_for(const Task& task) const {
  const Progress& progress = task.progress;
  if (progress.state == State::scheduled) return progress.failures > 0 ? "its time: it failed, and is tried again then" : "its time";
  if (progress.state != State::pending) return {};
  const auto found = queues_.find(task.spec.queue);
  if (found == queues_.end()) return "its queue, which is not configured";
  const Queue& queue = *found->second;
  if (queue.state.paused) return "the queue to be resumed: it is paused";
  if (!queue.has_room()) return "others to end: the queue may have " + std::to_string(queue.in_progress_max()) + " in progress";
  if (!queue.pending.is_first(task)) return "its turn: others were there before it, or have a higher priority";
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
