#include "http/body.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace ringmaster::http {
namespace {

using namespace std::string_literals;

struct Decoded {
  std::string content;
  std::size_t consumed = 0;
  bool done = false;
  bool bad = false;
  bool operator==(const Decoded&) const = default;
};

// Decodes `bytes` as they would come in pieces that end at `points`.
Decoded decode(BodyDecoder decoder, const std::string& bytes, const std::vector<std::size_t>& points) {
  Decoded result;
  for (const std::size_t point : points) {
    while (!decoder.done() && !decoder.bad()) {
      const auto step = decoder.next(std::string_view(bytes).substr(result.consumed, point - result.consumed));
      if (step.consumed == 0) break;
      result.content += step.content;
      result.consumed += step.consumed;
    }
  }
  result.done = decoder.done();
  result.bad = decoder.bad();
  if (result.bad) {
    result.content.clear();  // how much came out before the fault depends on the pieces
    result.consumed = 0;
  }
  return result;
}

Decoded decode_every_way(Framing framing, std::uint64_t length, const std::string& bytes) {
  const BodyDecoder fresh(framing, length);
  const Decoded whole = decode(fresh, bytes, {bytes.size()});
  std::vector<std::size_t> each;
  for (std::size_t i = 1; i <= bytes.size(); ++i) each.push_back(i);
  EXPECT_EQ(decode(fresh, bytes, each), whole) << bytes;
  for (std::size_t i = 1; i < bytes.size() && i < 300; ++i) {
    EXPECT_EQ(decode(fresh, bytes, {i, bytes.size()}), whole) << bytes << " split at " << i;
  }
  return whole;
}

TEST(Body, ALengthEndsExactly) {
  const Decoded got = decode_every_way(Framing::length, 5, "helloGET /");
  EXPECT_TRUE(got.done);
  EXPECT_EQ(got.content, "hello");
  EXPECT_EQ(got.consumed, 5U);
  EXPECT_FALSE(decode_every_way(Framing::length, 5, "hell").done);
  EXPECT_TRUE(BodyDecoder(Framing::length, 0).done());
}

TEST(Body, ChunksAreJoinedAndWhatFollowsIsLeft) {
  const Decoded got = decode_every_way(Framing::chunked, 0, "5\r\nhello\r\n1;a;b=c;d=\"e;\\\"\"\r\n \r\n06\r\nworld!\r\n000\r\nTrailer: x\r\n\r\nGET");
  EXPECT_TRUE(got.done);
  EXPECT_EQ(got.content, "hello world!");
}

TEST(Body, RefusesEveryMalformedChunk) {
  const std::vector<std::pair<const char*, std::string>> rows = {
      {"A6 empty size", "\r\nhello\r\n0\r\n\r\n"},
      {"A6 0x5", "0x5\r\nhello\r\n0\r\n\r\n"},
      {"A6 +5", "+5\r\nhello\r\n0\r\n\r\n"},
      {"A6 -1", "-1\r\nhello\r\n0\r\n\r\n"},
      {"A6 trailing space", "5 \r\nhello\r\n0\r\n\r\n"},
      {"A6 leading space", " 5\r\nhello\r\n0\r\n\r\n"},
      {"A6 17 digits", "00000000000000005\r\nhello\r\n0\r\n\r\n"},
      {"A6 overflow", "8000000000000000\r\nhello\r\n0\r\n\r\n"},
      {"A6 underscore", "1_0\r\nhello\r\n0\r\n\r\n"},
      {"A7 bare LF after the size", "5\nhello\r\n0\r\n\r\n"},
      {"A7 bare CR after the size", "5\rhello\r\n0\r\n\r\n"},
      {"A7 CR x", "5\rXhello\r\n0\r\n\r\n"},
      {"A7 bare LF after the data", "5\r\nhello\n0\r\n\r\n"},
      {"A7 no CRLF after the data", "5\r\nhello0\r\n\r\n"},
      {"A7 one byte more", "5\r\nhello!\r\n0\r\n\r\n"},
      {"A7 TERM.EXT bare LF in an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n"},
      {"A7 EXT.TERM bare CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"},
      {"A7 empty extension", "5;\r\nhello\r\n0\r\n\r\n"},
      {"A7 extension without value", "5;a=\r\nhello\r\n0\r\n\r\n"},
      {"A7 extension with a space", "5; a\r\nhello\r\n0\r\n\r\n"},
      {"A7 LF in a quoted extension", "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n"},
      {"A7 NUL in an extension", "5;a\0\r\nhello\r\n0\r\n\r\n"s},
      {"A7 bare LF at the end", "5\r\nhello\r\n0\r\n\n"},
      {"A8 trailer without a colon", "0\r\nTrailer\r\n\r\n"},
      {"A8 trailer folded", "0\r\nA: b\r\n c\r\n\r\n"},
      {"A8 trailer with a bare LF", "0\r\nA: b\n\r\n"},
      {"A8 trailer with NUL", "0\r\nA: \0\r\n\r\n"s},
      {"A8 trailers too long", "0\r\nA: " + std::string(9000, 'x') + "\r\n\r\n"},
      {"A7 extensions too long", "5;" + std::string(17000, 'x') + "\r\nhello\r\n0\r\n\r\n"},
  };
  for (const auto& [id, bytes] : rows) EXPECT_TRUE(decode_every_way(Framing::chunked, 0, bytes).bad) << id;
}

TEST(Body, UntilCloseTakesEverything) {
  BodyDecoder decoder(Framing::until_close, 0);
  EXPECT_EQ(decoder.next("abc").content, "abc");
  EXPECT_TRUE(decoder.ends_with_connection());
  EXPECT_FALSE(decoder.done());
}

}  // namespace
}  // namespace ringmaster::http
