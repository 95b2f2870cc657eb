#include "proxy/queue.h"

#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "balance/admission.h"
#include "balance/pick.h"
#include "io/real_system.h"

namespace ringmaster::proxy {
namespace {

using namespace std::chrono_literals;
using io::Async;

// A pool of real records, and workers with requests that want a place on it.
class QueueTest : public testing::Test {
 public:
  void seat(std::uint32_t replicas, std::uint32_t max_in_flight, unsigned queue_length = 1000) {
    settings.max_in_flight = max_in_flight;
    settings.queue_length = queue_length;
    pool.policy = balance::Policy::least_requests;
    pool.max_in_flight = max_in_flight;
    for (std::uint32_t slot = 1; slot <= replicas; ++slot) {
      auto replica = std::make_shared<balance::Replica>();
      replica->slot = slot;
      replica->status = pool.status;
      replica->cell = &cells[slot];
      replica->set_phase(balance::Phase::ready);
      replica->set_seated(true);
      pool.replicas.push_back(replica);
    }
    ASSERT_TRUE(balance::prepare(pool, {}, nullptr));
    queue = std::make_unique<PoolQueue>(settings, pool.status);
  }

  // As Relay does it: look, or wait for a turn, until there is a ticket or the deadline is over. `cannot_use`: a replica that
  // this request has tried already.
  Async<bool> request(io::Loop& loop, balance::PickState& state, base::Time deadline, balance::Ticket& ticket, balance::Replica* cannot_use = nullptr) {
    PoolQueue::PlacePtr place;
    const std::span<balance::Replica* const> tried(&cannot_use, cannot_use == nullptr ? 0 : 1);
    while (true) {
      if (place || queue->length() == 0) {
        balance::Replica* picked = balance::pick(pool, 0, tried, state);
        if (picked != nullptr && balance::try_admit(pool, *picked, ticket)) {
          if (place) queue->leave(place, true);
          co_return true;
        }
      }
      bool look = false;
      if (!place) {
        place = queue->enter(loop, look);
        if (!place) co_return false;
      }
      if (look) continue;
      const base::Code woken = co_await queue->wait(place, deadline);
      if (woken == base::Code::ok) continue;
      queue->leave(place, false);
      co_return false;
    }
  }

  config::Pool settings;
  std::array<balance::Cell, 8> cells{};
  balance::PoolView pool;
  std::unique_ptr<PoolQueue> queue;
};

// Runs `body` on a loop of its own until it has ended.
template <class F>
void run(F body) {
  io::RealSystem system;
  io::Loop loop(system);
  loop.root().spawn([](io::Loop& l, F& b) -> Async<void> {
    co_await b(l);
    l.stop();
  }(loop, body));
  loop.run();
}

TEST_F(QueueTest, ARequestThatCannotUseTheRoomDoesNotKeepOthersFromIt) {
  seat(2, 1);
  run([this](io::Loop& loop) -> Async<void> {
    balance::PickState state(1);
    balance::Ticket other;
    EXPECT_TRUE(balance::try_admit(pool, *pool.replicas[1], other));
    // Its first try was on replica 1, which is free; replica 2 is full.
    io::Scope scope(loop);
    balance::Ticket stuck;
    bool got_stuck = true;
    scope.spawn([](QueueTest& test, io::Loop& l, balance::PickState& s, balance::Ticket& t, bool& got) -> Async<void> {
      got = co_await test.request(l, s, l.now() + 300ms, t, test.pool.replicas[0].get());
    }(*this, loop, state, stuck, got_stuck));
    EXPECT_EQ(queue->length(), 1U);
    for (int i = 0; i < 5; ++i) {
      balance::Ticket ticket;
      const bool got = co_await request(loop, state, loop.now() + 5s, ticket);
      EXPECT_TRUE(got);
    }
    co_await scope.join();
    EXPECT_FALSE(got_stuck);
  });
  EXPECT_EQ(queue->length(), 0U);
}

TEST_F(QueueTest, IsBounded) {
  seat(1, 1, 2);
  run([this](io::Loop& loop) -> Async<void> {
    balance::Ticket holder;
    EXPECT_TRUE(balance::try_admit(pool, *pool.replicas[0], holder));
    bool look = false;
    const auto first = queue->enter(loop, look);
    EXPECT_TRUE(look);
    const auto second = queue->enter(loop, look);
    EXPECT_FALSE(look) << "the first is looking";
    EXPECT_EQ(queue->enter(loop, look), nullptr);
    queue->leave(first, false);
    queue->leave(second, false);
    co_return;
  });
}

struct Tally {
  std::atomic<int> served = 0;
  std::atomic<int> given_up = 0;
  std::atomic<int> inside = 0;
  std::atomic<bool> too_many = false;
};

// Several workers, far more requests than room, some of which give up: none is forgotten while there is room.
TEST_F(QueueTest, NobodyIsForgottenUnderStress) {
  static constexpr int kWorkers = 4;
  static constexpr int kFibers = 12;
  static constexpr int kRequests = 300;
  seat(2, 2);
  Tally tally;
  const auto client = [](QueueTest& test, io::Loop& loop, Tally& t, std::uint64_t seed) -> Async<void> {
    balance::PickState state(seed);
    for (int i = 0; i < kRequests; ++i) {
      balance::Ticket ticket;
      const bool patient = state.random.below(10) > 0;
      const bool got = co_await test.request(loop, state, loop.now() + (patient ? base::Duration(20s) : base::Duration(200us)), ticket);
      if (!got) {
        ++t.given_up;
        EXPECT_FALSE(patient) << "stranded beside free room";
        continue;
      }
      if (++t.inside > 4) t.too_many = true;
      if (state.random.below(2) == 0) co_await loop.sleep(std::chrono::microseconds(state.random.below(50)));
      --t.inside;
      ++t.served;
    }
  };
  std::vector<std::thread> threads;
  for (int worker = 0; worker < kWorkers; ++worker) {
    threads.emplace_back([&, worker] {
      run([&, worker](io::Loop& loop) -> Async<void> {
        io::Scope scope(loop);
        for (int fiber = 0; fiber < kFibers; ++fiber)
          scope.spawn(client(*this, loop, tally, static_cast<std::uint64_t>(worker) * 100 + static_cast<std::uint64_t>(fiber)));
        co_await scope.join();
      });
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(tally.too_many);
  EXPECT_EQ(tally.served + tally.given_up, kWorkers * kFibers * kRequests);
  EXPECT_EQ(queue->length(), 0U);
  EXPECT_EQ(pool.status->in_flight, 0U);
}

}  // namespace
}  // namespace ringmaster::proxy
