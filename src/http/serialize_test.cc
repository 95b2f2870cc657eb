#include "http/serialize.h"

#include <gtest/gtest.h>

#include "http/head_parser.h"
#include "http/target.h"

namespace ringmaster::http {
namespace {

std::string forward(const std::string& fields) {
  const std::string bytes = "GET /a?b HTTP/1.1\r\nHost: h\r\n" + fields + "\r\n";
  RequestParser parser;
  EXPECT_EQ(parser.parse(bytes), Parse::done);
  std::string out;
  append_request(out, parser.head(), {"/a", {"10.0.0.1", "http"}});
  return out;
}

constexpr const char* kTail = "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\n\r\n";

TEST(Serialize, MakesTheForwardedHeadAnew) { EXPECT_EQ(forward("Accept: */*\r\n"), std::string("GET /a?b HTTP/1.1\r\nHost: h\r\nAccept: */*\r\n") + kTail); }

TEST(Serialize, LeavesHopByHopFieldsAndNominatedOnesBehind) {
  EXPECT_EQ(forward("Connection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 3\r\nTE: trailers\r\nTrailer: x\r\n"
                    "Proxy-Connection: close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\nExpect: 100-continue\r\nY: 2\r\n"),
            std::string("GET /a?b HTTP/1.1\r\nHost: h\r\nY: 2\r\n") + kTail);
}

TEST(Serialize, IgnoresNominationsOfWhatRoutesOrAuthenticates) {
  EXPECT_EQ(forward("Connection: Host, Cookie, Authorization, X-Forwarded-For\r\nCookie: c\r\nAuthorization: x\r\n"),
            std::string("GET /a?b HTTP/1.1\r\nHost: h\r\nCookie: c\r\nAuthorization: x\r\n") + kTail);
}

TEST(Serialize, ReplacesWhatTheClientClaimsOfItself) {
  EXPECT_EQ(
      forward(
          "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: evil\r\nForwarded: for=x\r\nX-Real-IP: 1.2.3.4\r\nx-forwarded-PORT: 1\r\nX-Forwarded-Prefix: /x\r\n"),
      std::string("GET /a?b HTTP/1.1\r\nHost: h\r\n") + kTail);
}

std::string respond(const std::string& head, Method method, ResponseOptions options) {
  ResponseParser parser;
  parser.restart(method);
  EXPECT_EQ(parser.parse(head), Parse::done);
  std::string out;
  append_response(out, parser.head(), options);
  return out;
}

TEST(Serialize, FramesTheResponseForTheClient) {
  const std::string head = "HTTP/1.1 200 Fine\r\nDate: now\r\nContent-Length: 3\r\nConnection: close\r\n\r\n";
  EXPECT_EQ(respond(head, Method::get, {.framing = Framing::length, .content_length = 3}), "HTTP/1.1 200 Fine\r\nDate: now\r\nContent-Length: 3\r\n\r\n");
  EXPECT_EQ(respond(head, Method::get, {.framing = Framing::chunked, .keep_alive = false}),
            "HTTP/1.1 200 Fine\r\nDate: now\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(respond(head, Method::head, {.framing = Framing::none, .minor_version = 0}),
            "HTTP/1.1 200 Fine\r\nDate: now\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_EQ(respond("HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n", Method::get, {.framing = Framing::none, .date = "then"}),
            "HTTP/1.1 204 No Content\r\nDate: then\r\n\r\n");
}

TEST(Serialize, FormatsDates) {
  std::string text = "what stood there";
  format_date(base::WallTime(std::chrono::seconds(784111777)), text);
  EXPECT_EQ(text, "Sun, 06 Nov 1994 08:49:37 GMT");
}

TEST(Target, HasOneNormalForm) {
  struct Row {
    const char* path;
    const char* normal;  // null: refused
  };
  const Row rows[] = {
      {"/", "/"},
      {"/a/b", "/a/b"},
      {"/a//b", "/a/b"},
      {"//", "/"},
      {"/./a", "/a"},
      {"/a/./", "/a/"},
      {"/a/../b", "/b"},
      {"/a/%2e%2E/b", "/b"},
      {"/..", nullptr},
      {"/../etc", nullptr},
      {"/a/../..", nullptr},
      {"/%2e%2e/x", nullptr},
      {"/%41%7e", "/A~"},
      {"/a%2fb", "/a%2Fb"},
      {"/%00", nullptr},
      {"/%zz", nullptr},
      {"/%4", nullptr},
      {"/a;x=1", "/a;x=1"},
      {"/A", "/A"},
      {"/a/..", "/"},
      {"/%0d%0a", "/%0D%0A"},
      {"/.well-known/x", "/.well-known/x"},
      {"/...", "/..."},
      {"/a/.", "/a/"},
  };
  for (const Row& row : rows) {
    std::string scratch;
    std::string_view normal;
    const bool accepted = normalise_path(row.path, scratch, normal);
    EXPECT_EQ(accepted, row.normal != nullptr) << row.path;
    if (!accepted || row.normal == nullptr) continue;
    EXPECT_EQ(normal, row.normal) << row.path;
    // What is normal stays as it is.
    const std::string once(normal);
    std::string again;
    std::string_view twice;
    EXPECT_TRUE(normalise_path(once, again, twice));
    EXPECT_EQ(twice, once);
  }
}

}  // namespace
}  // namespace ringmaster::http
