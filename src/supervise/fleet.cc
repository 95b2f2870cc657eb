#include "supervise/fleet.h"

#include <algorithm>

#include "balance/counters.h"
#include "base/log.h"
#include "base/names.h"

namespace ringmaster::supervise {

using balance::Origin;
using base::Code;
using base::Duration;
using base::Endpoint;
using base::Result;
using io::Async;
using link::State;
using namespace std::chrono_literals;

static constexpr Duration kForTheDisk = 1s;  // before a start; one that hangs keeps nobody from being started

Fleet::Fleet(io::Loop& loop, const config::Config& config, Runtimes runtimes, StateFile& state, Engine engine)
    : loop_(loop), config_(config), runtimes_(runtimes), state_(state), engine_(std::move(engine)), cells_(balance::kCellsMax), scope_(loop), saving_(loop) {}

Fleet::~Fleet() = default;

// Whether a saved set is one that the configuration allows: it may have been edited since, and so may the file.
static bool is_possible(const config::Pool& pool, const std::vector<DesiredSlot>& saved) {
  const bool sound = std::ranges::all_of(saved, [&](const DesiredSlot& slot) {
    const bool startable = slot.origin == Origin::container ? !pool.container.image.empty() && base::is_container_name(slot.name) : !pool.command.empty();
    return slot.slot > 0 && base::is_replica_name(slot.name) && startable;
  });
  std::vector<unsigned> slots;
  for (const DesiredSlot& slot : saved) slots.push_back(slot.slot);
  const bool fits = pool.fits_ring(slots);
  if (sound && fits && saved.size() <= pool.replicas_max) return true;
  base::log::warning("the saved set of pool {} ({} replicas) is not possible any more: starting as configured", pool.name, saved.size());
  return false;
}

// Those that we start: as the last master left them, or as configured. Somebody who edits `replicas` means it: then the
// configuration counts, and not what /add and /rm made of it.
void Fleet::seat_started(const config::Pool& pool, const DesiredPool* saved) {
  Seats& seats = pools_[pool.name];
  std::vector<DesiredSlot> ours;
  if (saved != nullptr) std::ranges::copy_if(saved->slots, std::back_inserter(ours), [](const DesiredSlot& slot) { return balance::is_owned(slot.origin); });
  if (saved != nullptr && saved->configured == pool.replicas && saved->containers == pool.containers && is_possible(pool, ours)) {
    for (const DesiredSlot& slot : ours) seats[slot.slot] = seat(pool, slot.slot, slot.name, slot.origin);
  } else {
    for (std::uint32_t slot = 1; slot <= pool.replicas; ++slot) seats[slot] = seat(pool, slot, pool.initial_name(slot), pool.initial_origin(slot));
  }
}

// Those that had registered, as far as they still may.
void Fleet::seat_registered(const config::Pool& pool, const DesiredPool& saved) {
  for (const DesiredSlot& slot : saved.slots) {
    if (slot.origin == Origin::server) old_slots_[{pool.name, slot.server}] = slot.slot;
    if (slot.origin != Origin::registered || !pool.registration.allowed || !base::is_replica_name(slot.name)) continue;
    const auto server = Endpoint::parse(slot.server);
    if (!server || !base::any_contains(pool.registration.from, *server) || !has_room(pool, 1)) continue;
    old_slots_[{pool.name, slot.server}] = slot.slot;
    take_in(pool, {*server, slot.name, Origin::registered, "", std::chrono::milliseconds(slot.ttl_ms)});
  }
}

void Fleet::seat_all(const Desired& desired) {
  for (const config::Pool& pool : config_.pools) {
    const auto known = desired.find(pool.name);
    const DesiredPool* saved = known == desired.end() ? nullptr : &known->second;
    if (saved != nullptr) {
      for (const DesiredSlot& slot : saved->slots) epochs_[{pool.name, slot.slot}] = slot.epoch;
    }
    seat_started(pool, saved);
    if (saved != nullptr) seat_registered(pool, *saved);
  }
}

void Fleet::start() {
  saving_.spawn(keep_saving());
  for (const auto& [name, seats] : pools_) {
    for (const auto& [slot, member] : Seats(seats)) {
      if (balance::is_owned(member->now.origin)) scope_.spawn(keep(member));  // the others were taken in already
    }
  }
  save();
}

// They wait for the same write, or for as long as launch() does, and are woken before us.
Async<void> Fleet::until_asked_for() {
  static constexpr Duration kLonger = 2 * kForTheDisk;
  co_await saved(loop_.now() + kLonger);
}

Fleet::SeatPtr Fleet::seat(const config::Pool& pool, std::uint32_t slot, std::string name, Origin origin) {
  auto made = std::make_shared<Seat>();
  made->pool = &pool;
  made->now.pool = pool.name;
  made->now.slot = slot;
  made->now.epoch = take_epoch(pool.name, slot);
  made->now.name = std::move(name);
  made->now.origin = origin;
  made->now.cell = take_cell();
  made->lines = std::make_shared<LineBudget>(pool.output_lines_max, loop_.now());
  return made;
}

std::uint32_t Fleet::take_cell() {
  const auto free = std::ranges::find(cells_, false);
  CHECK(free != cells_.end());  // has_room() and the configuration's check see to that
  *free = true;
  return static_cast<std::uint32_t>(free - cells_.begin());
}

void Fleet::announce(Seat& seat, State state) {
  seat.now.state = state;
  engine_.changed(++generation_, seat.now);
}

// --- the life of one seat ---

Async<void> Fleet::keep(SeatPtr seat) {
  while (!seat->leaving) {
    const bool died = co_await run(*seat);
    if (!died || seat->leaving) break;
    const Duration pause = next_epoch(*seat);
    if (pause > Duration::zero()) co_await rest(*seat, pause);
  }
  seat->now.exited = false;
  announce(*seat, State::stopped);
  cells_[seat->now.cell] = false;
  std::erase(leaving_, seat);
}

// How logs speak of it.
static std::string place_of(const link::ReplicaState& replica) {
  if (replica.origin == Origin::process) return "pid " + std::to_string(replica.pid);
  if (replica.origin == Origin::container) return "container " + replica.container.substr(0, 12);
  return "server " + base::to_string(replica.endpoint);
}

// Starts it and stays with it until its end.
Async<bool> Fleet::run(Seat& seat) {
  std::unique_ptr<Running> running;
  const bool launched = co_await launch(seat, running);
  if (!launched) co_return true;
  const auto outcome = co_await io::race(loop_, running->wait(base::kNever), until_unwanted(seat));
  if (outcome.a) {  // it has ended, whatever else was wanted
    base::log::warning("{} (slot {}, {}) {}", seat.now.name, seat.now.slot, place_of(seat.now), *outcome.a);
    seat.now.exited = true;
    announce(seat, State::stopped);
    co_return true;
  }
  if (seat.leaving) {
    if (!seat.at_once) co_await drain(seat, *running);
    co_await end(seat, *running);
    co_return false;
  }
  const bool started = seat.ready_since != base::kNever;
  base::log::warning("{} (slot {}) {}: replaced", seat.now.name, seat.now.slot, started ? "is unhealthy for too long" : "has not become ready in time");
  running->kill();
  co_await running->wait(base::kNever);
  seat.now.exited = true;
  announce(seat, State::stopped);
  co_return true;
}

// It could not be started. Said once, however often it is tried; the slot shows its name all the same.
bool Fleet::complain(Seat& seat, const base::Error& error) {
  const std::string complaint = base::describe(error);
  if (complaint != seat.complaint) base::log::error("{} (slot {}) cannot be started: {}", seat.now.name, seat.now.slot, complaint);
  seat.complaint = complaint;
  seat.name_taken = error.code == Code::exists;
  news_.notify();
  announce(seat, State::starting);
  seat.now.exited = true;
  announce(seat, State::stopped);
  return false;
}

// Takes its lines: for our log, and for who asks later.
std::function<void(std::string_view)> Fleet::output_of(const Seat& seat) {
  return [this, name = seat.now.name, log = seat.output, budget = seat.lines, most = seat.pool->output_lines_max](std::string_view line) {
    if (!budget->take(loop_.now())) return;
    if (const std::uint64_t dropped = budget->take_dropped(); dropped > 0) {
      base::log::warning("[{}] … {} lines are missing here: it writes more than {} a second", name, dropped, most);
    }
    const std::string shown = base::log::printable(line, 4096);
    base::log::info("[{}] {}", name, shown);
    log->add(++lines_, name, shown);
  };
}

Async<bool> Fleet::launch(Seat& seat, std::unique_ptr<Running>& running) {
  seat.now.exited = seat.now.healthy = false;
  seat.now.endpoint = {};
  seat.ready_since = seat.unhealthy_since = base::kNever;
  seat.launched = loop_.now();
  seat.said_late = false;
  if (seat.now.origin == Origin::container) announce(seat, State::starting);  // that takes a while
  // Before the start: an epoch is never used twice, even if this is our last moment. A disk that is full keeps nobody from
  // being started.
  if (balance::is_owned(seat.now.origin)) co_await saved(loop_.now() + kForTheDisk);
  Launch what{*seat.pool, seat.now.slot, seat.now.epoch, seat.now.name, seat.server, output_of(seat)};
  auto started = co_await io::race(loop_, runtimes_.of(seat.now.origin).start(std::move(what)), until_leaving(seat));
  if (!started.a && seat.leaving) co_return false;
  if (!started.a) co_return complain(seat, started.a.error());
  running = std::move(*started.a);
  seat.complaint.clear();
  seat.ran = true;
  seat.now.endpoint = running->endpoint();
  seat.now.pid = running->pid();
  seat.now.container = running->container();
  seat.launched = loop_.now();
  announce(seat, seat.leaving ? State::draining : State::running);
  base::log::info("{} (slot {}) {}, {}", seat.now.name, seat.now.slot, balance::is_owned(seat.now.origin) ? "started" : "is taken in", place_of(seat.now));
  if (seat.now.pid != 0) save_children();
  co_return true;
}

// The value means nothing.
Async<bool> Fleet::until_leaving(Seat& seat) {
  while (!seat.leaving) {
    const Code woken = co_await seat.changed.wait(loop_);
    if (woken == Code::cancelled) break;
  }
  co_return true;
}

// Below half healthy (settable), checks are less believable than replicas; one replica alone is no majority.
bool Fleet::in_panic(const Seats& seats, const config::Pool& pool) const {
  std::uint64_t good = 0;
  std::uint64_t living = 0;
  for (const auto& [slot, seat] : seats) {
    good += seat->now.healthy ? 1 : 0;
    living += seat->now.healthy || seat->unhealthy_since != base::kNever ? 1 : 0;
  }
  return living > 1 && good * 100 < living * pool.health.panic_below_percent;
}

// Whether one that is unhealthy for long enough may be killed for it. Checks can be wrong, and work counts more: see
// docs/decisions/0011-who-is-killed-for-bad-health.md.
bool Fleet::may_replace(const Seat& seat) const {
  const Seats& seats = pools_.find(seat.now.pool)->second;
  const auto replacing = std::ranges::count_if(seats, [](const auto& entry) { return entry.second->replacing; });
  const config::Health& health = seat.pool->health;
  const std::size_t most = health.max_unavailable_percent ? seats.size() * health.max_unavailable / 100 : health.max_unavailable;
  if (static_cast<std::size_t>(replacing) >= std::max<std::size_t>(1, most)) return false;
  const Work work = engine_.work(seat.now.cell);
  if (work.failures > seat.work_before.failures) return true;
  return work.in_flight == 0 && !in_panic(seats, *seat.pool);
}

// When it is to be looked at again; now or earlier: it is to be replaced.
base::Time Fleet::replacement_due(Seat& seat) {
  if (seat.ready_since == base::kNever) {
    return seat.pool->start_timeout == Duration::zero() ? base::kNever : seat.launched + seat.pool->start_timeout;
  }
  if (seat.unhealthy_since == base::kNever) return base::kNever;
  const Work work = engine_.work(seat.now.cell);
  if (work.good_while_ill != seat.work_before.good_while_ill) {  // it serves, whatever its checks say
    seat.unhealthy_since = loop_.now();
    seat.work_before = work;
  }
  const base::Time due = seat.unhealthy_since + seat.pool->health.kill_after;
  if (loop_.now() < due || may_replace(seat)) return due;
  static constexpr Duration kLookAgain = 100ms;
  return loop_.now() + kLookAgain;
}

// Until it is to leave, or to be replaced, or has not registered again. The value means nothing.
Async<bool> Fleet::until_unwanted(Seat& seat) {
  const bool owned = balance::is_owned(seat.now.origin);
  while (!seat.leaving) {
    base::Time deadline = seat.expires;
    if (loop_.now() >= deadline) {
      base::log::warning("{} (slot {}) has not registered again in time: taken out", seat.now.name, seat.now.slot);
      leave(SeatPtr(pools_[seat.now.pool].at(seat.now.slot)));
      save();
      break;
    }
    if (owned) deadline = std::min(deadline, replacement_due(seat));
    if (owned && loop_.now() >= deadline) {
      seat.replacing = seat.ready_since != base::kNever;  // at once: another seat may be judged in this very turn
      break;
    }
    if (owned && seat.ready_since == base::kNever && !seat.said_late) {
      const base::Time late = seat.launched + seat.pool->ready_timeout;
      if (loop_.now() >= late) {
        base::log::warning("{} (slot {}) is still not ready: nothing good at {} so far", seat.now.name, seat.now.slot, seat.pool->health.path);
        seat.said_late = true;
        continue;
      }
      deadline = std::min(deadline, late);
    }
    const Code woken = co_await seat.changed.wait(loop_, deadline);
    if (woken == Code::cancelled) break;
  }
  co_return true;
}

// Unrouted by every worker, then nothing in flight.
Async<void> Fleet::drain(Seat& seat, Running& running) {
  co_await await_seen(seat.left_at, base::kNever);  // while no engine is up, a planned step waits
  const base::Time deadline = loop_.now() + seat.pool->drain;
  while (engine_.work(seat.now.cell).in_flight > 0 && loop_.now() < deadline && !stopping_) {
    const auto ended = co_await running.wait(loop_.now() + 5ms);
    if (ended) co_return;
  }
}

Async<void> Fleet::end(Seat& seat, Running& running) {
  running.terminate();
  const auto ended = co_await running.wait(loop_.now() + seat.pool->grace);
  if (!ended) {
    base::log::warning("{} (slot {}) did not end within its grace: killed", seat.now.name, seat.now.slot);
    running.kill();
    co_await running.wait(base::kNever);
  }
  base::log::info("{} (slot {}) {}", seat.now.name, seat.now.slot, balance::is_owned(seat.now.origin) ? "stopped" : "is taken out");
}

// Prepares the seat for its next occupant and says how long to wait before starting it.
Duration Fleet::next_epoch(Seat& seat) {
  const Duration was_ready = seat.ready_since == base::kNever ? Duration::zero() : loop_.now() - seat.ready_since;
  if (was_ready >= 10s) seat.back_off = Duration::zero();
  seat.early_deaths = was_ready >= 500ms ? 0 : seat.early_deaths + 1;
  seat.now.epoch = take_epoch(seat.now.pool, seat.now.slot);
  if (seat.ran || seat.name_taken) seat.now.name = free_name(pools_[seat.now.pool]);  // what never ran has not died
  seat.ran = seat.name_taken = false;
  seat.now.pid = 0;
  seat.now.container.clear();
  seat.now.healthy = false;
  if (seat.early_deaths < 3) return Duration::zero();
  seat.back_off = seat.back_off == Duration::zero() ? Duration(100ms) : std::min<Duration>(30s, seat.back_off * 2);
  return Duration(static_cast<std::int64_t>(static_cast<double>(seat.back_off.count()) * (0.75 + 0.5 * loop_.random().unit())));
}

Async<void> Fleet::rest(Seat& seat, Duration pause) {
  base::log::warning("slot {} of pool {} keeps failing: next try in {:.1f} s", seat.now.slot, seat.now.pool, base::to_ms(pause) / 1000);
  seat.now.endpoint = {};
  seat.now.exited = false;
  announce(seat, State::backing_off);
  const base::Time until = loop_.now() + pause;
  while (!seat.leaving && loop_.now() < until) {
    const Code woken = co_await seat.changed.wait(loop_, until);
    if (woken == Code::cancelled) co_return;
  }
}

// --- from the engine ---

void Fleet::health(const link::Health& report) {
  const auto pool = pools_.find(report.pool);
  if (pool == pools_.end()) return;
  const auto found = pool->second.find(report.slot);
  if (found == pool->second.end() || found->second->now.epoch != report.epoch) return;
  Seat& seat = *found->second;
  if (report.ready && seat.ready_since == base::kNever) seat.ready_since = loop_.now();
  if (report.ready) {
    seat.unhealthy_since = base::kNever;
    seat.replacing = false;
  } else if (seat.now.healthy) {
    seat.unhealthy_since = loop_.now();
    seat.work_before = engine_.work(seat.now.cell);
  }
  seat.now.healthy = report.ready;
  seat.changed.notify();
  news_.notify();
}

// The next one counts from nothing, and has its own opinion.
void Fleet::engine_lost() {
  seen_ = 0;
  for (const auto& [name, seats] : pools_) {
    for (const auto& [slot, seat] : seats) {
      if (seat->unhealthy_since == base::kNever) continue;
      seat->unhealthy_since = loop_.now();
      seat->work_before = {};
    }
  }
}

void Fleet::seen(std::uint64_t generation) {
  seen_ = generation;
  news_.notify();
}

link::Snapshot Fleet::snapshot() const {
  link::Snapshot snapshot{generation_, {}};
  for (const auto& [name, seats] : pools_) {
    for (const auto& [slot, seat] : seats) snapshot.replicas.push_back(seat->now);
  }
  for (const SeatPtr& seat : leaving_) snapshot.replicas.push_back(seat->now);
  return snapshot;
}

// --- everything together ---

Desired Fleet::desired() const {
  Desired desired;
  for (const auto& [name, seats] : pools_) {
    const config::Pool* pool = config_.find_pool(name);
    DesiredPool& to = desired[name];
    to.configured = pool->replicas;
    to.containers = pool->containers;
    for (const auto& [slot, seat] : seats) {
      const std::string server = balance::is_owned(seat->now.origin) ? "" : base::to_string(seat->server);
      const auto ttl_ms = static_cast<std::uint64_t>(seat->ttl / 1ms);
      if (!seat->pending && !seat->removing) to.slots.push_back({slot, seat->now.epoch, seat->now.name, seat->now.origin, server, ttl_ms});
    }
  }
  return desired;
}

void Fleet::save() {
  ++changes_;
  change_.notify();
}

// Awaits that what is desired now is on the disk. False: it could not be written, or not in time.
Async<bool> Fleet::saved(base::Time deadline) {
  const std::uint64_t mine = ++changes_;
  change_.notify();
  while (changes_written_ < mine) {
    const Code woken = co_await written_.wait(loop_, deadline);
    if (woken != Code::ok) co_return false;
  }
  co_return !write_failed_;
}

// Off the loop's thread, since a disk may take its time.
Async<void> Fleet::keep_saving() {
  static constexpr Duration kAgain = 1s;  // what could not be written
  while (!finishing_ || changes_written_ != changes_) {
    if (changes_written_ == changes_) {
      const Code woken = co_await change_.wait(loop_, write_failed_ ? loop_.now() + kAgain : base::kNever);
      if (woken == Code::cancelled) break;
      if (woken == Code::timeout) ++changes_;
      continue;
    }
    const std::uint64_t upto = changes_;
    const std::string text = StateFile::text_of(desired());
    bool good = false;
    auto writing = loop_.background([&] { good = state_.save(text); });
    const bool begun = co_await writing;
    if (!begun) break;
    write_failed_ = !good;
    changes_written_ = upto;
    written_.notify();
  }
  saving_ended_ = true;
  written_.notify();
}

// Of the processes that run now.
void Fleet::save_children() {
  std::vector<std::int64_t> pids;
  const auto add = [&](const Seat& seat) {
    if (seat.now.pid != 0) pids.push_back(seat.now.pid);
  };
  for (const auto& [name, seats] : pools_) {
    for (const auto& [slot, seat] : seats) add(*seat);
  }
  for (const SeatPtr& seat : leaving_) add(*seat);
  state_.save_children(pids);
}

Async<bool> Fleet::stop() {
  stopping_ = true;
  for (auto& [name, seats] : pools_) {
    for (auto& [slot, seat] : seats) {
      seat->leaving = seat->at_once = true;
      seat->changed.notify();
    }
  }
  news_.notify();
  // Not cancelled: each fiber sees its process to the end.
  co_await scope_.join();
  finishing_ = true;
  if (write_failed_) ++changes_;  // once more
  change_.notify();
  static constexpr Duration kForTheLastWrite = 3s;
  const base::Time deadline = loop_.now() + kForTheLastWrite;
  while (!saving_ended_) {
    const Code woken = co_await written_.wait(loop_, deadline);
    if (woken == Code::timeout) co_return false;
  }
  co_await saving_.join();
  co_return true;
}

}  // namespace ringmaster::supervise
