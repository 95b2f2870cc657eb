#include "base/outbox.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <thread>
#include <utility>

namespace ringmaster::base {

Outbox::Outbox(int fd) : fd_(fd) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread([this] { write_on(); }).detach();
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

bool Outbox::add(std::string_view lines) {
  const std::lock_guard lock(mutex_);
  if (waiting_.size() + lines.size() > kBytesMax) {
    lines_dropped_ += static_cast<std::uint64_t>(std::ranges::count(lines, '\n'));
    return false;
  }
  if (lines_dropped_ > 0) waiting_ += "… " + std::to_string(lines_dropped_) + " lines of the log are missing here: its reader did not keep up\n";
  lines_dropped_ = 0;
  waiting_ += lines;
  changed_.notify_all();
  return true;
}

void Outbox::flush(std::chrono::milliseconds time_max) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, time_max, [this] { return waiting_.empty() && !writing_; });
}

void Outbox::write_on() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return !waiting_.empty(); });
    const std::string batch = std::exchange(waiting_, {});
    writing_ = true;
    lock.unlock();
    std::string_view rest = batch;
    std::uint64_t lost = 0;
    while (!rest.empty()) {
      const ssize_t put = ::write(fd_, rest.data(), rest.size());
      if (put < 0 && errno == EINTR) continue;
      if (put < 0 && errno == EAGAIN) {  // somebody who shares the descriptor has made it non-blocking
        pollfd writable{.fd = fd_, .events = POLLOUT, .revents = 0};
        ::poll(&writable, 1, -1);
        continue;
      }
      if (put < 0) {
        lost += static_cast<std::uint64_t>(std::ranges::count(rest, '\n'));
        break;
      }
      rest.remove_prefix(static_cast<std::size_t>(put));
    }
    lock.lock();
    lines_dropped_ += lost;
    writing_ = false;
    changed_.notify_all();
  }
}

}  // namespace ringmaster::base
