#include "proxy/attempt.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "http/proxy_protocol.h"

namespace ringmaster::proxy {

using balance::Phase;
using base::Code;
using base::Result;
using base::Source;
using http::Framing;
using io::Async;

// RFC 9110 section 7.8: a server must not switch to what was not offered to it, and we offer one protocol.
static bool is_websocket(const http::Fields& fields) {
  return fields.count(http::FieldId::upgrade) == 1 && http::equals_ignoring_case(fields.find(http::FieldId::upgrade)->value, "websocket");
}

bool wants_websocket(const http::RequestHead& head) {
  const http::Field* upgrade = head.fields.find(http::FieldId::upgrade);
  if (upgrade == nullptr || head.method != http::Method::get || head.minor_version == 0 || !http::equals_ignoring_case(upgrade->value, "websocket"))
    return false;
  bool nominated = false;
  for (const http::Field& field : head.fields) {
    if (field.id != http::FieldId::connection) continue;
    http::for_each_element(field.value, [&](std::string_view option) { nominated |= http::equals_ignoring_case(option, "upgrade"); });
  }
  return nominated;
}

Attempt::Attempt(Balancer& balancer, PoolState& pool, wire::Exchange& exchange, const Forwarding& forwarding, Upstream& upstream, balance::Ticket ticket,
                 base::Time deadline)
    : balancer_(balancer),
      pool_(pool),
      exchange_(exchange),
      forwarding_(forwarding),
      upstream_(upstream),
      ticket_(std::move(ticket)),
      deadline_(deadline),
      uploading_(balancer.loop_),
      began_(balancer.loop_.now()) {
  balance::Replica& replica = upstream.replica();
  if (!balance::is_owned(replica.origin)) replica.last_request.store(began_, std::memory_order_relaxed);
}

Attempt::~Attempt() { put_workspace(); }

Pinned::Pinned(Balancer& balancer, Upstream& upstream, std::unique_ptr<wire::ClientConnection> its_connection)
    : connection(std::move(its_connection)), balancer_(balancer), upstream_(upstream) {
  ++upstream_.users;
}

Pinned::~Pinned() {
  connection.reset();
  balancer_.release(upstream_);
}

static bool is_connection_scheme(const http::Field& field, std::string_view name) {
  if (!http::equals_ignoring_case(field.name, name)) return false;
  const std::string_view scheme = field.value.substr(0, field.value.find(' '));
  return http::equals_ignoring_case(scheme, "NTLM") || http::equals_ignoring_case(scheme, "Negotiate");
}

bool names_connection_auth(const http::Fields& fields) {
  // Asked of each request: lengths settle it for nearly all fields.
  static constexpr std::string_view kNames[] = {"authorization", "proxy-authorization"};
  for (const http::Field& field : fields) {
    if (field.name.size() != kNames[0].size() && field.name.size() != kNames[1].size()) continue;
    if (field.id == http::FieldId::other && (is_connection_scheme(field, kNames[0]) || is_connection_scheme(field, kNames[1]))) return true;
  }
  return false;
}

// RFC 4559 section 6, and [MS-NTHT]: what these schemes authenticate is the connection.
bool Attempt::authenticates_connection() const {
  if (names_connection_auth(exchange_.request().fields)) return true;
  const http::ResponseHead& answer = workspace_->reader.head();
  if (answer.status != 401 && answer.status != 407) return false;
  const std::string_view name = answer.status == 401 ? "www-authenticate" : "proxy-authenticate";
  return std::ranges::any_of(answer.fields, [&](const http::Field& field) { return is_connection_scheme(field, name); });
}

void Attempt::take_workspace() {
  if (!workspace_) workspace_ = balancer_.workspaces_.take();
}

void Attempt::put_workspace() {
  if (workspace_) balancer_.workspaces_.put(std::move(workspace_));
}

void Attempt::release_buffer() {
  count(std::nullopt);
  put_workspace();
}

base::Time Attempt::response_deadline() const {
  const base::Duration one = pool_.settings.retry.try_timeout;
  return std::min(deadline_, in(one == base::Duration::zero() ? balancer_.config_.timeouts.response : one));
}

Async<std::optional<Failure>> Attempt::connect() {
  auto made = co_await upstream_.connections().connect(std::min(deadline_, in(balancer_.config_.timeouts.connect)));
  if (!made) {
    const Code code = made.error().code;
    if ((code == Code::refused || code == Code::timeout || code == Code::unreachable) && upstream_.replica().change_phase(Phase::ready, Phase::suspect)) {
      balancer_.reports_.suspect(upstream_.share());
    }
    co_return Failure{{code, Source::replica, {}}, Progress::nothing_sent};
  }
  ++upstream_.metrics.connections_opened;
  connection_ = std::move(*made);
  co_return std::nullopt;
}

// A kept connection that its server ended just now says nothing of the server: the request is tried on a new one (RFC 9112
// section 9.3.1), if doing it twice does no harm. That needs no budget: a connection is kept after a good answer only, so there
// cannot be more of these tries than there were good answers. One that breaks later has fallen silent, and so has its server.
bool Attempt::is_stale(const Failure& failure) const {
  static constexpr base::Duration kJustNow = std::chrono::seconds(1);
  if (balancer_.loop_.now() - began_ > kJustNow) return false;
  const bool ended = failure.error.code == Code::closed || failure.error.code == Code::reset;
  if (!reused_ || !ended || failure.progress == Progress::answering || streamed_ || upload_.client_error) return false;
  return failure.progress == Progress::nothing_sent || http::is_idempotent(exchange_.request().method);
}

Async<std::optional<Failure>> Attempt::begin(bool alone) {
  const bool whole = exchange_.body_complete();
  if (!connection_) connection_ = upstream_.connections().take();
  reused_ = connection_ != nullptr;
  while (true) {
    std::optional<Failure> failure;
    if (!connection_) failure = co_await connect();
    if (failure) co_return failure;
    active_.emplace(upstream_, connection_->stream().watch());
    if (!whole) {
      const auto invited = co_await exchange_.invite_body();
      if (!invited) co_return Failure{{invited.error().code, Source::client, {}}, Progress::nothing_sent};
    }
    take_workspace();
    const auto pieces = make_request();
    const io::Patience patience{balancer_.config_.timeouts.body, 0, deadline_};
    auto write = connection_->stream().write(pieces, patience);
    const auto sent = co_await write;
    put_workspace();
    if (sent) {
      if (!whole) {
        streamed_ = true;  // from here on the body's pieces pass through and are gone
        bear_pauses(true);
        uploading_.spawn(upload());
      }
      // upload() sets the deadline once the request has ended.
      failure = co_await receive(whole ? response_deadline() : deadline_, alone);
    } else {
      failure = Failure{{sent.error().code, Source::replica, {}}, write.written() > 0 ? Progress::sent : Progress::nothing_sent};
    }
    if (!failure || !is_stale(*failure)) co_return failure;
    active_.reset();
    connection_.reset();
    reused_ = false;
  }
}

// Of `forwarding.replaced` and the deadline's header, what this request replaces.
std::span<const std::string_view> Attempt::replaced_fields(std::span<std::string_view> room) {
  std::size_t count = 0;
  for (const std::string_view name : forwarding_.replaced) room[count++] = name;
  if (!pool_.settings.retry.deadline_header.empty()) room[count++] = pool_.settings.retry.deadline_header;
  return room.first(count);
}

// What goes before the head: on a connection of the PROXY protocol, who the client is.
void Attempt::append_preface() {
  using config::ProxyProtocol;
  std::string& out = workspace_->out;
  out.clear();
  if (pool_.settings.proxy_protocol == ProxyProtocol::none) return;
  const io::Watch& client = exchange_.client_watch();
  const base::Endpoint server = client.system().local_endpoint(client.fd());
  if (pool_.settings.proxy_protocol == ProxyProtocol::v1) {
    http::append_proxy_v1(out, exchange_.client(), server);
  } else {
    http::append_proxy_v2(out, exchange_.client(), server);
  }
}

// The head, and of the body what is here, to be sent in one call.
std::array<std::string_view, 3> Attempt::make_request() {
  const http::RequestHead& head = exchange_.request();
  const std::string_view body = exchange_.buffered_body();
  std::array<std::string_view, 8> replaced;
  http::RequestOptions options{forwarding_.path, forwarding_.forwarded, head.framing, head.content_length};
  // A chunked body that is whole already has a length: simpler for the replica, and one packet.
  if (options.framing == Framing::chunked && exchange_.body_complete()) {
    options.framing = Framing::length;
    options.content_length = body.size();
  }
  options.websocket = wants_websocket(head);
  options.edits = forwarding_.request_fields;
  options.extra = forwarding_.extra;
  options.replaced = replaced_fields(replaced);
  const std::string& deadline_header = pool_.settings.retry.deadline_header;
  if (!deadline_header.empty()) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - balancer_.loop_.now()).count();
    workspace_->extra.assign(forwarding_.extra).append(deadline_header).append(": ").append(std::to_string(std::max<std::int64_t>(left, 0))).append("\r\n");
    options.extra = workspace_->extra;
  }
  append_preface();
  std::string& out = workspace_->out;
  http::append_request(out, head, options);
  upstream_.metrics.answers.bytes_sent += body.size();
  if (options.framing != Framing::chunked || body.empty()) return {out, body, {}};
  std::array<char, 16> size;
  const auto [end, error] = std::to_chars(size.data(), size.data() + size.size(), body.size(), 16);
  out.append(size.data(), end).append("\r\n");
  return {out, body, "\r\n"};
}

Async<void> Attempt::upload() {
  const bool chunked = exchange_.request().framing == Framing::chunked;
  io::Stream& stream = connection_->stream();
  while (!upload_.done) {
    const auto piece = co_await exchange_.read_body();
    if (!piece) {
      if (piece.error().code != Code::cancelled) upload_.client_error = piece.error();
      stream.watch().abort(Code::cancelled);  // half a request must not look like a whole one
      co_return;
    }
    std::array<char, 20> size;
    char* end = size.data();
    if (chunked) {
      end = std::to_chars(size.data(), size.data() + 16, piece->size(), 16).ptr;
      *end++ = '\r';
      *end++ = '\n';
    }
    const std::array<std::string_view, 3> pieces = {std::string_view(size.data(), end), *piece, std::string_view(chunked ? "\r\n" : "")};
    const io::Patience patience{balancer_.config_.timeouts.body};
    auto write = stream.write(pieces, patience);
    const auto sent = co_await write;
    if (!sent) break;  // it may have answered early: receive() finds out, and in time
    upstream_.metrics.answers.bytes_sent += piece->size();
    upload_.done = piece->empty();
  }
  const Code slept = co_await balancer_.loop_.sleep(response_deadline() - balancer_.loop_.now());
  if (slept != Code::cancelled && !active_->answering) stream.watch().abort(Code::timeout);
}

// Up to the final head.
Async<std::optional<Failure>> Attempt::receive(base::Time deadline, bool alone) {
  static constexpr unsigned kInterimMax = 16;
  const Code readable = co_await connection_->stream().watch().until_readable(deadline);
  if (readable != Code::ok) co_return Failure{{readable, Source::replica, {}}, Progress::sent};
  take_workspace();
  wire::ResponseReader& reader = workspace_->reader;
  reader.begin(connection_->stream(), exchange_.request().method, {.fields_max = pool_.settings.fields_max, .status_max = pool_.settings.status_max});
  for (unsigned interim = 0; interim <= kInterimMax; ++interim) {
    const auto got = co_await reader.read_head(deadline);
    if (!got) {
      base::Error error = got.error();
      if (error.detail.empty() && error.code == Code::closed) error.detail = "it closed the connection without an answer";
      co_return Failure{std::move(error), reader.any_bytes() ? Progress::answering : Progress::sent};
    }
    const unsigned status = reader.head().status;
    if (status == 101 && !(wants_websocket(exchange_.request()) && is_websocket(reader.head().fields)))
      co_return Failure{{Code::invalid, Source::replica, "it switched to a protocol that was not asked for"}, Progress::answering};
    if (status >= 200 || status == 101) {
      active_->answering = true;
      answered_ = true;
      tunnel_ = status == 101;
      private_ |= authenticates_connection();
      response_time_ = balancer_.loop_.now() - began_;
      co_return std::nullopt;
    }
    // 100 was ours to ask for, and an HTTP/1.0 client knows no interim responses (RFC 9110 section 15.2).
    if (status == 100 || exchange_.request().minor_version == 0 || !alone) continue;
    const auto forwarded = co_await exchange_.forward_interim(reader.head());
    if (!forwarded) co_return Failure{{forwarded.error().code, Source::client, {}}, Progress::answering};
  }
  co_return Failure{{Code::invalid, Source::replica, "it sent too many interim responses"}, Progress::answering};
}

// What the balancer learns from it: only what the replica did; that a client left says nothing.
void Attempt::count(const std::optional<Failure>& failure) {
  if (std::exchange(counted_, true)) return;
  // A full backlog is a busy replica, and a lack of ports or descriptors is our own: neither says that it is broken.
  // Nor does a stream of events that is silent for long.
  const Code code = failure ? failure->error.code : Code::ok;
  const bool says_nothing = code == Code::cancelled || code == Code::full || (code == Code::timeout && answered_);
  const bool broke = failure && failure->error.source == Source::replica && !says_nothing;
  if (broke) {
    ticket_.failed();
    ++upstream_.metrics.failures;
  }
  const unsigned status = answered_ ? workspace_->reader.head().status : 0;
  if (!broke && status == 0) return;
  balance::Replica& replica = upstream_.replica();
  // What only says that the request was an odd one (501, 505, or any answer to a method that nobody knows) is no error of
  // the replica: else a client could have the pool's replicas ejected, one after the other.
  const bool error = broke || (status >= 500 && status != 501 && status != 505 && exchange_.request().method != http::Method::other);
  const base::Duration took = broke ? balancer_.loop_.now() - began_ : response_time_;
  if (answered_) {
    upstream_.metrics.answers.record(status, response_time_);
    pool_.metrics.answers.record(status, response_time_);
    if (pool_.settings.retry.hedge_percentile != 0) pool_.response_times.record(response_time_);
  }
  // The averages are shared by all workers: written only where somebody reads them.
  const bool timed = pool_.settings.policy == balance::Policy::peak_ewma || pool_.settings.max_in_flight != 0;
  if (error || timed) replica.averages.record(balancer_.loop_.now(), took, error);
  if (!error) {
    ticket_.succeeded();
    if (replica.errors_in_a_row.load(std::memory_order_relaxed) != 0) replica.errors_in_a_row.store(0, std::memory_order_relaxed);
    return;
  }
  const std::uint32_t errors = replica.errors_in_a_row.fetch_add(1, std::memory_order_relaxed) + 1;
  const bool out = pool_.settings.health.only_idle ? broke : pool_.settings.ejection.errors != 0 && errors % pool_.settings.ejection.errors == 0;
  if (out && replica.ready()) balancer_.reports_.failing(upstream_.share());
}

void Attempt::bear_pauses(bool bear) {
  io::Watch& watch = connection_->stream().watch();
  if (!upstream_.replica().endpoint.is_loopback()) watch.system().bear_pauses(watch.fd(), bear);
}

void Attempt::release_ticket() {
  count(std::nullopt);
  ticket_.release();
}

Async<void> Attempt::stop_upload() {
  uploading_.cancel();
  co_await uploading_.join();
}

void Attempt::end(const std::optional<Failure>& failure) {
  count(failure);
  // A server that answered an Upgrade otherwise may still believe that it has switched: its connection is not used again.
  // (Of a tunnel neither request nor workspace are left.)
  const bool clean =
      !failure && answered_ && !tunnel_ && !wants_websocket(exchange_.request()) && workspace_->reader.reusable() && (!streamed_ || upload_.done);
  active_.reset();
  if (clean && connection_ && !upstream_.retired && pool_.settings.proxy_protocol == config::ProxyProtocol::none) {
    if (streamed_) bear_pauses(false);
    if (private_) {
      exchange_.companion() = std::make_unique<Pinned>(balancer_, upstream_, std::move(connection_));
    } else {
      upstream_.connections().put(std::move(connection_));
    }
  }
  connection_.reset();
  ticket_.release();
}

}  // namespace ringmaster::proxy
