// The configuration as values: checked, complete, and never changed once loaded. config/reference.toml explains every
// setting; how they are read is in load.cc, load_pool.cc and load_route.cc.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "balance/ring.h"
#include "balance/view.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "base/network.h"
#include "http/edits.h"

namespace ringmaster::config {

using base::Duration;
using base::Endpoint;

// How replicas are told who the client is.
enum class ForwardedStyle : std::uint8_t { none, x_forwarded, rfc7239, both };

struct Listener {
  Endpoint address;
  std::string pool;                         // where requests go that no route takes
  bool classic = false;                     // serves the classic API too
  std::vector<base::Network> classic_from;  // who may call it; empty: the listener is on loopback
  std::vector<base::Network> trusted;       // whose Forwarded and X-Forwarded-… fields, and PROXY headers, are believed
  bool proxy_protocol = false;              // connections begin with a PROXY header, v1 or v2
  ForwardedStyle forwarded = ForwardedStyle::x_forwarded;
  std::uint64_t body_bytes_max = 0;             // of a request; 0: no limit
  bool dual_stack = false;                      // an IPv6 address takes IPv4 clients as well
  bool error_detail = false;                    // errors of ours tell clients which replica failed, and how full a pool is
  std::map<unsigned, std::string> error_pages;  // HTML, by status, instead of our own words

  const std::string* error_page(unsigned status) const {
    const auto found = error_pages.find(status);
    return found == error_pages.end() ? nullptr : &found->second;
  }
};

struct Limit {
  int resource = 0;  // RLIMIT_…
  std::uint64_t value = 0;
};

struct Health {
  std::string path = "/";
  std::string host = "localhost";
  std::string method = "GET";
  std::vector<std::pair<unsigned, unsigned>> statuses = {{200, 399}};  // ranges that are good
  std::string body;                                                    // that the answer must contain
  Duration interval = std::chrono::seconds(2);
  Duration timeout = std::chrono::seconds(1);
  unsigned fall = 3;                               // failed checks in a row until unhealthy
  unsigned rise = 2;                               // good ones until ready again
  Duration kill_after = std::chrono::seconds(30);  // unhealthy for so long: replaced
  unsigned max_unavailable = 25;                   // so many may be in replacement at once; at least one
  bool max_unavailable_percent = true;             // of the pool; else a number
  bool only_idle = false;                          // checked only while no request passes; one failed request is enough
  unsigned panic_below_percent = 50;               // fewer healthy than this: all that live are used; 0: never
};

// Passive health: what answers tell.
struct Ejection {
  unsigned errors = 5;  // in a row; 0: never
  Duration duration = std::chrono::seconds(30);
  unsigned most_percent = 50;  // of a pool
};

struct Retry {
  unsigned tries = 3;  // the first included
  unsigned budget_percent = 20;
  unsigned budget_per_second = 3;
  Duration try_timeout{};         // until a response's head; 0: timeouts.response
  Duration timeout{};             // for all tries together; 0: none
  std::string deadline_header;    // tells the replica how many milliseconds are left
  unsigned hedge_percentile = 0;  // a second try after this percentile of response times; 0: never
};

struct Sticky {
  std::string cookie;  // empty: off
  std::string secret;
  Duration max_age{};  // 0: until the browser closes
};

// Containers of a pool, by the Docker Engine API.
struct Container {
  std::string image;                 // empty: the pool has none
  std::vector<std::string> command;  // with {port}, {slot}, {name}, {socket}; empty: the image's
  unsigned port = 8080;              // where it listens, unless it takes {socket}
  bool published = false;            // reached at a published loopback port, else at its own address
  std::string network = "ringmaster";
  std::string socket_volume;        // for {socket}: a named volume that is state_dir/run here; empty: a folder of ours is mounted
  std::vector<std::string> mounts;  // "volume:/path", "/host/path:/path", with ":ro" behind
  std::string user;                 // empty: the image's
  bool writable = false;            // its root file system
  std::uint64_t memory_bytes = 0;   // 0: no limit
  double cpus = 0;                  // 0: no limit
  unsigned processes_max = 1024;

  bool on_unix_socket() const;
};

// Servers that announce themselves (CONTRACT S4).
struct Registration {
  bool allowed = false;
  std::vector<base::Network> from;  // where they, and those who announce them, may be
  std::string token;                // that they must show; empty: none: then each may speak for its own address only
  unsigned per_peer_max = 16;       // servers at one address that announce themselves without a token
};

enum class ProxyProtocol : std::uint8_t { none, v1, v2 };

struct Pool {
  std::string name;
  // How a replica is run.
  std::vector<std::string> command;  // with {socket}, {port}, {slot}, {name}, {ringmaster}
  std::string directory;
  std::vector<std::string> environment;  // "NAME=value", beside what we set
  std::vector<Limit> limits;
  std::string user;                                   // that processes run as; empty: as the master
  std::string group;                                  // empty: the user's own
  bool listen_fds = false;                            // hand the listening socket over (sd_listen_fds)
  Duration grace = std::chrono::seconds(5);           // from SIGTERM to SIGKILL
  Duration drain = std::chrono::seconds(30);          // for requests in flight, before SIGTERM
  Duration ready_timeout = std::chrono::seconds(10);  // for those that /add makes
  Duration start_timeout = std::chrono::minutes(1);   // not ready for so long after its start: replaced; 0: never
  unsigned output_lines_max = 1000;                   // a second and replica that are logged; 0: no limit
  Container container;
  unsigned containers = 0;                               // of `replicas`, the last so many are containers, the others processes
  std::vector<std::string> servers;                      // that run already: "10.0.0.7:80", "name:80"
  Duration resolve_interval = std::chrono::seconds(10);  // of their names
  Registration registration;
  // How many, and what they are called at first.
  unsigned replicas = 1;
  unsigned replicas_max = 56;
  std::vector<std::string> names;  // for the first slots; then "Server N"
  // How requests are spread.
  balance::Policy policy = balance::Policy::least_requests;
  balance::Key key;
  balance::RingSettings ring;
  std::vector<unsigned> weights;   // of the first slots; then 1
  unsigned bound_thousandths = 0;  // bounded load: of the fair share; 0: not bounded
  Sticky sticky;
  Health health;
  Ejection ejection;
  Duration slow_start = std::chrono::seconds(10);
  // Capacity, and requests that wait for it or for a replica to be ready.
  unsigned max_in_flight = 0;  // per replica; 0: no limit
  unsigned queue_length = 1000;
  Duration queue_wait = std::chrono::seconds(10);
  unsigned tasks_max = 1;       // of the tickets, per replica: tasks may take so many; 0: no limit of their own
  unsigned tasks_reserved = 0;  // per replica, of max_in_flight: requests leave so many tickets to tasks
  Retry retry;
  unsigned status_max = 599;  // of an answer; above: the replica has failed
  unsigned fields_max = 100;  // of an answer's head
  ProxyProtocol proxy_protocol = ProxyProtocol::none;

  // Of one that we start in this slot at the beginning.
  balance::Origin initial_origin(unsigned slot) const;
  // What /add starts.
  balance::Origin added_origin() const { return command.empty() ? balance::Origin::container : balance::Origin::process; }
  bool starts_replicas() const { return !command.empty() || !container.image.empty(); }
  std::string initial_name(unsigned slot) const;
  unsigned weight(unsigned slot) const { return slot <= weights.size() ? weights[slot - 1] : 1; }
  // Whether the ring has room for these slots' virtual servers; true for other policies.
  bool fits_ring(const std::vector<unsigned>& slots) const;
  bool on_unix_socket() const;  // else on a loopback TCP port
};

// Requests per key and second, by token buckets.
struct Rate {
  unsigned per_second = 0;  // 0: no limit
  unsigned burst = 0;       // at once
  balance::Key key{balance::Key::Kind::source, {}};
};

// How a route's requests have their paths read (http/target.h).
enum class Paths : std::uint8_t {
  normal,  // matched and forwarded in the normal form
  strict,  // the same, but what is not in that form already, or could be read in two ways, is refused
  raw,     // matched and forwarded as they came
};

struct Route {
  std::string name;  // for metrics
  // What it takes; all that is given must match.
  std::string listener;                                      // an address; empty: all
  std::string host;                                          // "example.org", "*.example.org"; empty: all
  std::string path;                                          // whole; or
  std::string prefix;                                        // of whole segments: "/api" takes /api and /api/x, not /apis
  std::vector<std::pair<std::string, std::string>> headers;  // name and value; "*": any value
  // What it does: forwards to `pool`, or answers.
  std::string pool;
  unsigned status = 0;   // of the answer; 0: forward
  std::string location;  // of a redirect; $path and $query are filled in
  std::string body;
  std::string content_type = "text/plain; charset=utf-8";
  Paths paths = Paths::normal;
  bool replaces_prefix = false;
  std::string new_prefix;  // instead of `prefix`
  http::FieldEdits request_fields;
  http::FieldEdits response_fields;
  std::optional<std::uint64_t> body_bytes_max;  // instead of the listener's
  bool request_buffering = true;                // small bodies are awaited whole before a replica is chosen
  std::uint64_t request_buffer_bytes = 0;       // how small; 0: as fits a connection's buffer, some 30 KiB
  Rate rate;
};

// A queue of tasks: who works at them, and by which rules.
struct Queue {
  std::string name;
  std::string pool;            // whose replicas they are offered to; empty: to pull workers only
  std::string path = "/task";  // an offer is a POST there
  std::string ask;             // GET this first: "are you available?"; empty: a free ticket is the answer
  balance::Policy policy = balance::Policy::first_available;
  std::vector<std::string> types;  // that it takes; empty: all
  bool now = false;                // admission unless a task says otherwise: only if somebody is free at once
  unsigned length_max = 1'000'000;
  unsigned in_progress_max = 0;  // 0: no limit
  unsigned failures_max = 10;
  Duration back_off = std::chrono::milliseconds(100);  // after the first failure; then doubled
  Duration back_off_max = std::chrono::minutes(1);
  Duration timeout = std::chrono::minutes(1);  // of an attempt
};

struct Tasks {
  std::uint64_t payload_bytes_max = 64 << 10;
  std::uint64_t result_bytes_max = 1 << 20;
  std::uint64_t waiting_bytes_max = 1 << 30;   // memory of all tasks that are not done
  Duration keep = std::chrono::hours(24 * 7);  // final tasks
  unsigned keep_max = 1'000'000;
  bool log = false;                    // each that ends
  std::vector<std::string> callbacks;  // URLs that may be told, with all below them; empty: none
  std::string callback_secret;
  unsigned callback_tries = 10;
  Duration callback_back_off = std::chrono::seconds(1);  // after the first try; then doubled
  Duration callback_back_off_max = std::chrono::minutes(5);
};

struct Timeouts {
  Duration head = std::chrono::seconds(10);         // the whole request head, from its first byte
  Duration body = std::chrono::seconds(30);         // between two pieces of a body, either way
  Duration idle = std::chrono::seconds(60);         // between two requests of a client
  Duration connect = std::chrono::seconds(1);       // to a replica
  Duration replica_idle = std::chrono::seconds(4);  // a connection to a replica without a request; below what servers keep
  Duration response = std::chrono::seconds(60);     // from the request's end to the response's head
  Duration stream = std::chrono::minutes(5);        // between two pieces of a response's body
  Duration tunnel = std::chrono::hours(1);          // an upgraded connection without a byte in either direction
  Duration linger = std::chrono::seconds(5);        // for the rest of a request that was answered early, between two pieces
};

struct AccessLog {
  enum class Format : std::uint8_t { off, common, json };
  Format format = Format::off;
  std::string path = "-";  // "-": standard error
  double sample = 1;       // share of the requests that are logged; failures (5xx) always are
};

struct Trace {
  bool traceparent = true;                  // begin one where a request has none (W3C Trace Context)
  std::string request_id = "X-Request-Id";  // the field that carries it; empty: none
};

struct Config {
  std::string file;  // where it came from
  std::string text;
  std::string state_dir = ".ringmaster";
  Duration engine_timeout = std::chrono::seconds(5);  // of silence on the link, then the engine is replaced; 0: never
  std::string engine_user;                            // the engine runs as this user; empty: as the master's
  Endpoint docker;                                    // Docker's socket
  unsigned workers = 0;                               // 0: one per core
  unsigned connections_max = 8000;                    // of clients, per listener
  unsigned connections_per_address_max = 0;           // per worker; 0: no limit
  unsigned body_rate_min = 240;                       // bytes a second that a request's body must bring, after 10 s
  unsigned response_rate_min = 0;                     // bytes a second that a client must take; 0: any in each timeouts.body
  std::uint64_t linger_bytes_max = 64 << 20;          // of a request that was answered early
  Timeouts timeouts;
  AccessLog access_log;
  Trace trace;
  std::vector<Listener> listeners;
  Endpoint admin;
  std::string admin_token_file;       // its first line is the token of whoever may do everything; empty: none
  std::string admin_read_token_file;  // and that of whoever may only read
  std::vector<Pool> pools;
  std::vector<Route> routes;
  Tasks tasks;
  std::vector<Queue> queues;

  const Pool* find_pool(std::string_view name) const;
  const Queue* find_queue(std::string_view name) const;
};

}  // namespace ringmaster::config
