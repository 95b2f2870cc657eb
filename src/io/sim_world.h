// A simulated machine: network, clock, files and processes, driven by one seed in one thread.
//
// The world holds what an operating system would hold: processes with descriptor tables, streams that delay, fragment
// and break, listeners with backlogs, files. Each loop of each simulated process sees it through a SimSystem
// (sim_system.h), and so runs the very code that runs on Linux.
//
//   run():  let every loop do what it can ─▶ nothing left to do now? ─▶ jump to the next event or timer ─▶ again
//
// A process that is killed loses its descriptors at once, as on a real machine, and its children die with it. Its code
// then unwinds as a ghost: every system call fails and nothing it does has an effect, until its last fiber has ended.
// Everything observable goes into a trace hash: the same seed must give the same hash.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "io/loop.h"
#include "io/system.h"

namespace ringmaster::io {

class SimProcess;
class SimSystem;
class SimWorld;

// Something a descriptor refers to. Shared by the descriptors of all processes that have it.
class SimObject {
 public:
  explicit SimObject(SimWorld& the_world) : world_(the_world) {}
  SimObject(const SimObject&) = delete;
  SimObject& operator=(const SimObject&) = delete;
  virtual ~SimObject() = default;

  virtual std::uint32_t readiness() const { return 0; }
  virtual Transfer read(std::span<char>);
  virtual Transfer write(std::span<const iovec>);
  virtual void shutdown_write() {}
  virtual void reset_on_close() {}
  virtual void last_closed() {}

  void opened() { ++descriptors_; }
  void closed() {
    if (--descriptors_ == 0) last_closed();
  }
  void attach(SimSystem& system, int fd) { watchers_.push_back({&system, fd}); }
  void detach(SimSystem& system, int fd);
  void notify(std::uint32_t readiness);  // an edge

 protected:
  SimWorld& world_;

 private:
  struct Watcher {
    SimSystem* system;
    int fd;
  };
  std::vector<Watcher> watchers_;
  int descriptors_ = 0;
};
using SimObjectPtr = std::shared_ptr<SimObject>;

// What goes wrong in the network, by chance.
struct SimFaults {
  Duration delay_min = std::chrono::microseconds(20);
  Duration delay_max = std::chrono::milliseconds(1);
  double fragment = 0.2;                                  // of writes that arrive in pieces
  double reset = 0;                                       // of connections that break at some moment
  double half_close = 0;                                  // of connections whose one side ends early
  Duration fault_within = std::chrono::milliseconds(50);  // of its beginning
  // Connections beyond a Unix socket that are refused, or made late, or never answered at all.
  double connect_refused = 0;
  double connect_slow = 0;
  double connect_silent = 0;
  Duration connect_slow_max = std::chrono::milliseconds(500);
  // Messages between two processes: how long they are on their way, and how many find no room for the moment.
  Duration link_delay_max{};
  double link_full = 0;
  // Calls from one loop to another one that the other sees late: its thread was not run, or it waited for a disk.
  double stall = 0;
  Duration stall_max = std::chrono::milliseconds(5);
  Duration background_max{};  // how long blocking work beside a loop takes at most; zero: it is done at once
  bool any_order = false;     // what is ready at the same moment runs in any order
};

// The code of a simulated process. It is made when the process starts and owns everything the process has in memory.
class SimProgram {
 public:
  virtual ~SimProgram() = default;
  virtual void kill() = 0;  // the process is a ghost now: wind up
  virtual bool ended() const = 0;
};

class SimProcess {
 public:
  SimProcess(SimWorld& world, pid_t number, SimProcess* parent_process, SpawnRequest what);
  ~SimProcess();

  SimSystem& new_system();  // one per loop
  Loop& loop() { return *main_loop_; }

  int open(SimObjectPtr object);
  SimObjectPtr find(int fd) const;
  void close(int fd);
  void close_all();

  SimWorld& world;
  pid_t pid;
  SimProcess* parent;
  SpawnRequest request;
  bool ghost = false;
  bool stopped = false;       // by SIGSTOP
  unsigned dies_at_call = 0;  // its so-many-th system call from now does not happen any more: it is killed there; 0: never
  bool dies_now() {           // one more call
    if (dies_at_call == 0) return false;
    --dies_at_call;
    return dies_at_call == 0;
  }
  Time no_descriptors_until{};  // its table is full
  ExitStatus status;
  SimObjectPtr pidfd;
  std::unique_ptr<SimProgram> program;
  std::vector<Loop*> loops;
  std::vector<std::unique_ptr<SimSystem>> systems;

 private:
  friend class SimWorld;
  std::unique_ptr<Loop> main_loop_;
  std::map<int, SimObjectPtr> table_;
  int next_fd_ = 3;
};

class SimListener;

class SimWorld {
 public:
  using Program = std::function<std::unique_ptr<SimProgram>(SimProcess&)>;

  SimWorld(std::uint64_t seed, const SimFaults& faults);
  ~SimWorld();  // calls end()
  // Kills all processes and waits until the last ghost has gone: while what they use beside the world is still there.
  void end();

  void install(const std::string& name, Program program) { programs_[name] = std::move(program); }
  Result<SimProcess*> spawn(SimProcess* parent, const SpawnRequest& request);
  void signal(SimProcess& process, int number);
  void kill(SimProcess& process, ExitStatus status);
  SimProcess* find(pid_t pid);
  bool is_alive(pid_t pid) const;
  template <class F>
  void for_each(F f) {
    for (std::size_t i = 0; i < processes_.size(); ++i) f(*processes_[i]);
  }
  SimProcess* running() { return running_; }  // whose loop is in its turn
  // A machine without power: `root` and all its children are gone, and so is what was written to files and not made durable,
  // or part of it.
  void lose_power(SimProcess& root);

  // Until `done`, or until simulated time has reached `limit`. True if done.
  bool run(const std::function<bool()>& done, Time limit);

  Time now() const { return now_; }
  base::Random& random() { return random_; }
  const SimFaults& faults() const { return faults_; }
  void set_faults(const SimFaults& faults) { faults_ = faults; }
  Duration delay();
  void at(Time when, std::function<void()> event);
  void trace(std::uint64_t what, std::uint64_t detail);
  std::uint64_t trace_hash() const { return hash_; }
  unsigned boots() const { return boots_; }

  std::map<std::string, std::string> files;
  std::map<std::string, std::string> durable_files;  // what is left of them without power
  std::map<std::string, std::string> logs;           // what was appended
  Time disk_full_until{};
  Time no_processes_until{};  // the system starts none
  Duration wall_offset{};     // the wall clock is wrong by this
  std::map<std::string, std::weak_ptr<SimObject>> locks;
  std::map<std::string, std::vector<std::weak_ptr<SimListener>>> listeners;
  std::uint16_t next_port = 30000;
  // Told of every connection that the network broke: both its addresses.
  std::function<void(const std::string& to)> on_fault;
  std::function<void(SimProcess&)> on_end;  // of every process, however it ended
  std::function<void()> on_step;            // between any two turns of loops: the moment for whatever is to go wrong
  unsigned messages_refused = 0;            // for want of room
  unsigned connects_spoilt = 0;
  std::string label;  // for who finds that the world stands still

 private:
  bool turn_all();
  bool may_turn(const SimProcess& process, std::size_t loop) const;
  void reap_ghosts();
  void check_progress();

  base::Random random_;
  SimFaults faults_;
  Time now_{};
  std::multimap<Time, std::function<void()>> events_;
  std::map<std::string, Program> programs_;
  std::vector<std::unique_ptr<SimProcess>> processes_;
  SimProcess* running_ = nullptr;
  Time spinning_since_{};  // the same moment, for so many rounds
  unsigned rounds_ = 0;
  SimProcess* last_to_run_ = nullptr;
  unsigned boots_ = 1;
  pid_t next_pid_ = 100;
  std::uint64_t hash_ = 0;
};

}  // namespace ringmaster::io
