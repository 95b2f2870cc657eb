// Who may use the APIs that change things, and the line in the log that says who did.
#pragma once

#include <string_view>

#include "wire/server.h"

namespace ringmaster::admin {

// The Host names this machine: a name of somebody else's that leads here (DNS rebinding) does not.
bool is_local_host(std::string_view authority);
inline constexpr std::string_view kForeignHost = "the Host must be localhost, 127.0.0.1 or [::1]";

// Came over loopback or another network, or over a Unix socket from root or from the user that this process runs as. The
// socket's mode says the same, but modes get changed; and a descriptor that was passed on is not covered by either.
bool is_of_own_user(const wire::Exchange& exchange);

// Shows `token` as RFC 6750 has it, "Authorization: Bearer TOKEN". Compared in constant time. An empty token is shown by nobody.
bool shows_token(const wire::Exchange& exchange, std::string_view token);

// The body is JSON, or nothing is said of it: for calls that may have none.
bool may_be_json(const wire::Exchange& exchange);

// The body of a call that needs one, and that must say that it is JSON. An error has been replied to already, by `pages`.
io::Async<base::Result<std::string>> read_json_body(wire::Exchange& exchange, const wire::Handler& pages, std::size_t bytes_max);

// A line in the log: who has asked for which change, and what came of it.
void audit(const wire::Exchange& exchange, std::string_view what, std::string_view outcome);

}  // namespace ringmaster::admin
