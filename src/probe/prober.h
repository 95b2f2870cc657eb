// Active health checks: decides which replicas are ready. One fiber per replica, on the engine's control thread.
//
//   starting ──one good check──▶ ready ──`fall` bad ones in a row, or a refused connect──▶ unhealthy
//                                  ▲                                                          │
//                                  └───────────────── `rise` good ones in a row ◀─────────────┘
//
// While a replica starts it is checked at once and then every 5 ms, growing to 250 ms; later every `interval`. A pool whose
// checks are for idle times only (CONTRACT S4) has none while requests pass: then a failed request takes the replica out,
// and one good check brings it back.
//
// Beside that, a replica whose answers are errors is ejected for a while (workers count, failing() decides): 30 s, growing
// with each time, and never more than half of a pool.
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "balance/view.h"
#include "config/config.h"
#include "io/loop.h"

namespace ringmaster::probe {

class Prober {
 public:
  using Record = std::shared_ptr<balance::Replica>;
  // Called when a replica has become ready, or has stopped being so, or is not worth waiting for any more.
  using Report = std::function<void(const Record&, bool ready)>;

  Prober(io::Loop& loop, Report report);
  ~Prober();

  // `settings` outlive the watching.
  void watch(const Record& replica, const config::Pool& settings);
  void forget(const Record& replica);
  // A worker could not connect, or lost a connection: check now.
  void suspect(const Record& replica);
  // Its answers are errors: it is ejected for a while; or, if it is checked only when idle, inactive until a check succeeds.
  void failing(const Record& replica);

  io::Async<void> stop();

 private:
  struct Subject {
    io::Scope scope;
    io::Signal wanted;  // a check is wanted now
    const config::Pool& settings;
    std::uint32_t ejections = 0;  // in a row, more or less
    bool spared = false;          // it should be ejected, but too many are: said once
    Subject(io::Loop& loop, const config::Pool& its_settings) : scope(loop), settings(its_settings) {}
  };
  enum class Check : std::uint8_t { good, bad, refused, broken, unknown };

  io::Async<void> follow(Record replica, const config::Pool& pool, io::Signal& wanted);
  io::Async<Check> settle(const Record& replica, const config::Pool& pool, io::Signal& wanted);
  io::Async<void> return_later(Record replica, base::Duration after);
  io::Async<bool> until_started(const Record& record, const config::Pool& pool, io::Signal& wanted);
  io::Async<Check> check(const balance::Replica& replica, const config::Pool& pool);
  void decide(const Record& replica, balance::Phase phase);
  void warm_up(balance::Replica& replica);
  io::Async<void> bury(std::unique_ptr<Subject> subject);

  io::Loop& loop_;
  Report report_;
  std::map<const balance::Replica*, std::unique_ptr<Subject>> subjects_;
  bool stopped_ = false;
  io::Scope graveyard_;  // joins the fibers of those that were forgotten
};

}  // namespace ringmaster::probe
