// The configuration as values: checked, complete, and never changed once loaded. How it is written as TOML, and every
// default, is in load.cc; config/demo.toml is an example.
#pragma once

#include <string>
#include <vector>

#include "balance/ring.h"
#include "balance/view.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "base/network.h"

namespace ringmaster::config {

using base::Duration;
using base::Endpoint;

struct Listener {
  Endpoint address;
  std::string pool;                         // where its requests go
  bool classic = false;                     // serves the classic API too
  std::vector<base::Network> classic_from;  // who may call it; empty: the listener is on loopback
};

struct Limit {
  int resource = 0;  // RLIMIT_…
  std::uint64_t value = 0;
};

struct Health {
  std::string path = "/";
  Duration interval = std::chrono::seconds(2);
  Duration timeout = std::chrono::seconds(1);
  unsigned fall = 3;                               // failed checks in a row until unhealthy
  unsigned rise = 2;                               // good ones until ready again
  Duration kill_after = std::chrono::seconds(30);  // unhealthy for so long: replaced
};

struct Pool {
  std::string name;
  // How a replica is run.
  std::vector<std::string> command;  // with {socket}, {port}, {slot}, {name}, {ringmaster}
  std::string directory;
  std::vector<std::string> environment;  // "NAME=value", beside what we set
  std::vector<Limit> limits;
  bool listen_fds = false;                            // hand the listening socket over (sd_listen_fds)
  Duration grace = std::chrono::seconds(5);           // from SIGTERM to SIGKILL
  Duration drain = std::chrono::seconds(30);          // for requests in flight, before SIGTERM
  Duration ready_timeout = std::chrono::seconds(10);  // for those that /add makes
  // How many, and what they are called at first.
  unsigned replicas = 1;
  unsigned replicas_max = 56;
  std::vector<std::string> names;  // for the first slots; then "Server N"
  // How requests are spread.
  balance::Policy policy = balance::Policy::least_requests;
  balance::Key key;
  balance::RingSettings ring;
  Health health;
  // Requests that find nobody ready while a replica starts.
  unsigned queue_length = 1000;
  Duration queue_wait = std::chrono::seconds(10);

  std::string initial_name(unsigned slot) const;
  bool on_unix_socket() const;  // else on a loopback TCP port
};

struct Timeouts {
  Duration head = std::chrono::seconds(10);         // the whole request head, from its first byte
  Duration body = std::chrono::seconds(30);         // between two pieces of a body, either way
  Duration idle = std::chrono::seconds(60);         // between two requests of a client
  Duration connect = std::chrono::seconds(1);       // to a replica
  Duration replica_idle = std::chrono::seconds(4);  // a connection to a replica without a request; below what servers keep
  Duration response = std::chrono::seconds(60);     // from the request's end to the response's head
};

struct Config {
  std::string file;  // where it came from
  std::string text;
  std::string state_dir = ".ringmaster";
  unsigned workers = 0;             // 0: one per core
  unsigned connections_max = 4000;  // of clients, per worker
  Timeouts timeouts;
  std::vector<Listener> listeners;
  Endpoint admin;
  std::vector<Pool> pools;

  const Pool* find_pool(std::string_view name) const;
};

}  // namespace ringmaster::config
