#include "base/log.h"

#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <mutex>

#include "base/outbox.h"

namespace ringmaster::base::log {

static Outbox* outbox = nullptr;  // made by start(), and then left alone

namespace {

class OutboxSink final : public spdlog::sinks::base_sink<std::mutex> {
 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    const std::string_view text(line.data(), line.size());
    const std::string_view colour = colour_of(message.level);
    if (!terminal_ || colour.empty() || message.color_range_end <= message.color_range_start) {
      outbox->add(text);
      return;
    }
    const std::string_view word = text.substr(message.color_range_start, message.color_range_end - message.color_range_start);
    outbox->add(fmt::format("{}{}{}\033[m{}", text.substr(0, message.color_range_start), colour, word, text.substr(message.color_range_end)));
  }
  void flush_() override {}

 private:
  static std::string_view colour_of(spdlog::level::level_enum level) {
    return level == spdlog::level::err ? "\033[31m\033[1m" : level == spdlog::level::warn ? "\033[33m\033[1m" : level == spdlog::level::info ? "\033[32m" : "";
  }
  bool terminal_ = ::isatty(STDERR_FILENO) == 1;
};

}  // namespace

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
  outbox = new Outbox(STDERR_FILENO);  // NOLINT: ends with the process
  std::atexit(flush);
  spdlog::set_default_logger(std::make_shared<spdlog::logger>(std::string(who), std::make_shared<OutboxSink>()));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%-7l%$ %-6n %v");
  set_level(level);
}

void set_level(Level level) { spdlog::set_level(to_spdlog(level)); }

bool raw(std::string_view lines) { return outbox != nullptr && outbox->add(lines); }

void flush() {
  if (outbox != nullptr) outbox->flush(std::chrono::milliseconds(500));
}

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
