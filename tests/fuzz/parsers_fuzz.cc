// Fuzz targets for everything that parses bytes from outside: one binary; the first byte of an input chooses the parser.
// What must hold beyond "no crash": a head or body is understood the same however it arrives, and what we serialise we
// also accept.
#include <cstdint>
#include <string>

#include "balance/polynomial.h"
#include "base/check.h"
#include "base/endpoint.h"
#include "config/load.h"
#include "http/body.h"
#include "http/head_parser.h"
#include "http/serialize.h"
#include "http/target.h"
#include "link/messages.h"

using namespace ringmaster;

static void fuzz_request(std::string_view bytes) {
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

static void fuzz_response(std::string_view bytes) {
  http::ResponseParser parser;
  parser.restart(http::Method::get);
  if (parser.parse(bytes) != http::Parse::done) return;
  std::string out;
  http::append_response(out, parser.head(), {parser.head().framing, parser.head().content_length, true, 1, "now"});
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
  return body.bad() ? "bad" : content;
}

static void fuzz_body(std::string_view bytes) {
  const http::BodyDecoder chunked(http::Framing::chunked, 0);
  CHECK(decode(chunked, bytes, 1) == decode(chunked, bytes, 7));
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string input(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 7) {
    case 0: fuzz_request(input); break;
    case 1: fuzz_response(input); break;
    case 2: fuzz_body(input); break;
    case 3: (void)config::parse("fuzz.toml", input); break;
    case 4: (void)balance::Polynomial::parse(input, true); break;
    case 5: (void)link::decode(input); break;
    default: (void)base::Endpoint::parse(input); break;
  }
  return 0;
}
