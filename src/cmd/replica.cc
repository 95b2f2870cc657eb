#include "cmd/replica.h"

#include <unistd.h>

#include <charconv>
#include <csignal>
#include <cstdlib>
#include <optional>
#include <thread>

#include "base/json.h"
#include "base/log.h"
#include "dispatch/task_json.h"
#include "io/real_system.h"
#include "io/resolve.h"
#include "task/expression.h"
#include "wire/client.h"
#include "wire/hangup.h"

namespace ringmaster::cmd {

using base::Endpoint;
using io::Async;
using nlohmann::json;

static constexpr std::string_view kJson = "application/json";
static constexpr std::size_t kEchoBytesMax = 16 << 20;
static constexpr std::size_t kTaskBytesMax = 1 << 20;

static bool parse_number(std::string_view text, std::uint64_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size() && number <= INT64_MAX;
}

Async<void> DemoServer::handle(wire::Exchange& exchange) {
  const std::string_view path = exchange.path();
  if (path == "/home") {
    const std::string body = base::json_text({{"message", "Hello from Server: " + options_.server_id}, {"status", "successful"}});
    co_await exchange.reply(200, kJson, body);
  } else if (path == "/heartbeat" || path == "/health_check") {
    co_await exchange.reply(200, "", "");
  } else if (path == "/available") {
    const std::string body = base::json_text({{"available", !busy_}, {"message", busy_ ? "I am not available." : "I am available."}});
    co_await exchange.reply(200, kJson, body);
  } else if (path == "/echo") {
    co_await echo(exchange);
  } else if (path == "/task") {
    co_await task(exchange);
  } else if (path.starts_with("/prime/")) {
    co_await prime(exchange, path.substr(7));
  } else if (path.starts_with("/sleep/")) {
    co_await sleep(exchange, path.substr(7), false);
  } else if (path.starts_with("/work/")) {
    co_await sleep(exchange, path.substr(6), true);
  } else {
    const std::string body = base::json_text({{"message", "<Error> there is no such path here"}, {"status", "failure"}});
    co_await exchange.reply(404, kJson, body);
  }
}

Async<void> DemoServer::echo(wire::Exchange& exchange) {
  const auto body = co_await exchange.read_whole_body(kEchoBytesMax);
  if (!body) {
    co_await exchange.reply(body.error().code == base::Code::too_large ? 413 : 400, "text/plain", base::describe(body.error()));
    co_return;
  }
  const http::RequestHead& head = exchange.request();
  json fields = json::array();
  for (const http::Field& field : head.fields) fields.push_back({field.name, field.value});
  const std::string answer = base::json_text({{"method", head.method_text},
                                              {"path", exchange.path()},
                                              {"query", head.query},
                                              {"fields", fields},
                                              {"body", *body},
                                              {"body_bytes", body->size()},
                                              {"server", options_.server_id}});
  co_await exchange.reply(200, kJson, answer);
}

Async<void> DemoServer::prime(wire::Exchange& exchange, std::string_view text) {
  std::uint64_t number = 0;
  if (!parse_number(text, number)) {
    co_await exchange.reply(400, kJson, "{\"message\":\"<Error> the number must be whole, from 0 to 9223372036854775807\",\"status\":\"failure\"}");
    co_return;
  }
  bool result = false;
  std::atomic<bool> stopped = false;
  const std::function<void()> work = [&] { result = task::is_prime(number, [&] { return stopped.load(); }); };
  co_await compute(exchange, work, stopped);
  if (stopped) co_return;  // nobody is there to be told
  const std::string body = base::json_text({{"number", number}, {"prime", result}});
  co_await exchange.reply(200, kJson, body);
}

// `alone`: one at a time, as a server's only worker would.
Async<void> DemoServer::sleep(wire::Exchange& exchange, std::string_view text, bool alone) {
  static constexpr std::uint64_t kLongestMs = 60000;
  std::uint64_t ms = 0;
  if (!parse_number(text, ms) || ms > kLongestMs) {
    co_await exchange.reply(400, kJson, "{\"message\":\"<Error> the time must be whole milliseconds, at most 60000\",\"status\":\"failure\"}");
    co_return;
  }
  io::Fiber& fiber = co_await io::this_fiber();
  const wire::HangupGuard guard(exchange.client_watch(), fiber);
  std::optional<io::Turns::Turn> turn;
  if (alone) {
    auto taken = co_await worker_.take(exchange.loop());
    if (!taken) co_return;
    turn.emplace(std::move(*taken));
    ms *= options_.slowness;
  }
  const base::Code slept = co_await exchange.loop().sleep(std::chrono::milliseconds(ms));
  if (slept == base::Code::cancelled) co_return;
  turn.reset();
  const std::string body = base::json_text({{"message", "Hello from Server: " + options_.server_id}, {"slept_ms", ms}});
  co_await exchange.reply(200, kJson, body);
}

static Async<void> run_beside(io::Loop& loop, const std::function<void()>& work, bool& ended, io::Signal& end) {
  auto running = loop.background(work);
  co_await running;
  ended = true;
  end.notify();
}

Async<void> DemoServer::compute(wire::Exchange& exchange, std::function<void()> work, std::atomic<bool>& stopped) {
  io::Fiber& fiber = co_await io::this_fiber();
  const wire::HangupGuard guard(exchange.client_watch(), fiber);
  io::Scope computing(exchange.loop());
  io::Signal end;
  bool ended = false;
  computing.spawn(run_beside(exchange.loop(), work, ended, end));
  while (!ended && !stopped) {
    const base::Code woken = co_await end.wait(exchange.loop());
    if (woken == base::Code::cancelled) stopped = true;
  }
  co_await computing.join();
}

namespace {

// A task as it was offered: what to do, and how far it has got.
struct Job {
  std::atomic<bool> stopped = false;
  base::Result<json> result = base::fail(base::Code::invalid, "the payload must have an 'expression', a 'number' (is it prime?) or 'seconds' (to sleep)");

  void sleep(double seconds) {
    static constexpr auto kSlice = std::chrono::milliseconds(5);
    const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    while (!stopped && std::chrono::steady_clock::now() < until) {
      std::this_thread::sleep_for(std::min<std::chrono::duration<double>>(until - std::chrono::steady_clock::now(), kSlice));
    }
  }
  void run(const json& payload) {
    const auto is_stopped = [this] { return stopped.load(); };
    const auto member = [&](const char* name) { return payload.is_object() && payload.contains(name) ? payload.at(name) : json(); };
    if (const json expression = member("expression"); expression.is_string()) {
      const auto value = task::evaluate(expression.get<std::string>(), {[this](double seconds) { sleep(seconds); }, is_stopped});
      result = value ? base::Result<json>(base::parse_json(task::to_text(*value))) : std::unexpected(value.error());
    } else if (const json number = member("number"); number.is_number_unsigned()) {
      result = json(task::is_prime(number.get<std::uint64_t>(), is_stopped));
    } else if (const json seconds = member("seconds"); seconds.is_number()) {
      if (seconds < 0 || seconds > task::kSleepSecondsMax) {
        result = base::fail(base::Code::invalid, "'seconds' must be from 0 to 60");
        return;
      }
      sleep(seconds.get<double>());
      result = seconds;
    }
  }
};

}  // namespace

// One at a time: whoever comes meanwhile is told so.
Async<void> DemoServer::task(wire::Exchange& exchange) {
  if (busy_ || exchange.request().method != http::Method::post) {
    const std::string body = base::json_text({{"available", !busy_}, {"message", busy_ ? "I am not available." : "<Error> a task is sent by POST"}});
    co_await exchange.reply(busy_ ? 503 : 405, kJson, body);
    co_return;
  }
  busy_ = true;
  const auto text = co_await exchange.read_whole_body(kTaskBytesMax);
  const json payload = text ? dispatch::parse_json(*text) : json();
  Job job;
  const std::function<void()> work = [&] { job.run(payload); };
  if (text && !payload.is_discarded()) co_await compute(exchange, work, job.stopped);
  busy_ = false;
  if (job.stopped) co_return;
  const std::string body =
      job.result ? base::json_text({{"result", *job.result}, {"server", options_.name}})
                 : base::json_text({{"message", text && !payload.is_discarded() ? job.result.error().detail : "the body is not JSON"}, {"status", "failure"}});
  co_await exchange.reply(job.result ? 200 : 400, kJson, body);
}

// The sockets that we were started with (sd_listen_fds(3)), or new ones.
static std::vector<io::Handle> open_sockets(io::System& system, ReplicaOptions& options) {
  std::vector<io::Handle> sockets;
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): before any thread
    return std::string(value == nullptr ? "" : value);
  };
  std::uint64_t number = 0;
  if (options.listen.empty() && variable("LISTEN_PID") == std::to_string(::getpid()) && parse_number(variable("LISTEN_FDS"), number)) {
    for (std::uint64_t i = 0; i < number; ++i) sockets.push_back(system.adopt(static_cast<int>(3 + i)));
    return sockets;
  }
  if (options.listen.empty()) {
    const bool given = parse_number(variable("PORT"), number) && number < 65536;
    options.listen.push_back(Endpoint::loopback(static_cast<std::uint16_t>(given ? number : 8080)));
  }
  for (const Endpoint& endpoint : options.listen) {
    auto socket = system.listen(endpoint, {});
    if (!socket) {
      base::log::error("{}", base::describe(socket.error()));
      return {};
    }
    base::log::info("serving on {}", base::to_string(system.local_endpoint(socket->fd())));
    sockets.push_back(std::move(*socket));
  }
  return sockets;
}

// "http://10.0.0.1:5000" → "10.0.0.1:5000".
static std::string address_of(std::string url) {
  static constexpr std::string_view kScheme = "http://";
  if (url.starts_with(kScheme)) url.erase(0, kScheme.size());
  while (url.ends_with('/')) url.pop_back();
  return url;
}

// POST /server_up or /server_down (CONTRACT S4). What the balancer says, or why it did not.
static Async<base::Result<void>> announce_to(io::Loop& loop, const ReplicaOptions& options, Endpoint balancer, std::string path, std::uint16_t port) {
  const base::Time deadline = loop.now() + std::chrono::seconds(3);
  std::string url = options.advertise;
  if (url.empty()) {  // the address that this machine has towards the balancer
    const auto stream = co_await io::connect(loop, balancer, deadline);
    if (!stream) co_return std::unexpected(stream.error());
    Endpoint here = loop.system().local_endpoint(stream->watch().fd());
    here.port = port;
    url = "http://" + base::to_string(here);
  }
  json body = {{"url", url}};
  if (!options.name.empty()) body["name"] = options.name;
  if (options.ttl_s != 0) body["ttl"] = options.ttl_s;
  wire::FetchRequest request;
  request.method = "POST";
  request.target = std::move(path);
  request.host = address_of(options.balancer);
  request.headers = "Content-Type: application/json\r\n";
  if (!options.token.empty()) request.headers += "Authorization: Bearer " + options.token + "\r\n";
  request.body = base::json_text(body);
  static constexpr std::size_t kAnswerBytesMax = 64 << 10;
  const auto answer = co_await wire::fetch(loop, balancer, request, deadline, kAnswerBytesMax);
  if (!answer) co_return std::unexpected(answer.error());
  if (answer->status == 200) co_return base::Result<void>{};
  const json told = base::parse_json(answer->body);
  const std::string why = told.is_object() && told.contains("message") && told["message"].is_string()
                              ? told["message"].get<std::string>()
                              : "it answered " + std::to_string(answer->status) + ": is this a classic listener, and may servers register with its pool?";
  co_return base::fail(base::Code::denied, base::log::printable(why, 300));
}

// The first of its addresses that takes it.
static Async<base::Result<void>> announce(io::Loop& loop, const ReplicaOptions& options, std::string path, std::uint16_t port) {
  const auto found = co_await io::resolve(loop, address_of(options.balancer));
  if (!found) co_return std::unexpected(found.error());
  base::Result<void> said = base::fail(base::Code::unreachable);
  for (const Endpoint& balancer : *found) {
    said = co_await announce_to(loop, options, balancer, path, port);
    if (said) break;
  }
  co_return said;
}

// Until it works, and then again and again: a balancer that has forgotten us, or has been started anew, knows us soon.
static Async<void> keep_announced(io::Loop& loop, const ReplicaOptions& options, std::uint16_t port) {
  std::string last = "-";
  base::Duration pause = std::chrono::milliseconds(100);
  while (true) {
    const auto announced = co_await announce(loop, options, "/server_up", port);
    const std::string now = announced ? "" : base::describe(announced.error());
    if (now != last && now.empty()) base::log::warning("registered with {}", options.balancer);
    if (now != last && !now.empty()) base::log::warning("cannot register with {}: {}; trying again until it works", options.balancer, now);
    last = now;
    const base::Duration longest = std::chrono::milliseconds(options.ttl_s == 0 ? 3000 : std::min(3000U, options.ttl_s * 300));
    pause = announced ? longest : std::min<base::Duration>(pause * 2, std::chrono::seconds(2));
    const base::Code slept = co_await loop.sleep(pause);
    if (slept == base::Code::cancelled) co_return;
  }
}

static Async<void> serve_until_signal(io::Loop& loop, io::Handle signals, wire::Server& server, const ReplicaOptions& options, std::uint16_t port) {
  io::Scope announcing(loop);
  if (!options.balancer.empty()) announcing.spawn(keep_announced(loop, options, port));
  io::Stream stream(loop, std::move(signals), Endpoint{});
  std::array<char, 1> number{};
  auto read = stream.read(number, base::kNever);
  co_await read;
  announcing.cancel();
  co_await announcing.join();
  if (!options.balancer.empty()) co_await announce(loop, options, "/server_down", port);
  co_await server.stop(loop.now() + std::chrono::seconds(3));
  loop.stop();
}

int run_replica(ReplicaOptions options) {
  base::log::start("replica", base::log::Level::warning);
  io::RealSystem system;
  static constexpr std::array kSignals = {SIGTERM, SIGINT};
  auto signals = system.signals(kSignals);
  ::signal(SIGPIPE, SIG_IGN);
  if (!signals) return 1;
  std::vector<io::Handle> sockets = open_sockets(system, options);
  if (sockets.empty()) return 1;
  const std::uint16_t port = system.local_endpoint(sockets.front().fd()).port;
  if (!options.balancer.empty() && options.advertise.empty() && port == 0) {
    base::log::error("--register needs a TCP port to announce: --listen 0.0.0.0:8080, or --advertise http://…");
    return 1;
  }
  io::Loop loop(system);
  DemoServer demo(options);
  wire::ServerLimits limits;
  limits.idle_timeout = std::chrono::seconds(75);  // longer than balancers keep idle connections
  wire::Server server(loop, demo, limits);
  for (io::Handle& socket : sockets) server.listen(std::move(socket));
  loop.root().spawn(serve_until_signal(loop, std::move(*signals), server, options, port));
  loop.run();
  return 0;
}

}  // namespace ringmaster::cmd
