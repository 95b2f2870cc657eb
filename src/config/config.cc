#include "config/config.h"

#include <algorithm>

namespace ringmaster::config {

balance::Origin Pool::initial_origin(unsigned slot) const { return slot > replicas - containers ? balance::Origin::container : balance::Origin::process; }

// A container's name has no spaces.
std::string Pool::initial_name(unsigned slot) const {
  if (slot <= names.size()) return names[slot - 1];
  return (containers > 0 || command.empty() ? "Server" : "Server ") + std::to_string(slot);
}

bool Pool::fits_ring(const std::vector<unsigned>& slots) const {
  std::uint64_t needed = 0;
  for (const unsigned slot : slots) needed += std::uint64_t{weight(slot)} * ring.virtual_servers;
  return policy != balance::Policy::ring || needed <= ring.slots;
}

static bool mentions(const std::vector<std::string>& command, std::string_view placeholder) {
  return std::ranges::any_of(command, [&](const std::string& word) { return word.contains(placeholder); });
}

bool Pool::on_unix_socket() const { return mentions(command, "{socket}") || (listen_fds && !mentions(command, "{port}")); }

bool Container::on_unix_socket() const { return mentions(command, "{socket}"); }

const Queue* Config::find_queue(std::string_view name) const {
  const auto found = std::ranges::find(queues, name, &Queue::name);
  return found == queues.end() ? nullptr : &*found;
}

const Pool* Config::find_pool(std::string_view name) const {
  const auto found = std::ranges::find(pools, name, &Pool::name);
  return found == pools.end() ? nullptr : &*found;
}

}  // namespace ringmaster::config
