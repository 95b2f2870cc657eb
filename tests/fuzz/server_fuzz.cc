// A whole HTTP server in the simulated world. The input is one connection's bytes, and before them how they are cut: the first
// byte says how many pieces there are beyond one, and as many bytes follow that say how long each is.
//
// What must hold: the handler sees the requests that a parse of all the bytes at once finds, no others and in this order;
// every answer is well formed, and there are no more of them than requests; and the cuts change nothing.
#include <algorithm>
#include <string>
#include <vector>

#include "fuzz.h"
#include "http/body.h"
#include "http/head_parser.h"
#include "http/target.h"
#include "wire/server.h"

namespace ringmaster::fuzz {

using io::Async;
using namespace std::chrono_literals;

namespace {

constexpr std::size_t kBodyBytesMax = 1 << 20;
constexpr std::string_view kUnread = "/unread";  // answered without its body being read

struct Request {
  std::string method;
  std::string path;
  std::string body;
  bool operator==(const Request&) const = default;
};

class Recorder final : public wire::Handler {
 public:
  std::vector<Request> seen;
  unsigned refusals = 0;
  Async<void> handle(wire::Exchange& exchange) override {
    Request request{std::string(exchange.request().method_text), std::string(exchange.path()), {}};
    if (request.path != kUnread) {
      auto body = co_await exchange.read_whole_body(kBodyBytesMax);
      if (!body) {
        ++refusals;
        co_await exchange.reply(400, "text/plain", base::describe(body.error()));
        co_return;
      }
      request.body = std::move(*body);
    }
    seen.push_back(request);
    co_await exchange.reply(200, "text/plain", request.path);
  }
  void refused(const Refused&) override { ++refusals; }
};

struct Expected {
  std::vector<Request> requests;
  bool depends = false;  // how much of an unread body has come decides whether the connection goes on
};

// Of all the bytes at once, by the same parsers.
Expected parse_all(std::string_view bytes) {
  Expected expected;
  while (!bytes.empty()) {
    http::RequestParser parser;
    if (parser.parse(bytes) != http::Parse::done) break;
    const http::RequestHead& head = parser.head();
    std::string scratch;
    std::string_view path;
    if (!http::normalise_path(head.path, scratch, path)) break;
    Request request{std::string(head.method_text), std::string(path), {}};
    bytes.remove_prefix(parser.head_bytes());
    const bool unread = path == kUnread;
    http::BodyDecoder body(head.framing, head.content_length);
    expected.depends |= unread && !body.done();
    if (unread) expected.requests.push_back(request);
    while (!bytes.empty() && !body.done() && !body.bad()) {
      const auto step = body.next(bytes);
      bytes.remove_prefix(step.consumed);
      request.body += step.content;
    }
    if (!body.done()) break;
    if (!unread) expected.requests.push_back(request);
    if (!head.keep_alive) break;
  }
  return expected;
}

struct Outcome {
  std::vector<Request> seen;
  unsigned refusals = 0;
  std::string answers;
};

Async<void> converse(io::Loop& loop, const base::Endpoint& at, const std::vector<std::string_view>& pieces, std::string& answers) {
  auto stream = co_await io::connect(loop, at, loop.now() + 1s);
  CHECK(stream.has_value());
  for (const std::string_view piece : pieces) {
    auto write = stream->write(std::span(&piece, 1), loop.now() + 10s);
    const auto sent = co_await write;
    if (!sent) break;
    co_await loop.sleep(2ms);  // longer than the network takes: so it arrives by itself
  }
  stream->shutdown_write();
  std::string block(65536, '\0');
  while (true) {
    auto read = stream->read(block, loop.now() + 60s);
    const auto got = co_await read;
    CHECK(got || got.error().code != base::Code::timeout);  // the server never forgets a connection that has ended
    if (!got || *got == 0) break;
    answers.append(block, 0, *got);
  }
}

Outcome serve(const std::vector<std::string_view>& pieces) {
  Outcome outcome;
  simulate([&](io::SimProcess& process) -> Async<void> {
    io::Loop& loop = process.loop();
    Recorder recorder;
    wire::Server server(loop, recorder, {});
    const auto at = base::Endpoint::loopback(80);
    auto listening = process.systems[0]->listen(at, {});
    CHECK(listening.has_value());
    server.listen(std::move(*listening));
    co_await converse(loop, at, pieces, outcome.answers);
    co_await server.stop(loop.now() + 60s);
    outcome.seen = recorder.seen;
    outcome.refusals = recorder.refusals;
  });
  return outcome;
}

// The statuses of the final answers. `asked`: what they answer, as far as that was understood.
std::vector<unsigned> read_answers(std::string_view bytes, const std::vector<Request>& asked) {
  std::vector<unsigned> statuses;
  while (!bytes.empty()) {
    const bool understood = statuses.size() < asked.size();
    const bool head_only = understood && asked[statuses.size()].method == "HEAD";
    http::ResponseParser parser;
    parser.restart(head_only ? http::Method::head : http::Method::get);
    CHECK(parser.parse(bytes) == http::Parse::done);
    bytes.remove_prefix(parser.head_bytes());
    if (parser.head().status < 200) continue;
    statuses.push_back(parser.head().status);
    http::BodyDecoder body(parser.head().framing, parser.head().content_length);
    while (!bytes.empty() && !body.done()) {
      bytes.remove_prefix(body.next(bytes).consumed);
      CHECK(!body.bad());
    }
    // The answer to what was not understood may be one to HEAD.
    CHECK(body.done() || (!understood && bytes.empty()));
  }
  return statuses;
}

void judge(const Outcome& outcome, const Expected& expected) {
  CHECK(outcome.seen.size() <= expected.requests.size());
  CHECK(std::equal(outcome.seen.begin(), outcome.seen.end(), expected.requests.begin()));
  CHECK(expected.depends || outcome.seen.size() == expected.requests.size());
  CHECK(outcome.refusals <= 1);
  CHECK(read_answers(outcome.answers, outcome.seen).size() <= outcome.seen.size() + outcome.refusals);
}

}  // namespace

void server(std::string_view bytes) {
  if (bytes.empty()) return;
  const std::size_t cuts = std::min<std::size_t>(static_cast<unsigned char>(bytes[0]) % 32, bytes.size() - 1);
  const std::string_view lengths = bytes.substr(1, cuts);
  const std::string_view whole = bytes.substr(1 + cuts);
  std::vector<std::string_view> pieces;
  std::string_view rest = whole;
  for (const char length : lengths) {
    const std::string_view piece = rest.substr(0, static_cast<unsigned char>(length));
    if (!piece.empty()) pieces.push_back(piece);
    rest.remove_prefix(piece.size());
  }
  if (!rest.empty()) pieces.push_back(rest);
  const Expected expected = parse_all(whole);
  const Outcome cut = serve(pieces);
  const Outcome at_once = serve({whole});
  judge(cut, expected);
  judge(at_once, expected);
  if (!expected.depends) CHECK(read_answers(cut.answers, cut.seen) == read_answers(at_once.answers, at_once.seen));
}

}  // namespace ringmaster::fuzz
