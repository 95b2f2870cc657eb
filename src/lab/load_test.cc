// The generator against a server of this program in the same loop.
#include "lab/load.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "io/real_system.h"
#include "wire/server.h"

namespace ringmaster::lab {
namespace {

using namespace std::chrono_literals;

// /home answers as a demo server does, /busy 503, /broken 500, /half breaks off, /work answers one request after the other, 20 ms each.
class Answers final : public wire::Handler {
 public:
  std::vector<std::string> queries;
  io::Async<void> handle(wire::Exchange& exchange) override {
    queries.emplace_back(exchange.request().query);
    const std::string_view path = exchange.path();
    if (path == "/half") co_return;
    if (path == "/work") {
      free_at_ = std::max(free_at_, exchange.loop().now()) + 20ms;
      co_await exchange.loop().sleep(free_at_ - exchange.loop().now());
    }
    unsigned status = 200;
    if (path == "/busy") status = 503;
    if (path == "/broken") status = 500;
    co_await exchange.reply(status, "application/json", R"({"message":"Hello from Server: 7","status":"successful"})");
  }

 private:
  Time free_at_{};
};

class LoadTest : public testing::Test {
 protected:
  io::RealSystem system;
  io::Loop loop{system};
  Answers answers;
  wire::ServerLimits limits;
  Interrupt interrupt;

  LoadResult run(LoadPlan plan, Duration interrupt_after = {}) {
    wire::Server server(loop, answers, limits);
    auto listening = system.listen(Endpoint::loopback(0), {});
    plan.target.endpoint = system.local_endpoint(listening->fd());
    plan.target.host = "test";
    server.listen(std::move(*listening));
    Load load(loop, std::move(plan), interrupt);
    loop.root().spawn([](LoadTest& t, Load& l, wire::Server& s) -> Async<void> {
      co_await l.run();
      co_await s.stop(t.loop.now() + 1s);
      t.loop.stop();
    }(*this, load, server));
    if (interrupt_after > Duration::zero()) {
      loop.root().spawn([](LoadTest& t, Duration after) -> Async<void> {
        co_await t.loop.sleep(after);
        t.interrupt.ask();
      }(*this, interrupt_after));
    }
    loop.run();
    return load.result();
  }
};

TEST_F(LoadTest, SendsAsManyAsWereAskedForAndChecksEachAnswer) {
  LoadPlan plan;
  plan.paths = {"/home?i={i}", "/busy", "/broken", "/home?wrong"};
  plan.connections = 3;
  plan.requests = 40;
  std::uint64_t from_seven = 0;
  plan.check = [&](const Answer& answer) -> std::string {
    from_seven += answer.server == "7" ? 1 : 0;
    return answer.number % 4 == 3 ? "not what it should be" : "";
  };
  const LoadResult result = run(plan);
  EXPECT_EQ(result.sent, 40U);
  EXPECT_EQ(result.good, 10U);
  EXPECT_EQ(result.refused, 10U);
  EXPECT_EQ(result.failed, 20U);
  EXPECT_EQ(from_seven, 40U);
  EXPECT_EQ(result.connections, 3U);
  EXPECT_EQ(result.latency.total(), 10U);
  EXPECT_EQ(result.waited.total(), 40U);
  EXPECT_EQ(result.describe_faults(), "10 × not what it should be, 10 × status 500, 10 × status 503");
  EXPECT_NE(std::ranges::find(answers.queries, "?i=36"), answers.queries.end());
}

TEST_F(LoadTest, GivesEachConnectionItsShare) {
  LoadPlan plan;
  plan.target.path = "/home";
  plan.connections = 5;
  plan.per_connection = 4;
  std::map<unsigned, int> by_connection;
  plan.check = [&](const Answer& answer) {
    ++by_connection[answer.connection];
    return std::string();
  };
  EXPECT_EQ(run(plan).good, 20U);
  EXPECT_EQ(by_connection, (std::map<unsigned, int>{{0, 4}, {1, 4}, {2, 4}, {3, 4}, {4, 4}}));
}

TEST_F(LoadTest, ABrokenAnswerIsAFaultAndTheNextRequestHasAConnectionOfItsOwn) {
  LoadPlan plan;
  plan.paths = {"/half", "/home"};
  plan.connections = 1;
  plan.requests = 4;
  const LoadResult result = run(plan);
  EXPECT_EQ(result.good, 2U);
  EXPECT_EQ(result.describe_faults(), "2 × connection broken before the answer was whole");
}

TEST_F(LoadTest, CountsLatenciesFromWhenRequestsWereDue) {
  LoadPlan plan;
  plan.target.path = "/work";
  plan.arrivals = LoadPlan::Arrivals::even;
  plan.rate = 100;  // twice what it can do
  plan.duration = 400ms;
  plan.connections = 1;
  const LoadResult result = run(plan);
  EXPECT_EQ(result.sent, 39U);
  EXPECT_EQ(result.good, 39U);
  // Each was answered soon after it had been sent, but the last one was due about 400 ms before that.
  EXPECT_LT(result.service.percentile(0.5), 100ms);
  EXPECT_GT(result.latency.percentile(1), 300ms);
}

TEST_F(LoadTest, OpensNoMoreConnectionsThanItNeeds) {
  LoadPlan plan;
  plan.target.path = "/home";
  plan.arrivals = LoadPlan::Arrivals::poisson;
  plan.rate = 200;
  plan.requests = 50;
  plan.connections = 1000;
  const LoadResult result = run(plan);
  EXPECT_EQ(result.good, 50U);
  EXPECT_LT(result.connections, 30U);
  EXPECT_EQ(result.lateness.total(), 50U);
}

TEST_F(LoadTest, AnInterruptEndsItAtOnceWithWhatThereIs) {
  LoadPlan plan;
  plan.target.path = "/work";
  plan.connections = 4;
  const LoadResult result = run(plan, 110ms);
  EXPECT_TRUE(result.interrupted);
  EXPECT_GE(result.good, 2U);
  EXPECT_EQ(result.unfinished, 4U);
  EXPECT_LT(result.took, 5s);
}

TEST_F(LoadTest, AnInterruptEndsAnOpenLoopToo) {
  LoadPlan plan;
  plan.target.path = "/work";
  plan.arrivals = LoadPlan::Arrivals::even;
  plan.rate = 1000;
  plan.connections = 2;
  const LoadResult result = run(plan, 110ms);
  EXPECT_TRUE(result.interrupted);
  EXPECT_GT(result.unfinished, 20U);  // due, and in line
  EXPECT_EQ(result.waited.total(), result.good + result.unfinished);
}

}  // namespace
}  // namespace ringmaster::lab
