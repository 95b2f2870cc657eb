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
#include "tasks.h"
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

// How often things go wrong, each second on average.
struct Options {
  io::SimFaults faults;
  Duration length = 2500ms;
  unsigned clients = 4;
  bool tasks = true;
  bool access_log = false;
  double replica_kills = 2;
  double engine_kills = 0.3;
  double master_kills = 0.15;
  double power_losses = 0;  // of the whole machine
  double replica_stops = 0;
  double engine_stops = 0;
  double slow_replicas = 0;
  double clock_steps = 0;
  double failed_spawns = 0;    // for a while
  double full_tables = 0;      // of descriptors, of the engine or the master, for a while
  double full_disks = 0;       // for the master's files, for a while
  double database_faults = 0;  // of tasks, for a while
  // Nothing else than the death of servers goes wrong: then every GET gets its answer.
  bool only_replicas_die() const;
  bool network_breaks() const;
};

struct Result {
  std::vector<std::string> broken;  // invariants, in words
  std::uint64_t trace_hash = 0;
  Counts counts;
};

// Runs the scenario from beginning to orderly end.
Result run(std::uint64_t seed, const Options& options);

}  // namespace ringmaster::sim
