// What Docker says. The input of `docker` is a list of answers, each ended by the byte 0x1e: a letter that says to what it
// is an answer, a digit that chooses its status, and its body. The last one of a letter is given again and again.
//
// What must hold, whatever Docker says: every request to it is well-formed HTTP, a start has an outcome, and it can be stopped.
#include <array>
#include <map>
#include <string>

#include "config/load.h"
#include "fuzz.h"
#include "supervise/docker_runtime.h"
#include "supervise/output_frames.h"
#include "wire/server.h"

namespace ringmaster::fuzz {

using io::Async;
using namespace std::chrono_literals;

static std::vector<std::string> lines_of(std::string_view bytes, std::size_t step) {
  std::vector<std::string> lines;
  supervise::OutputFrames frames([&](std::string_view line) { lines.emplace_back(line); });
  for (std::size_t at = 0; at < bytes.size(); at += step) frames.add(bytes.substr(at, step));
  frames.end();
  return lines;
}

void output_frames(std::string_view bytes) {
  const auto lines = lines_of(bytes, bytes.size() + 1);
  for (const std::string& line : lines) CHECK(!line.contains('\n'));
  // A line that is too long is given in parts, and where it is cut depends on the pieces.
  static constexpr std::size_t kLineBytesMax = 8192;
  if (bytes.size() > kLineBytesMax) return;
  CHECK(lines_of(bytes, 1) == lines);
  CHECK(lines_of(bytes, 7) == lines);
}

namespace {

class Docker final : public wire::Handler {
 public:
  explicit Docker(std::string_view script) {
    while (!script.empty()) {
      const std::string_view one = script.substr(0, script.find('\x1e'));
      script.remove_prefix(std::min(script.size(), one.size() + 1));
      static constexpr std::array<unsigned, 8> kStatuses = {200, 201, 204, 304, 404, 409, 500, 400};
      if (one.size() >= 2) answers_[one[0]].push_back({kStatuses.at(static_cast<unsigned char>(one[1]) % kStatuses.size()), std::string(one.substr(2))});
    }
  }

  unsigned refusals = 0;
  void refused(const Refused&) override { ++refusals; }
  Async<void> handle(wire::Exchange& exchange) override {
    const auto body = co_await exchange.read_whole_body(1 << 20);
    if (!body) {
      ++refusals;
      co_return;
    }
    const char kind = kind_of(exchange.request().method, exchange.path());
    std::string extra;
    const Answer answer = next(kind);
    if (kind == 'e' && answer.status == 200) {
      co_await tell_events(exchange, answer.body);
      co_return;
    }
    if (kind == 'v') extra = "Api-Version: " + (answers_.contains('v') ? answer.body.substr(0, answer.body.find_first_not_of("0123456789.")) : "1.41") + "\r\n";
    co_await exchange.reply(answer.status, "application/json", kind == 'v' ? "OK" : answer.body, extra);
  }

  // The stream stays open for a while, as else nothing would ever be started.
  static Async<void> tell_events(wire::Exchange& exchange, const std::string& events) {
    const http::ResponseHead head{
        .status = 200, .reason = "OK", .minor_version = 1, .framing = http::Framing::chunked, .content_length = 0, .keep_alive = true, .fields = {}};
    exchange.begin_forward(head);
    const std::size_t half = events.size() / 2;
    auto sent = co_await exchange.write(std::string_view(events).substr(0, half), false);
    co_await exchange.loop().sleep(200ms);  // so that the start is under way when the rest comes
    if (sent) sent = co_await exchange.write(std::string_view(events).substr(half), false);
    co_await exchange.loop().sleep(600ms);
    if (sent) co_await exchange.write({}, true);
  }

 private:
  struct Answer {
    unsigned status = 200;
    std::string body;
  };
  static char kind_of(http::Method method, std::string_view path) {
    if (method == http::Method::delete_) return 'd';
    if (path.ends_with("/_ping")) return 'v';
    if (path.contains("/events")) return 'e';
    if (path.ends_with("/containers/json")) return 'l';
    if (path.contains("/networks")) return 'n';
    if (path.ends_with("/containers/create")) return 'c';
    if (path.ends_with("/start")) return 's';
    if (path.ends_with("/logs")) return 'o';
    if (path.ends_with("/images/create")) return 'p';
    return method == http::Method::get ? 'i' : 'k';
  }
  Answer next(char kind) {
    const auto found = answers_.find(kind);
    if (found == answers_.end()) return usual(kind);
    std::size_t& given = given_[kind];
    given = std::min(given, found->second.size() - 1);
    return found->second[given++];
  }
  static Answer usual(char kind) {
    switch (kind) {
      case 'l': return {200, "[]"};
      case 'c': return {201, R"({"Id":"0123456789abcdef"})"};
      case 'i': return {200, R"({"Id":"0123456789abcdef","State":{"Running":true},"NetworkSettings":{"Networks":{"ringmaster":{"IPAddress":"172.18.0.2"}}}})"};
      case 's':
      case 'd':
      case 'k': return {204, ""};
      default: return {200, kind == 'n' ? "{}" : ""};
    }
  }
  std::map<char, std::vector<Answer>> answers_;
  std::map<char, std::size_t> given_;
};

Async<void> start_one(io::Loop& loop, supervise::DockerRuntime& runtime, const config::Config& config) {
  supervise::Launch launch{config.pools[0], 2, 7, "Shop-2", {}, [](std::string_view line) { CHECK(!line.contains('\n')); }};
  auto running = co_await runtime.start(std::move(launch));
  if (!running) co_return;
  (*running)->terminate();
  (*running)->kill();
  co_await (*running)->wait(loop.now() + 5s);
}

Async<void> live(io::SimProcess& process, const config::Config& config, Docker& docker) {
  io::Loop& loop = process.loop();
  wire::Server server(loop, docker, {});
  auto listening = process.systems[0]->listen(config.docker, {});
  CHECK(listening.has_value());
  server.listen(std::move(*listening));
  supervise::DockerRuntime runtime(loop, config, {"abc", "/s/run", "1000:1000"});
  runtime.begin();
  io::Scope starting(loop);
  starting.spawn(start_one(loop, runtime, config));
  co_await loop.sleep(1500ms);
  starting.cancel();
  runtime.stopping();
  co_await starting.join();
  co_await runtime.stop();
  co_await server.stop(loop.now() + 60s);
}

}  // namespace

void docker(std::string_view bytes) {
  static const config::Config config = [] {
    auto parsed = config::parse("fuzz.toml",
                                "[[listener]]\naddress = \"127.0.0.1:1\"\npool = \"web\"\n[pool.web]\nimage = \"shop:17\"\n[pool.web.container]\nport = 80\n");
    CHECK(std::holds_alternative<config::Config>(parsed));
    return std::get<config::Config>(parsed);
  }();
  Docker docker(bytes);
  simulate([&](io::SimProcess& process) -> Async<void> { co_await live(process, config, docker); });
  CHECK(docker.refusals == 0);
}

}  // namespace ringmaster::fuzz
