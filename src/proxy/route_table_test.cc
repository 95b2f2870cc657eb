#include "proxy/route_table.h"

#include <gtest/gtest.h>

#include "http/head_parser.h"
#include "proxy/rate_limiter.h"

namespace ringmaster::proxy {
namespace {

using namespace std::chrono_literals;

class RouteTableTest : public testing::Test {
 public:
  RouteTableTest() { config.listeners.emplace_back().address = base::Endpoint::loopback(80); }

  config::Route& add(const std::string& name, const std::string& host, const std::string& path, const std::string& prefix = {}) {
    config::Route& route = config.routes.emplace_back();
    route.name = name;
    route.host = host;
    route.path = path;
    route.prefix = prefix;
    return route;
  }
  // The name of the route that takes it, or "-".
  std::string match(const std::string& host, const std::string& path, const std::string& fields = {}) const {
    http::RequestParser parser;
    const std::string text = "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\n" + fields + "\r\n";
    EXPECT_EQ(parser.parse(text), http::Parse::done) << text;
    const auto found = RouteTable(config, config.listeners[0]).match(parser.head(), path);
    return found ? config.routes[*found].name : "-";
  }
  config::Config config;
};

TEST_F(RouteTableTest, TakesTheMostParticular) {
  add("any", "", "", "");
  add("api", "", "", "/api");
  add("api-v2", "", "", "/api/v2");
  add("exact", "", "/api/v2");
  add("host", "a.org", "", "");
  add("wild", "*.b.org", "", "");
  add("wilder", "*.x.b.org", "", "/only");
  EXPECT_EQ(match("c.org", "/"), "any");
  EXPECT_EQ(match("c.org", "/api"), "api");
  EXPECT_EQ(match("c.org", "/api/"), "api");
  EXPECT_EQ(match("c.org", "/apis"), "any");
  EXPECT_EQ(match("c.org", "/api/v2"), "exact");
  EXPECT_EQ(match("c.org", "/api/v2/x/y"), "api-v2");
  EXPECT_EQ(match("A.Org:8080", "/api"), "host");
  EXPECT_EQ(match("a.org.", "/api"), "host");
  EXPECT_EQ(match("y.b.org", "/api"), "wild");
  EXPECT_EQ(match("b.org", "/"), "any");
  EXPECT_EQ(match("y.x.b.org", "/only/this"), "wilder");
  EXPECT_EQ(match("y.x.b.org", "/else"), "wild");
  EXPECT_EQ(match("[::1]:80", "/"), "any");
}

TEST_F(RouteTableTest, FallsThroughWhenFieldsDoNotMatch) {
  add("plain", "", "", "/a");
  add("beta", "", "", "/a/b").headers = {{"X-Beta", "yes"}};
  add("both", "", "", "/a/b").headers = {{"X-Beta", "yes"}, {"X-Also", "*"}};
  EXPECT_EQ(match("h", "/a/b"), "plain");
  EXPECT_EQ(match("h", "/a/b", "x-beta: yes\r\n"), "beta");
  EXPECT_EQ(match("h", "/a/b", "x-beta: no\r\n"), "plain");
  EXPECT_EQ(match("h", "/a/b", "X-Also: 1\r\nX-Beta: yes\r\n"), "both");
  EXPECT_EQ(match("h", "/z"), "-");
}

TEST_F(RouteTableTest, HasOnlyItsListenersRoutes) {
  add("other", "", "", "").listener = "127.0.0.1:81";
  EXPECT_EQ(match("h", "/"), "-");
  add("own", "", "", "").listener = "127.0.0.1:80";
  EXPECT_EQ(match("h", "/"), "own");
}

TEST(RateLimiter, GivesABurstAndThenTheRate) {
  config::Rate rate;
  rate.per_second = 10;
  rate.burst = 3;
  RateLimiter limiter(rate);
  base::Time now{1h};
  for (int i = 0; i < 3; ++i) EXPECT_EQ(limiter.ask(7, now), 0ns);
  EXPECT_EQ(limiter.ask(7, now), 100ms);
  EXPECT_EQ(limiter.ask(8, now), 0ns);
  EXPECT_EQ(limiter.ask(7, now + 60ms), 40ms);
  EXPECT_EQ(limiter.ask(7, now + 100ms), 0ns);
  EXPECT_EQ(limiter.ask(7, now + 100ms), 100ms);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(limiter.ask(7, now + 1min), 0ns);
  EXPECT_NE(limiter.ask(7, now + 1min), 0ns);
}

TEST(RateLimiter, DoesNotForgetTheGreedyInAFloodOfKeys) {
  config::Rate rate;
  rate.per_second = 1;
  rate.burst = 10;
  RateLimiter limiter(rate);
  const base::Time now{1h};
  for (int i = 0; i < 10; ++i) EXPECT_EQ(limiter.ask(12345, now), 0ns);
  for (std::uint64_t key = 0; key < 10 * RateLimiter::kKeysMax; ++key) limiter.ask(key * 0x9e3779b97f4a7c15ULL, now);
  EXPECT_NE(limiter.ask(12345, now), 0ns);
}

}  // namespace
}  // namespace ringmaster::proxy
