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
};

EngineChild::EngineChild(io::Loop& loop, const config::Config& config, Listening listening, std::function<void()> stop_wanted)
    : loop_(loop),
      config_(config),
      listening_(std::move(listening)),
      stop_wanted_(std::move(stop_wanted)),
      own_executable_(loop.system().own_executable()),
      commands_(loop) {}

Fleet::Engine EngineChild::for_fleet() {
  Fleet::Engine engine;
  engine.changed = [this](std::uint64_t generation, const link::ReplicaState& state) {
    if (current_ != nullptr) current_->channel->send(link::Change{generation, state});
  };
  engine.in_flight = [this](std::uint32_t cell) -> std::uint32_t {
    if (current_ == nullptr) return 0;
    const auto* cells = static_cast<const balance::Cell*>(current_->counters.memory.get());
    return cells[cell].in_flight.load(std::memory_order_acquire);
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
  auto child = system.spawn(request);
  if (!child) return std::unexpected(child.error());
  auto channel = std::make_shared<link::Channel>(loop_, std::move(link->first));
  std::vector<int> descriptors = {config->fd(), counters->fd()};
  descriptors.insert(descriptors.end(), listening_.descriptors.begin(), listening_.descriptors.end());
  channel->send(link::Setup{config_.file, ++number_, listening_.workers, listening_.per_worker}, descriptors);
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
    auto engine = start();
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
  talking.spawn(listen_to(engine.channel));
  talking.spawn(engine.channel->pump([this] { send_snapshot(); }));
  const auto status = co_await engine.process.wait(base::kNever);
  current_ = nullptr;
  fleet_->engine_lost();
  if (!stopping_) base::log::error("engine {} {}; starting another", number_, status ? io::to_string(*status) : "was lost");
  talking.cancel();
  co_await talking.join();
  ended_.notify();
}

Async<void> EngineChild::listen_to(std::shared_ptr<link::Channel> channel) {
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
    if (const auto* health = std::get_if<link::Health>(&message)) fleet_->health(*health);
    if (const auto* seen = std::get_if<link::Seen>(&message)) fleet_->seen(seen->generation);
    if (const auto* command = std::get_if<link::Command>(&message)) commands_.spawn(execute(channel, *command));
    if (std::holds_alternative<link::Resync>(message)) send_snapshot();
  }
}

Async<void> EngineChild::execute(std::shared_ptr<link::Channel> channel, link::Command command) {
  using Act = link::Command::Act;
  link::Outcome outcome;
  if (command.act == Act::add) outcome = co_await fleet_->add(command.pool, command.count, command.names);
  if (command.act == Act::server_up) outcome = fleet_->server_up(command);
  if (command.act == Act::server_down) outcome = fleet_->server_down(command);
  if (command.act == Act::output) outcome = fleet_->output(command.pool, command.names.empty() ? "" : command.names[0], command.since);
  if (command.act == Act::remove) outcome = co_await fleet_->remove(command.pool, command.count, command.names);
  outcome.command = command.id;
  channel->deliver(outcome);
  if (command.act == Act::stop) stop_wanted_();
}

Async<void> EngineChild::stop(Duration grace) {
  stopping_ = true;
  stop_begun_.notify();
  const base::Time deadline = loop_.now() + grace;
  if (current_ != nullptr) current_->channel->deliver(link::Drain{});
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
