#include "http/body.h"

#include <algorithm>

#include "http/characters.h"

namespace ringmaster::http {

BodyDecoder::BodyDecoder(Framing framing, std::uint64_t content_length) {
  switch (framing) {
    case Framing::none: break;
    case Framing::until_close: state_ = State::until_close; break;
    case Framing::chunked: state_ = State::size_first; break;
    case Framing::length:
      state_ = content_length == 0 ? State::done : State::length;
      remaining_ = content_length;
      break;
  }
}

BodyDecoder::State BodyDecoder::fail(std::string_view why) {
  why_ = why;
  return State::bad;
}

BodyDecoder::Step BodyDecoder::next(std::string_view bytes) {
  if (state_ == State::until_close) return {bytes.size(), bytes};
  Step step;
  if (state_ != State::length && state_ != State::data) step.consumed = read_framing(bytes);
  if (state_ != State::length && state_ != State::data) return step;
  const auto room = static_cast<std::uint64_t>(bytes.size() - step.consumed);
  step.content = bytes.substr(step.consumed, static_cast<std::size_t>(std::min(room, remaining_)));
  step.consumed += step.content.size();
  remaining_ -= step.content.size();
  if (remaining_ == 0) state_ = state_ == State::length ? State::done : State::data_cr;
  // What follows the last byte of a chunk is read too, so that `done` is known with the last content.
  if (state_ == State::data_cr && step.consumed < bytes.size()) {
    const std::size_t used = step.consumed;
    step.consumed += read_framing(bytes.substr(used));
  }
  return step;
}

// Up to the next content byte, or the end.
std::size_t BodyDecoder::read_framing(std::string_view bytes) {
  std::size_t used = 0;
  while (used < bytes.size() && state_ != State::data && state_ != State::done && state_ != State::bad) {
    state_ = framing_byte(bytes[used++]);
  }
  return used;
}

BodyDecoder::State BodyDecoder::framing_byte(char c) {
  switch (state_) {
    case State::size_first:
    case State::size: return size_byte(c);
    case State::size_lf: return c == '\n' ? after_size_line() : fail("a chunk's size line does not end in CRLF");
    case State::data_cr: return c == '\r' ? State::data_lf : fail("a chunk's data does not end where its size says");
    case State::data_lf: return c == '\n' ? State::size_first : fail("a chunk's data does not end in CRLF");
    case State::trailer_first:
    case State::trailer_name:
    case State::trailer_value:
    case State::trailer_lf:
    case State::end_lf: return trailer_byte(c);
    default: return extension_byte(c);
  }
}

BodyDecoder::State BodyDecoder::after_size_line() const { return remaining_ == 0 ? State::trailer_first : State::data; }

BodyDecoder::State BodyDecoder::size_byte(char c) {
  static constexpr unsigned kDigitsMax = 16;
  if (state_ == State::size_first) {
    remaining_ = 0;
    digits_ = 0;
  }
  if (is(c, kHex)) {
    if (++digits_ > kDigitsMax || (remaining_ >> 59) != 0) return fail("a chunk's size is too large");
    remaining_ = remaining_ * 16 + hex_value(c);
    return State::size;
  }
  if (state_ == State::size_first) return fail("a chunk's size is missing");
  if (c == '\r') return State::size_lf;
  if (c == ';') return State::extension_name_first;
  return fail("a chunk's size is not hexadecimal");
}

// ";name", ";name=token" or ";name=\"quoted\"", any number of them, without white space.
BodyDecoder::State BodyDecoder::extension_byte(char c) {
  if (++extension_bytes_ > kChunkExtensionBytesMax) return fail("the chunk extensions are too long");
  const bool may_end = state_ == State::extension_name || state_ == State::extension_token || state_ == State::extension_after;
  if (may_end && c == '\r') return State::size_lf;
  if (may_end && c == ';') return State::extension_name_first;
  switch (state_) {
    case State::extension_name:
      if (c == '=') return State::extension_value_first;
      [[fallthrough]];
    case State::extension_name_first: return is(c, kToken) ? State::extension_name : fail("a chunk extension is malformed");
    case State::extension_value_first:
      if (c == '"') return State::extension_quoted;
      [[fallthrough]];
    case State::extension_token: return is(c, kToken) ? State::extension_token : fail("a chunk extension is malformed");
    case State::extension_quoted:
      if (c == '"') return State::extension_after;
      if (c == '\\') return State::extension_escape;
      [[fallthrough]];
    case State::extension_escape: return is(c, kFieldValue) ? State::extension_quoted : fail("a chunk extension is malformed");
    default: return fail("a chunk extension is malformed");
  }
}

BodyDecoder::State BodyDecoder::trailer_byte(char c) {
  if (++trailer_bytes_ > kTrailerBytesMax) return fail("the trailer section is too long");
  switch (state_) {
    case State::trailer_first:
      if (c == '\r') return State::end_lf;
      return is(c, kToken) ? State::trailer_name : fail("a trailer field's name is not a token");
    case State::trailer_name:
      if (c == ':') return State::trailer_value;
      return is(c, kToken) ? State::trailer_name : fail("a trailer field's name is not a token");
    case State::trailer_value:
      if (c == '\r') return State::trailer_lf;
      return is(c, kFieldValue) ? State::trailer_value : fail("a trailer field's value has a control character");
    case State::trailer_lf: return c == '\n' ? State::trailer_first : fail("a trailer line does not end in CRLF");
    default: return c == '\n' ? State::done : fail("the trailer section does not end in CRLF");
  }
}

}  // namespace ringmaster::http
