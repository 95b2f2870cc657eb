// Starting a process: fork, a few calls that are safe between fork and exec, exec. What goes wrong in the child comes
// back through a pipe that a successful exec closes, so that "no such command" is an Error here and not a mystery later.
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>

#include "io/real_system.h"

namespace ringmaster::io {

using base::from_errno;

namespace {

// Everything the child needs, made before fork(): it must not allocate.
struct Prepared {
  std::string path;  // of the executable
  std::vector<char*> argv;
  std::vector<std::string> environment;
  std::vector<char*> envp;
  std::string listen_pid;      // "LISTEN_PID=" and room for digits
  std::vector<int> inherited;  // duplicated above the range that they will take
  pid_t parent = 0;
  int report = -1;
  int output = -1;
  int cgroup = -1;  // its cgroup.procs
};

enum class Step : int { session, user, parent, limits, directory, descriptors, exec };

struct Failure {
  Step step;
  int error;
};

const char* describe(Step step) {
  switch (step) {
    case Step::session: return "setsid";
    case Step::user: return "taking another user's place";
    case Step::parent: return "its parent has ended";
    case Step::limits: return "setrlimit";
    case Step::directory: return "working directory";
    case Step::descriptors: return "descriptors";
    case Step::exec: return "exec";
  }
  return "?";
}

[[noreturn]] void give_up(const Prepared& p, Step step) {
  const Failure failure{step, errno};
  [[maybe_unused]] const ssize_t put = ::write(p.report, &failure, sizeof failure);
  ::_exit(127);
}

void reset_signals() {
  for (int number = 1; number < NSIG; ++number) ::signal(number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

void arrange_descriptors(const Prepared& p) {
  const int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (null < 0 || ::dup2(null, STDIN_FILENO) < 0) give_up(p, Step::descriptors);
  if (p.output >= 0 && (::dup2(p.output, STDOUT_FILENO) < 0 || ::dup2(p.output, STDERR_FILENO) < 0)) {
    give_up(p, Step::descriptors);
  }
  int target = 3;
  for (const int fd : p.inherited) {
    if (::dup2(fd, target) < 0) give_up(p, Step::descriptors);
    const int flags = ::fcntl(target, F_GETFL);
    ::fcntl(target, F_SETFL, flags & ~O_NONBLOCK);
    ++target;
  }
}

[[noreturn]] void become(Prepared& p, const SpawnRequest& request) {
  reset_signals();
  // First, while it may. Where it cannot, the mark is what its descendants are known by.
  if (p.cgroup >= 0) [[maybe_unused]]
    const ssize_t joined = ::write(p.cgroup, "0", 1);
  if (::setsid() < 0) give_up(p, Step::session);
  if (request.run_as) {  // before PR_SET_PDEATHSIG, which a change of credentials clears
    const bool changed = ::setgroups(0, nullptr) == 0 && ::setresgid(request.run_as->group, request.run_as->group, request.run_as->group) == 0 &&
                         ::setresuid(request.run_as->user, request.run_as->user, request.run_as->user) == 0;
    if (!changed) give_up(p, Step::user);
  }
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != p.parent) give_up(p, Step::parent);  // it died before the line above
  for (const Limit& limit : request.limits) {
    const rlimit value{limit.value, limit.value};
    if (::setrlimit(static_cast<__rlimit_resource>(limit.resource), &value) != 0) give_up(p, Step::limits);
  }
  if (!request.directory.empty() && ::chdir(request.directory.c_str()) != 0) give_up(p, Step::directory);
  arrange_descriptors(p);
  // What whoever started us left open, without O_CLOEXEC, is no business of a child's. Ours go by exec.
  ::syscall(SYS_close_range, 3U + static_cast<unsigned>(p.inherited.size()), ~0U, CLOSE_RANGE_CLOEXEC);
  if (request.listen_fds) {
    char* digits = p.listen_pid.data() + std::strlen("LISTEN_PID=");
    const auto [end, error] = std::to_chars(digits, p.listen_pid.data() + p.listen_pid.size() - 1, ::getpid());
    *end = '\0';
  }
  ::execve(p.path.c_str(), p.argv.data(), p.envp.data());
  give_up(p, Step::exec);
}

// As execvp() looks: names with a slash stand for themselves.
Result<std::string> find_executable(const std::string& name) {
  if (name.contains('/')) return name;
  const char* path = std::getenv("PATH");  // NOLINT(concurrency-mt-unsafe): nobody sets it
  std::string_view rest = path == nullptr ? "/usr/local/bin:/usr/bin:/bin" : path;
  while (!rest.empty()) {
    const std::size_t colon = rest.find(':');
    std::string candidate = std::string(rest.substr(0, colon)) + "/" + name;
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
    rest = colon == std::string_view::npos ? std::string_view{} : rest.substr(colon + 1);
  }
  return base::fail(Code::not_found, "command '" + name + "' does not exist: no such program in PATH");
}

Result<Prepared> prepare(const SpawnRequest& request) {
  Prepared p;
  auto path = find_executable(request.executable.empty() ? request.argv.at(0) : request.executable);
  if (!path) return std::unexpected(path.error());
  p.path = std::move(*path);
  for (const std::string& word : request.argv) p.argv.push_back(const_cast<char*>(word.c_str()));  // NOLINT: exec's type
  p.argv.push_back(nullptr);
  p.environment = request.environment;
  if (!request.mark.empty()) p.environment.push_back(std::string(kMarkName) + "=" + request.mark);
  if (request.listen_fds) {
    p.environment.push_back("LISTEN_FDS=" + std::to_string(request.inherited.size()));
    p.listen_pid = "LISTEN_PID=" + std::string(16, '\0');
  }
  p.parent = ::getpid();
  return p;
}

Result<void> duplicate_inherited(Prepared& p, const SpawnRequest& request) {
  const int above = 3 + static_cast<int>(request.inherited.size());
  for (const int fd : request.inherited) {
    const int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, above);
    if (copy < 0) {
      const int error = errno;
      for (const int made : p.inherited) ::close(made);
      return std::unexpected(from_errno(error, "descriptors"));
    }
    p.inherited.push_back(copy);
  }
  return {};
}

// Waits until the child has become the program or has said why not; a millisecond or two.
Result<void> await_exec(int report, pid_t pid, const std::string& command) {
  Failure failure{};
  ssize_t got = 0;
  do {
    got = ::read(report, &failure, sizeof failure);
  } while (got < 0 && errno == EINTR);
  if (got != sizeof failure) return {};
  ::waitpid(pid, nullptr, 0);
  if (failure.step == Step::exec && failure.error == ENOENT) {
    return base::fail(Code::not_found, "command '" + command + "' does not exist");
  }
  return std::unexpected(from_errno(failure.error, "command '" + command + "' cannot be started: " + describe(failure.step)));
}

}  // namespace

Result<Child> spawn_process(System& system, const SpawnRequest& request, const std::string& cgroup) {
  auto prepared = prepare(request);
  if (!prepared) return std::unexpected(prepared.error());
  Prepared& p = *prepared;
  std::array<int, 2> report{};
  if (::pipe2(report.data(), O_CLOEXEC) != 0) return std::unexpected(from_errno(errno, "pipe"));
  const Handle report_read(system, report[0]);
  // Above the numbers that inherited descriptors will take in the child.
  Handle report_write(system, ::fcntl(report[1], F_DUPFD_CLOEXEC, 3 + static_cast<int>(request.inherited.size())));
  ::close(report[1]);
  if (!report_write) return std::unexpected(from_errno(errno, "descriptors"));
  std::array<int, 2> output{-1, -1};
  if (request.capture_output && ::pipe2(output.data(), O_CLOEXEC) != 0) {
    return std::unexpected(from_errno(errno, "pipe"));
  }
  Handle output_read(system, output[0]);
  Handle output_write(system, output[1]);
  if (output_read) ::fcntl(output_read.fd(), F_SETFL, O_NONBLOCK);
  const Handle procs(system, cgroup.empty() ? -1 : ::open((cgroup + "/cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC));
  p.cgroup = procs.fd();
  p.report = report_write.fd();
  p.output = output_write.fd();
  if (auto duplicated = duplicate_inherited(p, request); !duplicated) return std::unexpected(duplicated.error());
  for (const std::string& entry : p.environment) p.envp.push_back(const_cast<char*>(entry.c_str()));  // NOLINT: exec's type
  if (request.listen_fds) p.envp.push_back(p.listen_pid.data());
  p.envp.push_back(nullptr);

  const pid_t pid = ::fork();
  if (pid == 0) become(p, request);
  const int fork_error = errno;
  for (const int fd : p.inherited) ::close(fd);
  if (pid < 0) return std::unexpected(from_errno(fork_error, "fork"));
  report_write.reset();
  if (auto started = await_exec(report_read.fd(), pid, request.argv[0]); !started) return std::unexpected(started.error());
  const auto pidfd = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
  if (pidfd < 0) {
    const int error = errno;
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    return std::unexpected(from_errno(error, "pidfd_open"));
  }
  return Child{pid, Handle(system, pidfd), std::move(output_read)};
}

}  // namespace ringmaster::io
