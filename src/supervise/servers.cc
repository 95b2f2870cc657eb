// Fleet's servers that run without us: those that the configuration lists, and those that register themselves.
#include <algorithm>

#include "base/log.h"
#include "base/names.h"
#include "supervise/fleet.h"

namespace ringmaster::supervise {

using balance::Origin;
using base::Code;
using base::Endpoint;
using link::Outcome;

// "10.0.0.7-80": an address in the letters that names may have.
std::string Fleet::name_of_server(const Seats& seats, const Endpoint& server) const {
  std::string text = base::to_string(server);
  std::erase_if(text, [](char c) { return c == '[' || c == ']'; });
  std::ranges::replace(text, ':', '-');
  if (text.starts_with('-')) text.insert(0, "0");  // of an address like ::1
  std::string name = text;
  const auto taken = [&](const auto& entry) { return entry.second->now.name == name; };
  for (int more = 2; std::ranges::any_of(seats, taken); ++more) name = text + "." + std::to_string(more);
  return name;
}

// Seats it: where it sat before, if that is free, else in the lowest free slot.
Fleet::SeatPtr Fleet::take_in(const config::Pool& pool, const Endpoint& server, const std::string& name, Origin origin) {
  Seats& seats = pools_[pool.name];
  std::uint32_t slot = 1;
  while (seats.contains(slot)) ++slot;
  if (const auto old = old_slots_.find({pool.name, base::to_string(server)}); old != old_slots_.end() && !seats.contains(old->second)) slot = old->second;
  const SeatPtr made = seats[slot] = seat(pool, slot, name.empty() ? name_of_server(seats, server) : name, origin);
  made->server = server;
  scope_.spawn(keep(made));
  return made;
}

Outcome Fleet::server_up(const link::Command& command) {
  const config::Pool* pool = config_.find_pool(command.pool);
  if (pool == nullptr || !pool->registration.allowed) return refuse(Code::not_found, "servers do not register with pool '" + command.pool + "'");
  if (stopping_) return refuse(Code::unavailable, "Ringmaster is stopping");
  if (!base::any_contains(pool->registration.from, command.endpoint)) return refuse(Code::denied, "that address is not in an allowed network");
  const std::string name = command.names.empty() ? "" : command.names[0];
  Seats& seats = pools_[pool->name];
  const auto find = [&](const auto& is) {
    const auto found = std::ranges::find_if(seats, [&](const auto& entry) { return is(*entry.second); });
    return found == seats.end() ? nullptr : found->second;
  };
  SeatPtr seat = find([&](const Seat& s) { return !balance::is_owned(s.now.origin) && s.server == command.endpoint; });
  const SeatPtr namesake = name.empty() ? nullptr : find([&](const Seat& s) { return s.now.name == name; });
  if (seat != nullptr && (name.empty() || namesake == seat || seat->now.origin == Origin::server)) {
    if (command.ttl > base::Duration::zero()) seat->expires = loop_.now() + command.ttl;
    seat->changed.notify();
    return done(seats);
  }
  if (namesake != nullptr && namesake->now.origin != Origin::registered) return refuse(Code::exists, "the name '" + name + "' is taken");
  if (namesake == nullptr && seat == nullptr) {
    if (const auto room = has_room(*pool, 1); !room) return refuse(room.error().code, room.error().detail);
  }
  // It has moved, or has another name now: what it was before is gone.
  if (namesake != nullptr) {
    base::log::info("{} has moved from {} to {}", name, base::to_string(namesake->server), base::to_string(command.endpoint));
    leave(namesake);
  }
  if (seat != nullptr) leave(seat);
  seat = take_in(*pool, command.endpoint, name, Origin::registered);
  seat->ttl = command.ttl;
  if (command.ttl > base::Duration::zero()) seat->expires = loop_.now() + command.ttl;
  save();
  return done(seats);
}

Outcome Fleet::server_down(const link::Command& command) {
  const auto pool = pools_.find(command.pool);
  if (pool == pools_.end()) return refuse(Code::not_found, "there is no pool '" + command.pool + "'");
  for (const auto& [slot, seat] : pool->second) {
    if (seat->now.origin != Origin::registered || seat->server != command.endpoint) continue;
    leave(SeatPtr(seat));
    save();
    return done(pool->second);
  }
  return refuse(Code::not_found, "no server has registered from " + base::to_string(command.endpoint));
}

void Fleet::set_servers(const config::Pool& pool, const std::string& listed, const std::vector<Endpoint>& endpoints) {
  if (stopping_) return;
  Seats& seats = pools_[pool.name];
  std::vector<SeatPtr> gone;
  std::vector<Endpoint> fresh = endpoints;
  for (const auto& [slot, seat] : seats) {
    if (seat->now.origin != Origin::server) continue;
    const bool still = std::ranges::find(endpoints, seat->server) != endpoints.end();
    std::erase(fresh, seat->server);  // whichever entry it comes from: nobody is in a pool twice
    if (seat->listed == listed && !still) gone.push_back(seat);
  }
  if (gone.empty() && fresh.empty()) return;
  for (const SeatPtr& seat : gone) leave(seat);
  for (const Endpoint& endpoint : fresh) {
    if (const auto room = has_room(pool, 1); !room) {
      base::log::error("{} of pool {} is left out: {}", base::to_string(endpoint), pool.name, room.error().detail);
      continue;
    }
    take_in(pool, endpoint, "", Origin::server)->listed = listed;
  }
  save();
}

// About 100 KiB: what a message over the link may have.
Outcome Fleet::output(const std::string& pool, const std::string& name, std::uint64_t since) const {
  static constexpr std::size_t kBytesMax = 100 << 10;
  const auto seats = pools_.find(pool);
  if (seats == pools_.end()) return refuse(Code::not_found, "there is no pool '" + pool + "'");
  Outcome outcome;
  outcome.next = lines_ + 1;
  bool known = false;
  std::size_t bytes = 0;
  const auto collect = [&](const Seat& seat) {
    known |= seat.now.name == name;
    for (const OutputLog::Line& line : seat.output->lines()) {
      known |= line.name == name;
      if (line.name != name || line.number < since || bytes + line.text.size() > kBytesMax) continue;
      bytes += line.text.size();
      outcome.names.push_back(line.text);
    }
  };
  for (const auto& [slot, seat] : seats->second) collect(*seat);
  for (const SeatPtr& seat : leaving_) {
    if (seat->now.pool == pool) collect(*seat);
  }
  if (!known) return refuse(Code::not_found, "there is no replica '" + base::log::printable(name, 80) + "', and none has written under that name of late");
  return outcome;
}

}  // namespace ringmaster::supervise
