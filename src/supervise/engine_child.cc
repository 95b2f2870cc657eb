#include "supervise/engine_child.h"

#include <csignal>
#include <cstring>

#include "balance/counters.h"
#include "base/log.h"

extern char** environ;  // NOLINT: POSIX names it

namespace ringmaster::supervise {

using base::Code;
using base::Duration;
using base::Result;
using io::Async;
using namespace std::chrono_literals;

struct EngineChild::Generation {
  io::Process process;
  std::shared_ptr<link::Channel> channel;
  io::Mapping counters;
  bool heard_of = false;  // since watch() looked last
  bool ever_heard_of = false;
};

EngineChild::EngineChild(io::Loop& loop, const config::Config& config, Listening listening, std::function<void()> stop_wanted)
    : loop_(loop),
      config_(config),
      listening_(std::move(listening)),
      stop_wanted_(std::move(stop_wanted)),
      own_executable_(loop.system().own_executable()),
      commands_(loop) {
  fill_reserve();
}

void EngineChild::fill_reserve() {
  static constexpr std::size_t kReserve = 16;  // a start takes nine for a moment, and keeps three
  while (reserve_.size() < kReserve) {
    auto one = loop_.system().create_memory(1);
    if (!one) return;
    reserve_.push_back(std::move(*one));
  }
}

Fleet::Engine EngineChild::for_fleet() {
  Fleet::Engine engine;
  engine.changed = [this](std::uint64_t generation, const link::ReplicaState& state) {
    if (current_ != nullptr) current_->channel->send(link::Change{generation, state});
  };
  engine.work = [this](std::uint32_t number) -> Work {
    if (current_ == nullptr) return {};
    const balance::Cell& cell = static_cast<const balance::Cell*>(current_->counters.memory.get())[number];
    return {cell.in_flight.load(std::memory_order_acquire), cell.failures.load(std::memory_order_relaxed), cell.good_while_ill.load(std::memory_order_relaxed)};
  };
  return engine;
}

Result<io::Handle> EngineChild::config_memory() {
  auto memory = loop_.system().create_memory(config_.text.size());
  if (!memory) return memory;
  const auto mapping = loop_.system().map(memory->fd());
  if (!mapping) return std::unexpected(mapping.error());
  std::memcpy(mapping->memory.get(), config_.text.data(), config_.text.size());
  return memory;
}

Result<std::unique_ptr<EngineChild::Generation>> EngineChild::start() {
  io::System& system = loop_.system();
  auto link = system.message_pair();
  if (!link) return std::unexpected(link.error());
  auto counters = system.create_memory(balance::kBlockBytes);
  if (!counters) return std::unexpected(counters.error());
  auto mapping = system.map(counters->fd());
  if (!mapping) return std::unexpected(mapping.error());
  const auto config = config_memory();
  if (!config) return std::unexpected(config.error());

  io::SpawnRequest request;
  request.argv = {own_executable_, "engine"};
  request.executable = "/proc/self/exe";  // this very binary, even if the file has been replaced meanwhile
  for (char** entry = environ; *entry != nullptr; ++entry) request.environment.emplace_back(*entry);
  request.run_as = listening_.run_as;
  request.inherited = {link->second.fd()};
  request.capture_output = false;
  request.mark = listening_.mark;
  auto child = system.spawn(request);
  if (!child) return std::unexpected(child.error());
  auto channel = std::make_shared<link::Channel>(loop_, std::move(link->first));
  std::vector<int> descriptors = {config->fd(), counters->fd()};
  descriptors.insert(descriptors.end(), listening_.descriptors.begin(), listening_.descriptors.end());
  channel->send(link::Setup{.config_file = config_.file,
                            .engine = ++number_,
                            .workers = listening_.workers,
                            .admin_token = listening_.admin_token,
                            .admin_read_token = listening_.admin_read_token,
                            .listeners = listening_.per_worker},
                descriptors);
  return std::unique_ptr<Generation>(new Generation{io::Process(loop_, std::move(*child)), std::move(channel), std::move(*mapping)});
}

void EngineChild::send_snapshot() {
  if (current_ != nullptr) current_->channel->send(fleet_->snapshot());
}

Async<void> EngineChild::run() {
  Duration back_off{};
  unsigned early_deaths = 0;
  while (!stopping_) {
    const base::Time begun = loop_.now();
    reserve_.clear();
    auto engine = start();
    fill_reserve();
    if (engine) {
      co_await serve(**engine);
    } else {
      base::log::error("the engine cannot be started: {}", base::describe(engine.error()));
    }
    if (stopping_) break;
    // A death is repaired at once; from the third in a row within a second of its start it rests longer each time.
    early_deaths = loop_.now() - begun < 1s ? early_deaths + 1 : 0;
    if (early_deaths < 3) {
      back_off = Duration::zero();
    } else {
      back_off = std::clamp<Duration>(back_off * 2, 50ms, 10s);
      const Code woken = co_await stop_begun_.wait(loop_, loop_.now() + back_off);
      if (woken == Code::cancelled) break;
    }
  }
  commands_.cancel();
  co_await commands_.join();
}

// One engine's life, from its start to its end.
Async<void> EngineChild::serve(Generation& engine) {
  current_ = &engine;
  base::log::info("engine {} started, pid {}", number_, engine.process.pid());
  send_snapshot();
  io::Scope talking(loop_);
  talking.spawn(listen_to(engine));
  if (config_.engine_timeout != Duration::zero()) talking.spawn(watch(engine));
  talking.spawn(engine.channel->pump([this] { send_snapshot(); }));
  const auto status = co_await engine.process.wait(base::kNever);
  current_ = nullptr;
  fleet_->engine_lost();
  if (!stopping_) base::log::error("engine {} {}; starting another", number_, status ? io::to_string(*status) : "was lost");
  talking.cancel();
  co_await talking.join();
  ended_.notify();
}

// An engine that hangs keeps its listeners, and every client with them. It must be heard of in each of some steps in a row,
// which are counted and not measured: when this process or the whole machine was stopped for a while, the engine was, too.
Async<void> EngineChild::watch(Generation& engine) {
  static constexpr unsigned kSteps = 4;
  static constexpr unsigned kStepsToStart = 8 * kSteps;  // it reads its configuration and opens what it needs first
  unsigned silent = 0;
  while (true) {
    const Code slept = co_await loop_.sleep(config_.engine_timeout / kSteps);
    if (slept == Code::cancelled) co_return;
    silent = std::exchange(engine.heard_of, false) ? 0 : silent + 1;
    if (silent <= (engine.ever_heard_of ? kSteps : kStepsToStart)) continue;
    if (loop_.system().is_traced(engine.process.pid())) {
      silent = 0;
      continue;
    }
    base::log::error("engine {} does not answer for {} ms: killed. Its threads:\n{}", number_, config_.engine_timeout / 1ms,
                     loop_.system().describe_threads(engine.process.pid()));
    static constexpr Duration kForStacks = 200ms;
    co_await loop_.sleep(kForStacks);
    engine.process.signal(SIGKILL);
    co_return;
  }
}

Async<void> EngineChild::listen_to(Generation& engine) {
  const std::shared_ptr<link::Channel> channel = engine.channel;
  while (true) {
    const auto received = co_await channel->receive();
    if (!received) {
      if (received.error().code == Code::invalid) {
        base::log::error("from the engine: {}", base::describe(received.error()));
        continue;
      }
      co_return;
    }
    const link::Message& message = received->message;
    if (std::holds_alternative<link::Alive>(message)) engine.heard_of = engine.ever_heard_of = true;
    if (const auto* health = std::get_if<link::Health>(&message)) fleet_->health(*health);
    if (const auto* seen = std::get_if<link::Seen>(&message)) fleet_->seen(seen->generation);
    if (const auto* command = std::get_if<link::Command>(&message)) commands_.spawn(execute(channel, *command));
    if (std::holds_alternative<link::Resync>(message)) send_snapshot();
  }
}

Async<void> EngineChild::execute(std::shared_ptr<link::Channel> channel, link::Command command) {
  link::Outcome outcome;
  if (command.key.empty()) {
    outcome = co_await carry_out(command);
  } else {
    outcome = co_await carry_out_once(command);
  }
  outcome.command = command.id;
  channel->deliver(outcome);
  if (command.act == link::Command::Act::stop) stop_wanted_();
}

Async<link::Outcome> EngineChild::carry_out(const link::Command& command) {
  using Act = link::Command::Act;
  link::Outcome outcome;
  switch (command.act) {
    case Act::add: outcome = co_await fleet_->add(command.pool, command.count, command.names); break;
    case Act::remove: outcome = co_await fleet_->remove(command.pool, command.count, command.names); break;
    case Act::resize: outcome = co_await fleet_->resize(command.pool, command.count); break;
    case Act::server_up: outcome = co_await fleet_->server_up(command); break;
    case Act::server_down: outcome = co_await fleet_->server_down(command); break;
    case Act::output: outcome = fleet_->output(command.pool, command.names.empty() ? "" : command.names[0], command.since); break;
    case Act::stop: break;
  }
  co_return outcome;
}

// A change that failed is forgotten: asked for again, it is tried again.
Async<link::Outcome> EngineChild::carry_out_once(const link::Command& command) {
  if (const auto known = keyed_.find(command.key); known != keyed_.end()) {
    const std::shared_ptr<Keyed> before = known->second;
    const link::Command& first = before->command;
    if (first.act != command.act || first.pool != command.pool || first.count != command.count || first.names != command.names) {
      co_return link::Outcome{0, Code::conflict, "this Idempotency-Key was used for another change", {}};
    }
    while (!before->outcome) {
      const Code woken = co_await before->ended.wait(loop_);
      if (woken == Code::cancelled) co_return link::Outcome{0, Code::unavailable, "Ringmaster is stopping", {}};
    }
    co_return *before->outcome;
  }
  const auto keyed = keyed_[command.key] = std::make_shared<Keyed>(command);
  keys_.push_back(command.key);
  if (keys_.size() > kKeysMax) {
    keyed_.erase(keys_.front());
    keys_.pop_front();
  }
  keyed->outcome = co_await carry_out(command);
  keyed->ended.notify();
  if (keyed->outcome->code != Code::ok) {
    keyed_.erase(command.key);
    std::erase(keys_, command.key);
  }
  co_return *keyed->outcome;
}

Async<void> EngineChild::stop(Duration grace) {
  stopping_ = true;
  stop_begun_.notify();
  static constexpr Duration kToEnd = 2s;  // once nothing is under way any more
  const base::Time deadline = loop_.now() + grace + kToEnd;
  if (current_ != nullptr) current_->channel->deliver(link::Drain{grace});
  while (current_ != nullptr) {
    const Code woken = co_await ended_.wait(loop_, deadline);
    if (woken == Code::ok) continue;
    if (current_ != nullptr) current_->process.signal(SIGKILL);
    if (woken == Code::cancelled) co_return;
    co_await ended_.wait(loop_, loop_.now() + 5s);
    co_return;
  }
}

}  // namespace ringmaster::supervise
