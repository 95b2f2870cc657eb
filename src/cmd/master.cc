#include "cmd/master.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <thread>

#include "base/json.h"
#include "base/log.h"
#include "cmd/version.h"
#include "io/real_system.h"
#include "io/stream.h"

namespace ringmaster::cmd {

using base::Code;
using base::Endpoint;
using base::Result;
using io::Async;
using namespace std::chrono_literals;

// As many descriptors as one message over the link can carry.
static constexpr std::uint32_t kListenersMax = 200;

static std::uint32_t worker_count(const config::Config& config) {
  const std::uint32_t wanted = config.workers != 0 ? config.workers : std::max(1U, std::thread::hardware_concurrency());
  return std::min(wanted, std::max(1U, kListenersMax / static_cast<std::uint32_t>(config.listeners.size())));
}

Master::Master(io::Loop& loop, const config::Config& config) : loop_(loop), config_(config), workers_(worker_count(config)) {}

Master::~Master() = default;

Result<void> Master::start() {
  const std::string directory = std::filesystem::absolute(config_.state_dir).lexically_normal().string();
  auto state = supervise::StateFile::open(loop_.system(), directory);
  if (!state) return std::unexpected(state.error());
  state_ = std::make_unique<supervise::StateFile>(std::move(*state));
  if (auto prepared = prepare_directories(directory); !prepared) return prepared;
  if (const unsigned killed = state_->kill_leftovers(); killed > 0) base::log::warning("ended {} processes that an earlier master left", killed);
  handed_over_.mark = directory + "/engine";
  if (auto read = read_tokens(); !read) return read;
  if (auto opened = open_listeners(); !opened) return opened;
  write_addresses();
  const auto runtimes = make_runtimes();
  if (!runtimes) return std::unexpected(runtimes.error());
  engine_ = std::make_unique<supervise::EngineChild>(loop_, config_, handed_over_, [this] { stop(); });
  fleet_ = std::make_unique<supervise::Fleet>(loop_, config_, *runtimes, *state_, engine_->for_fleet());
  engine_->attach(*fleet_);
  const auto desired = state_->load();
  if (!desired) return std::unexpected(desired.error());
  fleet_->seat_all(*desired);
  resolver_ = std::make_unique<supervise::Resolver>(loop_, config_, *fleet_);
  return {};
}

// state_dir/run is for sockets, which the engine must reach; state_dir/tasks is the engine's own.
Result<void> Master::prepare_directories(const std::string& directory) {
  io::System& system = loop_.system();
  const std::string run_dir = directory + "/run";
  static constexpr std::size_t kSocketNameBytes = 60;  // "/" pool "." slot "." epoch ".sock"
  if (run_dir.size() + kSocketNameBytes > base::kUnixPathBytesMax) {
    return base::fail(Code::invalid, "the state directory's path is too long for Unix sockets: " + directory);
  }
  for (const std::string& made : {run_dir, directory + "/tasks"}) {
    if (auto done = system.make_directory(made, 0750, true); !done) return done;
  }
  system.clear_directory(run_dir);  // sockets of processes that are gone
  if (auto engine = prepare_for_engine_user(directory); !engine) return engine;
  return prepare_for_users(directory);
}

// Each pool that has a user gets a folder for its sockets, in which the engine's group may connect.
Result<void> Master::prepare_for_users(const std::string& directory) {
  io::System& system = loop_.system();
  const io::User own = system.own_user();
  for (const config::Pool& pool : config_.pools) {
    const auto user = supervise::user_of(system, pool);
    if (!user) return base::fail(user.error().code, "pool '" + pool.name + "': " + user.error().detail);
    if (!*user) continue;
    if (own.user != 0 && own.user != (*user)->user) return base::fail(Code::denied, "pool '" + pool.name + "': only root can start servers as another user");
    const std::string folder = directory + "/run/" + pool.name;
    if (auto made = system.make_directory(folder, 0750, false); !made) return made;
    system.clear_directory(folder);
    const gid_t engine_group = handed_over_.run_as ? handed_over_.run_as->group : own.group;
    if (auto given = system.give_directory(folder, {(*user)->user, engine_group}, 02770); !given) return given;
    // The way there: it may be gone, but not looked around in.
    for (const auto& [part, mode] : {std::pair(directory, 0751U), std::pair(directory + "/run", 02751U)}) {
      if (auto opened = system.give_directory(part, {own.user, engine_group}, mode); !opened) return opened;
    }
  }
  return {};
}

Result<void> Master::prepare_for_engine_user(const std::string& directory) {
  io::System& system = loop_.system();
  const std::string run_dir = directory + "/run";
  if (config_.engine_user.empty()) return {};
  const auto user = system.find_user(config_.engine_user);
  if (!user) return base::fail(user.error().code, "engine_user: " + user.error().detail);
  if (user->user != system.own_user().user && system.own_user().user != 0) {
    return base::fail(Code::denied, "engine_user: only root can start an engine as another user");
  }
  if (user->user == system.own_user().user) return {};
  handed_over_.run_as = *user;
  // Sockets get the folder's group, and the master's umask lets it connect.
  const io::User run_owner{system.own_user().user, user->group};
  if (auto given = system.give_directory(directory, run_owner, 0750); !given) return given;
  if (auto given = system.give_directory(run_dir, run_owner, 02750); !given) return given;
  return system.give_directory(directory + "/tasks", *user, 0700);
}

Result<supervise::Runtimes> Master::make_runtimes() {
  const std::string run_dir = state_->directory() + "/run";
  processes_ = std::make_unique<supervise::ProcessRuntime>(loop_, run_dir);
  servers_ = std::make_unique<supervise::ServerRuntime>(loop_);
  supervise::Runtimes runtimes{processes_.get(), nullptr, servers_.get()};
  if (std::ranges::all_of(config_.pools, [](const config::Pool& pool) { return pool.container.image.empty(); })) return runtimes;
  const auto instance = state_->instance(loop_.random());
  if (!instance) return std::unexpected(instance.error());
  const io::User engine = handed_over_.run_as.value_or(loop_.system().own_user());
  const std::string user = engine.user == 0 ? "" : std::to_string(engine.user) + ":" + std::to_string(engine.group);
  containers_ = std::make_unique<supervise::DockerRuntime>(loop_, config_, supervise::ContainerHost{*instance, run_dir, user});
  runtimes.container = containers_.get();
  return runtimes;
}

// `members` sockets on one address, of which the kernel gives each connection to one.
Result<Endpoint> Master::open_group(const Endpoint& address, std::uint32_t members, std::vector<int>& descriptors, bool dual_stack) {
  Endpoint at = address;
  for (std::uint32_t i = 0; i < members; ++i) {
    auto socket = loop_.system().listen(at, {.reuse_port = i > 0, .dual_stack = dual_stack});
    if (!socket) return std::unexpected(socket.error());
    at = loop_.system().local_endpoint(socket->fd());
    descriptors.push_back(socket->fd());
    sockets_.push_back(std::move(*socket));
  }
  return at;
}

Result<void> Master::open_listeners() {
  auto admin = open_group(config_.admin, 1, handed_over_.descriptors);
  if (!admin) return std::unexpected(admin.error());
  admin_ = *admin;
  const Endpoint socket = Endpoint::unix_socket(state_->directory() + "/admin.sock");
  // For whoever runs Ringmaster, and for nobody else.
  auto admin_socket = loop_.system().listen(socket, {.unix_mode = 0600});
  if (!admin_socket) return std::unexpected(admin_socket.error());
  handed_over_.descriptors.push_back(admin_socket->fd());
  sockets_.push_back(std::move(*admin_socket));
  std::vector<std::vector<int>> groups;
  for (const config::Listener& listener : config_.listeners) {
    auto at = open_group(listener.address, workers_, groups.emplace_back(), listener.dual_stack);
    if (!at) return std::unexpected(at.error());
    listening_.push_back(*at);
    base::log::info("listening on {} for pool {}{}", base::to_string(*at), listener.pool, listener.classic ? ", with the classic API" : "");
  }
  base::log::info("admin API on {}", base::to_string(admin_));
  for (std::uint32_t worker = 0; worker < workers_; ++worker) {
    for (const std::vector<int>& group : groups) handed_over_.descriptors.push_back(group[worker]);
  }
  handed_over_.workers = workers_;
  handed_over_.per_worker = static_cast<std::uint32_t>(groups.size());
  return {};
}

Result<void> Master::read_tokens() {
  const auto read = [&](const std::string& path, std::string& token) -> Result<void> {
    if (path.empty()) return {};
    auto text = loop_.system().read_file(path);
    if (!text) return base::fail(text.error().code, "the admin API's token: " + base::describe(text.error()));
    token = text->substr(0, text->find_first_of("\r\n"));
    static constexpr std::size_t kBytesMin = 16;
    const bool good = token.size() >= kBytesMin && token.find_first_of(" \t") == std::string::npos;
    return good ? Result<void>{} : base::fail(Code::invalid, "the admin API's token in " + path + " must be a line of at least 16 characters, without spaces");
  };
  if (auto done = read(config_.admin_token_file, handed_over_.admin_token); !done) return done;
  return read(config_.admin_read_token_file, handed_over_.admin_read_token);
}

// For tools that have to find a Ringmaster whose ports were chosen by the system.
void Master::write_addresses() {
  nlohmann::json addresses = {{"admin", base::to_string(admin_)}, {"listeners", nlohmann::json::array()}};
  for (const Endpoint& endpoint : listening_) addresses["listeners"].push_back(base::to_string(endpoint));
  (void)loop_.system().replace_file(state_->directory() + "/addresses.json", base::json_text(addresses) + "\n", false);
}

Async<void> Master::run() {
  io::Scope engine(loop_);
  engine.spawn(engine_->run());  // first, so that clients are answered while a large fleet starts; its snapshot has everybody
  fleet_->start();
  resolver_->start();
  if (containers_) {
    // Docker's containers are compared with those that are wanted: so these must have been asked for.
    co_await fleet_->until_asked_for();
    containers_->begin();
  }
  while (!stopping_) co_await stop_wanted_.wait(loop_);
  base::log::info("stopping");
  base::Duration drain{};
  for (const config::Pool& pool : config_.pools) drain = std::max(drain, pool.drain);
  // The engine takes in what waits in the backlogs, and closes the last copies: newcomers are refused at once.
  sockets_.erase(sockets_.begin() + 2, sockets_.end());  // all but the admin API's
  co_await engine_->stop(drain);
  io::Scope limit(loop_);
  limit.spawn(end_in_any_case());
  co_await resolver_->stop();
  if (containers_) containers_->stopping();
  const bool wound_up = co_await fleet_->stop();
  if (containers_) co_await containers_->stop();
  co_await engine.join();
  loop_.system().remove_file(state_->directory() + "/admin.sock");
  if (!wound_up) {
    base::log::error("the set of replicas could not be saved: the disk does not answer");
    base::log::flush();
    ::_exit(1);
  }
  limit.cancel();
  co_await limit.join();
  base::log::info("stopped");
}

// A Docker that hangs, say, must not keep Ringmaster: what it still runs is taken over by the next master.
Async<void> Master::end_in_any_case() {
  static constexpr base::Duration kForOthers = 15s;
  base::Duration grace{};
  for (const config::Pool& pool : config_.pools) grace = std::max(grace, pool.grace);
  const Code slept = co_await loop_.sleep(grace + kForOthers);
  if (slept == Code::cancelled) co_return;
  base::log::error("not everything has ended, or says so: it is waited for no longer");
  base::log::flush();
  ::_exit(1);
}

void Master::stop() {
  stopping_ = true;
  stop_wanted_.notify();
}

// SIGTERM and SIGINT end it in order; the second one at once (its children die with it). SIGCHLD is for orphans only: the ends
// of those that were started here are seen by pidfd.
static Async<void> watch_signals(io::Loop& loop, io::Handle signals, Master& master) {
  io::Stream stream(loop, std::move(signals), Endpoint{});
  std::array<char, 1> number{};
  for (bool stopping = false;;) {
    auto read = stream.read(number, base::kNever);
    const auto got = co_await read;
    if (!got) co_return;
    if (number[0] == SIGCHLD) {
      loop.system().reap_orphans();
      continue;
    }
    if (number[0] == SIGHUP) {
      base::log::warning("the configuration is read at the start only");
      continue;
    }
    if (std::exchange(stopping, true)) ::_exit(1);
    master.stop();
  }
}

// Said before the first of them fails: the servers that start are served, and the rest is tried again and again.
static void warn_of_descriptors(const config::Config& config, std::uint64_t limit) {
  static constexpr std::uint64_t kEach = 2;  // its pidfd and its output
  static constexpr std::uint64_t kOwn = 32;  // our own, and what is kept for the next engine
  std::uint64_t servers = 0;
  for (const config::Pool& pool : config.pools) servers += pool.command.empty() ? 0 : pool.replicas;
  const std::uint64_t needed = kOwn + config.listeners.size() * config.workers + kEach * servers;
  if (needed <= limit) return;
  base::log::warning(
      "{} servers need about {} descriptors here, and the limit is {}: some of them will not start. Raise it (ulimit -n, systemd's LimitNOFILE=)", servers,
      needed, limit);
}

int run_master(const config::Config& config) {
  base::log::start("master", base::log::Level::info);
  io::RealSystem system;
  system.adopt_orphans();
  warn_of_descriptors(config, system.raise_descriptor_limit());  // a shell gives 1,024, and more can often be had
  static constexpr std::array kSignals = {SIGTERM, SIGINT, SIGHUP, SIGCHLD};
  auto signals = system.signals(kSignals);
  if (!signals) {
    base::log::error("{}", base::describe(signals.error()));
    return 1;
  }
  ::signal(SIGPIPE, SIG_IGN);
  if (!config.engine_user.empty()) ::umask(0002);  // the engine's group may connect to sockets
  io::Loop loop(system);
  Master master(loop, config);
  if (const auto started = master.start(); !started) {
    base::log::error("{}", base::describe(started.error()));
    return 1;
  }
  loop.root().spawn(watch_signals(loop, std::move(*signals), master));
  loop.root().spawn([](Master& m, io::Loop& l) -> Async<void> {
    co_await m.run();
    l.stop();
  }(master, loop));
  loop.run();
  return 0;
}

}  // namespace ringmaster::cmd
