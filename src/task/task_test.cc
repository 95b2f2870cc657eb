#include "task/task.h"

#include <gtest/gtest.h>

#include <set>

#include "task/pending.h"

namespace ringmaster::task {
namespace {

using Kind = Outcome::Kind;

class Life : public testing::Test {
 protected:
  Life() { admit(task_, 1000); }
  base::Result<void> end(Kind kind, unsigned attempt, Millis now = 2000) {
    return conclude(task_, attempt, {kind, "text", "application/json"}, {100, 1000}, now, random_);
  }
  Task task_;
  base::Random random_{7};
};

TEST_F(Life, GoesFromPendingToDone) {
  EXPECT_EQ(task_.progress.state, State::pending);
  EXPECT_EQ(begin_attempt(task_, "Server 1", 1500), 1U);
  EXPECT_EQ(task_.progress.state, State::in_progress);
  EXPECT_TRUE(end(Kind::success, 1));
  EXPECT_EQ(task_.progress.state, State::done);
  EXPECT_EQ(task_.progress.result, "text");
  EXPECT_EQ(task_.progress.finished, 2000);
}

TEST_F(Life, RefusesALateCompletionOfAnOlderAttempt) {
  begin_attempt(task_, "Server 1", 1500);
  ASSERT_TRUE(end(Kind::interrupted, 1));
  begin_attempt(task_, "Server 2", 2500);
  const auto late = end(Kind::success, 1, 3000);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, base::Code::exists);
  EXPECT_EQ(task_.progress.state, State::in_progress);
  EXPECT_TRUE(end(Kind::success, 2, 3000));
  EXPECT_FALSE(end(Kind::success, 2, 3001));  // twice
}

TEST_F(Life, BacksOffAfterFailuresAndGivesUpAtLast) {
  task_.spec.failures_max = 3;
  for (unsigned i = 1; i <= 2; ++i) {
    begin_attempt(task_, "S", 2000);
    ASSERT_TRUE(end(Kind::failure, i));
    ASSERT_EQ(task_.progress.state, State::scheduled);
    const Millis whole = 100 << (i - 1);
    EXPECT_GT(task_.progress.run_at, 2000 + whole / 2 - 1);
    EXPECT_LE(task_.progress.run_at, 2000 + whole);
    EXPECT_EQ(next_alarm(task_), task_.progress.run_at);
    EXPECT_FALSE(on_time(task_, task_.progress.run_at - 1));
    EXPECT_TRUE(on_time(task_, task_.progress.run_at));
  }
  begin_attempt(task_, "S", 2000);
  ASSERT_TRUE(end(Kind::failure, 3));
  EXPECT_EQ(task_.progress.state, State::failed);
  EXPECT_EQ(task_.progress.error, "text");
  EXPECT_TRUE(retry(task_, 5000));
  EXPECT_EQ(task_.progress.state, State::pending);
  EXPECT_EQ(begin_attempt(task_, "S", 6000), 4U);  // numbers go on
}

TEST_F(Life, DoesNotCountWhatWasNotBegun) {
  task_.spec.failures_max = 1;
  for (unsigned i = 1; i <= 20; ++i) {
    begin_attempt(task_, "S", 2000);
    ASSERT_TRUE(end(i % 2 == 0 ? Kind::unavailable : Kind::interrupted, i));
    ASSERT_EQ(task_.progress.state, State::pending);
  }
  EXPECT_EQ(task_.progress.failures, 0U);
}

TEST_F(Life, ARejectionIsFinal) {
  begin_attempt(task_, "S", 2000);
  ASSERT_TRUE(end(Kind::rejected, 1));
  EXPECT_EQ(task_.progress.state, State::failed);
}

TEST_F(Life, ExpiresAtItsDeadlineButNotWhileItRuns) {
  task_.progress.deadline = 3000;
  EXPECT_EQ(next_alarm(task_), 3000);
  begin_attempt(task_, "S", 2000);
  EXPECT_FALSE(on_time(task_, 3500));
  ASSERT_TRUE(end(Kind::failure, 1, 3500));
  EXPECT_EQ(task_.progress.state, State::expired);
  EXPECT_TRUE(retry(task_, 4000));
  EXPECT_EQ(task_.progress.state, State::pending);
  EXPECT_FALSE(on_time(task_, 5000));  // in spite of the old deadline
}

TEST_F(Life, CancelsOnceAndTellsItsCallback) {
  task_.spec.callback = "http://127.0.0.1/x";
  EXPECT_TRUE(cancel(task_, 2000));
  EXPECT_EQ(task_.progress.callback, Callback::due);
  EXPECT_FALSE(cancel(task_, 2000));
  EXPECT_FALSE(end(Kind::success, 0));
}

TEST(Ids, GrowAndSurviveATextAndNeverComeAgain) {
  std::uint64_t id = 0;
  for (int i = 0; i < 1000; ++i) {
    const std::uint64_t next = next_id(id, 1'700'000'000'000 - i);  // a clock that goes back
    ASSERT_GT(next, id);
    id = next;
    ASSERT_EQ(parse_id(to_text(id)), id);
  }
  EXPECT_GT(next_id(0, 1'700'000'000'001), id);
  for (const char* bad : {"", "123", "000000000000000g", "00000000000000000", "8000000000000000", "-000000000000001"}) EXPECT_FALSE(parse_id(bad)) << bad;
}

TEST(PendingTasks, AreTakenByPriorityThenByAge) {
  Pending<int> pending;
  std::array<Task, 3> tasks;
  for (std::size_t i = 0; i < 3; ++i) tasks[i].id = i + 1;
  tasks[2].spec.priority = 5;
  for (std::size_t i = 3; i-- > 0;) pending.add(tasks[i], static_cast<int>(i));
  EXPECT_EQ(*pending.first(), 2);
  EXPECT_TRUE(pending.is_first(tasks[2]));
  pending.remove(tasks[2]);
  EXPECT_EQ(*pending.first(), 0);
}

// Whatever happens in whatever order: states change only along the drawing, attempts only grow, and the end is the end.
TEST(LifeOfATask, KeepsItsRulesInRandomHistories) {
  for (std::uint64_t seed = 1; seed <= 10'000; ++seed) {
    base::Random random(seed);
    Task task;
    task.spec.failures_max = 1 + random.below(4);
    task.spec.deadline = random.below(3) == 0 ? 5000 : 0;
    Millis now = 1000;
    admit(task, now);
    for (int step = 0; step < 40; ++step) {
      now += random.below(400);
      const Progress before = task.progress;
      const auto attempt = before.attempt - (random.below(4) == 0 ? 1 : 0);
      switch (random.below(4)) {
        case 0:
          if (before.state == State::pending) begin_attempt(task, "S", now);
          break;
        case 1: {
          const auto kind = static_cast<Kind>(random.below(5));
          const bool taken = conclude(task, attempt, {kind, "x"}, {}, now, random).has_value();
          ASSERT_EQ(taken, before.state == State::in_progress && attempt == before.attempt) << seed;
          break;
        }
        case 2: on_time(task, now); break;
        default:
          if (random.below(10) == 0) (void)cancel(task, now);
      }
      ASSERT_GE(task.progress.attempt, before.attempt) << seed;
      ASSERT_LE(task.progress.failures, task.spec.failures_max) << seed;
      if (is_final(before.state)) {
        ASSERT_EQ(task.progress.state, before.state) << seed;
        ASSERT_EQ(task.progress.finished, before.finished) << seed;
      }
    }
  }
}

}  // namespace
}  // namespace ringmaster::task
