#include "proxy/registry.h"

#include <gtest/gtest.h>

namespace ringmaster::proxy {
namespace {

using link::State;

// A registry with one pool "web", and what it told others: tell(…); EXPECT_EQ(seats(), "1:A2 …").
class RegistryTest : public testing::Test {
 public:
  RegistryTest() {
    config.pools.emplace_back().name = "web";
    registry = std::make_unique<Registry>(config, cells.data(),
                                          Registry::Listener{[this](const auto& r) { told += "+" + r->name; }, [this](const auto& r) { told += "-" + r->name; },
                                                             [this](const auto& r) { told += "!" + r->name; }});
  }

  static link::ReplicaState state(unsigned slot, std::uint64_t epoch, const std::string& name, State what, bool exited = false) {
    link::ReplicaState s;
    s.pool = "web";
    s.slot = slot;
    s.epoch = epoch;
    s.name = name;
    s.state = what;
    s.exited = exited;
    s.cell = slot;
    s.endpoint = base::Endpoint::unix_socket("/run/" + name);
    return s;
  }
  void tell(unsigned slot, std::uint64_t epoch, const std::string& name, State what, bool exited = false) {
    registry->apply(state(slot, epoch, name, what, exited));
  }

  // What requests are routed by: "slot:name" of each seat, "*" when its process has ended.
  std::string seats() const {
    std::string text;
    const auto view = registry->view();
    for (const auto& replica : view->pools[0].replicas) {
      text += (text.empty() ? "" : " ") + std::to_string(replica->slot) + ":" + replica->name + (replica->exited() ? "*" : "");
    }
    return text;
  }
  std::string everybody() const {
    std::string text;
    for (const auto& replica : registry->replicas("web"))
      text += (text.empty() ? "" : " ") + replica->name + "/" + std::string(balance::name(replica->phase()));
    return text;
  }

  config::Config config;
  std::vector<balance::Cell> cells{16};
  std::unique_ptr<Registry> registry;
  std::string told;
};

TEST_F(RegistryTest, ADeadReplicaKeepsItsSeatUntilItsSuccessorComes) {
  tell(1, 1, "A", State::running);
  tell(2, 1, "B", State::running);
  tell(1, 1, "A", State::stopped, true);
  EXPECT_EQ(seats(), "1:A* 2:B");
  tell(1, 2, "C", State::running);
  EXPECT_EQ(seats(), "1:C 2:B");
  EXPECT_EQ(told, "+A+B-A!A+C");
}

TEST_F(RegistryTest, ADrainingReplicaLeavesTheViewAndIsShownUntilItIsGone) {
  tell(1, 1, "A", State::running);
  tell(1, 1, "A", State::draining);
  EXPECT_EQ(seats(), "");
  EXPECT_EQ(everybody(), "A/draining");
  tell(1, 2, "B", State::running);  // its slot is free at once
  EXPECT_EQ(everybody(), "B/starting A/draining");
  tell(1, 1, "A", State::stopped);
  EXPECT_EQ(everybody(), "B/starting");
}

TEST_F(RegistryTest, RestingAndStartingAgainLeavesNothingBehind) {
  tell(1, 3, "A", State::backing_off);
  EXPECT_EQ(everybody(), "A/backing_off");
  tell(1, 4, "A", State::running);
  EXPECT_EQ(everybody(), "A/starting");
  tell(1, 3, "A", State::stopped, true);  // old news
  EXPECT_EQ(seats(), "1:A");
}

TEST_F(RegistryTest, ASnapshotReplacesWhatItDoesNotName) {
  tell(1, 1, "A", State::running);
  tell(2, 1, "B", State::running);
  link::Snapshot snapshot{9, {state(2, 1, "B", State::running), state(3, 1, "C", State::running)}};
  snapshot.replicas[1].healthy = true;
  registry->apply(snapshot);
  EXPECT_EQ(seats(), "2:B 3:C");
  EXPECT_EQ(everybody(), "B/starting C/ready");  // health that the master remembers is taken over
}

TEST_F(RegistryTest, IgnoresOlderEpochsAndOtherPools) {
  tell(1, 5, "A", State::running);
  tell(1, 4, "Old", State::running);
  link::ReplicaState elsewhere = state(1, 1, "X", State::running);
  elsewhere.pool = "other";
  registry->apply(elsewhere);
  EXPECT_EQ(seats(), "1:A");
}

TEST_F(RegistryTest, ShowsOneWhoseAddressIsNotKnownYetAndMakesItsRecordAnewOnceItIs) {
  link::ReplicaState starting = state(2, 1, "Y", State::starting);
  starting.endpoint = {};
  registry->apply(starting);
  EXPECT_EQ(seats(), "2:Y");
  const auto before = registry->find("web", 2, 1);
  registry->apply(state(2, 1, "Y", State::running));
  const auto after = registry->find("web", 2, 1);
  EXPECT_NE(before, after);  // workers may be reading the old one
  EXPECT_NE(after->endpoint.family, base::Endpoint::Family::none);
  EXPECT_EQ(seats(), "2:Y");
}

}  // namespace
}  // namespace ringmaster::proxy
