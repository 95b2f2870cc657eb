// What clients and replicas send, and what stands in it.
#include <algorithm>
#include <string>

#include "admin/task_request.h"
#include "base/endpoint.h"
#include "config/config.h"
#include "fuzz.h"
#include "http/body.h"
#include "http/head_parser.h"
#include "http/proxy_protocol.h"
#include "http/serialize.h"
#include "http/target.h"
#include "http/trace.h"
#include "proxy/sticky.h"

namespace ringmaster::fuzz {

void request(std::string_view bytes) {
  http::RequestParser whole;
  const http::Parse parse = whole.parse(bytes);
  http::RequestParser pieces;
  http::Parse last = http::Parse::more;
  for (std::size_t end = 1; end <= bytes.size() && last == http::Parse::more; ++end) last = pieces.parse(bytes.substr(0, end));
  CHECK(bytes.empty() || last == parse);
  if (parse != http::Parse::done) return;
  CHECK(pieces.head_bytes() == whole.head_bytes());
  std::string scratch;
  std::string_view path;
  if (!http::normalise_path(whole.head().path, scratch, path)) return;
  std::string out;
  http::append_request(out, whole.head(), {path, {"127.0.0.1", "http"}, whole.head().framing, whole.head().content_length});
  http::RequestParser again(http::HeadLimits{1 << 20, 1 << 20});
  const http::Parse reparsed = again.parse(out);
  // An HTTP/1.0 request without Host becomes one with an empty Host, which is the only thing that may be refused; and
  // fields are added, which may be too many.
  CHECK(reparsed == http::Parse::done || whole.head().authority.empty() || whole.head().fields.size() > http::HeadLimits{}.fields_max - 5);
  if (reparsed == http::Parse::done) CHECK(again.head().framing == whole.head().framing && again.head_bytes() == out.size());
}

void response(std::string_view bytes) {
  http::ResponseParser parser;
  parser.restart(http::Method::get);
  if (parser.parse(bytes) != http::Parse::done) return;
  std::string out;
  http::append_response(out, parser.head(), {parser.head().framing, parser.head().content_length, true, 1, "now"});
  http::ResponseParser again(http::HeadLimits{1 << 20, 1 << 20, http::kFieldsMax});
  again.restart(http::Method::get);
  CHECK(again.parse(out) == http::Parse::done && again.head_bytes() == out.size());
  CHECK(again.head().status == parser.head().status);
  // What would have lasted until the end of the connection is sent in chunks: the client's connection stays.
  CHECK(again.head().framing == parser.head().framing || parser.head().framing == http::Framing::until_close);
}

static std::string decode(http::BodyDecoder body, std::string_view bytes, std::size_t step) {
  std::string content;
  std::size_t used = 0;
  for (std::size_t end = step; used < bytes.size() && !body.done() && !body.bad(); end += step) {
    const std::string_view piece = bytes.substr(used, std::min(end, bytes.size()) - used);
    const auto taken = body.next(piece);
    content += taken.content;
    used += taken.consumed;
    if (taken.consumed == 0 && end >= bytes.size()) break;
  }
  return body.bad() ? "bad" : (body.done() ? "done " : "more ") + std::to_string(used) + " " + content;
}

void body(std::string_view bytes) {
  const http::BodyDecoder chunked(http::Framing::chunked, 0);
  CHECK(decode(chunked, bytes, 1) == decode(chunked, bytes, 7));
  CHECK(decode(chunked, bytes, 1) == decode(chunked, bytes, bytes.size() + 1));
}

void path(std::string_view bytes) {
  std::string scratch;
  std::string_view normal;
  if (http::normalise_path(bytes, scratch, normal)) {
    std::string scratch_again;
    std::string_view again;
    CHECK(http::normalise_path(normal, scratch_again, again) && again == normal);
    CHECK(!bytes.starts_with('/') || normal.starts_with('/'));
    CHECK(!normal.contains("//") && !normal.contains("/../") && !normal.contains("/./") && !normal.ends_with("/.."));
    (void)http::is_ambiguous_path(normal);
  }
  std::string_view authority;
  std::string_view rest;
  if (http::split_absolute(bytes, authority, rest)) {
    CHECK(http::is_authority(authority) && !authority.contains('@'));
    CHECK(authority.starts_with(http::host_of(authority)));
  }
  const auto value = admin::query_value("?x=1&q=" + http::percent_encode(bytes) + "&q=2", "q");
  CHECK(value && *value == bytes);
  (void)admin::query_value(bytes, "q");
}

void proxy(std::string_view bytes) {
  using State = http::ProxyHeader::State;
  const http::ProxyHeader whole = http::parse_proxy_header(bytes);
  static constexpr std::size_t kEachPrefix = 300;  // beyond that only a long version 2 header goes on
  for (std::size_t end = 0; end <= std::min(bytes.size(), kEachPrefix); ++end) {
    const http::ProxyHeader part = http::parse_proxy_header(bytes.substr(0, end));
    if (part.state == State::more) continue;
    CHECK(part.state == whole.state && part.bytes == whole.bytes && part.client == whole.client);
    break;
  }
  if (whole.state != State::done) return;
  CHECK(whole.bytes <= bytes.size());
  if (!whole.client) return;
  base::Endpoint server = *whole.client;
  server.port = 80;
  for (const bool second : {false, true}) {
    std::string out;
    (second ? http::append_proxy_v2 : http::append_proxy_v1)(out, *whole.client, server);
    const http::ProxyHeader again = http::parse_proxy_header(out + "GET");
    CHECK(again.state == State::done && again.bytes == out.size() && again.client == whole.client);
  }
}

void trace(std::string_view bytes) {
  if (http::is_traceparent(bytes)) {
    CHECK(bytes.size() >= 55 && bytes.substr(0, 55).find_first_not_of("0123456789abcdef-") == std::string_view::npos);
    CHECK(http::is_traceparent(bytes.substr(0, 55)));
  }
  if (http::is_request_id(bytes)) CHECK(bytes.find_first_of(" \r\n\t\"\\;") == std::string_view::npos);
  std::uint64_t number = 0;
  for (const char c : bytes.substr(0, 8)) number = (number << 8) | static_cast<unsigned char>(c);
  std::string own;
  http::append_traceparent(own, number, ~number, number * 31);
  CHECK(http::is_traceparent(own));
}

static std::optional<std::uint32_t> slot_of(proxy::Sticky& sticky, const std::string& cookies) {
  const std::string head = "GET / HTTP/1.1\r\nHost: a\r\nCookie: " + cookies + "\r\n\r\n";
  http::RequestParser parser;
  if (parser.parse(head) != http::Parse::done) return std::nullopt;
  return sticky.slot(parser.head());
}

void cookie(std::string_view bytes) {
  static const config::Pool pool = [] {
    config::Pool made;
    made.name = "web";
    made.sticky.cookie = "seat";
    made.sticky.secret = "0123456789abcdef";
    return made;
  }();
  proxy::Sticky sticky(pool);
  const auto value_of = [&](std::uint32_t slot) {
    const std::string line = sticky.set_cookie(slot);
    return line.substr(std::string_view("Set-Cookie: ").size(), line.find(';') - std::string_view("Set-Cookie: ").size());
  };
  // A slot is only taken from a value that we would have given for it, byte for byte.
  const std::string given(bytes);
  if (const auto slot = slot_of(sticky, given)) CHECK(given.contains(value_of(*slot)));
  const std::uint32_t slot = 1 + (bytes.empty() ? 0 : static_cast<unsigned char>(bytes[0]));
  CHECK(slot_of(sticky, value_of(slot)) == slot);
}

}  // namespace ringmaster::fuzz
