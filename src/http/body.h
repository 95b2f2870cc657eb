// Bodies from bytes: by length, chunked (RFC 9112 section 7.1), or until the end of the connection.
#pragma once

#include <cstdint>
#include <string_view>

#include "http/message.h"

namespace ringmaster::http {

inline constexpr std::size_t kChunkExtensionBytesMax = 16384;  // of one message
inline constexpr std::size_t kTrailerBytesMax = 8192;

class BodyDecoder {
 public:
  BodyDecoder() = default;
  BodyDecoder(Framing framing, std::uint64_t content_length);

  // One step: how many of the bytes were used up, and which of them are content. Chunk extensions and trailer fields
  // are checked and dropped: they are never merged into the head and never forwarded.
  struct Step {
    std::size_t consumed = 0;
    std::string_view content;
  };
  Step next(std::string_view bytes);

  bool done() const { return state_ == State::done; }
  bool bad() const { return state_ == State::bad; }  // the bytes break the rules; the connection is lost
  bool ends_with_connection() const { return state_ == State::until_close; }
  std::string_view why() const { return why_; }

 private:
  enum class State : std::uint8_t {
    done,
    bad,
    until_close,
    length,
    size_first,
    size,
    extension_name_first,
    extension_name,
    extension_value_first,
    extension_token,
    extension_quoted,
    extension_escape,
    extension_after,
    size_lf,
    data,
    data_cr,
    data_lf,
    trailer_first,
    trailer_name,
    trailer_value,
    trailer_lf,
    end_lf,
  };

  std::size_t read_framing(std::string_view bytes);
  State framing_byte(char c);
  State size_byte(char c);
  State extension_byte(char c);
  State trailer_byte(char c);
  State fail(std::string_view why);
  State after_size_line() const;

  State state_ = State::done;
  std::uint64_t remaining_ = 0;
  unsigned digits_ = 0;
  std::uint32_t extension_bytes_ = 0;
  std::uint32_t trailer_bytes_ = 0;
  std::string_view why_;
};

}  // namespace ringmaster::http
