// One try of a request on one replica: a ticket, a connection, the request's head and body, and the response as far as its
// head. begin() ends there, so that two attempts can race; the response's body is the winner's, and Relay's.
#pragma once

#include <array>
#include <optional>

#include "balance/admission.h"
#include "proxy/balancer.h"

namespace ringmaster::proxy {

enum class Progress : std::uint8_t { nothing_sent, sent, answering };  // answering: a byte of the response has come

struct Failure {
  base::Error error;
  Progress progress;
};

class Attempt {
 public:
  // `deadline`: of the whole request.
  Attempt(Balancer& balancer, PoolState& pool, wire::Exchange& exchange, const Forwarding& forwarding, Upstream& upstream, balance::Ticket ticket,
          base::Time deadline);
  Attempt(const Attempt&) = delete;
  Attempt& operator=(const Attempt&) = delete;
  ~Attempt();

  // Nothing: reader() has the response's final head. `alone`: no other attempt runs beside it, so that a body may be
  // streamed and interim responses be passed on.
  io::Async<std::optional<Failure>> begin(bool alone);
  wire::ResponseReader& reader() { return workspace_->reader; }
  io::Stream& stream() { return connection_->stream(); }
  Upstream& upstream() { return upstream_; }
  bool streamed() const { return streamed_; }  // part of the body was read for good: it cannot be sent again
  // Goes by this connection instead of one of the pool's; before begin(). It is the client's own: see Pinned.
  void use(std::unique_ptr<wire::ClientConnection> own) {
    connection_ = std::move(own);
    private_ = true;
  }
  bool is_private() const { return private_; }
  const std::optional<base::Error>& client_error() const { return upload_.client_error; }  // why its body broke off
  bool began_tunnel() const { return tunnel_; }
  // The replica has done its part: what it held is free, while the client still reads.
  void release_ticket();

  // After a 101, with nothing left to read: what reading it needed.
  void release_buffer();

  // If streamed(): breaks off what of the request's body is still on its way. Before end().
  io::Async<void> stop_upload();
  // Ends it: takes back the connection if it is clean, counts, and gives the ticket back. `failure`: how it ended; nothing:
  // well. An attempt that lost a race is ended with Code::cancelled.
  void end(const std::optional<Failure>& failure);

 private:
  void bear_pauses(bool bear);
  io::Async<std::optional<Failure>> connect();
  io::Async<std::optional<Failure>> receive(base::Time deadline, bool alone);
  std::array<std::string_view, 3> make_request();
  // While the answer is awaited nothing is held: so the few buffers that are in use are always warm in the cache, however
  // many requests are in flight.
  void take_workspace();
  void put_workspace();
  bool is_stale(const Failure& failure) const;
  bool authenticates_connection() const;
  void append_preface();
  std::span<const std::string_view> replaced_fields(std::span<std::string_view> room);
  void count(const std::optional<Failure>& failure);
  base::Time response_deadline() const;

  // The rest of a body that had not arrived with the head.
  struct Upload {
    bool done = false;
    std::optional<base::Error> client_error;
  };
  io::Async<void> upload();

  base::Time in(base::Duration d) const { return balancer_.loop_.now() + d; }

  Balancer& balancer_;
  PoolState& pool_;
  wire::Exchange& exchange_;
  const Forwarding& forwarding_;
  Upstream& upstream_;
  balance::Ticket ticket_;
  base::Time deadline_;
  std::unique_ptr<AttemptWorkspace> workspace_;  // while it sends and while it reads
  std::unique_ptr<wire::ClientConnection> connection_;
  std::optional<Upstream::Active> active_;
  io::Scope uploading_;
  Upload upload_;
  base::Time began_;
  bool streamed_ = false;
  bool reused_ = false;    // the connection had carried a request before
  bool answered_ = false;  // the final head has come
  bool tunnel_ = false;    // by a 101
  bool counted_ = false;
  bool private_ = false;  // the connection is this client's alone
  base::Duration response_time_{};
};

// A replica's connection that belongs to one client's connection: NTLM and Negotiate authenticate connections and not
// requests, and whoever came next on it would be taken for whoever authenticated it. It goes with the client's.
class Pinned final : public wire::Companion {
 public:
  Pinned(Balancer& balancer, Upstream& upstream, std::unique_ptr<wire::ClientConnection> its_connection);
  ~Pinned() override;
  Upstream& upstream() { return upstream_; }

  std::unique_ptr<wire::ClientConnection> connection;  // null while it is used, and once it has ended

 private:
  Balancer& balancer_;
  Upstream& upstream_;
};

// The request shows credentials that authenticate its connection (RFC 4559).
bool names_connection_auth(const http::Fields& fields);

// The connection wants to become a WebSocket: the one upgrade that is passed on (SECURITY A20).
bool wants_websocket(const http::RequestHead& head);

}  // namespace ringmaster::proxy
