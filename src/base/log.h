// The process's log: one line an event, to standard error, formatted by spdlog. Thread-safe, and nobody ever waits for it: see
// outbox.h.
#pragma once

#include <fmt/format.h>

#include <string_view>

namespace ringmaster::base::log {

enum class Level { debug, info, warning, error, off };

// Called once by main: `who` stands in every line ("master", "engine").
void start(std::string_view who, Level level);
void set_level(Level level);
// Whole lines that are formatted already, among the others. False: they were dropped. After start().
bool raw(std::string_view lines);
// Waits until what has been logged is written, half a second at most; exit() does that, too, but not _exit().
void flush();
void write(Level level, std::string_view line);

template <class... A>
void debug(fmt::format_string<A...> f, A&&... a) {
  write(Level::debug, fmt::format(f, std::forward<A>(a)...));
}
template <class... A>
void info(fmt::format_string<A...> f, A&&... a) {
  write(Level::info, fmt::format(f, std::forward<A>(a)...));
}
template <class... A>
void warning(fmt::format_string<A...> f, A&&... a) {
  write(Level::warning, fmt::format(f, std::forward<A>(a)...));
}
template <class... A>
void error(fmt::format_string<A...> f, A&&... a) {
  write(Level::error, fmt::format(f, std::forward<A>(a)...));
}

// `bytes` made safe for one log line: control characters as \xNN, at most `bytes_max` of them.
std::string printable(std::string_view bytes, std::size_t bytes_max = 200);

}  // namespace ringmaster::base::log
