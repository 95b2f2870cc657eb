#include "io/stream.h"

#include <cerrno>
#include <cstring>

namespace ringmaster::io {

// A connection that the kernel has given up on, as nothing comes back from the other side, is broken; a `timeout` is always
// a deadline of ours.
static Code code_of_failure(int error) {
  const Code code = base::from_errno(error, "").code;
  return code == Code::timeout || code == Code::unreachable ? Code::reset : code;
}

void StreamOperation::done() {
  if (!decided_ && outcome() == Code::ok && !cancelled()) {
    if (!attempt()) {
      begin(deadline_);
      slot_ = this;
      return;
    }
  } else if (!decided_) {
    failed_ = cancelled() ? Code::cancelled : outcome();
  }
  FiberWait::done();
}

bool ReadOperation::attempt() {
  if (watch_.aborted() != Code::ok) {
    failed_ = watch_.aborted();
    return decided_ = true;
  }
  if (!watch_.readable()) return false;
  const Transfer got = watch_.system().read(watch_.fd(), into_);
  if (got.would_block()) {
    watch_.not_readable();
    return false;
  }
  decided_ = true;
  if (got.count < 0) {
    failed_ = code_of_failure(got.error);
  } else {
    count_ = static_cast<std::size_t>(got.count);
    // Fewer than asked for: the socket is empty, and the next bytes will make a new event (epoll(7), question 9).
    // After a hang-up there is no further event, so then reading goes on until it says 0.
    if (count_ < into_.size()) watch_.not_readable();
  }
  return true;
}

Result<std::size_t> ReadOperation::await_resume() const {
  if (failed_ != Code::ok) return base::fail(failed_);
  return count_;
}

WriteOperation::WriteOperation(Watch& watch, std::span<const std::string_view> pieces, Time deadline) : StreamOperation(watch, watch.writer, deadline) {
  CHECK(pieces.size() <= kPiecesMax);
  for (const std::string_view piece : pieces) {
    if (piece.empty()) continue;
    pieces_[end_++] = {const_cast<char*>(piece.data()), piece.size()};  // NOLINT: iovec is shared with readv
  }
}

bool WriteOperation::attempt() {
  while (first_ < end_) {
    if (watch_.aborted() != Code::ok) {
      failed_ = watch_.aborted();
      return decided_ = true;
    }
    if (!watch_.writable()) return false;
    const Transfer put = watch_.system().write(watch_.fd(), std::span(pieces_).subspan(first_, end_ - first_));
    if (put.would_block()) {
      watch_.not_writable();
      return false;
    }
    if (put.count < 0) {
      failed_ = code_of_failure(put.error);
      return decided_ = true;
    }
    advance(static_cast<std::size_t>(put.count));
  }
  return decided_ = true;
}

void WriteOperation::advance(std::size_t count) {
  written_ += count;
  while (first_ < end_ && count >= pieces_[first_].iov_len) count -= pieces_[first_++].iov_len;
  if (first_ == end_) return;
  pieces_[first_].iov_base = static_cast<char*>(pieces_[first_].iov_base) + count;
  pieces_[first_].iov_len -= count;
}

Result<void> WriteOperation::await_resume() const {
  if (failed_ != Code::ok) return base::fail(failed_);
  return {};
}

void Stream::reset() {
  if (!watch_) return;
  watch_->system().reset_on_close(watch_->fd());
  watch_.reset();
}

Async<Result<Stream>> connect(Loop& loop, const Endpoint& to, Time deadline) {
  System& system = loop.system();
  const Transfer begun = system.connect(to);
  if (begun.count < 0) co_return std::unexpected(base::from_errno(begun.error, "connect to " + base::to_string(to)));
  // A Unix socket is connected by now: its first event would only cost a round.
  const bool connected = to.family == Endpoint::Family::unix_path;
  Stream stream(loop, Handle(system, static_cast<int>(begun.count)), to, connected ? std::uint32_t{kWritable} : 0U);
  if (connected) co_return stream;
  const Code outcome = co_await stream.watch().until_writable(deadline);
  if (outcome != Code::ok) co_return base::fail(outcome, "connect to " + base::to_string(to) + ": " + std::string(base::name(outcome)));
  if (const int error = system.connect_error(stream.watch().fd()); error != 0) {
    co_return std::unexpected(base::from_errno(error, "connect to " + base::to_string(to)));
  }
  co_return stream;
}

}  // namespace ringmaster::io
