// What master and engine say to each other: small typed messages, as JSON.
//
//   master → engine                              engine → master
//   Setup     configuration, listeners, counters Hello     it serves
//   Snapshot  every replica                      Health    what probing found out
//   Change    one replica                        Seen      workers route by this generation
//   Outcome   of a Command                       Command   of the API: add, remove, stop, server_up …
//   Drain     finish and exit                    Resync    a message was lost: send a Snapshot
//                                                Alive     every thread's loop turns
//
// Each Snapshot and Change carries a generation, one higher than the one before. Whoever misses one asks for, or sends,
// a whole Snapshot: neither side ever waits for the other to read.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "balance/replica.h"
#include "base/endpoint.h"
#include "base/result.h"

namespace ringmaster::link {

// As the master knows it.
enum class State : std::uint8_t { starting, running, draining, stopped, backing_off };
std::string_view name(State state);

struct ReplicaState {
  std::string pool;
  std::uint32_t slot = 0;
  std::uint64_t epoch = 0;
  std::string name;
  State state = State::starting;
  bool healthy = false;    // as last reported; a new engine begins with it
  bool exited = false;     // stopped because its process ended by itself
  std::uint32_t cell = 0;  // of the counters
  balance::Origin origin = balance::Origin::process;
  std::int64_t pid = 0;     // 0: no process of ours
  std::string container;    // its id; empty: none
  base::Endpoint endpoint;  // none: not known yet
};

struct Setup {
  std::string config_file;   // its name; the text comes as the first descriptor
  std::uint64_t engine = 0;  // its number, from 1
  std::uint32_t workers = 1;
  std::string admin_token;  // that the admin API asks for; empty: none
  std::string admin_read_token;
  std::uint32_t listeners = 0;  // per worker; descriptors after the first two (config, counters), worker by worker
};
struct Snapshot {
  std::uint64_t generation = 0;
  std::vector<ReplicaState> replicas;
};
struct Change {
  std::uint64_t generation = 0;
  ReplicaState replica;  // State::stopped: it is gone
};
struct Outcome {
  std::uint64_t command = 0;
  base::Code code = base::Code::ok;
  std::string detail;              // for a person, when code is not ok
  std::vector<std::string> names;  // the pool's, in the order of its slots, after the change; or the lines of output asked for
  std::uint64_t next = 0;          // after `output`: the number to ask for next
};
struct Drain {
  base::Duration grace{};  // for what is under way
};

struct Hello {};
struct Health {
  std::string pool;
  std::uint32_t slot = 0;
  std::uint64_t epoch = 0;
  bool ready = false;
};
struct Seen {
  std::uint64_t generation = 0;
};
struct Command {
  enum class Act : std::uint8_t { add, remove, stop, server_up, server_down, output, resize };
  static constexpr unsigned kActs = 7;
  std::uint64_t id = 0;
  Act act = Act::add;
  std::string pool;
  std::int64_t count = 0;
  std::vector<std::string> names;
  base::Endpoint endpoint;  // server_up, server_down: whom it is about
  base::Duration ttl{};     // server_up: gone unless it is said again within this; 0: stays
  std::uint64_t since = 0;  // output: lines from this number on
  std::string key;          // of a change that is made once, however often it is asked for; empty: none
};
struct Resync {};
struct Alive {};

using Message = std::variant<Setup, Snapshot, Change, Outcome, Drain, Hello, Health, Seen, Command, Resync, Alive>;

std::string encode(const Message& message);
// Errors: what does not have the form that encode() gives.
base::Result<Message> decode(std::string_view text);

}  // namespace ringmaster::link
