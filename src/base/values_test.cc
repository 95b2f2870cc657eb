// Endpoints, networks and names: the small values that everything is addressed by.
#include <gtest/gtest.h>

#include "base/endpoint.h"
#include "base/histogram.h"
#include "base/json.h"
#include "base/log.h"
#include "base/names.h"
#include "base/network.h"
#include "base/random.h"

namespace ringmaster::base {
namespace {

TEST(Json, IsNotWhatHasANul) {
  using namespace std::string_view_literals;
  EXPECT_TRUE(parse_json("{\"a\":1}\0{\"a\":2}"sv).is_discarded());
  EXPECT_TRUE(parse_json("{\"a\":1}\0"sv).is_discarded());
  EXPECT_FALSE(parse_json("{\"a\":\"\\u0000\"}"sv).is_discarded());
}

TEST(Endpoint, ReadsWhatItWrites) {
  for (const char* text : {"127.0.0.1:5000", "[::1]:80", "unix:/run/web.sock", "0.0.0.0:0"}) {
    const auto endpoint = Endpoint::parse(text);
    ASSERT_TRUE(endpoint.has_value()) << text;
    EXPECT_EQ(to_string(*endpoint), text);
  }
  EXPECT_EQ(to_string(*Endpoint::parse("localhost:1")), "127.0.0.1:1");
}

TEST(Endpoint, NamesWhatIsWrong) {
  EXPECT_EQ(Endpoint::parse("5000").error().detail, "'5000' is no address: write 127.0.0.1:5000, [::1]:5000 or unix:/path");
  EXPECT_EQ(Endpoint::parse("127.0.0.1:99999").error().detail, "'99999' is no port: a number from 0 to 65535 is needed");
  EXPECT_EQ(Endpoint::parse("300.0.0.1:1").error().detail, "'300.0.0.1' is no IP address");
  EXPECT_FALSE(Endpoint::parse("unix:").has_value());
  EXPECT_FALSE(Endpoint::parse("unix:/" + std::string(107, 'x')).has_value());
}

TEST(Endpoint, KnowsLoopback) {
  EXPECT_TRUE(Endpoint::parse("127.9.9.9:1")->is_loopback());
  EXPECT_TRUE(Endpoint::parse("[::1]:1")->is_loopback());
  EXPECT_TRUE(Endpoint::parse("unix:/x")->is_loopback());
  EXPECT_FALSE(Endpoint::parse("0.0.0.0:1")->is_loopback());
}

TEST(Network, ContainsByPrefix) {
  const Network ten = *Network::parse("10.0.0.0/8");
  EXPECT_TRUE(ten.contains(*Endpoint::parse("10.200.3.4:1")));
  EXPECT_FALSE(ten.contains(*Endpoint::parse("11.0.0.1:1")));
  EXPECT_FALSE(ten.contains(*Endpoint::parse("[::1]:1")));
  EXPECT_TRUE(Network::parse("::1")->contains(*Endpoint::parse("[::1]:1")));
  EXPECT_TRUE(Network::parse("0.0.0.0/0")->contains(*Endpoint::parse("1.2.3.4:1")));
  EXPECT_FALSE(Network::parse("10.0.0.0/33").has_value());
  EXPECT_FALSE(Network::parse("ten").has_value());
}

TEST(Names, AllowWhatTheContractAllows) {
  for (const char* good : {"S5", "Server 1", "a.b_c-d", "0"}) EXPECT_TRUE(is_replica_name(good)) << good;
  for (const char* bad : {"", " a", "-a", "a/b", "a\nb", "../x", "ä"}) EXPECT_FALSE(is_replica_name(bad)) << bad;
  EXPECT_TRUE(is_replica_name(std::string(63, 'x')));
  EXPECT_FALSE(is_replica_name(std::string(64, 'x')));
  EXPECT_FALSE(is_pool_name("web one"));
  Random random(1);
  EXPECT_TRUE(is_replica_name(random_replica_name(random)));
}

TEST(Log, MakesBytesPrintable) { EXPECT_EQ(log::printable("a\nb\x1b[0m", 20), "a\\x0ab\\x1b[0m"); }

TEST(Histogram, KnowsPercentilesToOnePerCent) {
  Histogram histogram;
  EXPECT_EQ(histogram.percentile(0.5), Duration::zero());
  for (int us = 1; us <= 100000; ++us) histogram.record(std::chrono::microseconds(us));
  for (const double share : {0.01, 0.5, 0.9, 0.99, 0.999}) {
    EXPECT_NEAR(to_ms(histogram.percentile(share)), share * 100, share * 100 * 0.009) << share;
  }
  EXPECT_NEAR(to_ms(histogram.mean()), 50, 0.01);
  histogram.age();
  EXPECT_NEAR(static_cast<double>(histogram.total()), 50000, 1500);
  histogram.record(std::chrono::hours(100));
  EXPECT_GT(histogram.percentile(1), std::chrono::minutes(60));
}

}  // namespace
}  // namespace ringmaster::base
