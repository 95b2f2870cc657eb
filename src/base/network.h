// A network in CIDR form, "10.0.0.0/8" or "::1/128", for allow-lists.
#pragma once

#include <span>
#include <string_view>

#include "base/endpoint.h"

namespace ringmaster::base {

struct Network {
  Endpoint first;     // its address; the port means nothing
  unsigned bits = 0;  // of the prefix

  static Result<Network> parse(std::string_view text);
  bool contains(const Endpoint& endpoint) const;
};

// Whether one of them contains it.
bool any_contains(std::span<const Network> networks, const Endpoint& endpoint);

}  // namespace ringmaster::base
