// The master's side of all replicas: which slots there are, and the life of what sits in each.
//
//                 ┌────────────── died: the next epoch, with a new random name ─────────────┐
//                 ▼                                                                          │
//   starting ─▶ running ──────────────────────────────────────────────────────────────▶ (its end) ──▶ backing_off
//                 │ remove()                                                                 ▲           (too many
//                 └─▶ draining: unrouted by the engine ─▶ nothing in flight ─▶ SIGTERM ─▶ grace ─▶ SIGKILL   early deaths)
//
// Each seat has a fiber, keep(), that reads like the picture. The fleet tells the engine every change and learns from it
// what is healthy and which changes its workers follow. One thread, the master's.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>

#include "config/config.h"
#include "io/turns.h"
#include "link/messages.h"
#include "supervise/line_budget.h"
#include "supervise/output_log.h"
#include "supervise/runtime.h"
#include "supervise/state_file.h"

namespace ringmaster::supervise {

// What a replica has done and does, as the counters tell.
struct Work {
  std::uint32_t in_flight = 0;
  std::uint64_t failures = 0;        // no usable answer
  std::uint32_t good_while_ill = 0;  // good answers while its checks failed
};

class Fleet {
 public:
  // How the fleet reaches the engine, if there is one.
  struct Engine {
    std::function<void(std::uint64_t generation, const link::ReplicaState&)> changed;
    std::function<Work(std::uint32_t cell)> work;  // of the engine that lives; nothing while there is none
  };

  Fleet(io::Loop& loop, const config::Config& config, Runtimes runtimes, StateFile& state, Engine engine);
  ~Fleet();

  // Seats everybody: as configured, or as the last master left it. Nothing is started yet.
  void seat_all(const Desired& saved);
  // Starts who was seated. After it the fleet lives until stop().
  void start();
  // Awaits that all who were seated have been asked for: then the runtimes know who is wanted.
  io::Async<void> until_asked_for();

  // The two changes of membership, one at a time; others wait their turn. The outcome's detail is for the caller; what
  // was refused has changed nothing.
  io::Async<link::Outcome> add(std::string pool, std::int64_t count, std::vector<std::string> names);
  io::Async<link::Outcome> remove(std::string pool, std::int64_t count, std::vector<std::string> names);
  // As many as that: adds, or removes those in the highest slots.
  io::Async<link::Outcome> resize(std::string pool, std::int64_t size);

  // Servers that run without us. What registers again, or moves to another address under its name, is the same server.
  io::Async<link::Outcome> server_up(link::Command command);
  io::Async<link::Outcome> server_down(link::Command command);
  // Those of the configuration's entry `listed` are now at these addresses.
  void set_servers(const config::Pool& pool, const std::string& listed, const std::vector<base::Endpoint>& endpoints);

  // What the replica of this name has written of late, from line `since` on; the outcome's `next` is for the next call.
  link::Outcome output(const std::string& pool, const std::string& name, std::uint64_t since) const;

  // From the engine.
  void health(const link::Health& report);
  void seen(std::uint64_t generation);
  void engine_lost();

  link::Snapshot snapshot() const;

  // Ends all replicas (SIGTERM, grace, SIGKILL). The engine must have stopped. False: the disk has not taken the set for some
  // seconds, and a thread still waits for it: the process can only be ended, not wound up.
  io::Async<bool> stop();

 private:
  struct Seat {
    const config::Pool* pool;
    link::ReplicaState now;
    bool leaving = false;
    bool at_once = false;  // leave without waiting for the engine
    bool pending = false;  // added, and not confirmed yet: not to be restored
    bool said_late = false;
    base::Time launched{};
    std::uint64_t left_at = 0;  // the generation that unrouted it
    io::Signal changed;         // health, or leaving
    base::Time ready_since = base::kNever;
    base::Time unhealthy_since = base::kNever;
    Work work_before;        // when it became unhealthy
    bool replacing = false;  // killed for being unhealthy, and its successor is not ready yet
    unsigned early_deaths = 0;
    base::Duration back_off{};
    bool ran = false;         // in this epoch
    bool name_taken = false;  // by somebody else, outside of the pool
    std::string complaint;    // why it could not be started, as last logged
    bool removing = false;    // chosen to be removed, as soon as that is saved
    std::shared_ptr<OutputLog> output = std::make_shared<OutputLog>();
    std::shared_ptr<LineBudget> lines;  // of its output
    // Of servers that run without us:
    base::Endpoint server;
    std::string listed;  // the configuration's entry that it comes from; empty: it has registered
    base::Duration ttl{};
    base::Time expires = base::kNever;
  };
  using SeatPtr = std::shared_ptr<Seat>;
  using Seats = std::map<std::uint32_t, SeatPtr>;

  SeatPtr seat(const config::Pool& pool, std::uint32_t slot, std::string name, balance::Origin origin);
  void seat_started(const config::Pool& pool, const DesiredPool* saved);
  void seat_registered(const config::Pool& pool, const DesiredPool& saved);
  std::uint64_t take_epoch(const std::string& pool, std::uint32_t slot) { return ++epochs_[{pool, slot}]; }
  io::Async<void> keep(SeatPtr seat);
  io::Async<bool> run(Seat& seat);  // true: it ended by itself
  io::Async<bool> until_unwanted(Seat& seat);
  io::Async<void> drain(Seat& seat, Running& running);
  io::Async<void> end(Seat& seat, Running& running);
  io::Async<void> rest(Seat& seat, base::Duration pause);
  base::Duration next_epoch(Seat& seat);
  io::Async<bool> launch(Seat& seat, std::unique_ptr<Running>& running);
  io::Async<bool> until_leaving(Seat& seat);
  bool complain(Seat& seat, const base::Error& error);
  std::function<void(std::string_view)> output_of(const Seat& seat);
  struct Newcomer {
    base::Endpoint server;
    std::string name;  // empty: made of the address
    balance::Origin origin;
    std::string listed;
    base::Duration ttl{};
  };
  SeatPtr take_in(const config::Pool& pool, const Newcomer& newcomer);
  void renew(Seat& seat, base::Duration ttl);
  base::Result<void> has_room(const config::Pool& pool, std::size_t more) const;
  std::string name_of_server(const Seats& seats, const base::Endpoint& server) const;

  io::Async<link::Outcome> add_in_turn(std::string pool, std::int64_t count, std::vector<std::string> names);
  io::Async<link::Outcome> remove_in_turn(std::string pool, std::int64_t count, std::vector<std::string> names);
  io::Async<void> await_seen(std::uint64_t generation, base::Time deadline);
  struct Added {
    SeatPtr seat;
    std::string name;  // as asked for; a death gives the seat another
  };
  io::Async<std::string> await_ready(const std::vector<Added>& added, base::Duration time_max);
  link::Outcome register_server(const link::Command& command);
  link::Outcome refuse(base::Code code, std::string detail) const;
  link::Outcome done(const Seats& seats) const;
  base::Result<void> check_names(const config::Pool& pool, const Seats& seats, const std::vector<std::string>& names, bool must_exist) const;
  std::string free_name(const Seats& seats);
  void announce(Seat& seat, link::State state);
  void leave(const SeatPtr& seat);
  bool in_panic(const Seats& seats, const config::Pool& pool) const;
  bool may_replace(const Seat& seat) const;
  base::Time replacement_due(Seat& seat);
  Desired desired() const;
  void save();
  io::Async<bool> saved(base::Time deadline = base::kNever);
  io::Async<void> keep_saving();
  void save_children();
  std::uint32_t take_cell();

  io::Loop& loop_;
  const config::Config& config_;
  Runtimes runtimes_;
  StateFile& state_;
  Engine engine_;
  std::map<std::string, Seats, std::less<>> pools_;
  std::vector<SeatPtr> leaving_;
  std::vector<bool> cells_;
  std::set<std::string> left_out_;  // listed servers for which there is no room, as last logged
  // Where servers of the configuration sat when the last master lived, by pool and address.
  std::map<std::pair<std::string, std::string>, std::uint32_t> old_slots_;
  std::uint64_t lines_ = 0;  // of output so far
  // Epochs count on over everything that ever sat in a slot, so that no socket's path is ever used twice.
  std::map<std::pair<std::string, std::uint32_t>, std::uint64_t> epochs_;
  std::uint64_t generation_ = 0;
  std::uint64_t seen_ = 0;  // 0: no engine follows
  io::Signal news_;         // a generation was seen, or a seat became ready
  io::Turns turns_;         // of add() and remove()
  bool stopping_ = false;
  // Changes of the desired set, counted; one write has all that have gathered while the last one ran.
  std::uint64_t changes_ = 0;
  std::uint64_t changes_written_ = 0;
  bool write_failed_ = false;
  io::Signal change_;
  io::Signal written_;
  bool finishing_ = false;  // nothing will change any more
  bool saving_ended_ = false;
  io::Scope scope_;
  io::Scope saving_;
};

}  // namespace ringmaster::supervise
