#include "io/resolve.h"

#include <charconv>

namespace ringmaster::io {

Async<Result<std::vector<Endpoint>>> resolve(Loop& loop, std::string address) {
  if (auto endpoint = Endpoint::parse(address)) co_return std::vector{std::move(*endpoint)};
  const std::size_t colon = address.rfind(':');
  const std::string host = address.substr(0, colon);
  std::uint16_t port = 0;
  const char* end = address.data() + address.size();
  const bool has_port = colon != std::string::npos && std::from_chars(address.data() + colon + 1, end, port).ptr == end && port != 0;
  if (!has_port || host.empty() || host.find_first_of("/@[]:") != std::string::npos) {
    co_return base::fail(Code::invalid, "'" + address + "' is no address: write 127.0.0.1:5001, [::1]:5001, unix:/path or name:5001");
  }
  Result<std::vector<Endpoint>> found = base::fail(Code::cancelled);
  auto lookup = loop.background([&] { found = loop.system().resolve(host, port); });
  co_await lookup;
  co_return found;
}

}  // namespace ringmaster::io
