#include "http/proxy_protocol.h"

#include <algorithm>
#include <charconv>

namespace ringmaster::http {

using base::Endpoint;
using Family = base::Endpoint::Family;
using State = ProxyHeader::State;

static constexpr std::string_view kSignature("\r\n\r\n\0\r\nQUIT\n", 12);
static constexpr std::size_t kLineBytesMax = 107;         // of version 1
static constexpr std::size_t kExtensionsBytesMax = 2048;  // version 2: addresses and what follows them

// The next word of a line that is separated by single spaces.
static std::string_view word(std::string_view& line) {
  const std::size_t space = line.find(' ');
  const std::string_view first = line.substr(0, space);
  line = space == std::string_view::npos ? std::string_view{} : line.substr(space + 1);
  return first;
}

static ProxyHeader parse_v1(std::string_view bytes) {
  const std::size_t end = bytes.substr(0, kLineBytesMax).find("\r\n");
  if (end == std::string_view::npos) return {bytes.size() >= kLineBytesMax ? State::bad : State::more, 0, {}};
  std::string_view line = bytes.substr(0, end);
  ProxyHeader header{State::done, end + 2, {}};
  word(line);
  const std::string_view family = word(line);
  if (family == "UNKNOWN") return header;
  const std::string_view source = word(line);
  const std::string_view destination = word(line);
  const std::string_view source_port = word(line);
  const std::string_view destination_port = word(line);
  const bool v6 = family == "TCP6";
  const auto endpoint = [&](std::string_view address, std::string_view port) {
    return Endpoint::parse(v6 ? "[" + std::string(address) + "]:" + std::string(port) : std::string(address) + ":" + std::string(port));
  };
  const auto client = endpoint(source, source_port);
  const auto server = endpoint(destination, destination_port);
  const auto wanted = v6 ? Family::v6 : Family::v4;
  if ((!v6 && family != "TCP4") || !line.empty() || !client || !server || client->family != wanted || server->family != wanted) return {State::bad, 0, {}};
  header.client = *client;
  return header;
}

static ProxyHeader parse_v2(std::string_view bytes) {
  if (bytes.size() < 16) return {};
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const std::size_t length = (std::size_t{byte(14)} << 8) | byte(15);
  if ((byte(12) & 0xf0) != 0x20 || (byte(12) & 0x0f) > 1 || length > kExtensionsBytesMax) return {State::bad, 0, {}};
  if (bytes.size() < 16 + length) return {};
  ProxyHeader header{State::done, 16 + length, {}};
  if ((byte(12) & 0x0f) == 0) return header;  // LOCAL
  const auto address = [&](Family family, std::size_t width) {
    Endpoint client;
    client.family = family;
    for (std::size_t i = 0; i < width; ++i) client.address[i] = byte(16 + i);
    client.port = static_cast<std::uint16_t>((byte(16 + 2 * width) << 8) | byte(17 + 2 * width));
    header.client = client;
  };
  switch (byte(13) >> 4) {
    case 1:
      if (length < 12) return {State::bad, 0, {}};
      address(Family::v4, 4);
      return header;
    case 2:
      if (length < 36) return {State::bad, 0, {}};
      address(Family::v6, 16);
      return header;
    default: return header;  // unspecified, or a Unix socket: it says nothing of an address
  }
}

ProxyHeader parse_proxy_header(std::string_view bytes) {
  const std::string_view begin = bytes.substr(0, kSignature.size());
  if (kSignature.starts_with(begin)) return bytes.size() < kSignature.size() ? ProxyHeader{} : parse_v2(bytes);
  static constexpr std::string_view kWord = "PROXY ";
  const std::string_view first = bytes.substr(0, kWord.size());
  if (!kWord.starts_with(first)) return {State::bad, 0, {}};
  return bytes.size() < kWord.size() ? ProxyHeader{} : parse_v1(bytes);
}

static bool is_ip(const Endpoint& endpoint) { return endpoint.family == Family::v4 || endpoint.family == Family::v6; }

void append_proxy_v1(std::string& out, const Endpoint& client, const Endpoint& server) {
  if (!is_ip(client) || client.family != server.family) {
    out.append("PROXY UNKNOWN\r\n");
    return;
  }
  out.append(client.family == Family::v4 ? "PROXY TCP4 " : "PROXY TCP6 ").append(base::address_text(client)).append(" ").append(base::address_text(server));
  out.append(" ").append(std::to_string(client.port)).append(" ").append(std::to_string(server.port)).append("\r\n");
}

void append_proxy_v2(std::string& out, const Endpoint& client, const Endpoint& server) {
  const bool known = is_ip(client) && client.family == server.family;
  const std::size_t width = client.family == Family::v4 ? 4 : 16;
  out.append(kSignature);
  out.push_back(static_cast<char>(known ? 0x21 : 0x20));
  out.push_back(static_cast<char>(!known ? 0 : width == 4 ? 0x11 : 0x21));
  out.push_back(0);
  out.push_back(static_cast<char>(known ? 2 * width + 4 : 0));
  if (!known) return;
  for (const Endpoint* endpoint : {&client, &server}) {
    for (std::size_t i = 0; i < width; ++i) out.push_back(static_cast<char>(endpoint->address[i]));
  }
  for (const std::uint16_t port : {client.port, server.port}) {
    out.push_back(static_cast<char>(port >> 8));
    out.push_back(static_cast<char>(port & 0xff));
  }
}

}  // namespace ringmaster::http
