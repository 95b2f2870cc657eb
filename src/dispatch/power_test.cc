// The store on a disk whose calls fail and whose power is lost, at every single operation of a scenario and in random
// histories: what was acknowledged is there afterwards, once, and nothing else.
#include <gtest/gtest.h>

#include <fmt/format.h>
#include <cstdlib>

#include "dispatch/sqlite_store.h"
#include "dispatch/test_vfs.h"

namespace ringmaster::dispatch {
namespace {

using io::TestDisk;
using task::State;

std::string text(const Progress& p) {
  std::string all;
  for (const auto number : {static_cast<Millis>(p.state), Millis{p.attempt}, Millis{p.failures}, p.run_at, p.started, p.finished}) {
    all += std::to_string(number) + " ";
  }
  return all + std::to_string(static_cast<int>(p.callback)) + p.replica + "/" + p.result + "/" + p.error;
}
std::string text(const QueueState& state) { return std::to_string(state.paused) + " " + std::to_string(state.in_progress_max); }

// What a client of the store knows, and does: of everything the last state that was acknowledged, and those after it of
// which nobody was told what became of them.
class Client {
 public:
  std::uint64_t acknowledged() const { return acknowledged_; }

  void step(SqliteStore& store, base::Random& random) {
    ++now_;
    if (random.below(6) == 0) sweep(store);
    std::map<std::uint64_t, Task> inserts;
    std::map<std::uint64_t, Progress> updates;
    std::map<std::string, QueueState> queues;
    for (unsigned count = 1 + random.below(4); count > 0; --count) {
      const unsigned what = random.below(10);
      if (what < 4 || tasks_.empty()) {
        const std::uint64_t id = ++last_;
        inserts[id] = make(id, random);
      } else if (what < 9) {
        auto one = tasks_.begin();
        std::advance(one, random.below(static_cast<std::uint32_t>(tasks_.size())));
        if (one->second.promised) updates[one->first] = advance(one->second, random);
      } else {
        const std::string name = "q" + std::to_string(random.below(3));
        queues[name] = {name, random.below(2) == 0, random.below(100)};
      }
    }
    std::vector<Write> writes;
    for (const auto& [id, one] : inserts) writes.emplace_back(Insert{&one});
    for (const auto& [id, progress] : updates) writes.emplace_back(Update{id, progress});
    for (const auto& [name, state] : queues) writes.emplace_back(state);
    std::vector<const Write*> pointers;
    for (const Write& write : writes) pointers.push_back(&write);
    const bool done = store.commit(pointers).has_value();
    acknowledged_ += done ? writes.size() : 0;
    for (auto& [id, one] : inserts) tasks_[id] = {one, {one.progress}, done, false};
    if (!done) failed_.push_back(inserts);
    for (const auto& [id, progress] : updates) note(tasks_.at(id).versions, progress, done);
    for (const auto& [name, state] : queues) {
      auto& versions = queues_[name];
      if (versions.empty()) versions.push_back({name});
      note(versions, state, done);
    }
  }

  // Empty, or what is wrong. What was found is then what is known.
  std::string check(SqliteStore& store) {
    const auto listed = store.list({}, INT64_MAX, 1'000'000);
    if (!listed) return "list: " + listed.error().detail;
    for (const Task& one : *listed) {
      if (!tasks_.contains(one.id)) return "task " + std::to_string(one.id) + " was never there, or was deleted";
    }
    for (auto& [id, known] : tasks_) {
      if (const std::string problem = check_task(store, known); !problem.empty()) return "task " + std::to_string(id) + " " + problem;
    }
    std::erase_if(tasks_, is_gone);
    for (const auto& inserts : std::exchange(failed_, {})) {
      const auto there = std::ranges::count_if(inserts, [&](const auto& one) { return tasks_.contains(one.first); });
      if (there != 0 && there != std::ssize(inserts)) return "a part of a commit is there";
    }
    return check_sets(store);
  }

 private:
  struct Known {
    Task task;
    std::vector<Progress> versions;  // none: it is gone
    bool promised = false;           // that it was accepted
    bool may_be_gone = false;        // a sweep failed
  };
  static bool is_gone(const std::pair<const std::uint64_t, Known>& entry) { return entry.second.versions.empty(); }

  template <typename T>
  static void note(std::vector<T>& versions, const T& latest, bool done) {
    if (done) versions.clear();
    versions.push_back(latest);
  }

  Task make(std::uint64_t id, base::Random& random) const {
    Task task;
    task.id = id;
    task.spec.queue = "q";
    task.spec.type = "t";
    task.spec.payload = "\"" + std::string(random.below(random.below(8) == 0 ? 9000 : 300), static_cast<char>('a' + id % 26)) + "\"";
    task.spec.failures_max = 2;
    if (random.below(2) == 0) {
      task.spec.idempotency_key = "key " + std::to_string(id);
      task.spec.fingerprint = random.next();
    }
    if (random.below(3) == 0) task.spec.callback = "http://127.0.0.1/";
    task::admit(task, now_);
    return task;
  }

  Progress advance(const Known& known, base::Random& random) const {
    Task task = known.task;
    task.progress = known.versions.front();
    if (task.progress.callback == task::Callback::due) {
      task.progress.callback = task::Callback::told;
    } else if (random.below(10) == 0) {
      (void)task::cancel(task, now_);
    } else if (task.progress.state == State::pending) {
      (void)task::begin_attempt(task, "Server " + std::to_string(random.below(3)), now_);
    } else if (task.progress.state == State::in_progress) {
      using Kind = task::Outcome::Kind;
      const Kind kind = random.below(3) == 0 ? Kind::failure : Kind::success;
      (void)task::conclude(task, task.progress.attempt, {kind, "outcome " + std::to_string(random.next())}, {1, 1}, now_, random);
    } else if (random.below(4) == 0) {
      (void)task::retry(task, now_);
    }
    (void)task::on_time(task, now_);
    return task.progress;
  }

  void sweep(SqliteStore& store) {
    static constexpr Millis kAge = 4;
    const bool done = store.sweep({kAge, 1'000'000}, now_, 1000).has_value();
    for (auto& [id, known] : tasks_) {
      const Progress& progress = known.versions.front();
      if (!known.promised || progress.finished == 0 || progress.finished >= now_ - kAge || progress.callback == task::Callback::due) continue;
      known.may_be_gone = true;
      if (done) known.versions.clear();
    }
    std::erase_if(tasks_, is_gone);
  }

  static std::string check_task(SqliteStore& store, Known& known) {
    const auto found = store.find(known.task.id);
    if (!found) return "cannot be read: " + found.error().detail;
    const std::string& key = known.task.spec.idempotency_key;
    const auto by_key = store.find_key(key.empty() ? "none" : key);
    if (!by_key) return "cannot be found by its key: " + by_key.error().detail;
    if (by_key->has_value() != (found->has_value() && !key.empty())) return "and its idempotency key do not agree";
    if (!*found) {
      if (known.promised && !known.may_be_gone) return "was acknowledged and is lost";
      known.versions.clear();
      return "";
    }
    const Task& task = **found;
    if (task.spec.payload != known.task.spec.payload || task.spec.callback != known.task.spec.callback) return "is another";
    if (!key.empty() && (*by_key)->first != task.id) return "has lost its key to another";
    if (!key.empty() && (*by_key)->second != known.task.spec.fingerprint) return "has another fingerprint";
    const auto same = [&](const Progress& one) { return text(one) == text(task.progress); };
    if (std::ranges::none_of(known.versions, same)) return "is " + text(task.progress) + " and not " + text(known.versions.front()) + ", or later";
    known = {known.task, {task.progress}, true, false};
    return "";
  }

  std::string check_sets(SqliteStore& store) {
    std::size_t live = 0;
    std::size_t due = 0;
    for (const auto& [id, known] : tasks_) {
      live += task::is_final(known.versions.front().state) ? 0 : 1;
      due += known.versions.front().callback == task::Callback::due ? 1 : 0;
    }
    const auto found_live = store.live();
    if (!found_live || found_live->size() != live) return "those that are not final are not those";
    const auto found_due = store.callbacks_due();
    if (!found_due || found_due->size() != due) return "callbacks that are due are not those";
    const auto last = store.last_id();
    if (!last || *last != (tasks_.empty() ? 0 : tasks_.rbegin()->first)) return "the last id is another";
    const auto queues = store.queues();
    if (!queues) return "queues: " + queues.error().detail;
    std::map<std::string, QueueState> found;
    for (const QueueState& state : *queues) found[state.queue] = state;
    for (auto& [name, versions] : queues_) {
      const QueueState state = found.contains(name) ? found.at(name) : QueueState{name};
      found.erase(name);
      if (std::ranges::none_of(versions, [&](const QueueState& one) { return text(one) == text(state); })) return "queue " + name + " is " + text(state);
      versions = {state};
    }
    return found.empty() ? "" : "queue " + found.begin()->first + " was never set";
  }

  std::map<std::uint64_t, Known> tasks_;
  std::map<std::string, std::vector<QueueState>> queues_;
  std::vector<std::map<std::uint64_t, Task>> failed_;  // what commits that failed should have inserted
  std::uint64_t last_ = 0;
  Millis now_ = 1000;
  std::uint64_t acknowledged_ = 0;
};

// A client, and the machine where its store is.
class Machine {
  TestVfs vfs_;  // longer than the store

 public:
  explicit Machine(std::uint64_t seed, const TestDisk::Contents& contents = {}, Client known = {}) : vfs_(seed, contents), client(std::move(known)) {
    vfs_.checkpoint_every(24);
  }
  TestDisk& disk() { return vfs_.disk(); }

  // Empty, or what is wrong. A machine that dies meanwhile is not.
  std::string open_and_check() {
    auto opened = SqliteStore::open("tasks.db", 1, vfs_.name());
    if (disk().dead()) return "";
    if (!opened) return "the store does not open: " + opened.error().detail;
    if (!(*opened)->damage().empty()) return (*opened)->damage();
    store = std::move(*opened);
    const Client before = client;
    const std::string problem = client.check(*store);
    if (disk().dead()) client = before;  // some answers were errors
    return disk().dead() ? "" : problem;
  }
  // What its disk may have when the power comes back.
  TestDisk::Contents end() {
    store.reset();
    return disk().after_power_loss();
  }

  Client client;
  std::unique_ptr<SqliteStore> store;
};

#if defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define SLOWED_BY_SANITIZER
#endif
#endif
std::uint64_t wanted_seeds() {
#ifdef SLOWED_BY_SANITIZER
  static constexpr std::uint64_t kUsual = 30;
#else
  static constexpr std::uint64_t kUsual = 1000;
#endif
  const char* wanted = std::getenv("SIM_SEEDS");  // NOLINT(concurrency-mt-unsafe): one thread
  return wanted == nullptr ? kUsual : std::clamp<std::uint64_t>(std::strtoull(wanted, nullptr, 10), 1, 1000);
}

// Three lives of a store, the same each time but for what the disk does; ends when the machine dies.
std::string scenario(Machine& machine) {
  base::Random random(1);
  for (const unsigned steps : {8U, 5U, 2U}) {
    if (const std::string problem = machine.open_and_check(); !problem.empty() || machine.disk().dead()) return problem;
    for (unsigned i = 0; i < steps && !machine.disk().dead(); ++i) machine.client.step(*machine.store, random);
    machine.store.reset();
  }
  return "";
}

// Death at each operation of the scenario in turn; of what the disk may have then, some outcomes are looked at.
class Sweep {
 public:
  explicit Sweep(TestDisk::Lie lie = TestDisk::Lie::none) : lie_(lie) {
    Machine whole(1);
    problem_ = scenario(whole);
    operations_ = whole.disk().operations();
    acknowledged_ = whole.client.acknowledged();
  }
  void run(std::uint64_t outcomes, std::uint64_t stride) {
    outcomes_ = outcomes;
    stride_ = stride;
    for (at_ = 1; at_ <= operations_ && problem_.empty(); at_ += stride) {
      lose_power();
      kill();
    }
  }
  std::uint64_t operations() const { return operations_; }
  std::uint64_t checks() const { return checks_; }
  std::uint64_t acknowledged() const { return acknowledged_; }  // writes of the whole scenario
  const std::string& problem() const { return problem_; }       // the first

 private:
  // Once; and then, of the first outcome, a second time, at each operation of opening after that (where the file is begun
  // anew, which takes many, at some of them; others follow with the next first one).
  void lose_power() {
    Machine machine(at_);
    die(machine, at_);
    judge(scenario(machine), "before the power loss");
    const TestDisk::Contents left = machine.end();
    const std::uint64_t opening = judge_outcomes(machine, left, "after the power loss");
    const std::uint64_t skip = stride_ + opening / 8;
    for (std::uint64_t second = 1 + at_ % skip; second <= opening; second += skip) {
      Machine again(second, left, machine.client);
      die(again, second);
      judge(again.open_and_check(), "after the first power loss");
      Machine third(second, again.end(), again.client);
      judge(third.open_and_check(), "after a second power loss, at operation " + std::to_string(second) + " of opening");
    }
  }
  // The process is killed; the power fails when the next one has answered for enough that the log was begun anew.
  void kill() {
    Machine machine(at_);
    die(machine, at_);
    judge(scenario(machine), "before it is killed");
    machine.store.reset();
    machine.disk().only_process_died();
    judge(machine.open_and_check(), "after it was killed");
    if (!problem_.empty()) return;
    base::Random random(at_);
    for (unsigned i = 0; i < 5; ++i) machine.client.step(*machine.store, random);
    machine.disk().die_at(machine.disk().operations() + 1);
    judge_outcomes(machine, machine.end(), "after it was killed, and the power loss that followed");
  }
  // Gives how many operations it took to open the first.
  std::uint64_t judge_outcomes(Machine& dead, const TestDisk::Contents& first, const std::string& when) {
    std::uint64_t operations = 0;
    for (std::uint64_t outcome = 0; outcome < outcomes_; ++outcome) {
      Machine machine(outcome, outcome == 0 ? first : dead.end(), dead.client);
      judge(machine.open_and_check(), when);
      if (outcome == 0) operations = machine.disk().operations();
    }
    return operations;
  }
  void die(Machine& machine, std::uint64_t operation) const {
    machine.disk().lie(lie_);
    machine.disk().die_at(operation);
  }
  void judge(const std::string& problem, const std::string& when) {
    ++checks_;
    if (!problem.empty() && problem_.empty()) problem_ = fmt::format("operation {}, {}: {}", at_, when, problem);
  }

  TestDisk::Lie lie_;
  std::uint64_t outcomes_ = 1;
  std::uint64_t stride_ = 1;
  std::uint64_t at_ = 1;
  std::uint64_t operations_ = 0;
  std::uint64_t acknowledged_ = 0;
  std::uint64_t checks_ = 0;
  std::string problem_;
};

TEST(StoreWithoutPower, LosesNothingWhicheverOperationIsTheLast) {
  const std::uint64_t wanted = wanted_seeds();
  const std::uint64_t outcomes = std::clamp<std::uint64_t>(wanted / 300, 1, 3);
  Sweep sweep;
  sweep.run(outcomes, std::max<std::uint64_t>(1, 200 / wanted));
  EXPECT_EQ(sweep.problem(), "");
  EXPECT_GT(sweep.acknowledged(), 20U);
  fmt::print("power sweep: {} operations x {} outcomes, {} writes acknowledged, {} checks\n", sweep.operations(), outcomes, sweep.acknowledged(),
             sweep.checks());
}

// The check of the check: on a disk that does not do what it says, the same sweep finds losses.
TEST(StoreWithoutPower, TheSweepNoticesADiskThatDoesNotSync) {
  for (const TestDisk::Lie lie : {TestDisk::Lie::file_syncs, TestDisk::Lie::directory_syncs}) {
    Sweep sweep(lie);
    sweep.run(3, 1);
    EXPECT_NE(sweep.problem(), "");
    fmt::print("{}\n", sweep.problem());
  }
}

// Some lives of a store, each of which ends in another way.
class History {
 public:
  explicit History(std::uint64_t seed) : random_(seed), machine_(seed) {}

  std::string run() {
    for (int life = 0; life < 5; ++life) {
      machine_.disk().fail(0);
      if (random_.below(4) == 0) machine_.disk().die_at(machine_.disk().operations() + 1 + random_.below(60));
      if (const std::string problem = machine_.open_and_check(); !problem.empty()) return problem;
      if (!machine_.disk().dead()) live();
      machine_.store.reset();
      failures_ += machine_.disk().failures() - failures_;
      if (random_.below(4) == 0) {
        machine_.disk().only_process_died();
      } else {
        machine_.disk().lose_power();
      }
    }
    machine_.disk().fail(0);
    machine_.disk().die_at(0);
    return machine_.open_and_check();
  }
  std::uint64_t acknowledged() const { return machine_.client.acknowledged(); }
  std::uint64_t failures() const { return failures_; }

 private:
  void live() {
    machine_.disk().fail(random_.below(2) == 0 ? 10 : 0);
    machine_.disk().die_at(random_.below(3) == 0 ? 0 : machine_.disk().operations() + 1 + random_.below(300));
    for (unsigned steps = random_.below(25); steps > 0 && !machine_.disk().dead(); --steps) machine_.client.step(*machine_.store, random_);
  }

  base::Random random_;
  Machine machine_;
  std::uint64_t failures_ = 0;
};

TEST(StoreWithoutPower, LosesNothingThatWasAcknowledged) {
  std::uint64_t acknowledged = 0;
  std::uint64_t failures = 0;
  const std::uint64_t histories = wanted_seeds();
  for (std::uint64_t seed = 1; seed <= histories; ++seed) {
    History history(seed);
    ASSERT_EQ(history.run(), "") << "seed " << seed;
    acknowledged += history.acknowledged();
    failures += history.failures();
  }
  fmt::print("{} histories: {} writes acknowledged, {} calls failed\n", histories, acknowledged, failures);
}

TEST(StoreWithoutPower, WhatCannotBeReadIsNotTakenForNothing) {
  Machine machine(1);
  ASSERT_EQ(machine.open_and_check(), "");
  machine.disk().die_at(machine.disk().operations() + 1);
  base::Random random(1);
  machine.client.step(*machine.store, random);
  ASSERT_TRUE(machine.disk().dead());
  EXPECT_FALSE(machine.store->live());
  EXPECT_FALSE(machine.store->callbacks_due());
  EXPECT_FALSE(machine.store->queues());
  EXPECT_FALSE(machine.store->last_id());
  EXPECT_FALSE(machine.store->find(1));
  EXPECT_FALSE(machine.store->find_key("key"));
  EXPECT_FALSE(machine.store->list({}, INT64_MAX, 10));
}

}  // namespace
}  // namespace ringmaster::dispatch
