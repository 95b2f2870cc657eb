#include "wire/server.h"

#include <algorithm>

#include "base/log.h"
#include "http/proxy_protocol.h"

namespace ringmaster::wire {

using http::Parse;

Handler::ErrorPage Handler::error_page(unsigned, std::string_view why) const { return {"text/plain; charset=utf-8", std::string(why) + "\n"}; }

Async<void> reply_error(Exchange& exchange, const Handler& handler, unsigned status, std::string_view why, std::string_view extra) {
  const Handler::ErrorPage page = handler.error_page(status, why);
  co_await exchange.reply(status, page.content_type, page.body, extra);
}

// One client's connection. It owns itself between its exchanges: either it is in the server's parked list, or a fiber
// of the server's scope serves it.
class ServerConnection final : public io::Wait, public base::Link<Server::Tag> {
 public:
  // `counted`: of those of its address.
  ServerConnection(Server& server, io::Stream stream, bool counted)
      : Wait(server.loop_), server_(server), stream_(std::move(stream)), peer_(stream_.peer()), peer_text_(base::address_text(peer_)), counted_(counted) {}

  void park() {
    server_.parked_.push_back(*this);
    parked_at_ = loop().now();
    begin(loop().now() + (served_ ? server_.limits_.idle_timeout : server_.limits_.head_timeout));
    stream_.watch().reader = this;
    // Bytes that came while it was being parked make no second event.
    if (stream_.watch().readable()) wake(Code::ok);
  }

  bool counted() const { return counted_; }
  // Parked, and nothing has come on it. One that has just been accepted is given a moment to say what it wants.
  bool is_idle() const {
    static constexpr Duration kMoment = std::chrono::seconds(1);
    return waiting() && (served_ || loop().now() - parked_at_ > kMoment) && !loop().system().has_unread(stream_.watch().fd());
  }
  // Out of the parked list, as it is to be removed.
  void abandon_place() {
    abandon();
    static_cast<base::Link<Server::Tag>*>(this)->unlink();
  }

  // While parked, when the server drains.
  void drain() {
    if (served_) {
      cancel();
    } else if (waiting()) {
      abandon();
      static constexpr Duration kToAsk = std::chrono::seconds(1);
      begin(loop().now() + kToAsk);
      stream_.watch().reader = this;
    }
  }

  const Endpoint& connected_from() const { return stream_.peer(); }

  void done() override {
    static_cast<base::Link<Server::Tag>*>(this)->unlink();
    if (outcome() != Code::ok) {
      server_.remove(*this);
      return;
    }
    server_.scope_.spawn(serve());
  }

 private:
  void detach() override { stream_.watch().reader = nullptr; }

  Async<void> serve() {
    auto workspace = server_.workspaces_.take();
    workspace->in.clear();
    const bool keep = co_await serve_exchanges(*workspace);
    server_.workspaces_.put(std::move(workspace));
    if (keep && !server_.limits_.connections->awaited()) {
      park();
    } else {
      server_.remove(*this);
    }
  }

  // True when the connection is idle and to be kept.
  Async<bool> serve_exchanges(Workspace& workspace) {
    if (server_.limits_.proxy_protocol && !served_) {
      const bool named = co_await read_proxy_header(workspace);
      if (!named) co_return false;
    }
    while (true) {
      workspace.parser.restart();
      const bool got = co_await read_head(workspace);
      if (!got) co_return false;
      served_ = true;
      Exchange exchange(stream_, peer_, peer_text_, workspace, server_.limits_, server_.date_, companion_);
      std::string_view complaint;
      if (!exchange.begin(complaint)) {
        co_await refuse(workspace, 400, complaint);
        co_return false;
      }
      if (server_.draining_) exchange.close_after();
      co_await server_.handler_.handle(exchange);
      if (!exchange.finished_) {
        stream_.reset();
        co_return false;
      }
      if (!exchange.keep_alive_ || server_.draining_) {
        co_await linger(workspace, !exchange.body_complete());
        co_return false;
      }
      workspace.in.compact();
      if (workspace.in.empty() && !stream_.watch().readable()) co_return true;
    }
  }

  // False: there is none, or from somebody who is not trusted; nothing is answered, as nobody knows to whom.
  Async<bool> read_proxy_header(Workspace& workspace) {
    const bool trusted = server_.is_trusted(peer_);
    const Time deadline = loop().now() + server_.limits_.head_timeout;
    Buffer& in = workspace.in;
    while (trusted) {
      const http::ProxyHeader header = http::parse_proxy_header(in.view());
      if (header.state == http::ProxyHeader::State::bad) break;
      if (header.state == http::ProxyHeader::State::done) {
        in.skip(header.bytes);
        in.compact();
        if (header.client) peer_ = *header.client;
        peer_text_ = base::address_text(peer_);
        co_return true;
      }
      auto read = stream_.read(in.space(), deadline);
      const auto got = co_await read;
      if (!got || *got == 0) co_return false;
      in.add(*got);
    }
    server_.warn_of_header(peer_text_, trusted ? "no PROXY header" : "it is not trusted to send PROXY headers");
    co_return false;
  }

  // Reads until a whole head has been parsed. False: the client ended, or has been answered with what was wrong.
  Async<bool> read_head(Workspace& workspace) {
    Buffer& in = workspace.in;
    const Time deadline = loop().now() + server_.limits_.head_timeout;
    while (true) {
      const Parse parse = in.empty() ? Parse::more : workspace.parser.parse(in.view());
      if (parse == Parse::done) co_return true;
      if (parse == Parse::rejected) {
        const http::Rejection why = workspace.parser.rejection();
        co_await refuse(workspace, why.status, why.why);
        co_return false;
      }
      auto read = stream_.read(in.space(), deadline);
      const auto got = co_await read;
      if (got && *got > 0) {
        in.add(*got);
        continue;
      }
      if (!got && got.error().code == Code::timeout && !in.empty()) {
        co_await refuse(workspace, 408, "the request's head did not arrive in time", false);
      }
      co_return false;
    }
  }

  // `sending`: as in linger().
  Async<void> refuse(Workspace& workspace, unsigned status, std::string_view why, bool sending = true) {
    ++server_.rejected_[status];
    server_.handler_.refused({status, why, peer_});
    std::string& out = workspace.out;
    out.clear();
    const auto [content_type, body] = server_.handler_.error_page(status, why);
    http::append_own_response(out, status, content_type, status == 405 ? "Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n" : "",
                              {http::Framing::length, body.size(), false, 1, server_.date_.now(loop())});
    const std::array<std::string_view, 2> pieces = {out, body};
    const io::Patience patience{server_.limits_.body_timeout};
    auto write = stream_.write(pieces, patience);
    const auto sent = co_await write;
    if (sent) co_await linger(workspace, sending);
  }

  // Closing with bytes unread makes the kernel send RST, which can overtake the answer: so our side is ended first, and
  // what still comes is read for a while (RFC 9112 section 9.6). `sending`: the client may be in the middle of a body, and see
  // the answer only once it has sent it. It does not last while others wait for the place.
  Async<void> linger(Workspace& workspace, bool sending) {
    static constexpr Duration kLongest = std::chrono::seconds(30);
    static constexpr Duration kShort = std::chrono::seconds(1);
    static constexpr Duration kLook = std::chrono::milliseconds(200);  // how often is looked who waits
    stream_.shutdown_write();
    const Time end = loop().now() + (sending ? kLongest : kShort);
    const Duration silence = sending && !server_.draining_ ? server_.limits_.linger : kShort;
    Time quiet_until = loop().now() + silence;
    for (std::uint64_t total = 0; total < server_.limits_.linger_bytes_max && !server_.limits_.connections->awaited();) {
      workspace.in.clear();
      const Time until = std::min(end, quiet_until);
      auto read = stream_.read(workspace.in.space(), std::min(until, loop().now() + kLook));
      const auto got = co_await read;
      if (!got && got.error().code == Code::timeout && loop().now() < until) continue;
      if (!got || *got == 0) co_return;
      total += *got;
      quiet_until = loop().now() + silence;
    }
  }

  Server& server_;
  io::Stream stream_;
  Endpoint peer_;
  std::string peer_text_;
  std::unique_ptr<Companion> companion_;
  Time parked_at_{};
  bool counted_;
  bool served_ = false;
};

Server::Server(io::Loop& loop, Handler& handler, const ServerLimits& limits) : loop_(loop), handler_(handler), limits_(limits), scope_(loop) {
  if (!limits_.connections) limits_.connections = std::make_shared<ConnectionLimit>(limits_.connections_max);
  member_ = std::make_shared<ConnectionLimit::Member>(&loop, [this] { close_oldest_idle(); }, [this] { retry(); });
  limits_.connections->join(member_);
}

Server::~Server() {
  CHECK(count_ == 0);
  limits_.connections->leave(member_);
}

void Server::listen(io::Handle listening) {
  listeners_.push_back(std::make_unique<io::Listener>(loop_, std::move(listening)));
  scope_.spawn(listeners_.back()->serve([this](io::Stream stream) { accept(std::move(stream)); }));
}

// One line a second tells enough of a flood.
void Server::warn_of_header(std::string_view peer, std::string_view why) {
  ++rejected_[0];
  if (loop_.now() - warned_at_ < std::chrono::seconds(1)) return;
  warned_at_ = loop_.now();
  base::log::warning("{}: closed: {}", peer, why);
}

bool Server::is_trusted(const Endpoint& peer) const { return base::any_contains(limits_.trusted, peer); }

// A household or a server has a /64 of IPv6 addresses to itself (RFC 6177): limits count that as one.
static std::array<std::uint8_t, 16> limited_address(const Endpoint& peer) {
  std::array<std::uint8_t, 16> address = peer.address;
  if (peer.family == Endpoint::Family::v6) std::fill(address.begin() + 8, address.end(), std::uint8_t{0});
  return address;
}

// A trusted peer speaks for many clients: it has no limit of its own.
bool Server::is_counted(const Endpoint& peer) const {
  return limits_.connections_per_address_max != 0 && peer.family != Endpoint::Family::unix_path && !is_trusted(peer);
}

// One more of a peer that is counted, unless it has enough.
bool Server::has_too_many(const Endpoint& peer) {
  unsigned& count = per_address_[limited_address(peer)];
  if (count >= limits_.connections_per_address_max) return true;
  ++count;
  return false;
}

void Server::accept(io::Stream stream) {
  if (draining_) return;
  const bool counted = is_counted(stream.peer());
  if (counted && has_too_many(stream.peer())) {
    // Before it has said anything: so there is nothing unread that would turn the close into a reset.
    static constexpr std::string_view kRefusal =
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nRetry-After: 1\r\nContent-Length: 44\r\nConnection: close\r\n\r\n"
        "too many connections from this address, wait";
    const iovec piece{const_cast<char*>(kRefusal.data()), kRefusal.size()};  // NOLINT: iovec is shared with readv
    loop_.system().write(stream.watch().fd(), std::span(&piece, 1));
    ++refused_;
    return;
  }
  const bool has_place = limits_.connections->take() || (close_oldest_idle() && limits_.connections->take());
  if (!has_place && !closing_) {
    hold(std::move(stream), counted);
    return;
  }
  if (!has_place) limits_.connections->take_anyway();
  ++accepted_;
  ++count_;
  auto* connection = new ServerConnection(*this, std::move(stream), counted);  // NOLINT: remove() deletes it
  connection->park();
}

bool Server::close_oldest_idle() {
  ServerConnection* oldest = parked_.find([](const ServerConnection& connection) { return connection.is_idle(); });
  if (oldest == nullptr) return false;
  oldest->abandon_place();
  remove(*oldest);
  return true;
}

// All are busy. The newcomer waits, and those behind it in the backlog.
void Server::hold(io::Stream newcomer, bool counted) {
  if (counted) forget_address(newcomer.peer());
  newcomer_ = std::move(newcomer);
  if (limits_.connections->should_say(loop_.now())) {
    base::log::warning("there are {} connections, and none is idle: newcomers wait until one ends", limits_.connections->most());
  }
  for (const auto& listener : listeners_) listener->pause();
  limits_.connections->wait(member_);
}

void Server::retry() {
  if (draining_ || !newcomer_) return;
  for (const auto& listener : listeners_) listener->resume();
  accept(std::exchange(newcomer_, {}));
}

void Server::forget_address(const Endpoint& peer) {
  const auto found = per_address_.find(limited_address(peer));
  if (found != per_address_.end() && --found->second == 0) per_address_.erase(found);
}

void Server::remove(ServerConnection& connection) {
  if (connection.counted()) forget_address(connection.connected_from());
  delete &connection;  // NOLINT: made by accept()
  --count_;
  limits_.connections->give();
  if (count_ == 0) emptied_.notify();
}

Async<void> Server::stop(Time deadline) {
  // Who has connected already is heard, whether or not there is a place.
  closing_ = true;
  if (newcomer_) accept(std::exchange(newcomer_, {}));
  for (const auto& listener : listeners_) listener->close([this](io::Stream stream) { accept(std::move(stream)); });
  draining_ = true;
  // Those that are idle end; one that has just come, and has not asked yet, is heard first.
  parked_.for_each([](ServerConnection& connection) { connection.drain(); });
  while (count_ > 0) {
    const Code outcome = co_await emptied_.wait(loop_, deadline);
    if (outcome != Code::ok) break;
  }
  scope_.cancel();
  co_await scope_.join();
  // Woken but not yet run when the scope was cancelled: their next step ends them.
  while (count_ > 0) co_await emptied_.wait(loop_);
  listeners_.clear();
}

}  // namespace ringmaster::wire
