// The PROXY protocol (HAProxy's specification of 2017, versions 1 and 2): what a balancer in front of us, or we to a
// server behind us, write before the first byte of a connection, to say who the client is.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/endpoint.h"

namespace ringmaster::http {

struct ProxyHeader {
  enum class State : std::uint8_t { more, done, bad };
  State state = State::more;
  std::size_t bytes = 0;                 // once done: what the header took
  std::optional<base::Endpoint> client;  // once done: absent when the sender speaks for itself (LOCAL) or does not know
};

// Reads a header, of either version, at the beginning of `bytes`.
ProxyHeader parse_proxy_header(std::string_view bytes);

// `server` is the address that the client connected to. Only IPv4 and IPv6 clients are named; others are unknown.
void append_proxy_v1(std::string& out, const base::Endpoint& client, const base::Endpoint& server);
void append_proxy_v2(std::string& out, const base::Endpoint& client, const base::Endpoint& server);

}  // namespace ringmaster::http
