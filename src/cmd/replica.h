// The demo server, `ringmaster replica`: the server of all five classic systems, to try Ringmaster with and to test it.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "io/turns.h"
#include "wire/server.h"

namespace ringmaster::cmd {

struct ReplicaOptions {
  std::vector<base::Endpoint> listen;  // empty: LISTEN_FDS, else 127.0.0.1:PORT, else 127.0.0.1:8080
  std::string name;
  std::string server_id;  // SERVER_ID
  std::string balancer;   // to announce itself to: its URL; empty: to nobody
  std::string advertise;  // as this URL; empty: the address towards the balancer, and the port that is listened on
  std::string token;
  unsigned ttl_s = 0;
  unsigned slowness = 1;  // so many times as long for /work
};

// GET /home /heartbeat /health_check /available /prime/{n} /sleep/{ms} /work/{ms}, any method on /echo, POST /task. The loop's
// thread always answers; primes and tasks are computed on one thread beside it, tasks one at a time. /work is a server with one
// worker that costs no CPU: its requests wait for each other, and each takes its time.
class DemoServer final : public wire::Handler {
 public:
  explicit DemoServer(const ReplicaOptions& options) : options_(options) {}
  io::Async<void> handle(wire::Exchange& exchange) override;

 private:
  io::Async<void> echo(wire::Exchange& exchange);
  io::Async<void> prime(wire::Exchange& exchange, std::string_view number);
  io::Async<void> sleep(wire::Exchange& exchange, std::string_view milliseconds, bool alone);
  io::Async<void> task(wire::Exchange& exchange);
  // Runs `work` on the computing thread. If the client leaves meanwhile, `stopped` tells it.
  io::Async<void> compute(wire::Exchange& exchange, std::function<void()> work, std::atomic<bool>& stopped);
  bool busy_ = false;  // with a task
  io::Turns worker_;   // of /work
  const ReplicaOptions& options_;
};

int run_replica(ReplicaOptions options);

}  // namespace ringmaster::cmd
