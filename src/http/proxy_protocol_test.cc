#include "http/proxy_protocol.h"

#include <gtest/gtest.h>

#include "http/trace.h"

namespace ringmaster::http {
namespace {

using State = ProxyHeader::State;

// "done 10.1.2.3:4000 (44)", "done unknown (15)", "more", "bad".
std::string read(std::string_view bytes) {
  const ProxyHeader header = parse_proxy_header(bytes);
  if (header.state == State::more) return "more";
  if (header.state == State::bad) return "bad";
  return "done " + (header.client ? base::to_string(*header.client) : "unknown") + " (" + std::to_string(header.bytes) + ")";
}

TEST(ProxyHeader, OfVersionOneIsALine) {
  EXPECT_EQ(read("PROXY TCP4 10.1.2.3 10.0.0.1 4000 80\r\nGET /"), "done 10.1.2.3:4000 (38)");
  EXPECT_EQ(read("PROXY TCP6 ::1 ::2 4000 80\r\n"), "done [::1]:4000 (28)");
  EXPECT_EQ(read("PROXY UNKNOWN\r\n"), "done unknown (15)");
  for (const std::string_view part : {"", "P", "PROXY", "PROXY TCP4 10.1.2.3 10.0.0.1 4000 80\r"}) EXPECT_EQ(read(part), "more") << part;
  for (const std::string_view bad :
       {"GET / HTTP/1.1\r\n", "PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n", "PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n", "PROXY TCP4 ::1 ::2 1 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n", "PROXY TCP4 1.1.1.1 2.2.2.2 1 70000\r\n", "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n"}) {
    EXPECT_EQ(read(bad), "bad") << bad;
  }
  EXPECT_EQ(read("PROXY " + std::string(120, 'x')), "bad");
}

TEST(ProxyHeader, IsReadAsItIsWritten) {
  const auto client = *base::Endpoint::parse("10.1.2.3:4000");
  const auto server = *base::Endpoint::parse("10.0.0.1:80");
  const auto client6 = *base::Endpoint::parse("[2001:db8::1]:4000");
  const auto server6 = *base::Endpoint::parse("[::1]:80");
  for (const auto append : {append_proxy_v1, append_proxy_v2}) {
    std::string out;
    append(out, client, server);
    EXPECT_EQ(read(out + "x"), "done 10.1.2.3:4000 (" + std::to_string(out.size()) + ")");
    for (std::size_t part = 0; part < out.size(); ++part) EXPECT_EQ(read(out.substr(0, part)), "more") << part;
    out.clear();
    append(out, client6, server6);
    EXPECT_EQ(read(out), "done [2001:db8::1]:4000 (" + std::to_string(out.size()) + ")");
    out.clear();
    append(out, base::Endpoint::unix_socket("/a"), server);
    EXPECT_EQ(read(out), "done unknown (" + std::to_string(out.size()) + ")");
  }
}

TEST(ProxyHeader, OfVersionTwoHasALengthThatIsChecked) {
  const std::string signature("\r\n\r\n\0\r\nQUIT\n", 12);
  EXPECT_EQ(read(signature + std::string("\x31\x11\0\x0c", 4) + std::string(12, '\0')), "bad");                    // version 3
  EXPECT_EQ(read(signature + std::string("\x22\x11\0\x0c", 4) + std::string(12, '\0')), "bad");                    // no such command
  EXPECT_EQ(read(signature + std::string("\x21\x11\0\x04", 4) + std::string(4, '\0')), "bad");                     // too short for its family
  EXPECT_EQ(read(signature + std::string("\x21\x11\xff\xff", 4)), "bad");                                          // too long for us
  EXPECT_EQ(read(signature + std::string("\x21\x11\0\x0f", 4) + std::string(15, '\1')), "done 1.1.1.1:257 (31)");  // with an extension
}

TEST(Trace, IsTakenOnlyInItsForm) {
  EXPECT_TRUE(is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
  EXPECT_TRUE(is_traceparent("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes"));
  for (const std::string_view bad : {"", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                                     "00-00000000000000000000000000000000-00f067aa0ba902b7-01", "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"}) {
    EXPECT_FALSE(is_traceparent(bad)) << bad;
  }
  std::string begun;
  append_traceparent(begun, 0, 0, 0);
  EXPECT_TRUE(is_traceparent(begun)) << begun;
  EXPECT_TRUE(is_request_id("a-1_2.x"));
  EXPECT_FALSE(is_request_id("a b"));
  EXPECT_FALSE(is_request_id(std::string(129, 'a')));
}

}  // namespace
}  // namespace ringmaster::http
