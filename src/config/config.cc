#include "config/config.h"

#include <algorithm>

namespace ringmaster::config {

std::string Pool::initial_name(unsigned slot) const { return slot <= names.size() ? names[slot - 1] : "Server " + std::to_string(slot); }

bool Pool::fits_ring(const std::vector<unsigned>& slots) const {
  std::uint64_t needed = 0;
  for (const unsigned slot : slots) needed += std::uint64_t{weight(slot)} * ring.virtual_servers;
  return policy != balance::Policy::ring || needed <= ring.slots;
}

bool Pool::on_unix_socket() const {
  const auto has = [&](std::string_view placeholder) {
    return std::ranges::any_of(command, [&](const std::string& word) { return word.contains(placeholder); });
  };
  return has("{socket}") || (listen_fds && !has("{port}"));
}

const Queue* Config::find_queue(std::string_view name) const {
  const auto found = std::ranges::find(queues, name, &Queue::name);
  return found == queues.end() ? nullptr : &*found;
}

const Pool* Config::find_pool(std::string_view name) const {
  const auto found = std::ranges::find(pools, name, &Pool::name);
  return found == pools.end() ? nullptr : &*found;
}

}  // namespace ringmaster::config
