// The body of a change of membership, as both APIs take it: {"n": 2, "hostnames": ["S1", "S2"]}.
#pragma once

#include <string>
#include <string_view>

#include "http/message.h"
#include "link/messages.h"

namespace ringmaster::admin {

inline constexpr std::size_t kChangeBytesMax = 64 * 1024;

// Only what can be told without knowing the pool; the rest is the master's to check. `names_key` is "hostnames" or
// "names". The error's detail is for the client.
base::Result<link::Command> parse_change(std::string_view text, std::string_view names_key);

// {"n": 5}: how many there shall be.
base::Result<link::Command> parse_size(std::string_view text);

inline constexpr std::string_view kBadKey = "an Idempotency-Key has 1 to 200 characters";
// The Idempotency-Key of a change, into its command. False: it is too long, or empty.
bool take_key(const http::RequestHead& head, link::Command& command);

}  // namespace ringmaster::admin
