#include "io/resolve.h"

#include <charconv>
#include <memory>
#include <mutex>
#include <optional>

namespace ringmaster::io {

namespace {

// Outlives whoever asked: a name server that does not answer keeps nobody.
struct Lookup {
  explicit Lookup(Loop* asking) : loop(asking) {}
  std::mutex mutex;
  Loop* loop;                                          // that wants to know; null: nobody does any more. Guarded by mutex
  std::optional<Result<std::vector<Endpoint>>> found;  // the loop's, as the next
  Signal ended;
};

}  // namespace

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
  const auto lookup = std::make_shared<Lookup>(&loop);
  loop.system().resolve(host, port, [lookup](Result<std::vector<Endpoint>> found) {
    const std::lock_guard lock(lookup->mutex);
    if (lookup->loop == nullptr) return;
    lookup->loop->post([lookup, found = std::move(found)]() mutable {
      lookup->found = std::move(found);
      lookup->ended.notify();
    });
  });
  while (!lookup->found) {
    const Code woken = co_await lookup->ended.wait(loop);
    if (woken != Code::cancelled) continue;
    const std::lock_guard lock(lookup->mutex);
    lookup->loop = nullptr;
    co_return base::fail(Code::cancelled);
  }
  co_return std::move(*lookup->found);
}

}  // namespace ringmaster::io
