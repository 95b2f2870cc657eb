// A tunnel between two streams, after both sides have agreed to speak something else (RFC 9110 section 7.8): bytes pass
// both ways until both sides have ended, or neither has sent any for too long. While nothing passes it holds no buffer.
#pragma once

#include "io/stream.h"

namespace ringmaster::proxy {

struct TunnelEnds {
  io::Stream& client;
  io::Stream& server;
  std::string_view from_client;  // that has been read already
  std::string_view from_server;
};
struct TunnelBytes {
  std::uint64_t from_client = 0;
  std::uint64_t from_server = 0;
};

// `half_idle_max`: how long it may be silent once one side has ended.
io::Async<TunnelBytes> run_tunnel(TunnelEnds& ends, base::Duration idle_max, base::Duration half_idle_max);

}  // namespace ringmaster::proxy
