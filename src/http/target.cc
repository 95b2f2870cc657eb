#include "http/target.h"

#include "http/characters.h"
#include "http/message.h"

namespace ringmaster::http {

bool split_absolute(std::string_view target, std::string_view& authority, std::string_view& rest) {
  std::size_t skip = 0;
  if (target.size() > 7 && equals_ignoring_case(target.substr(0, 7), "http://")) skip = 7;
  if (target.size() > 8 && equals_ignoring_case(target.substr(0, 8), "https://")) skip = 8;
  if (skip == 0) return false;
  const std::string_view after = target.substr(skip);
  const std::size_t end = after.find_first_of("/?");
  authority = after.substr(0, end);
  rest = end == std::string_view::npos ? std::string_view{} : after.substr(end);
  return is_authority(authority);
}

static bool is_host_character(char c) { return is(c, kDigit) || (lower(c) >= 'a' && lower(c) <= 'z') || std::string_view("-._~!$&'()*+,;=%").contains(c); }

bool is_authority(std::string_view text) {
  std::size_t end = 0;
  if (text.starts_with('[')) {
    end = text.find(']');
    if (end == std::string_view::npos || end < 3) return false;
    for (const char c : text.substr(1, end - 1)) {
      if (!is(c, kHex) && c != ':' && c != '.') return false;
    }
    ++end;
  } else {
    while (end < text.size() && is_host_character(text[end])) ++end;
    if (end == 0) return false;
  }
  if (end == text.size()) return true;
  return text[end] == ':' && text.size() - end <= 6 && all(text.substr(end + 1), kDigit);
}

std::string_view host_of(std::string_view authority) { return authority.substr(0, authority.starts_with('[') ? authority.find(']') + 1 : authority.find(':')); }

static bool is_normal(std::string_view path) {
  for (std::size_t i = 0; i < path.size(); ++i) {
    if (path[i] == '%') return false;
    if (path[i] == '/' && i + 1 < path.size() && (path[i + 1] == '/' || path[i + 1] == '.')) return false;
  }
  return true;
}

static bool is_unreserved(char c) { return is(c, kDigit) || (lower(c) >= 'a' && lower(c) <= 'z') || c == '-' || c == '.' || c == '_' || c == '~'; }

// Escapes decoded where that is safe, in upper case where not.
static bool decode(std::string_view path, std::string& out) {
  static constexpr std::string_view kDigits = "0123456789ABCDEF";
  for (std::size_t i = 0; i < path.size(); ++i) {
    if (path[i] != '%') {
      out += path[i];
      continue;
    }
    if (i + 2 >= path.size() || !is(path[i + 1], kHex) || !is(path[i + 2], kHex)) return false;
    const unsigned value = hex_value(path[i + 1]) * 16 + hex_value(path[i + 2]);
    if (value == 0) return false;
    if (is_unreserved(static_cast<char>(value))) {
      out += static_cast<char>(value);
    } else {
      out += '%';
      out += kDigits[value / 16];
      out += kDigits[value % 16];
    }
    i += 2;
  }
  return true;
}

bool normalise_path(std::string_view path, std::string& scratch, std::string_view& normal) {
  if (is_normal(path)) {
    normal = path;
    return true;
  }
  std::string decoded;
  if (!decode(path, decoded)) return false;
  scratch.clear();
  std::string_view rest = decoded;
  while (!rest.empty()) {
    rest.remove_prefix(1);  // its '/'
    const std::size_t slash = rest.find('/');
    const std::string_view segment = rest.substr(0, slash);
    const bool last = slash == std::string_view::npos;
    rest = last ? std::string_view{} : rest.substr(slash);
    if (segment == "..") {
      if (scratch.empty()) return false;
      scratch.resize(scratch.rfind('/'));
    } else if (!segment.empty() && segment != ".") {
      scratch += '/';
      scratch += segment;
      continue;
    }
    if (last) scratch += '/';
  }
  if (scratch.empty()) scratch = "/";
  normal = scratch;
  return true;
}

bool is_ambiguous_path(std::string_view path) {
  if (path.contains("..;")) return true;
  for (std::size_t at = path.find('%'); at != std::string_view::npos; at = path.find('%', at + 1)) {
    const std::string_view escape = path.substr(at, 3);
    if (equals_ignoring_case(escape, "%2f") || equals_ignoring_case(escape, "%5c")) return true;
  }
  return false;
}

std::string percent_encode(std::string_view text) {
  static constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
  static constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string encoded;
  for (const char c : text) {
    if (kPlain.contains(c)) {
      encoded += c;
    } else {
      encoded += '%';
      encoded += kHex[static_cast<unsigned char>(c) >> 4];
      encoded += kHex[static_cast<unsigned char>(c) & 15];
    }
  }
  return encoded;
}

}  // namespace ringmaster::http
