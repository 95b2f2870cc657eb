// Names to addresses, off the loop's thread: getaddrinfo() may block for seconds.
#pragma once

#include <string>
#include <vector>

#include "io/loop.h"

namespace ringmaster::io {

// "127.0.0.1:80", "[::1]:80", "unix:/path" or "name:80". Errors: invalid, when it is none of these; unreachable, when the
// name is not known; cancelled.
Async<Result<std::vector<Endpoint>>> resolve(Loop& loop, std::string address);

}  // namespace ringmaster::io
