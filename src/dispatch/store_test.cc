// The store alone: what it keeps, in what order it shows it, and what it does when the file is damaged.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "dispatch/sqlite_store.h"

namespace ringmaster::dispatch {
namespace {

using task::State;

Task make(std::uint64_t id, std::string type = "t") {
  Task task;
  task.id = id;
  task.spec.queue = "q";
  task.spec.type = std::move(type);
  task.spec.payload = "{\"n\":" + std::to_string(id) + "}";
  task::admit(task, static_cast<Millis>(id));
  return task;
}

class StoreTest : public testing::Test {
 protected:
  StoreTest() { reopen(); }
  ~StoreTest() override {
    store_.reset();
    std::filesystem::remove_all(directory_);
  }
  void reopen() {
    store_.reset();
    auto opened = SqliteStore::open(directory_ + "/tasks.db", 1);
    ASSERT_TRUE(opened) << opened.error().detail;
    store_ = std::move(*opened);
  }
  Result<void> commit(const std::vector<Write>& writes) {
    std::vector<const Write*> pointers;
    for (const Write& write : writes) pointers.push_back(&write);
    return store_->commit(pointers);
  }
  Result<void> add(const Task& task) { return commit({Insert{&task}}); }
  void end(Task& task, State state, Millis when) {
    task.progress.state = state;
    task.progress.finished = when;
    ASSERT_TRUE(commit({Update{task.id, task.progress}}));
  }
  std::string directory_ = [] {
    std::string form = "/tmp/store-XXXXXX";
    return std::string(::mkdtemp(form.data()));
  }();
  std::unique_ptr<SqliteStore> store_;
};

TEST_F(StoreTest, GivesBackWhatItWasGiven) {
  Task task = make(7, "expression");
  task.spec.priority = -3;
  task.spec.unique_key = "u";
  task.spec.callback = "http://127.0.0.1/x";
  ASSERT_TRUE(add(task));
  task.progress.state = State::in_progress;
  task.progress.attempt = 2;
  task.progress.replica = "Server 1";
  task.progress.lease_until = 99;
  task.progress.result = std::string("a\0b", 3);
  ASSERT_TRUE(commit({Update{7, task.progress}}));
  reopen();
  const auto found = store_->find(7);
  ASSERT_TRUE(found && *found);
  EXPECT_EQ((*found)->spec.payload, task.spec.payload);
  EXPECT_EQ((*found)->spec.priority, -3);
  EXPECT_EQ((*found)->spec.unique_key, "u");
  EXPECT_EQ((*found)->spec.callback, task.spec.callback);
  EXPECT_EQ((*found)->progress.replica, "Server 1");
  EXPECT_EQ((*found)->progress.attempt, 2U);
  EXPECT_EQ((*found)->progress.lease_until, 99);
  EXPECT_EQ((*found)->progress.result, task.progress.result);
  EXPECT_EQ(store_->last_id().value(), 7U);
  EXPECT_FALSE(*store_->find(8));
  EXPECT_EQ(store_->live()->size(), 1U);
}

TEST_F(StoreTest, ListsTheNewestFirstByAnyFilter) {
  for (std::uint64_t id = 1; id <= 20; ++id) {
    Task task = make(id, id % 2 == 0 ? "even" : "odd");
    ASSERT_TRUE(add(task));
    if (id > 10) task.progress.replica = "S";
    if (id > 15) end(task, State::failed, 5);
  }
  const auto ids = [&](const Filter& filter, std::uint64_t before, std::size_t most) {
    std::vector<std::uint64_t> found;
    const auto tasks = store_->list(filter, before, most);
    EXPECT_TRUE(tasks) << tasks.error().detail;
    if (tasks) {
      for (const Task& task : *tasks) found.push_back(task.id);
    }
    return found;
  };
  EXPECT_EQ(ids({}, INT64_MAX, 3), (std::vector<std::uint64_t>{20, 19, 18}));
  EXPECT_EQ(ids({}, 18, 2), (std::vector<std::uint64_t>{17, 16}));
  EXPECT_EQ(ids({.type = "odd"}, 6, 10), (std::vector<std::uint64_t>{5, 3, 1}));
  EXPECT_EQ(ids({.state = State::failed, .type = "even"}, INT64_MAX, 10), (std::vector<std::uint64_t>{20, 18, 16}));
  EXPECT_EQ(ids({.state = State::pending}, 4, 10), (std::vector<std::uint64_t>{3, 2, 1}));
  EXPECT_EQ(ids({.state = State::done, .replica = "S"}, INT64_MAX, 10), (std::vector<std::uint64_t>{}));
  EXPECT_EQ(ids({.queue = "other"}, INT64_MAX, 10), (std::vector<std::uint64_t>{}));
  EXPECT_EQ(ids({.queue = "q", .type = "even"}, 5, 10), (std::vector<std::uint64_t>{4, 2}));
}

TEST_F(StoreTest, LeavesLargeThingsOutOfLists) {
  Task task = make(1);
  task.spec.payload = "\"" + std::string(2000, 'x') + "\"";
  ASSERT_TRUE(add(task));
  EXPECT_EQ(store_->list({}, 2, 1)->front().spec.payload, "");
  EXPECT_EQ((*store_->find(1))->spec.payload.size(), 2002U);
}

TEST_F(StoreTest, KeepsNoMoreThanItShould) {
  for (std::uint64_t id = 1; id <= 100; ++id) {
    Task task = make(id);
    ASSERT_TRUE(add(task));
    if (id <= 90) end(task, State::done, static_cast<Millis>(id));
  }
  EXPECT_EQ(store_->sweep({.age = 80, .count = 1000}, 100, 15).value(), 15U);  // those that ended before 20, in steps
  EXPECT_EQ(store_->sweep({.age = 80, .count = 1000}, 100, 15).value(), 4U);
  EXPECT_EQ(store_->sweep({.age = 80, .count = 1000}, 100, 15).value(), 0U);
  EXPECT_EQ(store_->sweep({.age = 1000, .count = 50}, 100, 1000).value(), 21U);  // 71 are left; the oldest go
  EXPECT_EQ(store_->list({}, INT64_MAX, 1000)->size(), 60U);
  EXPECT_EQ(store_->live()->size(), 10U);
  EXPECT_EQ(store_->list({.state = State::done}, INT64_MAX, 1000)->back().id, 41U);
}

TEST_F(StoreTest, KnowsIdempotencyKeysAndWhatIsPaused) {
  Task task = make(1);
  task.spec.idempotency_key = "k";
  task.spec.fingerprint = UINT64_MAX;
  ASSERT_TRUE(add(task));
  EXPECT_EQ(store_->find_key("k")->value(), std::pair(std::uint64_t{1}, std::uint64_t{UINT64_MAX}));
  EXPECT_FALSE(*store_->find_key("other"));
  ASSERT_TRUE(commit({QueueState{"q", true, 3}}));
  reopen();
  ASSERT_EQ(store_->queues()->size(), 1U);
  EXPECT_TRUE(store_->queues()->front().paused);
  EXPECT_EQ(store_->queues()->front().in_progress_max, 3U);
}

TEST_F(StoreTest, ATransactionIsAllOrNothing) {
  const Task one = make(1);
  const Task again = make(1);
  const Task two = make(2);
  EXPECT_FALSE(commit({Insert{&two}, Insert{&one}, Insert{&again}}));
  EXPECT_TRUE(store_->list({}, INT64_MAX, 10)->empty());
  EXPECT_TRUE(add(one));
}

TEST_F(StoreTest, SetsADamagedFileAside) {
  for (std::uint64_t id = 1; id <= 50; ++id) ASSERT_TRUE(add(make(id)));
  store_.reset();
  {
    std::fstream file(directory_ + "/tasks.db", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(4096);
    file << std::string(8192, '?');
  }
  reopen();
  EXPECT_NE(store_->damage().find("tasks.db.damaged-1"), std::string::npos) << store_->damage();
  EXPECT_TRUE(std::filesystem::exists(directory_ + "/tasks.db.damaged-1"));
  EXPECT_TRUE(add(make(1)));
  reopen();
  EXPECT_EQ(store_->damage(), "");
}

TEST_F(StoreTest, RefusesAFileOfANewerFormat) {
  store_.reset();
  sqlite3* database = nullptr;
  ASSERT_EQ(sqlite3_open((directory_ + "/tasks.db").c_str(), &database), SQLITE_OK);
  sqlite3_exec(database, "PRAGMA user_version = 99", nullptr, nullptr, nullptr);
  sqlite3_close(database);
  const auto opened = SqliteStore::open(directory_ + "/tasks.db", 1);
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.error().detail.find("newer Ringmaster"), std::string::npos);
}

}  // namespace
}  // namespace ringmaster::dispatch
