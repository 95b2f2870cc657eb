#include "io/listener.h"

#include <cerrno>

#include "base/log.h"

namespace ringmaster::io {

// Errors of the connection that was to be accepted, not of the listener (accept(2)): on to the next one.
static bool is_passing(int error) {
  return error == ECONNABORTED || error == EINTR || error == EPROTO || error == ENETDOWN || error == EHOSTUNREACH || error == ENETUNREACH;
}

Async<void> Listener::serve(Accepted accepted) {
  static constexpr int kAcceptsPerRound = 16;  // then the connections that are already here get their turn
  Loop& loop = watch_.loop();
  while (true) {
    const Code outcome = co_await watch_.until_readable();
    if (outcome != Code::ok) co_return;
    for (int i = 0; i < kAcceptsPerRound && !paused_; ++i) {
      Endpoint peer;
      const Transfer got = watch_.system().accept(watch_.fd(), peer);
      if (got.count >= 0) {
        accepted(Stream(loop, Handle(watch_.system(), static_cast<int>(got.count)), std::move(peer)));
        continue;
      }
      if (is_passing(got.error)) continue;
      if (got.would_block()) break;
      base::log::warning("accepting on {} rests for 100 ms: {}", base::to_string(local()), base::describe(base::from_errno(got.error, "accept")));
      watch_.pause();
      const Code slept = co_await loop.sleep(std::chrono::milliseconds(100));
      if (!paused_) watch_.resume();
      if (slept == Code::cancelled) co_return;
      break;
    }
  }
}

void Listener::close(const Accepted& accepted) {
  static constexpr int kAcceptsMax = 65536;  // newcomers could else keep it for ever
  for (int i = 0; i < kAcceptsMax && watch_.fd() >= 0; ++i) {
    Endpoint peer;
    const Transfer got = watch_.system().accept(watch_.fd(), peer);
    if (got.count < 0 && is_passing(got.error)) continue;
    if (got.count < 0) break;
    accepted(Stream(watch_.loop(), Handle(watch_.system(), static_cast<int>(got.count)), std::move(peer)));
  }
  pause();
  watch_.close();
}

Result<Endpoint> free_port(System& system) {
  const auto probe = system.listen(Endpoint::loopback(0), {.backlog = 1});
  if (!probe) return std::unexpected(probe.error());
  return system.local_endpoint(probe->fd());
}

}  // namespace ringmaster::io
