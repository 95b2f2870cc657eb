// Group commit: who waits together is written together, and everybody hears what became of it.
#include "dispatch/journal.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "io/real_system.h"

namespace ringmaster::dispatch {
namespace {

// Notes what each commit had, and fails when told to.
class NotingStore final : public Store {
 public:
  Result<void> commit(std::span<const Write* const> writes) override {
    sizes.push_back(writes.size());
    for (const Write* write : writes) {
      if (const auto* update = std::get_if<Update>(write)) order.push_back(update->id);
    }
    if (failing) return base::fail(Code::disk_full, "no room");
    return {};
  }
  Result<std::size_t> sweep(const Retention&, Millis, std::size_t) override { return 7; }
  Result<std::vector<Task>> live() override { return {}; }
  Result<std::vector<std::uint64_t>> callbacks_due() override { return {}; }
  Result<std::vector<QueueState>> queues() override { return {}; }
  Result<std::uint64_t> last_id() override { return 0; }
  Result<std::optional<Task>> find(std::uint64_t) override { return std::nullopt; }
  Result<std::optional<std::pair<std::uint64_t, std::uint64_t>>> find_key(const std::string&) override { return std::nullopt; }
  Result<std::vector<Task>> list(const Filter&, std::uint64_t, std::size_t) override { return {}; }

  std::vector<std::size_t> sizes;
  std::vector<std::uint64_t> order;
  bool failing = false;
};

class JournalTest : public testing::Test {
 protected:
  // Runs `body` as a fiber until it has ended.
  void run(io::Async<void> body) {
    bool ended = false;
    loop_.root().spawn([](io::Async<void> b, bool& e) -> io::Async<void> {
      co_await b;
      e = true;
    }(std::move(body), ended));
    while (!ended) loop_.turn(std::chrono::seconds(10));  // NOLINT(bugprone-infinite-loop): the fiber ends it
  }
  io::Async<void> write(std::uint64_t id, std::vector<Code>& outcomes) {
    auto commit = journal_->commit(Update{id, {}});
    const auto written = co_await commit;
    outcomes.push_back(written ? Code::ok : written.error().code);
  }
  io::Async<void> write_many(std::uint64_t count, std::vector<Code>& outcomes) {
    io::Scope writing(loop_);
    for (std::uint64_t id = 1; id <= count; ++id) writing.spawn(write(id, outcomes));
    co_await writing.join();
  }

  io::Async<void> write_and_cancel(std::vector<Code>& outcomes) {
    io::Scope writing(loop_);
    writing.spawn(write(1, outcomes));
    writing.cancel();
    writing.spawn(write(2, outcomes));
    co_await writing.join();
  }

  io::RealSystem system_;
  io::Loop loop_{system_};
  NotingStore store_;
  std::unique_ptr<Journal> journal_ = std::make_unique<Journal>(loop_, store_);
};

TEST_F(JournalTest, TakesAllThatWaitsWithTheNextCommit) {
  std::vector<Code> outcomes;
  run(write_many(100, outcomes));
  EXPECT_EQ(outcomes, std::vector<Code>(100, Code::ok));
  EXPECT_EQ(store_.sizes, (std::vector<std::size_t>{1, 99}));  // the first did not wait for company
  EXPECT_TRUE(std::ranges::is_sorted(store_.order));           // one task's writes keep their order
  EXPECT_EQ(journal_->figures().commits, 2U);
  EXPECT_EQ(journal_->figures().writes, 100U);
}

TEST_F(JournalTest, BoundsABatch) {
  std::vector<Code> outcomes;
  run(write_many(5000, outcomes));
  EXPECT_EQ(outcomes.size(), 5000U);
  EXPECT_EQ(store_.sizes, (std::vector<std::size_t>{1, 2000, 2000, 999}));
}

TEST_F(JournalTest, TellsEverybodyOfAFailureAndGoesOn) {
  store_.failing = true;
  std::vector<Code> outcomes;
  run(write_many(10, outcomes));
  EXPECT_EQ(outcomes, std::vector<Code>(10, Code::disk_full));
  store_.failing = false;
  run(write_many(1, outcomes));
  EXPECT_EQ(outcomes.back(), Code::ok);
  EXPECT_EQ(journal_->figures().failures, 2U);
}

TEST_F(JournalTest, ACommitCannotBeCancelledAndIsMadeForTheCancelledToo) {
  std::vector<Code> outcomes;
  run(write_and_cancel(outcomes));
  EXPECT_EQ(outcomes, std::vector<Code>(2, Code::ok));
}

TEST_F(JournalTest, SweepsBetweenCommits) {
  std::size_t swept = 0;
  run([](Journal& journal, std::size_t& all) -> io::Async<void> {
    const auto deleted = co_await journal.sweep({}, 0, 10);
    all = *deleted;
  }(*journal_, swept));
  EXPECT_EQ(swept, 7U);
}

}  // namespace
}  // namespace ringmaster::dispatch
