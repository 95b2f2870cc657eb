// Which route takes a request. The most particular one does: first by host (exact, then the longest wildcard, then any),
// then by path (whole, then the longest prefix of whole segments), then the one that asks for more fields, then the
// earlier one. A route whose fields do not match leaves the request to the next.
//
// Immutable; looking up allocates nothing and costs a hash lookup per label of the host and segment of the path.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "config/config.h"
#include "http/message.h"

namespace ringmaster::proxy {

class RouteTable {
 public:
  // The routes of `config` (which outlives this) that `listener` has.
  RouteTable(const config::Config& config, const config::Listener& listener);

  // `path` is the normalised one. The index into config.routes, or nothing: then it is the listener's own pool's.
  std::optional<std::size_t> match(const http::RequestHead& head, std::string_view path) const;
  bool empty() const { return empty_; }

 private:
  struct Hash {
    using is_transparent = void;  // NOLINT(readability-identifier-naming): the library's name
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  template <class T>
  using Map = std::unordered_map<std::string, T, Hash, std::equal_to<>>;
  using Candidates = std::vector<std::size_t>;
  struct Paths {
    Map<Candidates> whole;
    Map<Candidates> prefixes;
    std::size_t prefix_bytes_max = 0;  // of the longest: no more of a path need be looked at
  };

  const std::size_t* among(const Map<Candidates>& map, std::string_view text, const http::RequestHead& head) const;
  const std::size_t* in(const Paths& paths, const http::RequestHead& head, std::string_view path) const;

  const config::Config& config_;
  Map<Paths> hosts_;
  Map<Paths> wildcards_;  // by what follows the '*'
  Paths any_;
  bool empty_ = true;
};

}  // namespace ringmaster::proxy
