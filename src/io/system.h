// The seam to the world: everything the program asks of an operating system, and nothing else.
//
// There are two implementations. RealSystem (real_system.h) is Linux; SimSystem (sim_system.h) is a simulated network,
// clock, file system and process table that runs the whole program from one seed in one thread. Everything above
// (Loop, Stream, Process, and so every coroutine of the program) is the same code on both.
//
// One System belongs to one Loop and is used by that loop's thread only; wake() and run_in_background()'s completion
// are the exceptions. All descriptors are non-blocking and close-on-exec.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/endpoint.h"
#include "base/result.h"

namespace ringmaster::io {

using base::Code;
using base::Duration;
using base::Endpoint;
using base::Error;
using base::Result;
using base::Time;

class Loop;
class System;

// A descriptor that is closed when its owner goes.
class Handle {
 public:
  Handle() = default;
  Handle(System& system, int fd) : system_(&system), fd_(fd) {}
  Handle(Handle&& other) noexcept : system_(other.system_), fd_(std::exchange(other.fd_, -1)) {}
  Handle& operator=(Handle&& other) noexcept;
  ~Handle() { reset(); }

  int fd() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  System& system() const { return *system_; }
  void reset();
  int release() { return std::exchange(fd_, -1); }  // to adopt() by another System of the same process

 private:
  System* system_ = nullptr;
  int fd_ = -1;
};

// The outcome of one non-blocking call: count >= 0, or an errno. EAGAIN means "not now, wait for the event".
struct Transfer {
  ssize_t count = -1;
  int error = 0;
  bool would_block() const;
};

// What poll() says of a descriptor.
enum Readiness : std::uint32_t {
  kReadable = 1,
  kWritable = 2,
  kHangup = 4,  // the peer has ended its side: what it sent can still be read
  kBroken = 8,  // both sides are gone
};
enum class Trigger : std::uint8_t { edge, level };

struct Event {
  void* tag = nullptr;
  std::uint32_t readiness = 0;
};

struct ListenOptions {
  int backlog = 4096;
  bool reuse_port = false;  // one of a group that shares the address
  unsigned unix_mode = 0;   // of a Unix socket's file; 0: as the umask has it
  bool dual_stack = false;  // an IPv6 address that takes IPv4 clients, too; they appear as what they are
};

struct Limit {
  int resource = 0;  // RLIMIT_…
  std::uint64_t value = 0;
};

// Whom a process works as.
struct User {
  uid_t user = 0;
  gid_t group = 0;
};

struct SpawnRequest {
  std::vector<std::string> argv;         // argv[0] is looked up in PATH unless it has a slash
  std::string executable;                // what to run instead of argv[0]
  std::vector<std::string> environment;  // "NAME=value"; nothing is inherited
  std::string directory;                 // empty: ours
  std::vector<Limit> limits;
  std::optional<User> run_as;  // instead of ourselves
  std::string mark;            // in its environment, and so in that of all its descendants: when it has ended, so have they
  std::vector<int> inherited;  // become descriptors 3, 4, … of the child
  bool listen_fds = false;     // tell the child so, as sd_listen_fds(3) has it
  bool capture_output = true;  // pipes for stdout and stderr; else ours
};

// A started process. It has its own session, no new privileges, and dies with the thread that spawned it.
struct Child {
  pid_t pid = 0;
  Handle pidfd;   // readable once it has ended
  Handle output;  // its stdout and stderr, in one pipe
};

struct ExitStatus {
  int code = 0;    // exit code, if signal is 0
  int signal = 0;  // the signal that ended it
};
std::string to_string(const ExitStatus& status);

// Shared memory; unmapped when the last copy goes.
struct Mapping {
  std::shared_ptr<void> memory;
  std::size_t bytes = 0;
  std::string_view text() const { return {static_cast<const char*>(memory.get()), bytes}; }
};

// Another loop, run beside this one: a thread, or in a simulation a second loop of the same process.
class LoopThread {
 public:
  virtual ~LoopThread() = default;  // the loop must have been stopped; joins it
  virtual Loop& loop() = 0;
};

class System {
 public:
  System() = default;
  System(const System&) = delete;
  System& operator=(const System&) = delete;
  virtual ~System() = default;

  // Clock and chance.
  virtual Time now() = 0;
  virtual base::WallTime wall_now() = 0;
  virtual std::uint64_t random_seed() = 0;

  // Streams. accept() and connect() return the new descriptor as the count; a connection that is still being made
  // becomes writable when it is decided, and connect_error() then tells (0: made).
  virtual Result<Handle> listen(const Endpoint& at, const ListenOptions& options) = 0;
  virtual Endpoint local_endpoint(int fd) = 0;
  virtual Transfer accept(int listener, Endpoint& peer) = 0;
  virtual Transfer connect(const Endpoint& to) = 0;
  // A connection beyond this machine is given up after two seconds without an answer. While a long upload goes over it, it
  // need not be: a reader that pauses looks the same.
  virtual void bear_pauses(int fd, bool bear) = 0;
  virtual int connect_error(int fd) = 0;
  // Who connected a Unix connection, as the kernel saw it at that moment; nothing for others.
  virtual std::optional<uid_t> peer_user(int fd) = 0;
  virtual Transfer read(int fd, std::span<char> into) = 0;
  virtual Transfer write(int fd, std::span<const iovec> from) = 0;
  virtual std::size_t unacknowledged(int fd) = 0;  // bytes written that the peer has not taken yet; 0 where that is not known
  virtual bool has_unread(int fd) = 0;             // bytes wait in the socket, whether or not poll() has told of them
  virtual void shutdown_write(int fd) = 0;
  virtual void reset_on_close(int fd) = 0;  // close() will send RST: the peer must not take the end for a clean one
  virtual void close(int fd) = 0;

  // Readiness. `tag` comes back in events; unwatch() (or close()) ends that at once for later polls. Readiness to write is
  // told only if `writing`; rewatch() changes that, and tells what is so now. A Unix socket that is watched for it wakes
  // its owner whenever the peer has read something: a third of what a small request costs.
  virtual void watch(int fd, void* tag, Trigger trigger, bool writing) = 0;
  virtual void rewatch(int fd, void* tag, bool writing) = 0;  // edge-triggered ones only
  virtual void unwatch(int fd) = 0;
  virtual std::size_t poll(std::span<Event> events, Duration wait_max) = 0;
  virtual void wake() = 0;  // any thread: ends a poll() that waits
  // A simulation may ask that fibers which are ready at the same moment run in any order: nothing may rely on one.
  virtual bool any_order() { return false; }

  // Messages with descriptors, between two processes (SOCK_SEQPACKET).
  virtual Result<std::pair<Handle, Handle>> message_pair() = 0;
  virtual Handle adopt(int fd) = 0;  // takes over a descriptor that was inherited
  virtual Transfer send_message(int fd, std::string_view bytes, std::span<const int> descriptors) = 0;
  virtual Transfer receive_message(int fd, std::span<char> into, std::vector<Handle>& descriptors) = 0;

  // Memory that two processes can share.
  virtual Result<Handle> create_memory(std::size_t bytes) = 0;
  virtual Result<Mapping> map(int fd) = 0;

  // Processes. Signals go to a child's whole session. reap() returns nothing while the child runs.
  virtual Result<Child> spawn(const SpawnRequest& request) = 0;
  virtual void signal(const Child& child, int number) = 0;
  virtual std::optional<ExitStatus> reap(const Child& child) = 0;
  virtual bool is_traced(pid_t pid) = 0;  // by a debugger
  // What each of its threads is doing, as far as the system tells, a line each; and asks them to write a stack trace to their
  // standard error themselves, which they do if they run at all (write_stack_when_asked).
  virtual std::string describe_threads(pid_t pid) = 0;
  virtual std::string start_time(pid_t pid) = 0;  // tells a process from a later one of the same pid; "" if gone
  // From now on orphaned descendants of our children become our own children (PR_SET_CHILD_SUBREAPER), as they do for process 1.
  virtual void adopt_orphans() = 0;
  // After SIGCHLD: takes note of the ends of orphans, and ends those whose marked ancestor has ended.
  virtual void reap_orphans() = 0;
  virtual void kill_marked(const std::string& mark_prefix) = 0;      // SIGKILL to all that bear such a mark; waits for their end, at most 2 s
  virtual void kill_session(pid_t pid) = 0;                          // SIGKILL to all that is left of a session, even if its leader is gone
  virtual std::string boot_id() = 0;                                 // tells this run of the machine from others
  virtual Result<Handle> signals(std::span<const int> numbers) = 0;  // read as one byte each, a signal's number
  virtual std::string own_executable() = 0;
  virtual User own_user() = 0;
  virtual Result<User> find_user(const std::string& name) = 0;    // with its first group. Errors: not_found
  virtual Result<gid_t> find_group(const std::string& name) = 0;  // Errors: not_found
  virtual std::uint64_t raise_descriptor_limit() = 0;             // as far as it goes; what it is then

  // Files: small ones, read and replaced as a whole.
  virtual Result<std::string> read_file(const std::string& path) = 0;
  virtual Result<void> replace_file(const std::string& path, std::string_view bytes, bool durable) = 0;
  virtual Result<void> make_directory(const std::string& path, unsigned mode, bool durable) = 0;  // a new one has exactly this mode
  // It, and the files in it.
  virtual Result<void> give_directory(const std::string& path, const User& owner, unsigned mode) = 0;
  virtual void remove_file(const std::string& path) = 0;      // or an empty directory
  virtual void clear_directory(const std::string& path) = 0;  // of its files
  // A log: opened to append, made if it is not there. append() blocks until all is written; false: it could not be. Any thread.
  virtual Result<Handle> open_append(const std::string& path) = 0;
  virtual bool append(int fd, std::string_view bytes) = 0;
  virtual Result<Handle> lock_file(const std::string& path) = 0;  // Code::exists when another process has it

  // Beside the loop. `work` may block; it runs on a thread of its own (in a simulation: at once).
  virtual void run_in_background(std::function<void()> work) = 0;
  // Looks a name up, which may take minutes, on a thread that nobody waits for: `done` is called there (in a simulation: at once),
  // perhaps after the System has gone.
  virtual void resolve(std::string host, std::uint16_t port, std::function<void(Result<std::vector<Endpoint>>)> done) = 0;
  virtual std::unique_ptr<LoopThread> start_loop() = 0;
};

}  // namespace ringmaster::io
