#include "io/process.h"

#include "io/stream.h"

namespace ringmaster::io {

Async<Result<ExitStatus>> Process::wait(Time deadline) {
  while (!status_) {
    const Code outcome = co_await ended_.until_readable(deadline);
    if (outcome != Code::ok) co_return base::fail(outcome);
    status_ = ended_.system().reap(child_);
    if (status_) ended_.pause();
  }
  co_return *status_;
}

void Process::signal(int number) {
  if (!status_) ended_.system().signal(child_, number);
}

Async<void> read_lines(Loop& loop, Handle from, std::function<void(std::string_view)> line) {
  static constexpr std::size_t kLineBytesMax = 8192;
  if (!from) co_return;
  Stream stream(loop, std::move(from), Endpoint{});
  std::string buffer(kLineBytesMax, '\0');
  std::size_t used = 0;
  while (true) {
    const auto got = co_await stream.read(std::span(buffer).subspan(used), base::kNever);
    if (!got || *got == 0) break;
    used += *got;
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
  }
  if (used > 0) line(std::string_view(buffer).substr(0, used));
}

}  // namespace ringmaster::io
