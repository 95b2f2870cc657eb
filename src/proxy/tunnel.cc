#include "proxy/tunnel.h"

#include <algorithm>

#include "io/scope.h"
#include "wire/buffer.h"

namespace ringmaster::proxy {

using base::Code;
using io::Async;

namespace {

struct Shared {
  base::Duration idle_max;  // shorter once one direction has ended
  base::Duration half_idle_max;
  base::Time last_byte;  // in either direction
  io::Scope scope;
};

// One direction. Its end is passed on as an end; an error ends both.
Async<void> pump(io::Stream& from, io::Stream& to, std::string_view early, std::uint64_t& bytes, Shared& shared) {
  static thread_local wire::ObjectPool<wire::Buffer> buffers;
  io::Loop& loop = shared.scope.loop();
  bool good = true;
  if (!early.empty()) {
    auto write = to.write(std::span(&early, 1), loop.now() + shared.idle_max);
    const auto sent = co_await write;
    good = sent.has_value();
    bytes += early.size();
  }
  while (good) {
    // In steps, since meanwhile the other direction may have been busy, or have ended.
    static constexpr base::Duration kStep = std::chrono::seconds(30);
    const Code readable = co_await from.watch().until_readable(std::min(shared.last_byte + shared.idle_max, loop.now() + kStep));
    if (readable == Code::timeout && loop.now() < shared.last_byte + shared.idle_max) continue;
    if (readable != Code::ok) break;
    auto buffer = buffers.take();
    buffer->clear();
    auto read = from.read(buffer->space(), loop.now() + shared.idle_max);
    const auto got = co_await read;
    if (got && *got == 0) {
      to.shutdown_write();
      shared.idle_max = std::min(shared.idle_max, shared.half_idle_max);
      shared.last_byte = loop.now();
      buffers.put(std::move(buffer));
      co_return;
    }
    if (got) {
      shared.last_byte = loop.now();
      buffer->add(*got);
      const std::string_view piece = buffer->view();
      auto write = to.write(std::span(&piece, 1), loop.now() + shared.idle_max);
      const auto sent = co_await write;
      bytes += piece.size();
      good = sent.has_value();
    }
    good = good && got.has_value();
    buffers.put(std::move(buffer));
  }
  shared.scope.cancel();
}

}  // namespace

Async<TunnelBytes> run_tunnel(TunnelEnds& ends, base::Duration idle_max, base::Duration half_idle_max) {
  io::Loop& loop = ends.client.watch().loop();
  TunnelBytes bytes;
  Shared shared{idle_max, half_idle_max, loop.now(), io::Scope(loop)};
  shared.scope.spawn(pump(ends.client, ends.server, ends.from_client, bytes.from_client, shared));
  shared.scope.spawn(pump(ends.server, ends.client, ends.from_server, bytes.from_server, shared));
  co_await shared.scope.join();
  co_return bytes;
}

}  // namespace ringmaster::proxy
