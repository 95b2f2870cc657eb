// The engine: the process that serves. It gets everything from the master over the link (configuration, listeners,
// counters, replicas) and runs the data plane on one worker per core, and health checks and the admin API beside them.
#pragma once

#include <memory>
#include <vector>

#include "admin/api_v1.h"
#include "admin/classic_tasks.h"
#include "link/channel.h"
#include "probe/prober.h"
#include "proxy/balancer.h"
#include "proxy/registry.h"

namespace ringmaster::cmd {

// A thread of the data plane: its balancer and its listeners' servers live on its loop.
struct Worker {
  std::size_t number = 0;
  std::vector<int> listeners;  // not yet listened to: that begins with the first view
  std::unique_ptr<proxy::Balancer> balancer;
  std::vector<std::unique_ptr<wire::Handler>> handlers;
  std::vector<std::unique_ptr<wire::Server>> servers;
  std::unique_ptr<io::LoopThread> thread;  // last, so that it has ended before the others go: calls posted late look at them
};

class Engine {
 public:
  Engine(io::Loop& control, io::Handle link);
  ~Engine();

  // Serves until the master says Drain, or is gone.
  io::Async<void> run();

 private:
  base::Result<void> set_up(link::Received received);
  void start_worker(std::vector<io::Handle> listeners);
  void open_listeners(Worker& worker);
  void start_admin();
  proxy::Registry::Listener registry_listener();
  void on_message(const link::Message& message);
  io::Async<void> listen_on();
  void follow(std::uint64_t generation);
  void publish();
  void publish_when_due();
  io::Async<void> publish_later();
  proxy::Balancer::Reports reports();
  io::Async<void> sample_queues();
  io::Async<void> beat();
  io::Async<std::vector<proxy::WorkerMetrics>> collect_metrics();
  void report(const proxy::Registry::Record& replica, bool ready);
  void report_all();
  void for_each_worker(const std::function<void(Worker&)>& call);
  io::Async<void> shut_down(base::Duration grace);

  io::Loop& loop_;
  link::Channel channel_;
  config::Config config_;
  link::Setup setup_;
  io::Mapping counters_;
  std::unique_ptr<probe::Prober> prober_;
  std::unique_ptr<proxy::Registry> registry_;
  std::unique_ptr<proxy::Shared> shared_;
  std::vector<std::shared_ptr<wire::ConnectionLimit>> connection_limits_;  // by listener
  std::unique_ptr<dispatch::Dispatcher> dispatcher_;                       // if there are queues
  std::shared_ptr<const balance::View> view_;                              // as last given to the workers
  admin::Operations operations_;
  std::vector<io::Handle> admin_listeners_;  // until there is something to show
  std::unique_ptr<admin::ClassicTasks> classic_tasks_;
  std::unique_ptr<admin::ApiV1> api_;
  std::unique_ptr<wire::Server> admin_server_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::uint64_t generation_ = 0;  // of the last snapshot or change
  base::Time next_publish_{};
  bool publish_pending_ = false;
  bool stale_ = true;    // a message was lost: only a snapshot helps
  unsigned ending_ = 0;  // workers that still drain
  io::Signal worker_ended_;
  std::vector<std::uint64_t> answered_;  // by worker: the last round of beat() to which its loop has answered
};

wire::ServerLimits server_limits(const config::Config& config);

// The `engine` command: not for users; the master starts it with the link as descriptor 3.
int run_engine();

}  // namespace ringmaster::cmd
