// The hash of what a pool's key names in a request.
#pragma once

#include "balance/pick.h"
#include "balance/view.h"
#include "wire/exchange.h"

namespace ringmaster::proxy {

// A request without the header, cookie or parameter is spread like one keyed by a random request id.
std::uint64_t key_of(const balance::Key& key, const wire::Exchange& exchange, balance::PickState& state);

}  // namespace ringmaster::proxy
