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

// Seats it: where the last master had it, if that is free, else in the lowest free slot.
Fleet::SeatPtr Fleet::take_in(const config::Pool& pool, const Newcomer& newcomer) {
  Seats& seats = pools_[pool.name];
  std::uint32_t slot = 1;
  while (seats.contains(slot)) ++slot;
  const auto old = old_slots_.find({pool.name, base::to_string(newcomer.server)});
  if (old != old_slots_.end() && !seats.contains(old->second)) slot = old->second;
  const std::string name = newcomer.name.empty() ? name_of_server(seats, newcomer.server) : newcomer.name;
  const SeatPtr made = seats[slot] = seat(pool, slot, name, newcomer.origin);
  made->server = newcomer.server;
  made->listed = newcomer.listed;
  renew(*made, newcomer.ttl);
  scope_.spawn(keep(made));
  return made;
}

void Fleet::renew(Seat& seat, base::Duration ttl) {
  seat.ttl = ttl;
  seat.expires = ttl > base::Duration::zero() ? loop_.now() + ttl : base::kNever;
  seat.changed.notify();
}

// A disk that is full keeps nobody out: whoever registers does so again after a restart, if need be.
io::Async<Outcome> Fleet::server_up(link::Command command) {
  const std::uint64_t before = changes_;
  Outcome outcome = register_server(command);
  if (changes_ != before) co_await saved();
  co_return outcome;
}

Outcome Fleet::register_server(const link::Command& command) {
  const config::Pool* pool = config_.find_pool(command.pool);
  if (pool == nullptr || !pool->registration.allowed) return refuse(Code::not_found, "servers do not register with pool '" + command.pool + "'");
  if (stopping_) return refuse(Code::unavailable, "Ringmaster is stopping");
  if (!base::any_contains(pool->registration.from, command.endpoint)) return refuse(Code::denied, "that address is not in an allowed network");
  const std::string name = command.names.empty() ? "" : command.names[0];
  if (!name.empty() && !base::is_replica_name(name)) return refuse(Code::invalid, "that is no name for a server");
  Seats& seats = pools_[pool->name];
  const auto find = [&](const auto& is) {
    const auto found = std::ranges::find_if(seats, [&](const auto& entry) { return is(*entry.second); });
    return found == seats.end() ? nullptr : found->second;
  };
  const SeatPtr known = find([&](const Seat& s) { return !balance::is_owned(s.now.origin) && s.server == command.endpoint; });
  const SeatPtr namesake = name.empty() ? nullptr : find([&](const Seat& s) { return s.now.name == name; });
  if (known != nullptr && known->now.origin == Origin::server) return done(seats);  // the configuration knows it already
  if (known != nullptr && (name.empty() || namesake == known)) {
    renew(*known, command.ttl);
    return done(seats);
  }
  if (namesake != nullptr && (namesake->now.origin != Origin::registered || namesake->now.healthy)) {
    return refuse(Code::exists, "the name '" + name + "' belongs to another server, which is well");
  }
  if (known == nullptr && pool->registration.token.empty()) {
    const auto is_neighbour = [&](const auto& entry) {
      const Seat& seat = *entry.second;
      return seat.now.origin == Origin::registered && seat.server.family == command.endpoint.family && seat.server.address == command.endpoint.address;
    };
    const auto neighbours = std::ranges::count_if(seats, is_neighbour) - (namesake != nullptr && is_neighbour(std::pair(0, namesake)) ? 1 : 0);
    if (neighbours >= pool->registration.per_peer_max) {
      return refuse(Code::too_large,
                    "there are " + std::to_string(neighbours) + " servers at that address already; a token would lift the limit (per_peer_max)");
    }
  }
  if (namesake == nullptr && known == nullptr) {
    if (const auto room = has_room(*pool, 1); !room) return refuse(room.error().code, room.error().detail);
  }
  // It has moved, or has another name now: what it was before is gone.
  if (namesake != nullptr) {
    base::log::info("{} has moved from {} to {}", name, base::to_string(namesake->server), base::to_string(command.endpoint));
    leave(namesake);
  }
  if (known != nullptr) leave(known);
  take_in(*pool, {command.endpoint, name, Origin::registered, "", command.ttl});
  save();
  return done(seats);
}

io::Async<Outcome> Fleet::server_down(link::Command command) {
  const auto pool = pools_.find(command.pool);
  if (pool == pools_.end()) co_return refuse(Code::not_found, "there is no pool '" + command.pool + "'");
  for (const auto& [slot, seat] : pool->second) {
    if (seat->now.origin != Origin::registered || seat->server != command.endpoint) continue;
    leave(SeatPtr(seat));
    co_await saved();
    co_return done(pool->second);
  }
  co_return refuse(Code::not_found, "no server has registered from " + base::to_string(command.endpoint));
}

void Fleet::set_servers(const config::Pool& pool, const std::string& listed, const std::vector<Endpoint>& endpoints) {
  if (stopping_) return;
  std::vector<SeatPtr> gone;
  std::vector<Endpoint> fresh = endpoints;
  for (const auto& [slot, seat] : pools_[pool.name]) {
    const bool named = std::ranges::find(endpoints, seat->server) != endpoints.end();
    if (seat->now.origin == Origin::registered && named) gone.push_back(seat);  // from now on the configuration's: nobody is in a pool twice
    if (seat->now.origin != Origin::server) continue;
    std::erase(fresh, seat->server);
    if (seat->listed == listed && !named) gone.push_back(seat);  // if another entry has it, that one's next turn brings it back
  }
  bool changed = !gone.empty();
  for (const SeatPtr& seat : gone) leave(seat);
  for (const Endpoint& endpoint : fresh) {
    const std::string place = pool.name + " " + base::to_string(endpoint);
    if (const auto room = has_room(pool, 1); !room) {
      if (left_out_.insert(place).second) base::log::error("{} of pool {} is left out: {}", base::to_string(endpoint), pool.name, room.error().detail);
      continue;
    }
    left_out_.erase(place);
    take_in(pool, {endpoint, "", Origin::server, listed, {}});
    changed = true;
  }
  if (changed) save();
}

// At most about 100 KiB at once: a message over the link is no place for more.
Outcome Fleet::output(const std::string& pool, const std::string& name, std::uint64_t since) const {
  static constexpr std::size_t kBytesMax = 100 << 10;
  const auto seats = pools_.find(pool);
  if (seats == pools_.end()) return refuse(Code::not_found, "there is no pool '" + pool + "'");
  std::vector<const OutputLog::Line*> lines;
  bool known = false;
  const auto collect = [&](const Seat& seat) {
    known |= seat.now.name == name;
    for (const OutputLog::Line& line : seat.output->lines()) {
      if (line.name == name) lines.push_back(&line);
    }
  };
  for (const auto& [slot, seat] : seats->second) collect(*seat);
  for (const SeatPtr& seat : leaving_) {
    if (seat->now.pool == pool) collect(*seat);
  }
  if (!known && lines.empty()) {
    return refuse(Code::not_found, "there is no replica '" + base::log::printable(name, 80) + "', and none has written under that name of late");
  }
  std::ranges::sort(lines, {}, &OutputLog::Line::number);
  Outcome outcome;
  outcome.next = lines_ + 1;
  std::size_t bytes = 0;
  for (const OutputLog::Line* line : lines) {
    if (line->number < since) continue;
    bytes += OutputLog::cost(*line);
    if (bytes > kBytesMax) {
      outcome.next = line->number;
      break;
    }
    outcome.names.push_back(line->text);
  }
  return outcome;
}

}  // namespace ringmaster::supervise
