// The life of a task: accepted when it is on disk, offered to whoever is free, told when it is done.
//
//   submit ─▶ [ commit ] ─▶ 202        free place? ─▶ begin attempt ─▶ [ commit ] ─▶ offer: POST to the replica ─▶ outcome
//                  └────▶ pending ─▶ ──────┘ ▲                                                                 │
//                                            └──────────── busy, failed: again ◀── [ commit ] ◀────────────────┤
//                                                          done, given up ─▶ whoever waits, callback ◀─ [ commit ]
//
// Nothing leaves before its commit: no answer to a client, no offer to a replica. So a task that was acknowledged is never
// lost, and is begun at least once; after a crash of ours it may be begun twice, which its attempt's number tells.
// Everything on the control loop's thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>

#include "balance/admission.h"
#include "config/config.h"
#include "dispatch/journal.h"
#include "dispatch/steady_clock.h"
#include "task/pending.h"
#include "wire/client.h"

namespace ringmaster::dispatch {

using base::Time;
using io::Async;

// A task that is being worked at or asked about, as the dispatcher has it in memory.
struct Live {
  Task task;
  io::Signal changed;        // something of it has been committed
  unsigned version = 0;      // of its progress
  unsigned uncommitted = 0;  // commits under way
  unsigned commits = 0;      // how often `changed` was told
  bool refused = false;      // its first commit failed: there is no such task
  bool leased = false;       // a pull worker has it
  Millis alarm = 0;
  io::Scope* offering = nullptr;              // while it is offered: what to cancel
  std::shared_ptr<balance::Replica> replica;  // whom it is offered to
  bool replica_died = false;
};
using LivePtr = std::shared_ptr<Live>;

struct QueueFigures {
  std::uint64_t accepted = 0;
  std::uint64_t refused = 0;  // no room, or nobody free
  std::uint64_t attempts = 0;
  std::uint64_t unavailable = 0;                                // offers that were declined
  std::uint64_t failures = 0;                                   // attempts that failed
  std::array<std::uint64_t, task::kStateNames.size()> ended{};  // by final state
};

// What the API shows of a queue.
struct QueueView {
  const config::Queue* settings = nullptr;
  QueueState state;
  std::size_t scheduled = 0;
  std::size_t pending = 0;
  std::size_t in_progress = 0;
  QueueFigures figures;
};

class Dispatcher {
 public:
  // `file`: the store's; beside it lies its lock.
  Dispatcher(io::Loop& loop, const config::Config& config, std::string file);
  ~Dispatcher();

  // Begins to open the store, and takes up what is in it.
  void start();
  // Nothing new is begun; waits until what is offered has been answered, or `deadline`.
  Async<void> finish_offers(Time deadline);
  // Those who wait for something are told; then the callers have to leave.
  void begin_stop();
  // What is under way is given back to the store; its next owner goes on with it. Nobody may call anything any more.
  Async<void> stop();
  // Empty once it serves; else why it does not.
  const std::string& not_ready() const { return not_ready_; }

  // --- what the engine tells ---
  void adopt(std::shared_ptr<const balance::View> view);
  void exited(const std::shared_ptr<balance::Replica>& replica);
  void replica_ready(std::string_view pool);

  // --- what clients ask. Errors: unavailable (not ready), not_found, exists (a conflict), full, invalid, disk_full ---
  // `now`: only if somebody can begin at once. An idempotency key that was used before gives the task that it brought.
  Async<Result<LivePtr>> submit(task::Spec spec, bool now);
  Async<Result<LivePtr>> find(std::uint64_t id);
  Async<Result<std::vector<Task>>> list(Filter filter, std::uint64_t before, std::size_t most);
  Async<Result<LivePtr>> cancel(std::uint64_t id);
  Async<Result<LivePtr>> retry(std::uint64_t id);
  // Its callback is told once more, though it was told, or given up.
  Async<Result<LivePtr>> resend(std::uint64_t id);
  // Waits until all of it that is known is committed. False: that takes too long (the disk is full), or cancelled.
  Async<bool> await_commit(const LivePtr& live);
  // Waits until it is final, or `deadline`, or cancelled.
  Async<void> await_end(const LivePtr& live, Time deadline);

  // Pull workers. lease() waits for work until `deadline`.
  Async<Result<std::vector<LivePtr>>> lease(std::string queue, std::string worker, std::size_t most, Millis lease, Time deadline);
  Async<Result<LivePtr>> heartbeat(std::uint64_t id, unsigned attempt, Millis lease);
  Async<Result<LivePtr>> conclude(std::uint64_t id, unsigned attempt, task::Outcome outcome);

  std::vector<QueueView> queues() const;
  // What is not given stays as it is.
  Async<Result<void>> set_queue(std::string name, std::optional<bool> paused, std::optional<unsigned> in_progress_max);
  // What a task that waits is waiting for, in words.
  std::string waits_for(const Task& task) const;
  // After how long somebody who was turned away may come again.
  base::Duration retry_after(std::string_view queue) const;

  const Journal::Figures& journal_figures() const;
  Millis now() const;  // of the wall clock

 private:
  struct Queue;
  // A replica's place for one task.
  struct Place {
    std::shared_ptr<balance::Replica> replica;
    std::shared_ptr<wire::ConnectionPool> connections;
    balance::Ticket ticket;
    bool asked = false;  // it has said that it is available
  };
  // A replica that declined is left alone for a while.
  struct Hold {
    Time until{};
    base::Duration next{};
  };
  // An attempt that its engine did not live to see the end of. Its replica may still work on it.
  struct Orphan {
    const Queue* queue;
    std::string replica;
    Millis until;  // no attempt lasts longer
  };
  struct PoolWaiter;
  static constexpr base::Duration kStoreRetry = std::chrono::seconds(1);  // a store that cannot be opened or written to

  // lifetime.cc
  Async<void> until_open(Millis deadline);
  void end_opening();
  Async<void> open();
  // What a store has when it is opened.
  struct Found {
    std::vector<Task> tasks;
    std::vector<QueueState> queues;
    std::vector<std::uint64_t> callbacks_due;
  };
  Result<void> open_store(Found& found);
  void take_up(Found& found);
  void take_up_task(Task task, Millis time);
  void interrupt(const LivePtr& live, Queue& queue, Millis time);
  void find_orphans(const std::vector<Task>& tasks, Millis time);
  void keep_places();
  Async<void> keep_place(std::shared_ptr<balance::Replica> replica, balance::Ticket ticket, Millis until);

  // dispatcher.cc
  Result<Queue*> queue_named(std::string_view name);
  Result<Queue*> queue_for(const task::Spec& spec);
  Async<Result<LivePtr>> replay(const task::Spec& spec);
  Result<void> refuse(Queue& queue, const task::Spec& spec, bool nobody_free);
  Async<Result<LivePtr>> retry_kept(std::uint64_t id);
  Async<Result<LivePtr>> accept(Queue& queue, task::Spec spec, bool now);
  Queue& queue_of(const Live& live);
  void enter(const LivePtr& live);
  void forget(const Live& live);
  Async<void> save(LivePtr live);
  Async<Result<LivePtr>> save_and_tell(LivePtr live);
  void saved(const LivePtr& live);
  void count_end(Queue& queue);
  void unqueue(const Live& live);
  void wake(Queue& queue);
  static void tell_changed(Live& live);
  void set_alarm(const LivePtr& live);
  Async<void> follow_clock();
  void ring(const LivePtr& live, Millis time);
  template <class T>
  Async<Result<T>> read(std::function<Result<T>()> work);
  Async<void> keep_house();

  // attempts.cc
  void pump(std::string_view pool);
  bool can_begin(const Queue& queue) const;
  bool begin_next(Queue& queue);
  LivePtr take_first(Queue& queue);
  enum class Holds : std::uint8_t { respect, ignore };
  std::optional<Place> choose(Queue& queue, Holds holds, std::span<const std::shared_ptr<balance::Replica>> asked = {});
  bool usable(const std::shared_ptr<balance::Replica>& replica, Holds holds) const;
  bool lacks_a_ticket(std::string_view pool) const;
  Async<bool> is_available(const Queue& queue, const Place& place);
  static std::string_view question(const Queue& queue, const balance::Replica& replica);
  bool may_ask(const Queue& queue) const;
  Async<std::optional<Place>> choose_available(Queue& queue);
  Async<void> run(Queue& queue, LivePtr live, Place place, bool begun);
  Async<void> offer(Queue& queue, LivePtr live, Place& place, task::Outcome& outcome);
  void hold(const balance::Replica& replica);
  Async<void> pump_later(std::string pool, base::Duration delay);

  // callbacks.cc
  Async<void> tell(std::uint64_t id);
  Async<Result<void>> tell_once(std::uint64_t id);
  bool may_call(const std::string& url) const;

  io::Loop& loop_;
  const config::Config& config_;
  std::string file_;
  io::Handle lock_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Journal> journal_;
  std::unique_ptr<io::LoopThread> reader_;  // reads of the store: some take milliseconds
  std::uint64_t live_bytes_ = 0;            // of tasks in memory
  bool opening_ = true;                     // for the first time, and nothing is wrong so far
  io::Signal opened_;                       // it is not opening any more
  unsigned wait_to_submit_ = 0;
  SteadyClock retention_clock_;
  std::string not_ready_ = "the store of tasks is being opened";
  bool stopping_ = false;
  io::Signal offer_ended_;
  // Retention and retry() keep out of each other's way: a task that is to be tried again must not be deleted meanwhile.
  unsigned retrying_ = 0;
  bool sweeping_ = false;
  io::Signal swept_;
  unsigned telling_ = 0;  // callbacks under way
  io::Signal told_;
  std::uint64_t last_id_ = 0;
  std::shared_ptr<const balance::View> view_ = std::make_shared<balance::View>();
  std::map<std::string, std::unique_ptr<Queue>, std::less<>> queues_;
  std::map<std::string, std::unique_ptr<PoolWaiter>, std::less<>> waiters_;
  std::map<std::uint64_t, LivePtr> live_;
  std::map<std::pair<std::string, std::string>, std::uint64_t> unique_;  // queue and key of live tasks
  std::set<std::string> keys_under_way_;                                 // idempotency keys
  std::set<std::pair<Millis, std::uint64_t>> alarms_;
  io::Signal alarm_set_;
  std::map<std::uint64_t, LivePtr> offered_;
  std::map<const balance::Replica*, Hold> holds_;
  std::vector<Orphan> orphans_;  // whose places are still to be taken
  std::map<const balance::Replica*, std::shared_ptr<wire::ConnectionPool>> connections_;
  io::Scope scope_;
};

}  // namespace ringmaster::dispatch
