#include "io/process.h"

namespace ringmaster::io {

Async<Result<ExitStatus>> Process::wait(Time deadline) {
  while (!status_) {
    // Only while somebody waits: an end that nobody takes would be told of without end, and keep a processor busy.
    ended_.resume();
    const Code outcome = co_await ended_.until_readable(deadline);
    ended_.pause();
    if (outcome != Code::ok) co_return base::fail(outcome);
    status_ = ended_.system().reap(child_);
  }
  co_return *status_;
}

void Process::signal(int number) {
  if (!status_) ended_.system().signal(child_, number);
}

Async<void> read_lines(Loop& loop, Handle from, std::function<void(std::string_view)> line) {
  static constexpr std::size_t kLineBytesMax = 8192;
  // Then it rests until the window's end, without being told of more: a writer that never stops would else wake the loop for
  // every line.
  static constexpr Duration kWindow = std::chrono::milliseconds(50);
  static constexpr int kReadsPerWindow = 10;
  if (!from) co_return;
  Watch watch(loop, std::move(from), Trigger::level);
  std::string buffer(kLineBytesMax, '\0');
  std::size_t used = 0;
  Time window_began = loop.now();
  int reads = 0;
  while (true) {
    const Code ready = co_await watch.until_readable();
    if (ready != Code::ok) break;
    const Transfer got = watch.system().read(watch.fd(), std::span(buffer).subspan(used));
    if (got.would_block()) continue;
    if (got.count <= 0) break;
    used += static_cast<std::size_t>(got.count);
    std::string_view rest(buffer.data(), used);
    for (std::size_t end = rest.find('\n'); end != std::string_view::npos; end = rest.find('\n')) {
      line(rest.substr(0, end));
      rest.remove_prefix(end + 1);
    }
    if (rest.size() == kLineBytesMax) {
      line(rest);
      rest = {};
    }
    used = rest.size();
    buffer.replace(0, used, std::string(rest));
    if (loop.now() - window_began >= kWindow) {
      window_began = loop.now();
      reads = 0;
    }
    if (++reads < kReadsPerWindow) continue;
    watch.pause();
    const Code slept = co_await loop.sleep(window_began + kWindow - loop.now());
    if (slept == Code::cancelled) break;
    watch.resume();
  }
  if (used > 0) line(std::string_view(buffer).substr(0, used));
}

}  // namespace ringmaster::io
