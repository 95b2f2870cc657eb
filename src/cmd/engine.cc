#include "cmd/engine.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "admin/classic_api.h"
#include "base/log.h"
#include "cmd/version.h"
#include "config/load.h"
#include "io/real_system.h"

namespace ringmaster::cmd {

using base::Code;
using base::Result;
using io::Async;
using namespace std::chrono_literals;

wire::ServerLimits server_limits(const config::Config& config) {
  wire::ServerLimits limits;
  limits.head_timeout = config.timeouts.head;
  limits.body_timeout = config.timeouts.body;
  limits.idle_timeout = config.timeouts.idle;
  limits.connections_max = config.connections_max;
  limits.connections_per_address_max = config.connections_per_address_max;
  limits.body_rate_min = config.body_rate_min;
  limits.response_rate_min = config.response_rate_min;
  limits.linger = config.timeouts.linger;
  limits.linger_bytes_max = config.linger_bytes_max;
  return limits;
}

Engine::Engine(io::Loop& control, io::Handle link)
    : loop_(control), channel_(control, std::move(link)), operations_(control, [this](const link::Command& command) { return channel_.deliver(command); }) {}

Engine::~Engine() = default;

Async<void> Engine::run() {
  auto first = co_await channel_.receive();
  if (!first) co_return;
  const auto ready = set_up(std::move(*first));
  if (!ready) {
    base::log::error("cannot serve: {}", base::describe(ready.error()));
    co_return;
  }
  io::Scope talking(loop_);
  talking.spawn(channel_.pump([this] { report_all(); }));
  talking.spawn(sample_queues());
  if (config_.engine_timeout != base::Duration::zero()) talking.spawn(beat());
  channel_.send(link::Hello{});
  base::Duration grace{};
  while (true) {
    const auto received = co_await channel_.receive();
    if (!received && received.error().code == Code::invalid) {
      base::log::error("from the master: {}", base::describe(received.error()));
      continue;
    }
    if (!received) break;  // the master is gone, and so are we
    if (const auto* drain = std::get_if<link::Drain>(&received->message)) {
      grace = drain->grace;
      break;
    }
    on_message(received->message);
  }
  talking.spawn(listen_on());  // those who wait for the outcome of a change shall have it
  co_await shut_down(grace);
  talking.cancel();
  co_await talking.join();
}

Async<void> Engine::listen_on() {
  while (true) {
    const auto received = co_await channel_.receive();
    if (!received) co_return;
    on_message(received->message);
  }
}

// --- beginning ---

Result<void> Engine::set_up(link::Received received) {
  const auto* setup = std::get_if<link::Setup>(&received.message);
  const std::size_t listeners = setup == nullptr ? 0 : std::size_t{setup->workers} * setup->listeners;
  if (setup == nullptr || received.descriptors.size() != 4 + listeners) return base::fail(Code::invalid, "the first message is not a whole setup");
  setup_ = *setup;
  auto text = loop_.system().map(received.descriptors[0].fd());
  auto counters = loop_.system().map(received.descriptors[1].fd());
  if (!text) return std::unexpected(text.error());
  if (!counters) return std::unexpected(counters.error());
  if (counters->bytes < balance::kBlockBytes) return base::fail(Code::invalid, "the counters' block is too small");
  counters_ = std::move(*counters);
  auto parsed = config::parse(setup->config_file, std::string(text->text()));
  if (const auto* faults = std::get_if<std::vector<config::Fault>>(&parsed)) {
    return base::fail(Code::invalid, config::to_string(setup->config_file, *faults));
  }
  config_ = std::move(std::get<config::Config>(parsed));

  // A connection of a client may need one to a replica; checks, the admin API and the log need a few always.
  static constexpr std::uint64_t kReserve = 200;
  const std::uint64_t limit = std::max(loop_.system().raise_descriptor_limit(), kReserve + 2 * std::uint64_t{setup_.workers});
  const auto most = static_cast<unsigned>((limit - kReserve) / 2 / std::max(1U, setup_.listeners));
  if (most < config_.connections_max)
    base::log::warning("{} descriptors are enough for {} connections a listener, not {}", limit, most, config_.connections_max);
  config_.connections_max = std::min(config_.connections_max, most);
  for (std::size_t i = 0; i < config_.listeners.size(); ++i) {
    connection_limits_.push_back(std::make_shared<wire::ConnectionLimit>(config_.connections_max));
  }

  prober_ = std::make_unique<probe::Prober>(loop_, [this](const auto& replica, bool ready) { report(replica, ready); });
  registry_ = std::make_unique<proxy::Registry>(config_, static_cast<balance::Cell*>(counters_.memory.get()), registry_listener());
  shared_ = std::make_unique<proxy::Shared>(loop_.system(), config_, *registry_);
  if (!config_.queues.empty()) {
    dispatcher_ = std::make_unique<dispatch::Dispatcher>(loop_, config_, config_.state_dir + "/tasks/tasks.db");
    dispatcher_->start();
    classic_tasks_ = std::make_unique<admin::ClassicTasks>(config_, *dispatcher_, operations_.scope());
  }
  view_ = std::make_shared<balance::View>();
  admin_listeners_.push_back(std::move(received.descriptors[2]));
  admin_listeners_.push_back(std::move(received.descriptors[3]));
  auto next = received.descriptors.begin() + 4;
  for (std::uint32_t i = 0; i < setup_.workers; ++i, next += setup_.listeners) {
    start_worker({std::make_move_iterator(next), std::make_move_iterator(next + setup_.listeners)});
  }
  return {};
}

void Engine::start_worker(std::vector<io::Handle> listeners) {
  Worker& worker = *workers_.emplace_back(std::make_unique<Worker>());
  worker.number = workers_.size() - 1;
  worker.thread = loop_.system().start_loop();
  for (io::Handle& listener : listeners) worker.listeners.push_back(listener.release());
  worker.thread->loop().post([this, &worker] { worker.balancer = std::make_unique<proxy::Balancer>(worker.thread->loop(), config_, *shared_, reports()); });
}

// On the worker's thread.
void Engine::open_listeners(Worker& worker) {
  io::Loop& loop = worker.thread->loop();
  for (std::size_t i = 0; i < worker.listeners.size(); ++i) {
    const config::Listener& listener = config_.listeners[i];
    if (listener.classic) {
      worker.handlers.push_back(std::make_unique<admin::ClassicApi>(config_, i, *shared_, *worker.balancer, operations_, classic_tasks_.get()));
    } else {
      worker.handlers.push_back(std::make_unique<proxy::Frontend>(config_, i, *shared_, *worker.balancer));
    }
    wire::ServerLimits limits = server_limits(config_);
    limits.proxy_protocol = listener.proxy_protocol;
    limits.trusted = listener.trusted;
    limits.connections = connection_limits_[i];
    worker.servers.push_back(std::make_unique<wire::Server>(loop, *worker.handlers.back(), limits));
    worker.servers.back()->listen(loop.system().adopt(worker.listeners[i]));
  }
  worker.listeners.clear();
}

void Engine::start_admin() {
  wire::ServerLimits limits = server_limits(config_);
  limits.connections_per_address_max = 0;
  api_ = std::make_unique<admin::ApiV1>(
      config_, *registry_, operations_, dispatcher_.get(), [this] { return collect_metrics(); },
      [this] { return shared_->access_log ? shared_->access_log->dropped_bytes() : 0; },
      admin::ApiV1::About{kVersion, setup_.engine, ::getpid(), setup_.workers, loop_.now()}, admin::ApiV1::Tokens{setup_.admin_token, setup_.admin_read_token});
  admin_server_ = std::make_unique<wire::Server>(loop_, *api_, limits);
  for (io::Handle& listener : admin_listeners_) admin_server_->listen(std::move(listener));
}

// --- following the master ---

proxy::Registry::Listener Engine::registry_listener() {
  using Record = proxy::Registry::Record;
  return {
      .appeared = [this](const Record& replica) { prober_->watch(replica, *config_.find_pool(replica->pool)); },
      .left = [this](const Record& replica) { prober_->forget(replica); },
      .exited =
          [this](const Record& replica) {
            for_each_worker([replica](Worker& worker) { worker.balancer->exited(replica); });
            if (dispatcher_) dispatcher_->exited(replica);
          },
  };
}

void Engine::on_message(const link::Message& message) {
  if (const auto* snapshot = std::get_if<link::Snapshot>(&message)) {
    registry_->apply(*snapshot);
    stale_ = false;
    follow(snapshot->generation);
  } else if (const auto* change = std::get_if<link::Change>(&message)) {
    if (stale_) return;  // a snapshot is on its way
    if (change->generation != generation_ + 1) {
      stale_ = true;
      channel_.send(link::Resync{});
      return;
    }
    registry_->apply(change->replica);
    follow(change->generation);
  } else if (const auto* outcome = std::get_if<link::Outcome>(&message)) {
    operations_.finished(*outcome);
  }
}

void Engine::follow(std::uint64_t generation) {
  generation_ = generation;
  publish_when_due();
  if (!admin_server_) start_admin();
}

// Making a view of a very large pool takes a while (0.2 s for the table of ten thousand replicas): when many changes come
// at once, one view has them all, and at most a fifth of our time goes into views.
void Engine::publish_when_due() {
  if (publish_pending_) return;
  if (loop_.system().now() >= next_publish_) {
    publish();
  } else {
    publish_pending_ = true;
    loop_.root().spawn(publish_later());
  }
}

Async<void> Engine::publish_later() {
  const Code slept = co_await loop_.sleep(next_publish_ - loop_.now());
  publish_pending_ = false;
  if (slept != Code::cancelled) publish();
}

// Gives all workers the present view. Once the last has it, the master is told: from then on no request goes to a
// replica that the view does not have.
void Engine::publish() {
  const base::Time began = loop_.system().now();
  const std::shared_ptr<const balance::View> view = registry_->view();
  next_publish_ = loop_.system().now() + 4 * (loop_.system().now() - began);
  const auto departed = std::make_shared<std::vector<proxy::Registry::Record>>();
  for (std::size_t i = 0; i < view_->pools.size(); ++i) {
    for (const auto& replica : view_->pools[i].replicas) {
      if (view->pools[i].seated(replica->slot) != replica) departed->push_back(replica);
    }
  }
  view_ = view;
  if (dispatcher_) dispatcher_->adopt(view);
  const auto missing = std::make_shared<std::size_t>(workers_.size());  // touched on the control loop only
  for_each_worker([this, view, departed, missing, generation = generation_](Worker& worker) {
    // The old view comes back with the answer: to take ten thousand records apart is no work for a worker.
    const auto old = worker.balancer->adopt(view, *departed);
    open_listeners(worker);
    loop_.post([this, missing, generation, old] {
      if (--*missing > 0) return;
      channel_.send(link::Seen{generation});
      for (const auto& queue : shared_->queues) queue->wake_all();  // what they wait for may be in this view
    });
  });
}

void Engine::for_each_worker(const std::function<void(Worker&)>& call) {
  for (const auto& worker : workers_) {
    worker->thread->loop().post([&worker = *worker, call] {
      if (worker.balancer) call(worker);
    });
  }
}

// What workers tell: calls from their threads, turned into calls on ours.
proxy::Balancer::Reports Engine::reports() {
  using Record = proxy::Registry::Record;
  return {
      .suspect = [this](const Record& replica) { loop_.post([this, replica] { prober_->suspect(replica); }); },
      .failing = [this](const Record& replica) { loop_.post([this, replica] { prober_->failing(replica); }); },
  };
}

void Engine::report(const proxy::Registry::Record& replica, bool ready) {
  channel_.send(link::Health{replica->pool, replica->slot, replica->epoch, ready});
  if (ready && dispatcher_) dispatcher_->replica_ready(replica->pool);
  // Those who wait look again: there may be somebody now, or nobody to wait for any more.
  for (std::size_t i = 0; i < config_.pools.size(); ++i) {
    if (config_.pools[i].name == replica->pool) shared_->queues[i]->wake_all();
  }
}

// How fast the pools complete requests while some have to wait: for an honest Retry-After.
Async<void> Engine::sample_queues() {
  if (std::ranges::all_of(config_.pools, [](const config::Pool& pool) { return pool.max_in_flight == 0; })) co_return;
  while (true) {
    const Code slept = co_await loop_.sleep(proxy::PoolQueue::kSample);
    if (slept == Code::cancelled) co_return;
    for (const auto& queue : shared_->queues) queue->sample(loop_.now());
  }
}

// Tells the master that every thread's loop turns. What does not answer a round keeps the next one from being told.
Async<void> Engine::beat() {
  static constexpr int kBeatsPerTimeout = 8;  // two in each of the master's steps
  answered_.assign(workers_.size(), 0);
  channel_.send(link::Alive{});
  for (std::uint64_t round = 1;; ++round) {
    const Code slept = co_await loop_.sleep(config_.engine_timeout / kBeatsPerTimeout);
    if (slept == Code::cancelled) co_return;
    if (workers_.empty() || std::ranges::all_of(answered_, [&](std::uint64_t answered) { return answered + 1 >= round; })) channel_.send(link::Alive{});
    for (const auto& worker : workers_) {
      worker->thread->loop().post([this, number = worker->number, round] { loop_.post([this, number, round] { answered_[number] = round; }); });
    }
  }
}

// A copy of what each worker has counted, made on its own thread.
Async<std::vector<proxy::WorkerMetrics>> Engine::collect_metrics() {
  struct Collection {
    std::vector<proxy::WorkerMetrics> parts;
    std::size_t missing;
    io::Signal complete;
  };
  const auto collection = std::make_shared<Collection>();  // touched on the control loop only
  collection->missing = workers_.size();
  for_each_worker([this, collection](Worker& worker) {
    proxy::WorkerMetrics part = worker.balancer->metrics();
    for (const auto& server : worker.servers) {
      part.connections += server->connections();
      part.accepted += server->accepted();
      part.refused += server->refused();
      for (const auto& [status, count] : server->rejected()) part.rejected[status] += count;
    }
    part.worker = worker.number;
    loop_.post([collection, part = std::move(part)]() mutable {
      collection->parts.push_back(std::move(part));
      if (--collection->missing == 0) collection->complete.notify();
    });
  });
  while (collection->missing > 0) {
    const Code woken = co_await collection->complete.wait(loop_, loop_.now() + 5s);
    if (woken != Code::ok) break;
  }
  std::ranges::sort(collection->parts, {}, &proxy::WorkerMetrics::worker);
  co_return std::move(collection->parts);
}

void Engine::report_all() {
  for (const config::Pool& pool : config_.pools) {
    for (const auto& replica : registry_->replicas(pool.name)) {
      channel_.send(link::Health{replica->pool, replica->slot, replica->epoch, replica->phase() == balance::Phase::ready});
    }
  }
  channel_.send(link::Seen{generation_});
}

// --- ending ---

static Async<void> end_worker(Worker& worker, base::Duration grace, std::function<void()> ended) {
  io::Loop& loop = worker.thread->loop();
  io::Scope stopping(loop);
  for (const auto& server : worker.servers) stopping.spawn(server->stop(loop.now() + grace));
  co_await stopping.join();
  // Here, on its own thread, because its connections are registered with this loop.
  worker.servers.clear();
  worker.handlers.clear();
  co_await worker.balancer->stop();
  worker.balancer.reset();
  ended();
}

Async<void> Engine::shut_down(base::Duration grace) {
  io::Scope finishing(loop_);
  if (api_) api_->begin_stop();
  static constexpr base::Duration kForOffers = 4s;  // a task that is broken off is begun again after the next start
  if (dispatcher_) finishing.spawn(dispatcher_->finish_offers(loop_.now() + std::min<base::Duration>(grace, kForOffers)));
  ending_ = static_cast<unsigned>(workers_.size());
  for (const auto& worker : workers_) {
    worker->thread->loop().post([this, &worker = *worker, grace] {
      const auto ended = [this] {
        loop_.post([this] {
          if (--ending_ == 0) worker_ended_.notify();
        });
      };
      worker.thread->loop().root().spawn(end_worker(worker, grace, ended));
    });
  }
  while (ending_ > 0) co_await worker_ended_.wait(loop_);
  co_await finishing.join();
  co_await operations_.stop();  // its answers go to the workers' loops
  for (const auto& worker : workers_) worker->thread->loop().stop();
  workers_.clear();
  if (dispatcher_) dispatcher_->begin_stop();  // those who wait for a task's end leave
  if (admin_server_) co_await admin_server_->stop(loop_.now() + 100ms);
  if (dispatcher_) co_await dispatcher_->stop();
  co_await prober_->stop();
  admin_server_.reset();
}

int run_engine() {
  static constexpr int kLink = 3;
  base::log::start("engine", base::log::Level::info);
  // Whoever signals all processes at once (a terminal's Ctrl-C, a service manager) reaches the master, which drains us.
  ::signal(SIGINT, SIG_IGN);
  ::signal(SIGHUP, SIG_IGN);
  ::signal(SIGTERM, SIG_IGN);
  ::signal(SIGPIPE, SIG_IGN);
  io::write_stack_when_asked();
  io::RealSystem system(io::RealSystem::Links::refuse);
  io::Loop loop(system);
  Engine engine(loop, system.adopt(kLink));
  loop.root().spawn([](Engine& e, io::Loop& l) -> Async<void> {
    co_await e.run();
    l.stop();
  }(engine, loop));
  loop.run();
  return 0;
}

}  // namespace ringmaster::cmd
