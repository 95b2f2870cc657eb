// Classes of bytes of RFC 9110 and 9112, as one table lookup each.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace ringmaster::http {

enum CharacterClass : std::uint8_t {
  kToken = 1,       // RFC 9110 section 5.6.2
  kFieldValue = 2,  // VCHAR, obs-text, SP, HTAB (section 5.5)
  kTarget = 4,      // VCHAR but '#': what may stand in a request target
  kDigit = 8,
  kHex = 16,
};

namespace detail {
constexpr std::array<std::uint8_t, 256> make_classes() {
  std::array<std::uint8_t, 256> classes{};
  for (unsigned c = 0; c < 256; ++c) {
    const bool digit = c >= '0' && c <= '9';
    const bool alpha = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool hex = digit || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
    const bool mark = c < 128 && c != 0 && std::string_view("!#$%&'*+-.^_`|~").contains(static_cast<char>(c));
    const bool visible = c > 0x20 && c < 0x7f;
    unsigned bits = 0;
    if (digit || alpha || mark) bits |= kToken;
    if (visible || c >= 0x80 || c == ' ' || c == '\t') bits |= kFieldValue;
    if (visible && c != '#') bits |= kTarget;
    if (digit) bits |= kDigit;
    if (hex) bits |= kHex;
    classes[c] = static_cast<std::uint8_t>(bits);
  }
  return classes;
}
inline constexpr std::array<std::uint8_t, 256> kClasses = make_classes();
}  // namespace detail

inline bool is(char c, CharacterClass k) { return (detail::kClasses[static_cast<unsigned char>(c)] & k) != 0; }

inline bool all(std::string_view text, CharacterClass k) {
  for (const char c : text) {
    if (!is(c, k)) return false;
  }
  return true;
}

inline bool is_token(std::string_view text) { return !text.empty() && all(text, kToken); }

inline char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; }

// The value of a hexadecimal digit.
inline unsigned hex_value(char c) { return c <= '9' ? static_cast<unsigned>(c - '0') : static_cast<unsigned>(lower(c) - 'a') + 10; }

}  // namespace ringmaster::http
