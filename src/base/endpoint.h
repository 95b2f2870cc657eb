// Where something listens: "127.0.0.1:5000", "[::1]:5000" or "unix:/run/web.1.1.sock".
// A value. Names are never in it: they are resolved first (io::Loop::resolve).
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace ringmaster::base {

struct Endpoint {
  enum class Family : std::uint8_t { none, v4, v6, unix_path };

  Family family = Family::none;
  std::uint16_t port = 0;
  std::array<std::uint8_t, 16> address{};  // network order; the first four bytes for v4
  std::string path;                        // Unix only; at most 107 bytes

  static Endpoint tcp4(std::array<std::uint8_t, 4> address, std::uint16_t port);
  static Endpoint loopback(std::uint16_t port) { return tcp4({127, 0, 0, 1}, port); }
  static Endpoint unix_socket(std::string path);

  // Parses the three forms above. The error names what is wrong.
  static Result<Endpoint> parse(std::string_view text);

  bool is_loopback() const;  // 127/8, ::1 or a Unix socket
  bool operator==(const Endpoint&) const = default;
};

inline constexpr std::size_t kUnixPathBytesMax = 107;

// The form that parse() reads; empty for none.
std::string to_string(const Endpoint& endpoint);

// Address without port, for X-Forwarded-For: "10.0.0.7", "::1", or "unix:".
std::string address_text(const Endpoint& endpoint);

}  // namespace ringmaster::base
