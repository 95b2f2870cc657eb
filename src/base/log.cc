#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

namespace ringmaster::base::log {

static spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::debug: return spdlog::level::debug;
    case Level::info: return spdlog::level::info;
    case Level::warning: return spdlog::level::warn;
    case Level::error: return spdlog::level::err;
    case Level::off: return spdlog::level::off;
  }
  return spdlog::level::info;
}

void start(std::string_view who, Level level) {
  spdlog::set_default_logger(spdlog::stderr_color_mt(std::string(who)));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%-7l%$ %-6n %v");
  set_level(level);
}

void set_level(Level level) { spdlog::set_level(to_spdlog(level)); }

void write(Level level, std::string_view line) { spdlog::log(to_spdlog(level), line); }

std::string printable(std::string_view bytes, std::size_t bytes_max) {
  std::string out;
  for (const char c : bytes.substr(0, bytes_max)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f) {
      out += c;  // bytes above 0x7f pass: they are UTF-8 far more often than an attack
    } else {
      out += fmt::format("\\x{:02x}", byte);
    }
  }
  if (bytes.size() > bytes_max) out += "…";
  return out;
}

}  // namespace ringmaster::base::log
