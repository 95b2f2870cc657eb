// System on Linux: epoll, pidfd, eventfd, memfd. See system.h for what each call promises.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>

#include "io/cgroup.h"
#include "io/system.h"

namespace ringmaster::io {

// `request` as a new process (spawn.cc), in the control group whose folder is `cgroup` ("": in ours). Used by RealSystem::spawn only.
Result<Child> spawn_process(System& system, const SpawnRequest& request, const std::string& cgroup);

// The environment variable that bears SpawnRequest::mark.
inline constexpr std::string_view kMarkName = "RINGMASTER_REPLICA";

class RealSystem : public System {
 public:
  // Whether connect() to a Unix socket follows a path that is a symbolic link. The engine refuses: who may write where a
  // replica's socket is could lead it to any other.
  enum class Links : std::uint8_t { follow, refuse };
  explicit RealSystem(Links links = Links::follow);
  ~RealSystem() override;

  Time now() override;
  base::WallTime wall_now() override;
  std::uint64_t random_seed() override;

  Result<Handle> listen(const Endpoint& at, const ListenOptions& options) override;
  Endpoint local_endpoint(int fd) override;
  Transfer accept(int listener, Endpoint& peer) override;
  Transfer connect(const Endpoint& to) override;
  void bear_pauses(int fd, bool bear) override;
  int connect_error(int fd) override;
  std::optional<uid_t> peer_user(int fd) override;
  Transfer read(int fd, std::span<char> into) override;
  Transfer write(int fd, std::span<const iovec> from) override;
  std::size_t unacknowledged(int fd) override;
  bool has_unread(int fd) override;
  void shutdown_write(int fd) override;
  void reset_on_close(int fd) override;
  void close(int fd) override;

  void watch(int fd, void* tag, Trigger trigger, bool writing) override;
  void rewatch(int fd, void* tag, bool writing) override;
  void unwatch(int fd) override;
  std::size_t poll(std::span<Event> events, Duration wait_max) override;
  void wake() override;

  Result<std::pair<Handle, Handle>> message_pair() override;
  Handle adopt(int fd) override;
  Transfer send_message(int fd, std::string_view bytes, std::span<const int> descriptors) override;
  Transfer receive_message(int fd, std::span<char> into, std::vector<Handle>& descriptors) override;

  Result<Handle> create_memory(std::size_t bytes) override;
  Result<Mapping> map(int fd) override;

  Result<Child> spawn(const SpawnRequest& request) override;
  void signal(const Child& child, int number) override;
  std::optional<ExitStatus> reap(const Child& child) override;
  bool is_traced(pid_t pid) override;
  std::string describe_threads(pid_t pid) override;
  std::string start_time(pid_t pid) override;
  void adopt_orphans() override;
  void reap_orphans() override;
  void kill_marked(const std::string& mark_prefix) override;
  void kill_session(pid_t pid) override;
  std::string boot_id() override;
  Result<Handle> signals(std::span<const int> numbers) override;
  std::string own_executable() override;
  User own_user() override;
  Result<User> find_user(const std::string& name) override;
  Result<gid_t> find_group(const std::string& name) override;
  std::uint64_t raise_descriptor_limit() override;

  Result<std::string> read_file(const std::string& path) override;
  Result<void> replace_file(const std::string& path, std::string_view bytes, bool durable) override;
  Result<void> make_directory(const std::string& path, unsigned mode, bool durable) override;
  Result<void> give_directory(const std::string& path, const User& owner, unsigned mode) override;
  void remove_file(const std::string& path) override;
  void clear_directory(const std::string& path) override;
  Result<Handle> open_append(const std::string& path) override;
  bool append(int fd, std::string_view bytes) override;
  Result<Handle> lock_file(const std::string& path) override;

  void run_in_background(std::function<void()> work) override;
  void resolve(std::string host, std::uint16_t port, std::function<void(Result<std::vector<Endpoint>>)> done) override;
  std::unique_ptr<LoopThread> start_loop() override;

 private:
  void background_thread();
  Transfer read_signal(std::span<char> into);

  Links links_;
  int epoll_;
  int wake_;
  int signal_fd_ = -1;
  Cgroups cgroups_;
  std::map<pid_t, std::string> marks_;      // of our children that have not been reaped
  std::deque<std::string> marks_of_ended_;  // some of the latest
  std::mutex background_mutex_;
  std::condition_variable background_wanted_;
  std::deque<std::function<void()>> background_work_;  // guarded by background_mutex_
  bool background_stop_ = false;                       // guarded by background_mutex_
  std::thread background_;
};

// From now on this process writes the stack of a thread that System::describe_threads() asks for to its standard error.
void write_stack_when_asked();

}  // namespace ringmaster::io
