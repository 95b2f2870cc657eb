// Fleet's changes of membership: add and remove, with the answers that the classic API gives for bad input.
#include <algorithm>
#include <set>

#include "base/log.h"
#include "base/names.h"
#include "supervise/fleet.h"

namespace ringmaster::supervise {

using balance::Origin;
using base::Code;
using base::Duration;
using base::Result;
using io::Async;
using link::Outcome;
using link::State;
using namespace std::chrono_literals;

Outcome Fleet::refuse(Code code, std::string detail) const { return {0, code, std::move(detail), {}}; }

Outcome Fleet::done(const Seats& seats) const {
  Outcome outcome;
  for (const auto& [slot, seat] : seats) outcome.names.push_back(seat->now.name);
  return outcome;
}

std::string Fleet::free_name(const Seats& seats) {
  while (true) {
    std::string name = base::random_replica_name(loop_.random());
    if (std::ranges::none_of(seats, [&](const auto& entry) { return entry.second->now.name == name; })) return name;
  }
}

Result<void> Fleet::check_names(const config::Pool& pool, const Seats& seats, const std::vector<std::string>& names, bool must_exist) const {
  std::set<std::string> seen;
  for (const std::string& name : names) {
    const std::string shown = "'" + base::log::printable(name, 80) + "'";
    const auto fixed = [&](const std::string& known) {
      return std::ranges::any_of(seats, [&](const auto& entry) { return entry.second->now.name == known && entry.second->now.origin == Origin::server; });
    };
    const bool exists = std::ranges::any_of(seats, [&](const auto& entry) { return entry.second->now.name == name; });
    if (!base::is_replica_name(name)) {
      return base::fail(Code::invalid, shown + " is not a valid hostname: letters, digits, ' _.-', at most 63, a letter or digit first");
    }
    if (!must_exist && pool.added_origin() == Origin::container && !base::is_container_name(name)) {
      return base::fail(Code::invalid, shown + " is no container's name: at least two characters, without spaces");
    }
    if (!seen.insert(name).second) return base::fail(Code::invalid, "the hostname " + shown + " is given twice");
    if (must_exist && !exists) return base::fail(Code::not_found, "there is no server " + shown);
    if (must_exist && fixed(name)) return base::fail(Code::denied, shown + " is given by the configuration and cannot be removed");
    if (!must_exist && exists) return base::fail(Code::exists, "the hostname " + shown + " is taken");
  }
  return {};
}

// Waits until all are ready; the names of those that are not in time, separated by commas.
Async<std::string> Fleet::await_ready(const std::vector<Added>& added, Duration time_max) {
  const base::Time deadline = loop_.now() + time_max;
  while (true) {
    std::string missing;
    bool hopeless = false;
    for (const Added& one : added) {
      // A name that somebody else has will not become free by waiting; what sits there under another was not asked for.
      const bool renamed = one.seat->name_taken || (one.seat->now.name != one.name && !one.seat->complaint.empty());
      hopeless |= renamed;
      if (one.seat->now.healthy && !renamed) continue;
      missing += (missing.empty() ? "" : ", ") + one.name;
      const std::string why = one.seat->complaint.empty() ? runtimes_.of(one.seat->now.origin).trouble() : one.seat->complaint;
      if (!why.empty()) missing += " (" + why + ")";
    }
    if (missing.empty() || hopeless || stopping_) co_return missing;
    const Code woken = co_await news_.wait(loop_, deadline);
    if (woken != Code::ok) co_return missing;
  }
}

// Out of the set, and unrouted; keep() sees it to its end.
void Fleet::leave(const SeatPtr& seat) {
  pools_[seat->now.pool].erase(seat->now.slot);
  leaving_.push_back(seat);
  seat->leaving = true;
  announce(*seat, State::draining);
  seat->left_at = generation_;
  seat->changed.notify();
}

// Waits until the workers follow what has been announced, so that whoever made a change sees it wherever he asks next.
Async<void> Fleet::await_seen(std::uint64_t generation, base::Time deadline) {
  while (seen_ < generation && !stopping_) {  // while no engine is up, it waits
    const Code woken = co_await news_.wait(loop_, deadline);
    if (woken != Code::ok) co_return;
  }
}

// The slots that are taken once `count` more are seated: freed numbers are refilled first, lowest first.
static std::vector<unsigned> slots_after(const auto& seats, std::size_t count) {
  std::vector<unsigned> slots;
  for (const auto& [slot, seat] : seats) slots.push_back(slot);
  for (unsigned slot = 1; count > 0; ++slot) {
    if (seats.contains(slot)) continue;
    slots.push_back(slot);
    --count;
  }
  return slots;
}

Result<void> Fleet::has_room(const config::Pool& pool, std::size_t more) const {
  const Seats& seats = pools_.find(pool.name)->second;
  if (more > pool.replicas_max || seats.size() + more > pool.replicas_max) {
    return base::fail(Code::too_large, "there can be at most " + std::to_string(pool.replicas_max) + " servers; there are " + std::to_string(seats.size()));
  }
  if (static_cast<std::size_t>(std::ranges::count(cells_, false)) < more) {
    return base::fail(Code::too_large, "too many servers are still draining: try again when they have ended");
  }
  if (!pool.fits_ring(slots_after(seats, more))) {
    return base::fail(Code::too_large, std::to_string(seats.size() + more) + " servers with " + std::to_string(pool.ring.virtual_servers) +
                                           " virtual servers each do not fit the ring of " + std::to_string(pool.ring.slots) + " slots");
  }
  return {};
}

static constexpr auto kNotSaved = "the change could not be saved, and was not made: see the log";

Async<Outcome> Fleet::add(std::string pool, std::int64_t count, std::vector<std::string> names) {
  const auto turn = co_await turns_.take(loop_);
  if (!turn || stopping_) co_return refuse(Code::unavailable, "Ringmaster is stopping");
  auto outcome = co_await add_in_turn(pool, count, names);
  co_return outcome;
}

Async<Outcome> Fleet::add_in_turn(std::string pool_name, std::int64_t count, std::vector<std::string> names) {
  const config::Pool* pool = config_.find_pool(pool_name);
  if (pool == nullptr) co_return refuse(Code::not_found, "there is no pool '" + pool_name + "'");
  // Before anything is started for nothing; and before the checks, since servers may register while it waits.
  const bool writable = co_await saved();
  Seats& seats = pools_[pool_name];
  if (!pool->starts_replicas()) co_return refuse(Code::invalid, "the servers of pool '" + pool_name + "' are not started by Ringmaster");
  if (count < 1) co_return refuse(Code::invalid, "n must be a whole number, 1 or more");
  if (const auto room = has_room(*pool, static_cast<std::size_t>(count)); !room) co_return refuse(room.error().code, room.error().detail);
  if (names.size() > static_cast<std::size_t>(count)) {
    co_return refuse(Code::invalid, "Length of hostname list is more than newly added instances");
  }
  if (const auto checked = check_names(*pool, seats, names, false); !checked) co_return refuse(checked.error().code, checked.error().detail);

  if (!writable) co_return refuse(Code::disk_full, kNotSaved);
  std::vector<Added> added;
  for (std::uint32_t slot = 1; added.size() < static_cast<std::size_t>(count); ++slot) {
    if (seats.contains(slot)) continue;
    const std::string name = added.size() < names.size() ? names[added.size()] : free_name(seats);
    added.push_back({seats[slot] = seat(*pool, slot, name, pool->added_origin()), name});
    added.back().seat->pending = true;
    scope_.spawn(keep(added.back().seat));
  }
  const std::string missing = co_await await_ready(added, pool->ready_timeout);
  for (const Added& one : added) one.seat->pending = !missing.empty();
  bool committed = false;
  if (missing.empty()) committed = co_await saved();
  if (!committed) {
    for (const Added& one : added) leave(one.seat);
    save();
  }
  co_await await_seen(generation_, loop_.now() + 1s);
  if (committed) co_return done(seats);
  if (missing.empty()) co_return refuse(Code::disk_full, kNotSaved);
  co_return refuse(Code::timeout, std::to_string(count) + " servers were to be added, but did not become ready: " + missing);
}

Async<Outcome> Fleet::remove(std::string pool, std::int64_t count, std::vector<std::string> names) {
  const auto turn = co_await turns_.take(loop_);
  if (!turn || stopping_) co_return refuse(Code::unavailable, "Ringmaster is stopping");
  auto outcome = co_await remove_in_turn(pool, count, names);
  co_return outcome;
}

Async<Outcome> Fleet::remove_in_turn(std::string pool_name, std::int64_t count, std::vector<std::string> names) {
  const config::Pool* pool = config_.find_pool(pool_name);
  if (pool == nullptr) co_return refuse(Code::not_found, "there is no pool '" + pool_name + "'");
  Seats& seats = pools_[pool_name];
  if (count < 1) co_return refuse(Code::invalid, "n must be a whole number, 1 or more");
  const auto removable = std::ranges::count_if(seats, [](const auto& entry) { return entry.second->now.origin != Origin::server; });
  if (count > removable) co_return refuse(Code::too_large, "there are only " + std::to_string(removable) + " servers to remove");
  if (names.size() > static_cast<std::size_t>(count)) {
    co_return refuse(Code::invalid, "Length of hostname list is more than removable instances");
  }
  if (const auto checked = check_names(*pool, seats, names, true); !checked) co_return refuse(checked.error().code, checked.error().detail);

  std::vector<SeatPtr> named;
  std::vector<SeatPtr> others;
  for (const auto& [slot, seat] : seats) {
    if (seat->now.origin == Origin::server) continue;
    const bool chosen = std::ranges::find(names, seat->now.name) != names.end();
    (chosen ? named : others).push_back(seat);
  }
  while (named.size() < static_cast<std::size_t>(count)) {
    const auto chosen = others.begin() + loop_.random().below(static_cast<std::uint32_t>(others.size()));
    named.push_back(*chosen);
    others.erase(chosen);
  }
  for (const SeatPtr& seat : named) seat->removing = true;
  const bool committed = co_await saved();
  for (const SeatPtr& seat : named) {
    seat->removing = false;
    if (committed && !seat->leaving) leave(seat);
  }
  if (!committed) {
    save();
    co_return refuse(Code::disk_full, kNotSaved);
  }
  co_await await_seen(generation_, loop_.now() + 1s);
  co_return done(seats);
}

Async<Outcome> Fleet::resize(std::string pool_name, std::int64_t size) {
  const config::Pool* pool = config_.find_pool(pool_name);
  if (pool == nullptr) co_return refuse(Code::not_found, "there is no pool '" + pool_name + "'");
  if (size < 0) co_return refuse(Code::invalid, "n must be a whole number, 0 or more");
  const auto turn = co_await turns_.take(loop_);
  if (!turn || stopping_) co_return refuse(Code::unavailable, "Ringmaster is stopping");
  const Seats& seats = pools_[pool_name];
  const auto now = static_cast<std::int64_t>(seats.size());
  if (size == now) co_return done(seats);
  if (size > now) {
    auto outcome = co_await add_in_turn(pool_name, size - now, {});
    co_return outcome;
  }
  std::vector<std::string> names;
  for (auto seat = seats.rbegin(); seat != seats.rend() && static_cast<std::int64_t>(names.size()) < now - size; ++seat) {
    if (seat->second->now.origin != Origin::server) names.push_back(seat->second->now.name);
  }
  auto outcome = co_await remove_in_turn(pool_name, now - size, names);
  co_return outcome;
}

}  // namespace ringmaster::supervise
