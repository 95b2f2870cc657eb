#include "io/stream.h"

#include <algorithm>
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
  const bool extend = !decided_ && outcome() == Code::timeout && !cancelled();
  if (extend) deadline_ = extended(deadline_);
  if (!decided_ && !cancelled() && (outcome() == Code::ok || (extend && deadline_ > loop().now()))) {
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

static Time first_deadline(Loop& loop, const Patience& patience) {
  return patience.stall_max == Duration::zero() ? patience.until : std::min(patience.until, loop.now() + patience.stall_max);
}

WriteOperation::WriteOperation(Watch& watch, std::span<const std::string_view> pieces, const Patience& patience)
    : StreamOperation(watch, watch.writer, first_deadline(watch.loop(), patience)), patience_(patience) {
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
    if (!watch_.writable()) {
      if (!taken_before_) taken_before_ = taken();
      return false;
    }
    const Transfer put = watch_.system().write(watch_.fd(), std::span(pieces_).subspan(first_, end_ - first_));
    if (put.would_block()) {
      watch_.not_writable();
      if (!taken_before_) taken_before_ = taken();
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

std::int64_t WriteOperation::taken() const {
  return static_cast<std::int64_t>(written_) - static_cast<std::int64_t>(watch_.system().unacknowledged(watch_.fd()));
}

Time WriteOperation::extended(Time deadline) {
  if (patience_.stall_max == Duration::zero() || !taken_before_) return deadline;
  const std::int64_t now_taken = taken();
  const double seconds = std::chrono::duration<double>(patience_.stall_max).count();
  const std::int64_t wanted = std::max<std::int64_t>(1, static_cast<std::int64_t>(seconds * static_cast<double>(patience_.bytes_per_second_min)));
  if (now_taken - *taken_before_ < wanted) return deadline;
  taken_before_ = now_taken;
  return std::min(patience_.until, loop().now() + patience_.stall_max);
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
