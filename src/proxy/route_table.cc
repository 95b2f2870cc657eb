#include "proxy/route_table.h"

#include <algorithm>
#include <array>

#include "http/characters.h"
#include "http/target.h"

namespace ringmaster::proxy {

using config::Route;

RouteTable::RouteTable(const config::Config& config, const config::Listener& listener) : config_(config) {
  const std::string address = base::to_string(listener.address);
  for (std::size_t i = 0; i < config.routes.size(); ++i) {
    const Route& route = config.routes[i];
    if (!route.listener.empty() && route.listener != address) continue;
    Paths& paths = route.host.empty() ? any_ : route.host.starts_with('*') ? wildcards_[route.host.substr(1)] : hosts_[route.host];
    Candidates& candidates = route.path.empty() ? paths.prefixes[route.prefix] : paths.whole[route.path];
    paths.prefix_bytes_max = std::max(paths.prefix_bytes_max, route.prefix.size());
    // More fields first; equals stay in the order of the file.
    const auto place = std::ranges::find_if(candidates, [&](std::size_t other) { return config.routes[other].headers.size() < route.headers.size(); });
    candidates.insert(place, i);
    empty_ = false;
  }
}

static bool fields_match(const Route& route, const http::RequestHead& head) {
  return std::ranges::all_of(route.headers, [&](const auto& wanted) {
    return std::ranges::any_of(head.fields, [&](const http::Field& field) {
      return http::equals_ignoring_case(field.name, wanted.first) && (wanted.second == "*" || field.value == wanted.second);
    });
  });
}

const std::size_t* RouteTable::among(const Map<Candidates>& map, std::string_view text, const http::RequestHead& head) const {
  if (map.empty()) return nullptr;
  const auto found = map.find(text);
  if (found == map.end()) return nullptr;
  for (const std::size_t& candidate : found->second) {
    if (fields_match(config_.routes[candidate], head)) return &candidate;
  }
  return nullptr;
}

const std::size_t* RouteTable::in(const Paths& paths, const http::RequestHead& head, std::string_view path) const {
  if (const std::size_t* found = among(paths.whole, path, head)) return found;
  if (paths.prefixes.empty()) return nullptr;
  if (path.size() > paths.prefix_bytes_max) path = path.substr(0, path.rfind('/', paths.prefix_bytes_max));
  while (true) {
    if (const std::size_t* found = among(paths.prefixes, path, head)) return found;
    const std::size_t slash = path.rfind('/');
    if (slash == std::string_view::npos) return path.empty() ? nullptr : among(paths.prefixes, "", head);  // "*" of OPTIONS
    path = path.substr(0, slash);
  }
}

// Without its port, in lower case, in `room`; names are at most 253 characters (RFC 1035), longer ones match nothing.
static std::string_view bare_host(std::string_view authority, std::array<char, 256>& room) {
  std::string_view host = http::host_of(authority);
  if (host.ends_with('.')) host.remove_suffix(1);  // the root's
  if (host.size() > room.size()) return {};
  std::ranges::transform(host, room.begin(), http::lower);
  return {room.data(), host.size()};
}

std::optional<std::size_t> RouteTable::match(const http::RequestHead& head, std::string_view path) const {
  const auto search = [&]() -> const std::size_t* {
    if (!hosts_.empty() || !wildcards_.empty()) {
      std::array<char, 256> room;
      const std::string_view host = bare_host(head.authority, room);
      if (const auto found = hosts_.find(host); found != hosts_.end()) {
        if (const std::size_t* route = in(found->second, head, path)) return route;
      }
      for (std::size_t dot = host.find('.'); dot != std::string_view::npos && !wildcards_.empty(); dot = host.find('.', dot + 1)) {
        const auto found = wildcards_.find(host.substr(dot));
        if (found == wildcards_.end() || dot == 0) continue;
        if (const std::size_t* route = in(found->second, head, path)) return route;
      }
    }
    return in(any_, head, path);
  };
  const std::size_t* found = empty_ ? nullptr : search();
  return found == nullptr ? std::nullopt : std::optional(*found);
}

}  // namespace ringmaster::proxy
