// RealSystem's clock, memory, processes, files and threads; sockets are in real_sockets.cc.
#include "io/real_system.h"

#include <execinfo.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>

#include "base/check.h"
#include "io/loop.h"
#include "io/replace_file.h"

namespace ringmaster::io {

using base::from_errno;

RealSystem::RealSystem(Links links) : links_(links), epoll_(::epoll_create1(EPOLL_CLOEXEC)), wake_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  CHECK(epoll_ >= 0 && wake_ >= 0);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = nullptr;
  CHECK(::epoll_ctl(epoll_, EPOLL_CTL_ADD, wake_, &event) == 0);
}

RealSystem::~RealSystem() {
  if (background_.joinable()) {
    {
      const std::lock_guard lock(background_mutex_);
      background_stop_ = true;
    }
    background_wanted_.notify_one();
    background_.join();
  }
  ::close(wake_);
  ::close(epoll_);
}

Time RealSystem::now() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return Time(std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec));
}

base::WallTime RealSystem::wall_now() { return std::chrono::system_clock::now(); }

std::uint64_t RealSystem::random_seed() {
  std::uint64_t seed = 0;
  CHECK(::getrandom(&seed, sizeof seed, 0) == sizeof seed);
  return seed;
}

Handle RealSystem::adopt(int fd) {
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
  return {*this, fd};
}

Result<Handle> RealSystem::create_memory(std::size_t bytes) {
  Handle handle(*this, ::memfd_create("ringmaster", MFD_CLOEXEC));
  if (!handle) return std::unexpected(from_errno(errno, "memfd_create"));
  if (::ftruncate(handle.fd(), static_cast<off_t>(bytes)) != 0) {
    return std::unexpected(from_errno(errno, "shared memory"));
  }
  return handle;
}

Result<Mapping> RealSystem::map(int fd) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) return std::unexpected(from_errno(errno, "shared memory"));
  const auto bytes = static_cast<std::size_t>(status.st_size);
  if (bytes == 0) return Mapping{};
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return std::unexpected(from_errno(errno, "shared memory"));
  return Mapping{std::shared_ptr<void>(memory, [bytes](void* at) { ::munmap(at, bytes); }), bytes};
}

void RealSystem::signal(const Child& child, int number) {
  // To the group that setsid() made, of which the child is the leader; to it alone should it have left that group.
  if (::kill(-child.pid, number) != 0) ::kill(child.pid, number);
}

std::optional<ExitStatus> RealSystem::reap(const Child& child) {
  siginfo_t info{};
  if (::waitid(P_PID, static_cast<id_t>(child.pid), &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) return std::nullopt;
  ::kill(-child.pid, SIGKILL);  // what it left behind in its session; before its number can be another's
  int status = 0;
  if (::waitpid(child.pid, &status, WNOHANG) != child.pid) return std::nullopt;
  if (auto known = marks_.extract(child.pid); !known.empty() && !known.mapped().empty()) {
    cgroups_.end(known.mapped());
    static constexpr std::size_t kEndedMax = 256;
    marks_of_ended_.push_back(std::move(known.mapped()));
    if (marks_of_ended_.size() > kEndedMax) marks_of_ended_.pop_front();
    reap_orphans();  // what it had started in sessions of their own has just become ours
  }
  if (WIFSIGNALED(status)) return ExitStatus{0, WTERMSIG(status)};
  return ExitStatus{WEXITSTATUS(status), 0};
}

// A field of /proc/pid/stat, counted from 1 as proc(5) does; "" when the process is gone or a zombie. The name in field 2
// may hold spaces, so counting starts after its ')'.
static std::string stat_field(const std::string& pid, int wanted) {
  std::ifstream file("/proc/" + pid + "/stat");
  std::string line;
  std::getline(file, line);
  std::size_t at = line.rfind(')');
  if (at == std::string::npos || line.compare(at, 3, ") Z") == 0) return "";
  for (int field = 2; at != std::string::npos && field < wanted; ++field) at = line.find(' ', at + 1);
  return at == std::string::npos ? "" : line.substr(at + 1, line.find(' ', at + 1) - at - 1);
}

bool RealSystem::is_traced(pid_t pid) {
  const auto status = read_file("/proc/" + std::to_string(pid) + "/status");
  static constexpr std::string_view kTracer = "TracerPid:\t";
  const std::size_t at = status ? status->find(kTracer) : std::string::npos;
  return at != std::string::npos && (*status)[at + kTracer.size()] != '0';
}

static constexpr int kStackSignal = SIGUSR2;

std::string RealSystem::describe_threads(pid_t pid) {
  std::string text;
  std::error_code error;
  const std::string tasks = "/proc/" + std::to_string(pid) + "/task";
  for (const auto& entry : std::filesystem::directory_iterator(tasks, error)) {
    const std::string thread = entry.path().filename();
    const std::string place = std::to_string(pid) + "/task/" + thread;
    static constexpr int kState = 3;
    const std::string state = stat_field(place, kState);
    const std::string wait = read_file("/proc/" + place + "/wchan").value_or("");
    text += "  thread " + thread + ": state " + (state.empty() ? "?" : state) + (wait.empty() || wait == "0" ? "" : ", waits in " + wait) + "\n";
    ::syscall(SYS_tgkill, pid, std::stoi(thread), kStackSignal);
  }
  return text;
}

// Only what is safe in a signal handler: glibc's backtrace() is, once it has been called before.
static void write_stack(int) {
  static constexpr int kFramesMax = 64;
  std::array<void*, kFramesMax> frames{};
  const int count = ::backtrace(frames.data(), kFramesMax);
  static constexpr std::string_view kTitle = "stack of a thread that did not answer (addr2line -e ringmaster -fCi ADDRESS):\n";
  [[maybe_unused]] const ssize_t put = ::write(STDERR_FILENO, kTitle.data(), kTitle.size());
  ::backtrace_symbols_fd(frames.data(), count, STDERR_FILENO);
}

void write_stack_when_asked() {
  std::array<void*, 1> frame{};
  ::backtrace(frame.data(), 1);
  ::signal(kStackSignal, write_stack);
}

std::string RealSystem::start_time(pid_t pid) {
  static constexpr int kStartTime = 22;
  return stat_field(std::to_string(pid), kStartTime);
}

Result<Child> RealSystem::spawn(const SpawnRequest& request) {
  auto child = spawn_process(*this, request, request.mark.empty() ? "" : cgroups_.make(request.mark));
  if (child) marks_[child->pid] = request.mark;
  return child;
}

void RealSystem::adopt_orphans() { ::prctl(PR_SET_CHILD_SUBREAPER, 1); }

// The mark in a process's environment; "" if it has none, or may not be looked at.
static std::string mark_of(const std::string& pid) {
  std::ifstream file("/proc/" + pid + "/environ");
  for (std::string entry; std::getline(file, entry, '\0');) {
    if (entry.starts_with(kMarkName) && entry.size() > kMarkName.size() && entry[kMarkName.size()] == '=') return entry.substr(kMarkName.size() + 1);
  }
  return "";
}

void RealSystem::reap_orphans() {
  cgroups_.clear();
  std::error_code error;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task", error)) {
    std::ifstream children(task.path() / "children");
    for (pid_t pid = 0; children >> pid;) {
      if (marks_.contains(pid)) continue;  // one that we have started: its owner awaits its end
      if (!marks_of_ended_.empty()) {
        const std::string mark = mark_of(std::to_string(pid));
        if (!mark.empty() && std::ranges::find(marks_of_ended_, mark) != marks_of_ended_.end()) ::kill(pid, SIGKILL);
      }
      ::waitpid(pid, nullptr, WNOHANG);
    }
  }
}

void RealSystem::kill_marked(const std::string& mark_prefix) {
  cgroups_.end_all(mark_prefix);
  std::error_code error;
  std::vector<pid_t> killed;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    const std::string pid = entry.path().filename();
    if (pid.find_first_not_of("0123456789") != std::string::npos || !mark_of(pid).starts_with(mark_prefix)) continue;
    const auto number = static_cast<pid_t>(std::stol(pid));
    if (::kill(number, SIGKILL) == 0) killed.push_back(number);
  }
  // What they listened on is free once they have gone, which takes a moment, and longer while a disk keeps them waiting.
  static constexpr int kTries = 2000;
  for (int i = 0; i < kTries && !killed.empty(); ++i) {
    std::erase_if(killed, [&](pid_t pid) { return start_time(pid).empty(); });
    if (!killed.empty()) ::usleep(1000);
  }
}

// A process id is not given out again while a session bears it, so what is found is what the leader left.
void RealSystem::kill_session(pid_t pid) {
  static constexpr int kSession = 6;
  if (pid <= 1) return;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    if (stat_field(name, kSession) == std::to_string(pid)) ::kill(static_cast<pid_t>(std::stol(name)), SIGKILL);
  }
}

std::string RealSystem::boot_id() { return read_file("/proc/sys/kernel/random/boot_id").value_or(""); }

std::uint64_t RealSystem::raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  ::getrlimit(RLIMIT_NOFILE, &limit);
  return limit.rlim_cur;
}

Result<Handle> RealSystem::signals(std::span<const int> numbers) {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : numbers) sigaddset(&set, number);
  if (::pthread_sigmask(SIG_BLOCK, &set, nullptr) != 0) return base::fail(Code::internal, "cannot block signals");
  signal_fd_ = ::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  if (signal_fd_ < 0) return std::unexpected(from_errno(errno, "signalfd"));
  return Handle(*this, signal_fd_);
}

Transfer RealSystem::read_signal(std::span<char> into) {
  signalfd_siginfo info{};
  if (into.empty() || ::read(signal_fd_, &info, sizeof info) != sizeof info) return {-1, EAGAIN};
  into[0] = static_cast<char>(info.ssi_signo);
  return {1, 0};
}

std::string RealSystem::own_executable() {
  std::array<char, 4096> path{};
  const ssize_t bytes = ::readlink("/proc/self/exe", path.data(), path.size());
  return bytes > 0 ? std::string(path.data(), static_cast<std::size_t>(bytes)) : "ringmaster";
}

Result<std::string> RealSystem::read_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const int error = errno;
    if (error == ENOENT) return base::fail(Code::not_found, path + ": no such file");
    return std::unexpected(from_errno(error, path));
  }
  std::string content;
  std::array<char, 16384> block{};
  ssize_t got = 0;
  while ((got = ::read(fd, block.data(), block.size())) > 0) content.append(block.data(), static_cast<std::size_t>(got));
  const int error = errno;
  ::close(fd);
  if (got < 0) return std::unexpected(from_errno(error, path));
  return content;
}

Result<void> RealSystem::replace_file(const std::string& path, std::string_view bytes, bool durable) {
  FileCalls calls;
  return io::replace_file(calls, path, bytes, durable);
}

Result<void> RealSystem::make_directory(const std::string& path, unsigned mode, bool durable) {
  FileCalls calls;
  return io::make_directory(calls, path, mode, durable);
}

Result<void> RealSystem::give_directory(const std::string& path, const User& owner, unsigned mode) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(path, error)) {
    if (entry.is_regular_file(error) && !entry.is_symlink(error) && ::lchown(entry.path().c_str(), owner.user, owner.group) != 0) {
      return std::unexpected(from_errno(errno, entry.path().string()));
    }
  }
  if (::chown(path.c_str(), owner.user, owner.group) != 0 || ::chmod(path.c_str(), mode) != 0) return std::unexpected(from_errno(errno, path));
  return {};
}

void RealSystem::remove_file(const std::string& path) { (void)::remove(path.c_str()); }

User RealSystem::own_user() { return {::geteuid(), ::getegid()}; }

Result<User> RealSystem::find_user(const std::string& name) {
  std::array<char, 16384> room{};
  passwd entry{};
  passwd* found = nullptr;
  if (::getpwnam_r(name.c_str(), &entry, room.data(), room.size(), &found) != 0 || found == nullptr) {
    return base::fail(Code::not_found, "there is no user '" + name + "'");
  }
  return User{found->pw_uid, found->pw_gid};
}

Result<gid_t> RealSystem::find_group(const std::string& name) {
  std::array<char, 16384> room{};
  group entry{};
  group* found = nullptr;
  if (::getgrnam_r(name.c_str(), &entry, room.data(), room.size(), &found) != 0 || found == nullptr) {
    return base::fail(Code::not_found, "there is no group '" + name + "'");
  }
  return found->gr_gid;
}

void RealSystem::clear_directory(const std::string& path) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(path, error)) (void)std::filesystem::remove(entry.path(), error);
}

Result<Handle> RealSystem::open_append(const std::string& path) {
  Handle handle(*this, ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640));
  if (!handle) return std::unexpected(from_errno(errno, path));
  return handle;
}

bool RealSystem::append(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(fd, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(put));
  }
  return true;
}

Result<Handle> RealSystem::lock_file(const std::string& path) {
  Handle handle(*this, ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0640));
  if (!handle) return std::unexpected(from_errno(errno, path));
  if (::flock(handle.fd(), LOCK_EX | LOCK_NB) == 0) return handle;
  if (errno == EWOULDBLOCK) return base::fail(Code::exists, path + " is locked by another process");
  return std::unexpected(from_errno(errno, path));
}

void RealSystem::run_in_background(std::function<void()> work) {
  const std::lock_guard lock(background_mutex_);
  background_work_.push_back(std::move(work));
  if (!background_.joinable()) background_ = std::thread([this] { background_thread(); });
  background_wanted_.notify_one();
}

void RealSystem::background_thread() {
  std::unique_lock lock(background_mutex_);
  while (true) {
    background_wanted_.wait(lock, [this] { return background_stop_ || !background_work_.empty(); });
    if (background_work_.empty()) return;
    const auto work = std::move(background_work_.front());
    background_work_.pop_front();
    lock.unlock();
    work();
    lock.lock();
  }
}

namespace {

class RealLoopThread final : public LoopThread {
 public:
  explicit RealLoopThread(RealSystem::Links links) : system_(links), loop_(system_), thread_([this] { loop_.run(); }) {}
  ~RealLoopThread() override { thread_.join(); }
  Loop& loop() override { return loop_; }

 private:
  RealSystem system_;
  Loop loop_;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<LoopThread> RealSystem::start_loop() { return std::make_unique<RealLoopThread>(links_); }

}  // namespace ringmaster::io
