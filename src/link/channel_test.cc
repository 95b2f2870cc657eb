#include "link/channel.h"

#include <gtest/gtest.h>

#include "io/real_system.h"

namespace ringmaster::link {
namespace {

using namespace std::chrono_literals;

ReplicaState some_replica(unsigned slot) {
  ReplicaState r;
  r.pool = "web";
  r.slot = slot;
  r.epoch = 7;
  r.name = "Server \xff\n1";  // whatever a name holds must survive or be made harmless
  r.state = State::running;
  r.healthy = true;
  r.cell = 3;
  r.pid = 42;
  r.endpoint = base::Endpoint::unix_socket("/run/web.sock");
  return r;
}

class ChannelTest : public testing::Test {
 public:
  io::RealSystem system;
  io::Loop loop{system};
  std::pair<io::Handle, io::Handle> ends = std::move(*system.message_pair());
  Channel master{loop, std::move(ends.first)};
  Channel engine{loop, std::move(ends.second)};

  template <class F>
  void run(F body) {
    loop.root().spawn([](ChannelTest& t, F f) -> io::Async<void> {
      co_await f(t);
      t.loop.stop();
    }(*this, body));
    loop.run();
  }
};

TEST(Messages, SurviveTheRoundTrip) {
  Change change{12, some_replica(1)};
  change.replica.name = "Server 1";
  const auto back = decode(encode(change));
  ASSERT_TRUE(back.has_value()) << back.error().detail;
  const auto& got = std::get<Change>(*back);
  EXPECT_EQ(got.generation, 12U);
  EXPECT_EQ(got.replica.name, "Server 1");
  EXPECT_EQ(got.replica.endpoint, change.replica.endpoint);
  EXPECT_EQ(got.replica.state, State::running);
  const auto command = decode(encode(Command{5, Command::Act::remove, "web", 2, {"a", "b"}}));
  EXPECT_EQ(std::get<Command>(*command).names.size(), 2U);
  EXPECT_TRUE(std::holds_alternative<Drain>(*decode(encode(Drain{}))));
}

TEST(Messages, MalformedOnesAreErrors) {
  for (const char* text : {"", "{", "{}", "{\"type\":\"nonsense\"}", "{\"type\":\"change\"}", "[1]", "{\"type\":\"seen\",\"generation\":\"x\"}"}) {
    EXPECT_FALSE(decode(text).has_value()) << text;
  }
}

TEST_F(ChannelTest, LargeSnapshotsTravelInMemory) {
  run([](ChannelTest& t) -> io::Async<void> {
    Snapshot snapshot{1, {}};
    for (unsigned slot = 1; slot <= 10000; ++slot) snapshot.replicas.push_back(some_replica(slot));
    EXPECT_TRUE(t.master.send(snapshot));
    const auto received = co_await t.engine.receive();
    EXPECT_TRUE(received.has_value());
    EXPECT_EQ(std::get<Snapshot>(received->message).replicas.size(), 10000U);
  });
}

TEST_F(ChannelTest, DropsStateWhenTheOtherSideDoesNotReadAndRecovers) {
  run([](ChannelTest& t) -> io::Async<void> {
    int recovered = 0;
    io::Scope scope(t.loop);
    scope.spawn(t.master.pump([&] { ++recovered; }));
    unsigned sent = 0;
    while (t.master.send(Change{sent, some_replica(1)})) ++sent;
    EXPECT_GT(sent, 10U);
    EXPECT_TRUE(t.master.deliver(Outcome{9, base::Code::ok, "", {}}));
    for (unsigned i = 0; i < sent; ++i) {
      const auto received = co_await t.engine.receive();
      EXPECT_EQ(std::get<Change>(received->message).generation, i);
    }
    const auto outcome = co_await t.engine.receive();
    EXPECT_EQ(std::get<Outcome>(outcome->message).command, 9U);
    EXPECT_EQ(recovered, 1);
    scope.cancel();
    co_await scope.join();
  });
}

}  // namespace
}  // namespace ringmaster::link
