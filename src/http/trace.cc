#include "http/trace.h"

#include <algorithm>
#include <array>

#include "http/characters.h"

namespace ringmaster::http {

static bool is_lower_hex(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return is(c, kDigit) || (c >= 'a' && c <= 'f'); });
}

bool is_traceparent(std::string_view text) {
  if (text.size() < 55 || text[2] != '-' || text[35] != '-' || text[52] != '-') return false;
  const std::string_view version = text.substr(0, 2);
  if (!is_lower_hex(version) || version == "ff" || (version == "00" && text.size() != 55) || (text.size() > 55 && text[55] != '-')) return false;
  const std::string_view trace = text.substr(3, 32);
  const std::string_view span = text.substr(36, 16);
  const auto zero = [](std::string_view id) { return id.find_first_not_of('0') == std::string_view::npos; };
  return is_lower_hex(trace) && is_lower_hex(span) && is_lower_hex(text.substr(53, 2)) && !zero(trace) && !zero(span);
}

void append_hex(std::string& out, std::uint64_t number) {
  static constexpr std::string_view kDigits = "0123456789abcdef";
  std::array<char, 16> digits;
  for (std::size_t i = digits.size(); i-- > 0; number >>= 4) digits[i] = kDigits[number & 15];
  out.append(digits.data(), digits.size());
}

void append_traceparent(std::string& out, std::uint64_t trace_high, std::uint64_t trace_low, std::uint64_t span) {
  out.append("00-");
  append_hex(out, trace_high | 1);  // neither id may be all zeros
  append_hex(out, trace_low);
  out.append("-");
  append_hex(out, span | 1);
  out.append("-00");
}

bool is_request_id(std::string_view text) {
  return !text.empty() && text.size() <= 128 &&
         std::ranges::all_of(text, [](char c) { return is(c, kDigit) || (lower(c) >= 'a' && lower(c) <= 'z') || c == '-' || c == '_' || c == '.'; });
}

}  // namespace ringmaster::http
