// The body of a change of membership, as both APIs take it: {"n": 2, "hostnames": ["S1", "S2"]}.
#pragma once

#include <string>
#include <string_view>

#include "link/messages.h"

namespace ringmaster::admin {

inline constexpr std::size_t kChangeBytesMax = 64 * 1024;

// Only what can be told without knowing the pool; the rest is the master's to check. `names_key` is "hostnames" or
// "names". The error's detail is for the client.
base::Result<link::Command> parse_change(std::string_view text, std::string_view names_key);

}  // namespace ringmaster::admin
