#include "base/names.h"

#include <algorithm>

#include "base/random.h"

namespace ringmaster::base {

static bool is_alnum(char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }

static bool is_name(std::string_view name, std::size_t length_max, std::string_view others) {
  if (name.empty() || name.size() > length_max || !is_alnum(name.front())) return false;
  return std::ranges::all_of(name, [&](char c) { return is_alnum(c) || others.contains(c); });
}

bool is_replica_name(std::string_view name) { return is_name(name, 63, " _.-"); }

bool is_container_name(std::string_view name) { return name.size() >= 2 && is_name(name, 63, "_.-"); }

bool is_pool_name(std::string_view name) { return is_name(name, 32, "_-"); }

std::string random_replica_name(Random& random) {
  static constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyz0123456789";
  std::string name = "Server-";
  for (int i = 0; i < 6; ++i) name += kLetters[random.below(static_cast<std::uint32_t>(kLetters.size()))];
  return name;
}

std::string replace_all(std::string_view text, std::string_view placeholder, std::string_view value) {
  std::string out;
  for (;;) {
    const std::size_t at = text.find(placeholder);
    out += text.substr(0, at);
    if (at == std::string_view::npos) return out;
    out += value;
    text.remove_prefix(at + placeholder.size());
  }
}

}  // namespace ringmaster::base
