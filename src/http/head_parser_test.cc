// Every row of the request and response tables of the security rules (A1…A25, B1), whole, byte by byte, and split at
// every point: the answer must not depend on how the bytes arrive.
#include "http/head_parser.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace ringmaster::http {
namespace {

struct Outcome {
  Parse parse = Parse::more;
  unsigned status = 0;
  std::string summary;  // what was understood, so that ways of arriving can be compared
  bool operator==(const Outcome&) const = default;
};

std::string summarise(const RequestHead& head, std::size_t bytes) {
  std::string s = std::string(head.method_text) + " " + std::string(head.path) + "|" + std::string(head.query) + "|" + std::string(head.authority) + "|" +
                  std::to_string(static_cast<int>(head.framing)) + "|" + std::to_string(head.content_length) + (head.keep_alive ? "|keep" : "|close") +
                  (head.expects_continue ? "|expect" : "") + "|" + std::to_string(bytes);
  for (const Field& field : head.fields) s += "\n" + std::string(field.name) + "=" + std::string(field.value);
  return s;
}

// Feeds growing prefixes of `bytes`, which end at the given points.
template <class Points>
Outcome feed(const std::string& bytes, const Points& points) {
  RequestParser parser;
  Parse parse = Parse::more;
  for (const std::size_t point : points) {
    parse = parser.parse(std::string_view(bytes).substr(0, point));
    if (parse != Parse::more) break;
  }
  Outcome outcome{parse, 0, ""};
  if (parse == Parse::rejected) outcome.status = parser.rejection().status;
  if (parse == Parse::done) outcome.summary = summarise(parser.head(), parser.head_bytes());
  return outcome;
}

Outcome parse_every_way(const std::string& bytes) {
  const Outcome whole = feed(bytes, std::vector<std::size_t>{bytes.size()});
  std::vector<std::size_t> each;
  for (std::size_t i = 1; i <= bytes.size(); ++i) each.push_back(i);
  EXPECT_EQ(feed(bytes, each), whole) << bytes;
  if (bytes.size() < 400) {
    for (std::size_t i = 1; i < bytes.size(); ++i) {
      EXPECT_EQ(feed(bytes, std::vector<std::size_t>{i, bytes.size()}), whole) << bytes << " split at " << i;
    }
  }
  return whole;
}

std::string get(const std::string& fields) { return "GET / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n"; }
std::string post(const std::string& fields) { return "POST / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n"; }
std::string line(const std::string& request_line) { return request_line + "\r\nHost: a\r\n\r\n"; }
using namespace std::string_literals;

struct Row {
  const char* id;
  std::string bytes;
  unsigned status;  // 0: accepted
};

TEST(RequestParser, AnswersEveryRowOfTheTable) {
  const std::vector<Row> rows = {
      {"A1 CL.TE", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400},
      {"A1 TE.CL", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), 400},
      {"A2 twice", post("Content-Length: 5\r\nContent-Length: 5\r\n"), 400},
      {"A2 list", post("Content-Length: 5, 5\r\n"), 400},
      {"A2 differing", post("Content-Length: 5\r\nContent-Length: 6\r\n"), 400},
      {"A3 empty", post("Content-Length: \r\n"), 400},
      {"A3 plus", post("Content-Length: +5\r\n"), 400},
      {"A3 minus", post("Content-Length: -1\r\n"), 400},
      {"A3 hex", post("Content-Length: 0x5\r\n"), 400},
      {"A3 tail", post("Content-Length: 5x\r\n"), 400},
      {"A3 underscore", post("Content-Length: 1_0\r\n"), 400},
      {"A3 2^63", post("Content-Length: 9223372036854775808\r\n"), 400},
      {"A3 2^63-1", post("Content-Length: 9223372036854775807\r\n"), 0},
      {"A3 2^64+", post("Content-Length: 99999999999999999999\r\n"), 400},
      {"A4 not last", post("Transfer-Encoding: chunked, gzip\r\n"), 400},
      {"A4 gzip", post("Transfer-Encoding: gzip, chunked\r\n"), 400},
      {"A4 twice in one", post("Transfer-Encoding: chunked, chunked\r\n"), 400},
      {"A4 leading comma", post("Transfer-Encoding: ,chunked\r\n"), 400},
      {"A4 parameter", post("Transfer-Encoding: chunked;x=1\r\n"), 400},
      {"A4 quoted", post("Transfer-Encoding: \"chunked\"\r\n"), 400},
      {"A4 VT", post("Transfer-Encoding: \vchunked\r\n"), 400},
      {"A4 NBSP", post("Transfer-Encoding: \xa0"s + "chunked\r\n"), 400},
      {"A4 0x80", post("Transfer-Encoding: chunked\x80\r\n"), 400},
      {"A4 two lines", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400},
      {"A4 identity", post("Transfer-Encoding: identity\r\n"), 400},
      {"A4 case and spaces", post("Transfer-Encoding: \t ChUnKeD \t\r\n"), 0},
      {"A5 TE in 1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {"A9 bare CR in value", get("X: a\rb\r\n"), 400},
      {"A9 bare CR in line", line("GET /\r HTTP/1.1"), 400},
      {"A9 NUL in value", get("X: a\0b\r\n"s), 400},
      {"A9 NUL in name", get("X\0: b\r\n"s), 400},
      {"A10 bare LF", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400},
      {"A10 bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", 400},
      {"A11 obs-fold", get("X: a\r\n b\r\n"), 400},
      {"A11 obs-fold tab", get("X: a\r\n\tb\r\n"), 400},
      {"A12 space before colon", get("X : a\r\n"), 400},
      {"A12 tab before colon", get("X\t: a\r\n"), 400},
      {"A12 space before the first", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
      {"A12 no colon", get("X\r\n"), 400},
      {"A12 empty name", get(": a\r\n"), 400},
      {"A12 name of 300 letters", get(std::string(300, 'x') + ": a\r\n"), 0},
      {"A13 not a token", get("X(y): a\r\n"), 400},
      {"A13 obs-text in name", get("X\xe9: a\r\n"), 400},
      {"A13 underscore", get("Content_Length: 5\r\n"), 0},
      {"A14 no Host", "GET / HTTP/1.1\r\n\r\n", 400},
      {"A14 no Host in 1.0", "GET / HTTP/1.0\r\n\r\n", 0},
      {"A14 Host twice", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400},
      {"A14 Host invalid", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
      {"A14 Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
      {"A14 Host with user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400},
      {"A14 Host empty", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400},
      {"A14 Host with a bad port", "GET / HTTP/1.1\r\nHost: a:80x\r\n\r\n", 400},
      {"A14 IPv6", "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 0},
      {"A14 absolute-form", line("GET http://b/x?y HTTP/1.1"), 0},
      {"A14 absolute-form with user", line("GET http://u@b/ HTTP/1.1"), 400},
      {"A15 space", line("GET /a b HTTP/1.1"), 400},
      {"A15 two spaces", line("GET  / HTTP/1.1"), 400},
      {"A15 tab", line("GET /a\tb HTTP/1.1"), 400},
      {"A15 0x80", line("GET /\xc3\xa4 HTTP/1.1"), 400},
      {"A15 fragment", line("GET /a#b HTTP/1.1"), 400},
      {"A15 NUL", line("GET /\0 HTTP/1.1"s), 400},
      {"A15 no slash", line("GET a HTTP/1.1"), 400},
      {"A15 star", line("GET * HTTP/1.1"), 400},
      {"A15 OPTIONS star", line("OPTIONS * HTTP/1.1"), 0},
      {"A15 authority-form", line("GET a:80 HTTP/1.1"), 400},
      {"A15 other scheme", line("GET file:///etc HTTP/1.1"), 400},
      {"A15 encoded CRLF stays encoded", line("GET /%0d%0a HTTP/1.1"), 0},
      {"A16 CONNECT", line("CONNECT a:80 HTTP/1.1"), 405},
      {"A16 TRACE", line("TRACE / HTTP/1.1"), 405},
      {"A17 1.9", line("GET / HTTP/1.9"), 505},
      {"A17 2.0", line("GET / HTTP/2.0"), 505},
      {"A17 0.9", "GET /\r\n", 400},
      {"A17 1.1x", line("GET / HTTP/1.1x"), 400},
      {"A17 lower case", line("GET / http/1.1"), 400},
      {"A17 1.", line("GET / HTTP/1."), 400},
      {"A18 other expectation", get("Expect: 200-ok\r\n"), 417},
      {"A18 Expect", post("Expect: 100-Continue\r\nContent-Length: 3\r\n"), 0},
      {"A20 Upgrade with a body", post("Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 3\r\n"), 400},
      {"A20 another Upgrade with a body is ignored", post("Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 3\r\n"), 0},
      {"A20 Upgrade with an empty body", get("Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n"), 0},
      {"A20 Upgrade without", get("Upgrade: h2c\r\nConnection: Upgrade\r\n"), 0},
      {"A23 long line", line("GET /" + std::string(9000, 'x') + " HTTP/1.1"), 414},
      {"A23 long head", get("X: " + std::string(17000, 'x') + "\r\n"), 431},
      {"TLS on a plain port", "\x16\x03\x01"s, 400},
      {"an empty line first", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 0},
      {"two empty lines first", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"own method", line("PROPFIND /x HTTP/1.1"), 0},
      {"method not a token", line("G(T / HTTP/1.1"), 400},
  };
  for (const Row& row : rows) {
    const Outcome outcome = parse_every_way(row.bytes);
    EXPECT_EQ(outcome.parse, row.status == 0 ? Parse::done : Parse::rejected) << row.id;
    EXPECT_EQ(outcome.status, row.status) << row.id;
  }
}

TEST(RequestParser, RefusesTooManyFields) {
  std::string fields;
  for (int i = 0; i < 101; ++i) fields += "a: b\r\n";
  const Outcome outcome = parse_every_way(get(fields));
  EXPECT_EQ(outcome.status, 431U);
}

RequestHead parsed(const std::string& bytes, RequestParser& parser) {
  EXPECT_EQ(parser.parse(bytes), Parse::done) << parser.rejection().why;
  return parser.head();
}

TEST(RequestParser, UnderstandsWhatItAccepts) {
  RequestParser parser;
  const std::string absolute = line("GET http://b:8080?x=1 HTTP/1.1");
  RequestHead head = parsed(absolute, parser);
  EXPECT_EQ(head.authority, "b:8080");
  EXPECT_EQ(head.path, "/");
  EXPECT_EQ(head.query, "?x=1");

  RequestParser chunked;
  const std::string bytes = post("Transfer-Encoding: Chunked\r\nConnection: close\r\nX_Trusted: 1\r\nX: \t a b \r\n");
  head = parsed(bytes, chunked);
  EXPECT_EQ(head.framing, Framing::chunked);
  EXPECT_FALSE(head.keep_alive);
  EXPECT_EQ(head.fields.find("X_Trusted"), nullptr);
  EXPECT_EQ(head.fields.find("x")->value, "a b");

  RequestParser old;
  const std::string ten = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
  EXPECT_TRUE(parsed(ten, old).keep_alive);
}

TEST(RequestParser, ReadsPipelinedRequestsOneAtATime) {
  const std::string first = line("GET /1 HTTP/1.1");
  const std::string second = line("GET /2 HTTP/1.1");
  const std::string both = first + second;
  RequestParser parser;
  EXPECT_EQ(parsed(both, parser).path, "/1");
  EXPECT_EQ(parser.head_bytes(), first.size());
  parser.restart();
  EXPECT_EQ(parser.parse(std::string_view(both).substr(first.size())), Parse::done);
  EXPECT_EQ(parser.head().path, "/2");
}

struct ResponseRow {
  const char* id;
  std::string bytes;
  Method request;
  Parse parse;
  Framing framing;
};

TEST(ResponseParser, AnswersEveryRowOfTheTable) {
  const auto ok = [](const std::string& fields) { return "HTTP/1.1 200 OK\r\n" + fields + "\r\n"; };
  const std::vector<ResponseRow> rows = {
      {"length", ok("Content-Length: 3\r\n"), Method::get, Parse::done, Framing::length},
      {"chunked", ok("Transfer-Encoding: chunked\r\n"), Method::get, Parse::done, Framing::chunked},
      {"until close", ok(""), Method::get, Parse::done, Framing::until_close},
      {"HEAD", ok("Content-Length: 3\r\n"), Method::head, Parse::done, Framing::none},
      {"204", "HTTP/1.1 204 No Content\r\n\r\n", Method::get, Parse::done, Framing::none},
      {"304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", Method::get, Parse::done, Framing::none},
      {"100", "HTTP/1.1 100 Continue\r\n\r\n", Method::get, Parse::done, Framing::none},
      {"no reason", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", Method::get, Parse::done, Framing::length},
      {"HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\n", Method::get, Parse::done, Framing::until_close},
      {"B1 CL and TE", ok("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), Method::get, Parse::rejected, {}},
      {"B1 bad CL", ok("Content-Length: 3x\r\n"), Method::get, Parse::rejected, {}},
      {"B1 two CL", ok("Content-Length: 3\r\nContent-Length: 3\r\n"), Method::get, Parse::rejected, {}},
      {"B1 obs-fold", ok("X: a\r\n b\r\n"), Method::get, Parse::rejected, {}},
      {"B1 NUL", ok("X: a\0\r\n"s), Method::get, Parse::rejected, {}},
      {"B1 huge head", ok("X: " + std::string(20000, 'x') + "\r\n"), Method::get, Parse::rejected, {}},
      {"B1 status 99", "HTTP/1.1 099 No\r\n\r\n", Method::get, Parse::rejected, {}},
      {"B1 status 600", "HTTP/1.1 600 No\r\n\r\n", Method::get, Parse::rejected, {}},
      {"B1 status 2x0", "HTTP/1.1 2x0 No\r\n\r\n", Method::get, Parse::rejected, {}},
      {"B1 status 2000", "HTTP/1.1 2000 No\r\n\r\n", Method::get, Parse::rejected, {}},
      {"B1 not HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n", Method::get, Parse::rejected, {}},
      {"B1 HTTP/2", "HTTP/2.0 200 OK\r\n\r\n", Method::get, Parse::rejected, {}},
      {"B1 bare LF", "HTTP/1.1 200 OK\n\n", Method::get, Parse::rejected, {}},
      {"B1 TE in 1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Method::get, Parse::rejected, {}},
  };
  for (const ResponseRow& row : rows) {
    for (std::size_t split = 0; split < row.bytes.size() && split < 200; ++split) {
      ResponseParser parser;
      parser.restart(row.request);
      Parse parse = parser.parse(std::string_view(row.bytes).substr(0, split));
      if (parse == Parse::more) parse = parser.parse(row.bytes);
      ASSERT_EQ(parse, row.parse) << row.id << " split at " << split;
      if (parse != Parse::done) continue;
      EXPECT_EQ(parser.head().framing, row.framing) << row.id;
    }
  }
}

}  // namespace
}  // namespace ringmaster::http
