#include "io/sim_world.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>

#include "base/check.h"
#include "io/sim_system.h"

namespace ringmaster::io {

using namespace std::chrono_literals;

// --- objects ---

Transfer SimObject::read(std::span<char>) { return {-1, EINVAL}; }
Transfer SimObject::write(std::span<const iovec>) { return {-1, EINVAL}; }

void SimObject::detach(SimSystem& system, int fd) {
  std::erase_if(watchers_, [&](const Watcher& w) { return w.system == &system && w.fd == fd; });
}

void SimObject::notify(std::uint32_t readiness) {
  for (const Watcher& watcher : watchers_) watcher.system->edge(watcher.fd, readiness);
}

// --- processes ---

SimProcess::SimProcess(SimWorld& the_world, pid_t number, SimProcess* parent_process, SpawnRequest what)
    : world(the_world), pid(number), parent(parent_process), request(std::move(what)), pidfd(std::make_shared<SimPidfd>(the_world)) {
  main_loop_ = std::make_unique<Loop>(new_system());
  loops.push_back(main_loop_.get());
}

SimProcess::~SimProcess() {
  program.reset();
  main_loop_.reset();
}

SimSystem& SimProcess::new_system() { return *systems.emplace_back(std::make_unique<SimSystem>(*this)); }

int SimProcess::open(SimObjectPtr object) {
  object->opened();
  table_[next_fd_] = std::move(object);
  return next_fd_++;
}

SimObjectPtr SimProcess::find(int fd) const {
  const auto found = table_.find(fd);
  return found == table_.end() ? nullptr : found->second;
}

void SimProcess::close(int fd) {
  const auto found = table_.find(fd);
  if (found == table_.end()) return;
  const SimObjectPtr object = found->second;
  table_.erase(found);
  for (const auto& system : systems) {
    object->detach(*system, fd);
    system->forget(fd);
  }
  object->closed();
}

void SimProcess::close_all() {
  while (!table_.empty()) {
    const SimObjectPtr object = table_.begin()->second;
    const int fd = table_.begin()->first;
    table_.erase(table_.begin());
    for (const auto& system : systems) object->detach(*system, fd);
    object->closed();
  }
}

// --- the world ---

SimWorld::SimWorld(std::uint64_t seed, const SimFaults& faults) : random_(seed), faults_(faults) {}

SimWorld::~SimWorld() { end(); }

void SimWorld::end() {
  for (const auto& process : processes_) {
    if (!process->ghost) kill(*process, {0, SIGKILL});
  }
  // Ghosts only have timers and wake-ups of their own left; they end in bounded time.
  const bool ended = run([this] { return processes_.empty(); }, now_ + std::chrono::hours(1));
  CHECK(ended);
}

void SimWorld::trace(std::uint64_t what, std::uint64_t detail) {
  hash_ = base::Random(hash_ ^ what * 0x9e3779b97f4a7c15ULL ^ detail ^ static_cast<std::uint64_t>(now_.time_since_epoch().count())).next();
}

Duration SimWorld::delay() {
  const auto span = static_cast<double>((faults_.delay_max - faults_.delay_min).count());
  return faults_.delay_min + Duration(static_cast<std::int64_t>(span * random_.unit()));
}

void SimWorld::at(Time when, std::function<void()> event) { events_.emplace(std::max(when, now_), std::move(event)); }

Result<SimProcess*> SimWorld::spawn(SimProcess* parent, const SpawnRequest& request) {
  const auto program = programs_.find(request.argv.at(0));
  if (program == programs_.end()) return base::fail(Code::not_found, "command '" + request.argv[0] + "' does not exist");
  if (parent != nullptr && now_ < no_processes_until) return std::unexpected(base::from_errno(EAGAIN, "fork"));
  processes_.push_back(std::make_unique<SimProcess>(*this, next_pid_++, parent, request));
  SimProcess& process = *processes_.back();
  for (const int fd : request.inherited) process.open(parent->find(fd));
  trace(1, static_cast<std::uint64_t>(process.pid));
  // A program takes a moment to start.
  at(now_ + 2ms + delay(), [this, pid = process.pid, make = program->second] {
    SimProcess* started = find(pid);
    if (started != nullptr && !started->ghost) started->program = make(*started);
  });
  return &process;
}

SimProcess* SimWorld::find(pid_t pid) {
  for (const auto& process : processes_) {
    if (process->pid == pid) return process.get();
  }
  return nullptr;
}

void SimWorld::signal(SimProcess& process, int number) {
  // Simulated programs have no handlers: SIGTERM ends them as SIGKILL does.
  if (number == SIGKILL || number == SIGTERM) kill(process, {0, number});
  if (number == SIGSTOP || number == SIGCONT) process.stopped = number == SIGSTOP && !process.ghost;
}

bool SimWorld::is_alive(pid_t pid) const {
  return std::ranges::any_of(processes_, [&](const auto& process) { return process && process->pid == pid && !process->ghost; });
}

void SimWorld::lose_power(SimProcess& root) {
  trace(8, static_cast<std::uint64_t>(root.pid));
  ++boots_;
  kill(root, {0, SIGKILL});
  // A file that was replaced and not synced: the old one, the new one, or a part of the new one.
  for (auto& [path, content] : files) {
    const auto durable = durable_files.find(path);
    if (durable != durable_files.end() && durable->second == content) continue;
    const std::uint32_t fate = random_.below(3);
    if (fate == 0) content = durable == durable_files.end() ? "" : durable->second;
    if (fate == 1) content.resize(random_.below(static_cast<std::uint32_t>(content.size()) + 1));
  }
  for (const auto& [path, content] : durable_files) files.try_emplace(path, content);
  durable_files = files;
}

void SimWorld::kill(SimProcess& process, ExitStatus status) {
  if (process.ghost) return;
  trace(2, static_cast<std::uint64_t>(process.pid));
  process.ghost = true;
  process.stopped = false;
  process.status = status;
  if (on_end) on_end(process);
  process.close_all();
  for (const auto& system : process.systems) system->become_ghost();
  for (const auto& child : processes_) {
    if (child->parent == &process) {
      child->parent = nullptr;
      kill(*child, {0, SIGKILL});
    }
  }
  // Not now: it may be in the midst of a system call.
  at(now_, [this, pid = process.pid] {
    SimProcess* ended = find(pid);
    if (ended != nullptr && ended->program) ended->program->kill();
  });
  static_cast<SimPidfd&>(*process.pidfd).end();
}

bool SimWorld::may_turn(const SimProcess& process, std::size_t loop) const {
  return !process.stopped && static_cast<SimSystem&>(process.loops[loop]->system()).stalled_until() <= now_;
}

bool SimWorld::turn_all() {
  bool any = false;
  // By index: turning a loop may start processes, and loops.
  for (std::size_t i = 0; i < processes_.size(); ++i) {
    SimProcess& process = *processes_[i];
    if (!process.program) continue;
    for (std::size_t k = 0; k < process.loops.size(); ++k) {
      if (!may_turn(process, k)) continue;
      running_ = &process;
      const bool ran = process.loops[k]->turn(Duration::zero());
      running_ = nullptr;
      any |= ran;
      if (ran) last_to_run_ = &process;
      if (ran && on_step) on_step();
    }
    if (!process.ghost && !process.stopped && process.program->ended()) kill(process, {});
  }
  return any;
}

void SimWorld::reap_ghosts() {
  std::erase_if(processes_, [this](const std::unique_ptr<SimProcess>& process) {
    const bool over = process->ghost && (!process->program || process->program->ended()) && process->loops[0]->root().empty();
    if (over) {
      for (const auto& child : processes_) {
        if (child && child->parent == process.get()) child->parent = nullptr;
      }
    }
    return over;
  });
}

// Somebody who has always something to do at the same moment would keep a processor busy for nothing.
void SimWorld::check_progress() {
  static constexpr unsigned kRoundsMax = 100'000;
  rounds_ = spinning_since_ == now_ ? rounds_ + 1 : 0;
  spinning_since_ = now_;
  if (rounds_ < kRoundsMax) return;
  std::fprintf(stderr, "%s: '%s', pid %d%s, goes round in circles\n", label.c_str(), last_to_run_->request.argv[0].c_str(), last_to_run_->pid,
               last_to_run_->ghost ? ", which has been killed" : "");
  CHECK(rounds_ < kRoundsMax);
}

bool SimWorld::run(const std::function<bool()>& done, Time limit) {
  while (!done()) {
    reap_ghosts();
    if (turn_all()) {
      check_progress();
      continue;
    }
    Time next = events_.empty() ? base::kNever : events_.begin()->first;
    for (const auto& process : processes_) {
      if (!process->program) continue;
      if (process->stopped) continue;
      for (Loop* loop : process->loops) {
        const Time stalled = static_cast<SimSystem&>(loop->system()).stalled_until();
        next = std::min(next, stalled > now_ ? stalled : loop->next_timer());
      }
    }
    if (next > limit) {
      now_ = std::max(now_, limit);
      return done();
    }
    now_ = std::max(now_, next);
    while (!events_.empty() && events_.begin()->first <= now_) {
      const auto event = std::move(events_.begin()->second);
      events_.erase(events_.begin());
      event();
    }
  }
  return true;
}

}  // namespace ringmaster::io
