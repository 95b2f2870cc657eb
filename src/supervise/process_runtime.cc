#include "supervise/process_runtime.h"

#include <algorithm>
#include <csignal>
#include <cstdlib>

#include "base/log.h"
#include "base/names.h"
#include "io/listener.h"
#include "io/process.h"

namespace ringmaster::supervise {

using base::Endpoint;
using base::Result;
using io::Async;

namespace {

class RunningProcess final : public Running {
 public:
  RunningProcess(io::Loop& loop, io::Child child, Endpoint endpoint, std::function<void(std::string_view)> output)
      : loop_(loop), process_(loop, std::move(child)), endpoint_(std::move(endpoint)) {
    // In the root scope: its children may go on writing after it has ended.
    loop.root().spawn(io::read_lines(loop, process_.take_output(), std::move(output)));
  }
  ~RunningProcess() override {
    if (!endpoint_.path.empty()) loop_.system().remove_file(endpoint_.path);
  }

  Endpoint endpoint() const override { return endpoint_; }
  std::int64_t pid() const override { return process_.pid(); }
  Async<Result<std::string>> wait(base::Time deadline) override {
    const auto status = co_await process_.wait(deadline);
    if (!status) co_return std::unexpected(status.error());
    co_return io::to_string(*status);
  }
  void terminate() override { process_.signal(SIGTERM); }
  void kill() override { process_.signal(SIGKILL); }

 private:
  io::Loop& loop_;
  io::Process process_;
  Endpoint endpoint_;
};

}  // namespace

ProcessRuntime::ProcessRuntime(io::Loop& loop, std::string run_dir)
    : loop_(loop), run_dir_(std::move(run_dir)), own_executable_(loop.system().own_executable()) {}

Result<std::optional<io::User>> user_of(io::System& system, const config::Pool& pool) {
  if (pool.user.empty()) return std::nullopt;
  auto user = system.find_user(pool.user);
  if (!user) return std::unexpected(user.error());
  if (!pool.group.empty()) {
    const auto group = system.find_group(pool.group);
    if (!group) return std::unexpected(group.error());
    user->group = *group;
  }
  return std::optional(*user);
}

// Where this epoch will listen.
Result<Endpoint> ProcessRuntime::endpoint_for(const Launch& launch) {
  if (launch.pool.on_unix_socket()) {
    return Endpoint::unix_socket(run_dir_ + "/" + launch.pool.name + (launch.pool.user.empty() ? "." : "/") + std::to_string(launch.slot) + "." +
                                 std::to_string(launch.epoch) + ".sock");
  }
  return io::free_port(loop_.system());  // if it is taken before the replica has it, that fails, and the next epoch has another one
}

std::vector<std::string> ProcessRuntime::command_of(const Launch& launch, const Endpoint& endpoint) const {
  std::vector<std::string> command;
  for (std::string word : launch.pool.command) {
    word = base::replace_all(word, "{ringmaster}", own_executable_);
    word = base::replace_all(word, "{socket}", endpoint.path);
    word = base::replace_all(word, "{port}", std::to_string(endpoint.port));
    word = base::replace_all(word, "{slot}", std::to_string(launch.slot));
    word = base::replace_all(word, "{name}", launch.name);
    command.push_back(std::move(word));
  }
  return command;
}

// A replica sees what the configuration gives it and a few harmless variables of ours, never all of the master's: those
// may hold secrets.
std::vector<std::string> ProcessRuntime::environment_of(const Launch& launch, const Endpoint& endpoint) {
  std::vector<std::string> environment;
  const auto add = [&](const std::string& name, const std::string& value) {
    const bool configured = std::ranges::any_of(launch.pool.environment, [&](const std::string& entry) { return entry.starts_with(name + "="); });
    if (!configured) environment.push_back(name + "=" + value);  // what the configuration sets counts more
  };
  for (const char* name : {"PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"}) {
    if (const char* value = std::getenv(name)) add(name, value);  // NOLINT(concurrency-mt-unsafe)
  }
  add("SERVER_ID", std::to_string(launch.slot));
  add("SERVER_NAME", launch.name);
  if (endpoint.port != 0) add("PORT", std::to_string(endpoint.port));
  environment.insert(environment.end(), launch.pool.environment.begin(), launch.pool.environment.end());
  return environment;
}

Async<Result<std::unique_ptr<Running>>> ProcessRuntime::start(Launch launch) {
  const auto endpoint = endpoint_for(launch);
  if (!endpoint) co_return std::unexpected(endpoint.error());
  io::SpawnRequest request;
  request.argv = command_of(launch, *endpoint);
  request.environment = environment_of(launch, *endpoint);
  request.directory = launch.pool.directory;
  request.mark = run_dir_.substr(0, run_dir_.rfind('/') + 1) + launch.pool.name + "." + std::to_string(launch.slot) + "." + std::to_string(launch.epoch);
  const auto user = user_of(loop_.system(), launch.pool);
  if (!user) co_return std::unexpected(user.error());
  if (loop_.system().own_user().user == 0) request.run_as = *user;  // else it is our own already, as prepare_for_users() has seen
  for (const config::Limit& limit : launch.pool.limits) request.limits.push_back({limit.resource, limit.value});
  if (!endpoint->path.empty()) loop_.system().remove_file(endpoint->path);
  io::Handle listening;
  if (launch.pool.listen_fds) {
    auto made = loop_.system().listen(*endpoint, {});
    if (!made) co_return std::unexpected(made.error());
    listening = std::move(*made);
    request.inherited = {listening.fd()};
    request.listen_fds = true;
  }
  auto child = loop_.system().spawn(request);
  if (!child) co_return std::unexpected(child.error());
  // Our copy of the listening socket ends here: it belongs to this epoch and dies with it, and what waits in its backlog
  // is reset at once instead of waiting for somebody who is gone.
  co_return std::make_unique<RunningProcess>(loop_, std::move(*child), *endpoint, std::move(launch.output));
}

}  // namespace ringmaster::supervise
