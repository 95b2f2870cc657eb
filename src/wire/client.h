// The client side of HTTP/1: connections to a server, kept and used again, and what they answer.
//
// A ClientConnection is used for one request at a time. ConnectionPool keeps the idle ones of one server, last in first
// out, and drops each that says anything while nobody has asked it (SECURITY B2). ResponseReader reads one response.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "http/body.h"
#include "http/head_parser.h"
#include "io/stream.h"
#include "wire/buffer.h"

namespace ringmaster::wire {

using base::Code;
using base::Duration;
using base::Endpoint;
using base::Result;
using base::Time;
using io::Async;

class ConnectionPool;

class ClientConnection final : public io::Wait {
 public:
  ClientConnection(io::Stream stream, ConnectionPool& pool) : Wait(stream.watch().loop()), stream_(std::move(stream)), pool_(&pool) {}
  ~ClientConnection() override { abandon(); }
  io::Stream& stream() { return stream_; }

 private:
  friend class ConnectionPool;
  void done() override;  // while idle: the server said something, or the time is over
  void detach() override { stream_.watch().reader = nullptr; }
  io::Stream stream_;
  ConnectionPool* pool_;
};

class ConnectionPool {
 public:
  // Idle connections end after `idle_max`: sooner than the server ends them, or a request may meet its end.
  ConnectionPool(io::Loop& loop, Endpoint server, Duration idle_max) : loop_(loop), server_(std::move(server)), idle_max_(idle_max) {}

  // The idle connection that was used last, or null.
  std::unique_ptr<ClientConnection> take();
  Async<Result<std::unique_ptr<ClientConnection>>> connect(Time deadline);
  // Only after a response that ended clean on both sides; else destroy the connection.
  void put(std::unique_ptr<ClientConnection> connection);
  void close_idle() { idle_.clear(); }
  std::size_t idle() const { return idle_.size(); }
  io::Loop& loop() const { return loop_; }

 private:
  friend class ClientConnection;
  io::Loop& loop_;
  Endpoint server_;
  Duration idle_max_;
  std::vector<std::unique_ptr<ClientConnection>> idle_;
};

class ResponseReader {
 public:
  // Prepares for the response to a `method` request on `stream`.
  void begin(io::Stream& stream, http::Method method, const http::HeadLimits& limits = {});

  // Awaits the next head: a 1xx, after which it is called again, or the final one. Errors: timeout; invalid, with the
  // reason; closed, when the server ended without a byte of this head; reset.
  Async<Result<void>> read_head(Time deadline);
  const http::ResponseHead& head() const { return parser_.head(); }
  bool any_bytes() const { return any_bytes_; }  // of the response have come

  // The next piece of the body; empty at its end. The views of head() are gone with the first one that had to be read.
  // Errors: timeout, invalid, and closed when it ended too early. `wait_max` is for each read.
  Async<Result<std::string_view>> read_body(Duration wait_max);
  // What of the body has come already, without waiting.
  std::string_view arrived_body();

  // After a 101: what came behind its head is no longer HTTP.
  std::string_view leftover() const { return in_.view(); }

  bool complete() const { return ended_ || body_.done(); }
  // The connection can carry another request: the response ended where it said, and nothing came after it.
  bool reusable() const { return body_.done() && head().keep_alive && in_.empty(); }

 private:
  io::Stream* stream_ = nullptr;
  http::Method method_ = http::Method::get;
  Buffer in_;
  http::ResponseParser parser_;
  http::BodyDecoder body_;
  bool any_bytes_ = false;
  bool ended_ = false;
};

// Sends a `method` request, as it stands in `pieces` (at most io::kPiecesMax), and reads the head of its final answer with `reader`.
// Errors as ResponseReader::read_head's.
Async<Result<void>> ask_for_head(io::Stream& stream, ResponseReader& reader, http::Method method, std::span<const std::string_view> pieces, Time deadline);

// One request and its whole answer: for checks, tasks and command-line tools. A body of more than `body_bytes_max` is the error
// too_large, but is cut where the status is no success.
struct FetchRequest {
  std::string method = "GET";
  std::string target = "/";
  std::string host = "localhost";
  std::string preface;  // sent before the request: a PROXY header
  std::string headers;  // whole lines
  std::string body;
  bool head_only = false;  // the answer's body is not wanted: the status is enough
};
struct FetchResponse {
  unsigned status = 0;
  std::vector<std::pair<std::string, std::string>> fields;
  std::string body;
  std::string_view field(std::string_view name) const;  // the first of this name; empty: none
};
// On a connection of its own.
Async<Result<FetchResponse>> fetch(io::Loop& loop, const Endpoint& server, const FetchRequest& request, Time deadline, std::size_t body_bytes_max);
// On a kept one if there is one, and kept afterwards. If that turns out to have ended meanwhile a GET or HEAD is sent again, on
// a new one; whether anything else was begun nobody knows, and it fails with `closed` or `reset`.
Async<Result<FetchResponse>> fetch(ConnectionPool& pool, const FetchRequest& request, Time deadline, std::size_t body_bytes_max);

// A GET or POST whose answer is read as it comes, without end perhaps: events, a log, progress.
class FetchStream {
 public:
  // Up to the answer's head.
  static Async<Result<std::unique_ptr<FetchStream>>> open(io::Loop& loop, Endpoint server, FetchRequest request, Time deadline);
  unsigned status() const { return reader_.head().status; }
  // The next piece of the body; empty at its end. Valid until the next call. Errors: closed, reset, invalid, cancelled.
  Async<Result<std::string_view>> read();

 private:
  explicit FetchStream(io::Stream stream) : stream_(std::move(stream)) {}
  io::Stream stream_;
  ResponseReader reader_;
};

}  // namespace ringmaster::wire
