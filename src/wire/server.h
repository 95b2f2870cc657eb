// The server side of HTTP/1: connections of clients, each answering one exchange after the other through a Handler.
//
//   accept ─▶ parked ──bytes come──▶ serving: read head, handle, repeat while more is here ──▶ parked ─▶ … ─▶ closed
//
// A parked connection is a small record without a buffer or a coroutine; serving takes both from pools.
// Everything on the loop's thread.
#pragma once

#include <map>

#include "io/listener.h"
#include "wire/exchange.h"

namespace ringmaster::wire {

class Handler {
 public:
  virtual ~Handler() = default;
  // Gives the exchange its response. Returning without having finished one breaks the connection, so that the client
  // cannot take half an answer for a whole one.
  virtual Async<void> handle(Exchange& exchange) = 0;

  // How an error of our own is told to a client of this handler; plain text unless overridden.
  struct ErrorPage {
    std::string_view content_type;
    std::string body;
  };
  virtual ErrorPage error_page(unsigned status, std::string_view why) const;

  // A request that was refused before there was an exchange: it is no proper HTTP, or came too slowly. For logs and metrics.
  struct Refused {
    unsigned status;
    std::string_view why;
    const Endpoint& peer;
  };
  virtual void refused(const Refused&) {}
};

// Replies with the handler's error page.
Async<void> reply_error(Exchange& exchange, const Handler& handler, unsigned status, std::string_view why, std::string_view extra = {});

class ServerConnection;

class Server {
 public:
  Server(io::Loop& loop, Handler& handler, const ServerLimits& limits);
  ~Server();  // after stop()

  // Accepts from `listening`, which stays the caller's, until stop().
  void listen(io::Handle listening);
  void accept(io::Stream stream);

  // No new connections; idle ones close now, busy ones after their exchange. Ends when none is left, or at `deadline`
  // by breaking those that are.
  Async<void> stop(Time deadline);

  std::size_t connections() const { return count_; }
  // What there was, for metrics: connections accepted, refused for their address, and requests that were no proper HTTP.
  std::uint64_t accepted() const { return accepted_; }
  std::uint64_t refused() const { return refused_; }
  const std::map<unsigned, std::uint64_t>& rejected() const { return rejected_; }  // by status; 0: closed without an answer

 private:
  friend class ServerConnection;
  void remove(ServerConnection& connection);
  bool close_oldest_idle();
  void hold(io::Stream newcomer, bool counted);
  void retry();
  bool is_trusted(const Endpoint& peer) const;
  void warn_of_header(std::string_view peer, std::string_view why);
  bool is_counted(const Endpoint& peer) const;
  bool has_too_many(const Endpoint& peer);
  void forget_address(const Endpoint& peer);

  io::Loop& loop_;
  Handler& handler_;
  ServerLimits limits_;
  io::Scope scope_;
  std::vector<std::unique_ptr<io::Listener>> listeners_;
  struct Tag;
  base::IntrusiveList<ServerConnection, Tag> parked_;
  ObjectPool<Workspace> workspaces_;
  std::size_t count_ = 0;
  std::uint64_t accepted_ = 0;
  std::uint64_t refused_ = 0;
  std::map<unsigned, std::uint64_t> rejected_;
  Time warned_at_{};
  std::map<std::array<std::uint8_t, 16>, unsigned> per_address_;  // if they are limited
  bool closing_ = false;                                          // the listeners are being closed
  bool draining_ = false;
  ConnectionLimit::MemberPtr member_;  // of limits_.connections
  io::Stream newcomer_;                // accepted, but there is no place for it yet; the listeners are paused
  io::Signal emptied_;
  DateClock date_;
};

}  // namespace ringmaster::wire
