// The whole program in a simulated world: a real Master, a real Engine, servers, clients, and a chaos that kills and breaks.
// One seed decides everything. See fleet_sim_test.cc for what must hold.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cmd/engine.h"
#include "cmd/master.h"
#include "config/load.h"
#include "io/sim_system.h"
#include "wire/client.h"
#include "wire/server.h"

namespace ringmaster::sim {

using base::Duration;
using base::Time;
using io::Async;
using namespace std::chrono_literals;

// What the servers have executed and when their slots were troubled: shared by all servers of a world.
struct Ledger {
  std::map<std::string, unsigned> executed;        // by request id
  std::map<unsigned, std::vector<Time>> troubles;  // by slot: killed, started, or a connection broken
  void trouble(unsigned slot, Time when) { troubles[slot].push_back(when); }
  bool calm(unsigned slot, Time from, Time to) const;
};

// One request as a client saw it.
struct Seen {
  std::string id;
  std::string key;
  bool post = false;
  Time begun;
  Time ended;
  std::optional<unsigned> status;  // none: the connection broke
  unsigned slot = 0;               // that answered
  std::string fault;               // what must not be
};

struct Options {
  io::SimFaults faults;
  Duration length = 3s;
  unsigned clients = 4;
  double replica_kills_per_s = 2;
  double engine_kills_per_s = 0.3;
  double master_kills_per_s = 0.15;
};

struct Result {
  std::vector<std::string> broken;  // invariants, in words
  std::uint64_t trace_hash = 0;
  unsigned requests = 0;
  unsigned answered = 0;  // with 200
  unsigned deaths = 0;
  unsigned changes = 0;  // /add and /rm that succeeded
  unsigned keyed = 0;    // answers whose slot was compared with their key's
};

// Runs the scenario from beginning to orderly end.
Result run(std::uint64_t seed, const Options& options);

}  // namespace ringmaster::sim
