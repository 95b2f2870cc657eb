// A server and a client of this folder talking to each other, and raw bytes thrown at the server.
#include <gtest/gtest.h>

#include "io/real_system.h"
#include "wire/client.h"
#include "wire/hangup.h"
#include "wire/server.h"

namespace ringmaster::wire {
namespace {

using namespace std::chrono_literals;

// /echo gives the body back, /refuse answers without reading it, /wait waits until cancelled, /half breaks off.
class TestHandler final : public Handler {
 public:
  int cancelled = 0;
  int handled = 0;
  Async<void> handle(Exchange& exchange) override {
    ++handled;
    if (exchange.path() == "/echo") {
      const auto body = co_await exchange.read_whole_body(1 << 20);
      if (!body) {
        co_await exchange.reply(400, "text/plain", body.error().detail);
        co_return;
      }
      co_await exchange.reply(200, "text/plain", *body);
    } else if (exchange.path() == "/wait") {
      io::Fiber& fiber = co_await io::this_fiber();
      const HangupGuard guard(exchange.client_watch(), fiber);
      const Code code = co_await exchange.loop().sleep(10s);
      cancelled += code == Code::cancelled ? 1 : 0;
    } else if (exchange.path() == "/half") {
      co_return;
    } else {
      co_await exchange.reply(200, "text/plain", exchange.path());
    }
  }
};

class WireTest : public testing::Test {
 public:
  io::RealSystem system;
  io::Loop loop{system};
  TestHandler handler;
  ServerLimits limits;
  std::unique_ptr<Server> server;
  Endpoint at;

  void start() {
    auto listening = system.listen(Endpoint::loopback(0), {});
    at = system.local_endpoint(listening->fd());
    server = std::make_unique<Server>(loop, handler, limits);
    server->listen(std::move(*listening));
  }

  template <class F>
  void run(F body) {
    start();
    loop.root().spawn([](WireTest& t, F f) -> Async<void> {
      co_await f(t);
      co_await t.server->stop(t.loop.now() + 1s);
      t.loop.stop();
    }(*this, body));
    loop.run();
  }

  // Sends one or two pieces, a moment apart, and reads all that comes until the server closes or nothing comes for a while.
  Async<std::string> raw(std::string first, std::string second = "", bool half_close = false) {
    auto stream = co_await io::connect(loop, at, loop.now() + 1s);
    for (const std::string_view view : std::array<std::string_view, 2>({first, second})) {
      auto write = stream->write(std::span(&view, 1), loop.now() + 1s);
      const auto sent = co_await write;
      if (!sent) break;
      co_await loop.sleep(1ms);
    }
    if (half_close) stream->shutdown_write();
    std::string all;
    std::string block(65536, '\0');
    while (true) {
      auto read = stream->read(block, loop.now() + 150ms);
      const auto got = co_await read;
      if (!got || *got == 0) {
        all += got ? "[end]" : "[" + std::string(base::name(got.error().code)) + "]";
        break;
      }
      all.append(block, 0, *got);
    }
    co_return all;
  }
};

// What came, without the date.
std::string undated(std::string text) {
  for (std::size_t at = text.find("Date: "); at != std::string::npos; at = text.find("Date: ")) {
    text.erase(at, text.find("\r\n", at) + 2 - at);
  }
  return text;
}

std::string ok(const std::string& body) {
  return "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

TEST_F(WireTest, AnswersPipelinedRequestsInOrderAndKeepsTheConnection) {
  run([](WireTest& t) -> Async<void> {
    const std::string got = co_await t.raw("GET /a HTTP/1.1\r\nHost: h\r\n\r\nPOST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET /b HTT",
                                           "P/1.1\r\nHost: h\r\n\r\n");
    EXPECT_EQ(undated(got), ok("/a") + ok("abc") + ok("/b") + "[timeout]");
  });
}

TEST_F(WireTest, TheBadOneOfAPipelineEndsItAndTheRestIsNeverSeen) {
  run([](WireTest& t) -> Async<void> {
    const std::string got = co_await t.raw("GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\n\r\nGET /c HTTP/1.1\r\nHost: h\r\n\r\n");
    EXPECT_NE(got.find(" 400 "), std::string::npos);
    EXPECT_NE(got.find("Host is missing"), std::string::npos);
    EXPECT_TRUE(got.ends_with("[end]"));
    EXPECT_EQ(t.handler.handled, 1);
  });
}

TEST_F(WireTest, JoinsChunksAndAsksForTheBodyWhenTheClientWaits) {
  run([](WireTest& t) -> Async<void> {
    const std::string head = "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n";
    EXPECT_EQ(undated(co_await t.raw(head + "\r\n3\r\nabc\r\n2\r\nd", "e\r\n0\r\n\r\n")), ok("abcde") + "[timeout]");
    const std::string got = co_await t.raw(head + "Expect: 100-continue\r\n\r\n", "1\r\nx\r\n0\r\n\r\n");
    EXPECT_EQ(undated(got), "HTTP/1.1 100 Continue\r\n\r\n" + ok("x") + "[timeout]");
  });
}

TEST_F(WireTest, ClosesWhenTheBodyWasNotRead) {
  run([](WireTest& t) -> Async<void> {
    const std::string got = co_await t.raw("POST /refuse HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\nGET /smuggled HTTP/1.1\r\n");
    EXPECT_NE(got.find("Connection: close"), std::string::npos);
    EXPECT_TRUE(got.ends_with("/refuse[end]")) << got;
    EXPECT_EQ(t.handler.handled, 1);
  });
}

TEST_F(WireTest, BadChunksAreRefused) {
  run([](WireTest& t) -> Async<void> {
    const std::string head = "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    const std::string with_head = co_await t.raw(head + "x\r\n");
    EXPECT_NE(with_head.find(" 400 "), std::string::npos);
    EXPECT_TRUE(with_head.ends_with("[end]"));
    const std::string later = co_await t.raw(head, "3\r\nabcX");
    EXPECT_NE(later.find("does not end where its size says"), std::string::npos) << later;
    EXPECT_TRUE(later.ends_with("[end]"));
  });
}

TEST_F(WireTest, AHalfAnswerIsAReset) {
  run([](WireTest& t) -> Async<void> { EXPECT_EQ(co_await t.raw("GET /half HTTP/1.1\r\nHost: h\r\n\r\n"), "[reset]"); });
}

TEST_F(WireTest, TimesOutSlowHeadsAndIdleConnections) {
  limits.head_timeout = 20ms;
  limits.idle_timeout = 30ms;
  run([](WireTest& t) -> Async<void> {
    const std::string slow = co_await t.raw("GET / HT");
    EXPECT_NE(slow.find(" 408 "), std::string::npos) << slow;
    EXPECT_EQ(co_await t.raw(""), "[end]");
    EXPECT_TRUE((co_await t.raw("GET /a HTTP/1.1\r\nHost: h\r\n\r\n")).ends_with("/a[end]"));
  });
}

TEST_F(WireTest, AHangUpCancelsTheHandler) {
  run([](WireTest& t) -> Async<void> {
    auto stream = co_await io::connect(t.loop, t.at, t.loop.now() + 1s);
    const std::string_view request = "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n";
    auto write = stream->write(std::span(&request, 1), t.loop.now() + 1s);
    co_await write;
    while (t.handler.handled == 0) co_await t.loop.sleep(1ms);
    stream->close();
    const Time deadline = t.loop.now() + 2s;
    while (t.handler.cancelled == 0 && t.loop.now() < deadline) co_await t.loop.sleep(1ms);
    EXPECT_EQ(t.handler.cancelled, 1);
  });
}

TEST_F(WireTest, HttpTenEndsUnlessItAsksToStay) {
  run([](WireTest& t) -> Async<void> {
    EXPECT_TRUE((co_await t.raw("GET /a HTTP/1.0\r\n\r\n")).ends_with("/a[end]"));
    const std::string kept = co_await t.raw("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    EXPECT_NE(kept.find("Connection: keep-alive"), std::string::npos);
    EXPECT_TRUE(kept.ends_with("/a[timeout]"));
    const std::string half_closed = co_await t.raw("GET /a HTTP/1.1\r\nHost: h\r\n\r\n", "", true);
    EXPECT_TRUE(half_closed.ends_with("/a[end]"));
  });
}

TEST_F(WireTest, FetchReadsAnAnswerAndNamesAFailure) {
  run([](WireTest& t) -> Async<void> {
    FetchRequest request;
    request.method = "POST";
    request.target = "/echo";
    request.body = std::string(100000, 'y');
    const auto response = co_await fetch(t.loop, t.at, request, t.loop.now() + 5s, 1 << 20);
    EXPECT_EQ(response->status, 200U);
    EXPECT_EQ(response->body.size(), 100000U);
    const auto too_long = co_await fetch(t.loop, t.at, request, t.loop.now() + 5s, 10);
    EXPECT_EQ(too_long.error().code, Code::too_large);
    request.target = "/half";
    const auto broken = co_await fetch(t.loop, t.at, request, t.loop.now() + 5s, 10);
    EXPECT_EQ(broken.error().code, Code::reset);
  });
}

TEST_F(WireTest, AFetchStreamIsReadPieceByPieceToItsEnd) {
  run([](WireTest& t) -> Async<void> {
    FetchRequest request;
    request.method = "POST";
    request.target = "/echo";
    request.body = std::string(100000, 'y');
    const auto stream = co_await FetchStream::open(t.loop, t.at, request, t.loop.now() + 5s);
    EXPECT_EQ((*stream)->status(), 200U);
    std::size_t bytes = 0;
    while (true) {
      const auto piece = co_await (*stream)->read();
      if (!piece || piece->empty()) break;
      bytes += piece->size();
    }
    EXPECT_EQ(bytes, 100000U);
    request.target = "/half";
    const auto broken = co_await FetchStream::open(t.loop, t.at, request, t.loop.now() + 5s);
    EXPECT_FALSE(broken.has_value());
  });
}

TEST_F(WireTest, ThePoolDropsAConnectionThatSpeaksUnasked) {
  start();
  loop.root().spawn([](WireTest& t) -> Async<void> {
    ConnectionPool pool(t.loop, t.at, 30s);
    auto connection = co_await pool.connect(t.loop.now() + 1s);
    io::Stream& stream = (*connection)->stream();
    // An answer to a request that the pool knows nothing of: it arrives while the connection is idle.
    const std::string_view request = "GET /late HTTP/1.1\r\nHost: h\r\n\r\n";
    auto write = stream.write(std::span(&request, 1), t.loop.now() + 1s);
    co_await write;
    pool.put(std::move(*connection));
    while (t.handler.handled == 0) co_await t.loop.sleep(1ms);
    co_await t.loop.sleep(5ms);
    EXPECT_EQ(pool.take(), nullptr);
    co_await t.server->stop(t.loop.now() + 1s);
    t.loop.stop();
  }(*this));
  loop.run();
}

}  // namespace
}  // namespace ringmaster::wire
