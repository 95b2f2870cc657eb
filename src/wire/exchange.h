// An exchange: one request head, a source for its body, and a sink for its response. It is all that a handler sees of a
// client; today an HTTP/1 connection makes one after the other, one day an HTTP/2 stream will be another source.
//
// The response may be begun before the request's body has been read. A body that the handler leaves unread costs the
// connection: what comes after the response would be taken for the next request (SECURITY A19).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/network.h"
#include "http/body.h"
#include "http/head_parser.h"
#include "http/serialize.h"
#include "io/stream.h"
#include "wire/buffer.h"
#include "wire/connection_limit.h"

namespace ringmaster::wire {

using base::Code;
using base::Duration;
using base::Endpoint;
using base::Result;
using base::Time;
using io::Async;

struct ServerLimits {
  Duration head_timeout = std::chrono::seconds(10);
  Duration body_timeout = std::chrono::seconds(30);
  Duration idle_timeout = std::chrono::seconds(60);
  // After an answer that was given before the request's body had been read: how long, and how much, is still read and thrown
  // away, so that the client gets the answer before it finds the connection closed (RFC 9112 section 9.6).
  Duration linger = std::chrono::seconds(5);  // without a byte
  std::uint64_t linger_bytes_max = 64 << 20;
  unsigned connections_max = 16000;
  std::shared_ptr<ConnectionLimit> connections;  // counts them together with those of other servers; null: alone
  unsigned connections_per_address_max = 0;      // 0: no limit
  // Bytes a second that a body must bring on the whole, after kBodyGrace; 0: no limit. A client that sends one byte before
  // each timeout would else hold its connection, and a replica's, for ever.
  unsigned body_rate_min = 0;
  static constexpr Duration kBodyGrace = std::chrono::seconds(10);
  unsigned response_rate_min = 0;  // bytes a second that a client must take, in each window of body_timeout; 0: any will do
  // Connections begin with a PROXY header; those whose sender is not in `trusted` are closed.
  bool proxy_protocol = false;
  std::vector<base::Network> trusted;
};

// What of a forwarded response is not the replica's.
struct ResponseChanges {
  const http::FieldEdits* edits = nullptr;
  std::string_view extra;  // zero or more whole lines
};

// The Date field's value, made once a second.
class DateClock {
 public:
  // Valid until the next call: take it when the head is written, not before.
  std::string_view now(io::Loop& loop);

 private:
  std::string text_;
  Time until_{};
};

// What a handler keeps with a client's connection, from one exchange to the next; it ends with the connection, on its loop.
class Companion {
 public:
  virtual ~Companion() = default;
};

// What an exchange needs while it lasts; taken from a pool, so that idle connections have none of it.
struct Workspace {
  Buffer in;
  http::RequestParser parser;
  std::string out;           // heads and chunk framing on their way out
  std::string scratch_path;  // a path that had to be normalised
  std::string kept_line;     // of a request whose buffer was given back
};

class Exchange {
 public:
  Exchange(io::Stream& stream, const Endpoint& peer, std::string_view peer_text, Workspace& workspace, const ServerLimits& limits, DateClock& date,
           std::unique_ptr<Companion>& companion);

  const http::RequestHead& request() const { return workspace_.parser.head(); }
  std::string_view path() const { return path_; }            // normalised: match on this, and forward this
  const Endpoint& peer() const { return peer_; }             // who sent it: of the connection, or of its PROXY header
  std::string_view peer_text() const { return peer_text_; }  // the address alone
  // Whom it comes from in the end: the peer, or whom a trusted peer named (set by whoever decides on trust).
  const Endpoint& client() const { return client_ ? *client_ : peer_; }
  void set_client(const Endpoint& client) { client_ = client; }
  io::Loop& loop() const { return stream_.watch().loop(); }
  std::optional<uid_t> peer_user() const { return loop().system().peer_user(stream_.watch().fd()); }  // of a Unix connection
  io::Watch& client_watch() const { return stream_.watch(); }                                         // for a HangupGuard
  std::unique_ptr<Companion>& companion() { return companion_; }                                      // of the client's connection; null at first

  // --- the request's body ---
  // What had arrived with the head, decoded; stays valid, and may be read again, until the first read_body().
  std::string_view buffered_body() const { return buffered_; }
  bool body_complete() const { return body_.done(); }  // nothing is to come after buffered_body()
  // Sends the 100 that the client waits for before it sends its body; nothing if it does not. read_body() does it, too.
  Async<Result<void>> invite_body();
  // Awaits the whole body, if it fits the connection's buffer or `bytes_max`: then it is complete, and buffered_body() has it.
  // One whose length is known to be more is left alone; of a chunked one that turns out to be more, buffered_body() has the
  // beginning, and read_body() gives the rest. Errors as read_body().
  Async<Result<void>> complete_body(std::size_t bytes_max);
  // Awaits the next piece; empty at the end. The piece is valid until the next call. Errors: timeout; invalid, with the
  // reason; reset. Does not give what buffered_body() gave.
  Async<Result<std::string_view>> read_body();
  // From now on a body of more than `bytes_max` is too_large.
  void limit_body(std::uint64_t bytes_max) { body_bytes_max_ = bytes_max; }
  // Awaits the whole body. Error too_large when it has more than `bytes_max`.
  Async<Result<std::string>> read_whole_body(std::size_t bytes_max);

  // --- the response ---
  // One of our own, whole. `extra`: zero or more "Name: value\r\n" lines.
  Async<Result<void>> reply(unsigned status, std::string_view content_type, std::string_view body, std::string_view extra = {});
  // A replica's: its head (kept back until the first write), then pieces, then the end. An interim (1xx) head goes at once.
  Async<Result<void>> forward_interim(const http::ResponseHead& head);
  void begin_forward(const http::ResponseHead& head, const ResponseChanges& changes = {});
  Async<Result<void>> write(std::string_view piece, bool last);

  // --- a tunnel, instead of a body ---
  // Sends the 101; from then on both sides' bytes are whoever asked for it to carry, by stream().
  Async<Result<void>> begin_tunnel(const http::ResponseHead& head, const ResponseChanges& changes);
  io::Stream& stream() { return stream_; }
  std::string_view arrived_early() const { return workspace_.in.view(); }  // what came behind the request's head
  // With nothing of it left to read: gives the buffer back. Of request() only the line and the host are left then.
  void release_buffer();
  // The tunnel has ended, both ways; so does the connection.
  void end_tunnel() { finished_ = true; }

  std::uint64_t body_bytes_received() const { return body_bytes_received_; }
  std::uint64_t body_bytes_sent() const { return body_bytes_sent_; }
  void count_tunnel(std::uint64_t received, std::uint64_t sent) { body_bytes_received_ += received, body_bytes_sent_ += sent; }

  bool begun() const { return begun_; }  // a response has been begun: no other one can be given
  bool finished() const { return finished_; }
  unsigned status() const { return status_; }
  // After the response the connection is closed instead of kept.
  void close_after() { keep_alive_ = false; }

 private:
  friend class ServerConnection;
  bool begin(std::string_view& complaint);  // after the head has been parsed
  Async<Result<std::string_view>> read_piece();
  io::Patience patience() const { return {limits_.body_timeout, limits_.response_rate_min}; }

  io::Stream& stream_;
  const Endpoint& peer_;
  std::string_view peer_text_;
  std::optional<Endpoint> client_;
  Workspace& workspace_;
  const ServerLimits& limits_;
  DateClock& date_;
  std::unique_ptr<Companion>& companion_;
  std::string_view path_;
  http::BodyDecoder body_;
  std::string_view buffered_;
  std::string spill_;           // the body as far as it has come, if it is kept whole and does not fit the buffer
  std::size_t body_start_ = 0;  // in the buffer: where the head ends
  bool keep_alive_ = true;
  bool continue_wanted_ = false;  // the client waits for a 100 before it sends the body
  bool begun_ = false;
  bool finished_ = false;
  bool chunked_ = false;
  unsigned status_ = 0;
  std::uint64_t body_bytes_max_ = UINT64_MAX;
  std::uint64_t body_bytes_received_ = 0;
  std::uint64_t body_bytes_sent_ = 0;
  Time body_began_ = base::kNever;
};

}  // namespace ringmaster::wire
