// An exchange: one request head, a source for its body, and a sink for its response. It is all that a handler sees of a
// client; today an HTTP/1 connection makes one after the other, one day an HTTP/2 stream will be another source.
//
// The response may be begun before the request's body has been read. A body that the handler leaves unread costs the
// connection: what comes after the response would be taken for the next request (SECURITY A19).
#pragma once

#include <string>
#include <string_view>

#include "http/body.h"
#include "http/head_parser.h"
#include "http/serialize.h"
#include "io/stream.h"
#include "wire/buffer.h"

namespace ringmaster::wire {

using base::Code;
using base::Duration;
using base::Endpoint;
using base::Result;
using base::Time;
using io::Async;

struct ServerLimits {
  http::HeadLimits head;
  Duration head_timeout = std::chrono::seconds(10);
  Duration body_timeout = std::chrono::seconds(30);
  Duration idle_timeout = std::chrono::seconds(60);
  unsigned connections_max = 16000;
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

// What an exchange needs while it lasts; taken from a pool, so that idle connections have none of it.
struct Workspace {
  Buffer in;
  http::RequestParser parser;
  std::string out;           // heads and chunk framing on their way out
  std::string scratch_path;  // a path that had to be normalised
};

class Exchange {
 public:
  Exchange(io::Stream& stream, std::string_view peer_text, Workspace& workspace, const ServerLimits& limits, DateClock& date);

  const http::RequestHead& request() const { return workspace_.parser.head(); }
  std::string_view path() const { return path_; }  // normalised: match on this, and forward this
  const Endpoint& peer() const { return stream_.peer(); }
  std::string_view peer_text() const { return peer_text_; }  // the address alone
  io::Loop& loop() const { return stream_.watch().loop(); }
  io::Watch& client_watch() const { return stream_.watch(); }  // for a HangupGuard

  // --- the request's body ---
  // What had arrived with the head, decoded; stays valid, and may be read again, until the first read_body().
  std::string_view buffered_body() const { return buffered_; }
  bool body_complete() const { return body_.done(); }  // nothing is to come after buffered_body()
  // Sends the 100 that the client waits for before it sends its body; nothing if it does not. read_body() does it, too.
  Async<Result<void>> invite_body();
  // Awaits the next piece; empty at the end. The piece is valid until the next call. Errors: timeout; invalid, with the
  // reason; reset. Does not give what buffered_body() gave.
  Async<Result<std::string_view>> read_body();
  // Awaits the whole body. Error too_large when it has more than `bytes_max`.
  Async<Result<std::string>> read_whole_body(std::size_t bytes_max);

  // --- the response ---
  // One of our own, whole. `extra`: zero or more "Name: value\r\n" lines.
  Async<Result<void>> reply(unsigned status, std::string_view content_type, std::string_view body, std::string_view extra = {});
  // A replica's: its head (kept back until the first write), then pieces, then the end. An interim (1xx) head goes at once.
  Async<Result<void>> forward_interim(const http::ResponseHead& head);
  void begin_forward(const http::ResponseHead& head);
  Async<Result<void>> write(std::string_view piece, bool last);

  bool begun() const { return begun_; }  // a response has been begun: no other one can be given
  bool finished() const { return finished_; }
  unsigned status() const { return status_; }
  // After the response the connection is closed instead of kept.
  void close_after() { keep_alive_ = false; }

 private:
  friend class ServerConnection;
  bool begin(std::string_view& complaint);  // after the head has been parsed
  void decode_arrived();

  io::Stream& stream_;
  std::string_view peer_text_;
  Workspace& workspace_;
  const ServerLimits& limits_;
  DateClock& date_;
  std::string_view path_;
  http::BodyDecoder body_;
  std::string_view buffered_;
  std::size_t body_start_ = 0;  // in the buffer: where the head ends
  bool keep_alive_ = true;
  bool continue_wanted_ = false;  // the client waits for a 100 before it sends the body
  bool begun_ = false;
  bool finished_ = false;
  bool chunked_ = false;
  unsigned status_ = 0;
};

}  // namespace ringmaster::wire
