// The hash of what a pool's key names in a request.
#pragma once

#include "balance/pick.h"
#include "balance/view.h"
#include "wire/exchange.h"

namespace ringmaster::proxy {

// The value of a cookie; empty if there is none.
std::string_view cookie_of(const http::RequestHead& head, std::string_view name);

// A request without the header, cookie or parameter is spread like one keyed by a random request id.
std::uint64_t key_of(const balance::Key& key, const wire::Exchange& exchange, balance::PickState& state);

// The same for a limit: a request without it counts for its client, so that leaving it out helps nobody.
std::uint64_t limit_key_of(const balance::Key& key, const wire::Exchange& exchange);

}  // namespace ringmaster::proxy
