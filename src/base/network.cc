#include "base/network.h"

#include <algorithm>

#include <charconv>

namespace ringmaster::base {

Result<Network> Network::parse(std::string_view text) {
  const std::size_t slash = text.find('/');
  const std::string host(text.substr(0, slash));
  const auto endpoint = Endpoint::parse(host.contains(':') ? "[" + host + "]:0" : host + ":0");
  if (!endpoint) return fail(Code::invalid, "'" + std::string(text) + "' is no network: write 10.0.0.0/8 or ::1/128");
  Network network{*endpoint, endpoint->family == Endpoint::Family::v4 ? 32U : 128U};
  if (slash == std::string_view::npos) return network;
  const unsigned bits_max = network.bits;
  const std::string_view bits = text.substr(slash + 1);
  const auto [end, error] = std::from_chars(bits.data(), bits.data() + bits.size(), network.bits);
  if (error != std::errc{} || end != bits.data() + bits.size() || network.bits > bits_max) {
    return fail(Code::invalid, "'" + std::string(bits) + "' is no prefix length: 0 to " + std::to_string(bits_max));
  }
  return network;
}

bool Network::contains(const Endpoint& endpoint) const {
  if (endpoint.family != first.family) return false;
  for (unsigned bit = 0; bit < bits; ++bit) {
    const unsigned mask = 0x80U >> (bit % 8);
    if (((endpoint.address[bit / 8] ^ first.address[bit / 8]) & mask) != 0) return false;
  }
  return true;
}

bool any_contains(std::span<const Network> networks, const Endpoint& endpoint) {
  return std::ranges::any_of(networks, [&](const Network& network) { return network.contains(endpoint); });
}

}  // namespace ringmaster::base
