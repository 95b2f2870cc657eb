#include "io/system.h"

#include <cerrno>
#include <cstring>

namespace ringmaster::io {

Handle& Handle::operator=(Handle&& other) noexcept {
  if (this != &other) {
    reset();
    system_ = other.system_;
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

void Handle::reset() {
  if (fd_ >= 0) system_->close(std::exchange(fd_, -1));
}

bool Transfer::would_block() const { return count < 0 && (error == EAGAIN || error == EWOULDBLOCK); }

std::string to_string(const ExitStatus& status) {
  if (status.signal == 0) return "exited with " + std::to_string(status.code);
  const char* abbreviation = sigabbrev_np(status.signal);
  return "killed by SIG" + std::string(abbreviation == nullptr ? "?" : abbreviation);
}

}  // namespace ringmaster::io
