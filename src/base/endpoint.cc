#include "base/endpoint.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace ringmaster::base {

Endpoint Endpoint::tcp4(std::array<std::uint8_t, 4> address, std::uint16_t port) {
  Endpoint e;
  e.family = Family::v4;
  e.port = port;
  std::ranges::copy(address, e.address.begin());
  return e;
}

Endpoint Endpoint::unix_socket(std::string path) {
  Endpoint e;
  e.family = Family::unix_path;
  e.path = std::move(path);
  return e;
}

static Result<Endpoint> parse_unix(std::string_view path) {
  if (path.empty()) return fail(Code::invalid, "a Unix address needs a path: unix:/run/web.sock");
  if (path.size() > kUnixPathBytesMax) {
    return fail(Code::invalid, "the socket path has " + std::to_string(path.size()) + " bytes; at most 107 are possible");
  }
  return Endpoint::unix_socket(std::string(path));
}

Result<Endpoint> Endpoint::parse(std::string_view text) {
  if (text.starts_with("unix:")) return parse_unix(text.substr(5));
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) {
    return fail(Code::invalid, "'" + std::string(text) + "' is no address: write 127.0.0.1:5000, [::1]:5000 or unix:/path");
  }
  std::string host(text.substr(0, colon));
  const std::string_view port = text.substr(colon + 1);
  Endpoint e;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), e.port);
  if (error != std::errc{} || end != port.data() + port.size()) {
    return fail(Code::invalid, "'" + std::string(port) + "' is no port: a number from 0 to 65535 is needed");
  }
  if (host == "localhost") host = "127.0.0.1";
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    e.family = Family::v6;
    host = host.substr(1, host.size() - 2);
    if (inet_pton(AF_INET6, host.c_str(), e.address.data()) == 1) return e;
  } else {
    e.family = Family::v4;
    if (inet_pton(AF_INET, host.c_str(), e.address.data()) == 1) return e;
  }
  return fail(Code::invalid, "'" + host + "' is no IP address");
}

bool Endpoint::is_loopback() const {
  if (family == Family::v4) return address[0] == 127;
  if (family == Family::unix_path) return true;
  static constexpr std::array<std::uint8_t, 16> kOne{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  return family == Family::v6 && address == kOne;
}

std::string address_text(const Endpoint& endpoint) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  switch (endpoint.family) {
    case Endpoint::Family::v4: inet_ntop(AF_INET, endpoint.address.data(), text.data(), text.size()); break;
    case Endpoint::Family::v6: inet_ntop(AF_INET6, endpoint.address.data(), text.data(), text.size()); break;
    case Endpoint::Family::unix_path: return "unix:";
    case Endpoint::Family::none: return "unknown";
  }
  return text.data();
}

std::string to_string(const Endpoint& endpoint) {
  if (endpoint.family == Endpoint::Family::none) return {};
  if (endpoint.family == Endpoint::Family::unix_path) return "unix:" + endpoint.path;
  const std::string host = address_text(endpoint);
  const std::string port = ":" + std::to_string(endpoint.port);
  return endpoint.family == Endpoint::Family::v6 ? "[" + host + "]" + port : host + port;
}

}  // namespace ringmaster::base
