// A connected byte stream, TCP or Unix: read some, write all, each with a deadline.
//
// An operation is tried at once, and again whenever the descriptor says so, until it has an outcome; only then does the
// fiber go on. At most one read and one write may be under way at a time. Movable; the Watch inside keeps its address.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <span>

#include "io/loop.h"
#include "io/watch.h"

namespace ringmaster::io {

// The shape of read and write: attempt() does the system call and says whether there is an outcome.
class StreamOperation : public FiberWait {
 public:
  template <class P>
  bool await_suspend(std::coroutine_handle<P> frame) {
    if (frame.promise().fiber->cancelled) {
      failed_ = Code::cancelled;
      return false;
    }
    if (attempt()) {
      // Done without waiting. Now and then others get their turn first, or a busy stream would starve them.
      if (loop().spend_budget()) return false;
      suspend(frame, base::kNever);
      wake(Code::ok);
      return true;
    }
    suspend(frame, deadline_);
    slot_ = this;
    return true;
  }

  void done() final;

 protected:
  StreamOperation(Watch& watch, Wait*& slot, Time deadline) : FiberWait(watch.loop()), watch_(watch), slot_(slot), deadline_(deadline) {}
  virtual bool attempt() = 0;
  // The deadline has passed: a later one, if the operation has earned it; else the same.
  virtual Time extended(Time deadline) { return deadline; }

  Watch& watch_;
  Code failed_ = Code::ok;
  bool decided_ = false;

 private:
  void detach() final {
    if (slot_ == this) slot_ = nullptr;
  }
  Wait*& slot_;
  Time deadline_;
};

class ReadOperation final : public StreamOperation {
 public:
  ReadOperation(Watch& watch, std::span<char> into, Time deadline) : StreamOperation(watch, watch.reader, deadline), into_(into) {}
  // The number of bytes read, 0 when the peer has ended its side.
  Result<std::size_t> await_resume() const;

 private:
  bool attempt() override;
  std::span<char> into_;
  std::size_t count_ = 0;
};

inline constexpr std::size_t kPiecesMax = 4;

// How long a write may take. It goes on for as long as the peer takes bytes: in each window of `stall_max` at least one, and
// at least `bytes_per_second_min` on average; but never beyond `until`. What counts is what the peer has acknowledged, since
// a socket's buffer may hold minutes of what a slow client reads.
struct Patience {
  Duration stall_max;
  std::uint64_t bytes_per_second_min = 0;
  Time until = base::kNever;
};

class WriteOperation final : public StreamOperation {
 public:
  WriteOperation(Watch& watch, std::span<const std::string_view> pieces, const Patience& patience);
  Result<void> await_resume() const;
  std::size_t written() const { return written_; }

 private:
  bool attempt() override;
  Time extended(Time deadline) override;
  void advance(std::size_t count);
  std::int64_t taken() const;

  Patience patience_;
  std::optional<std::int64_t> taken_before_;  // by the peer when this window began; nothing: no wait was needed yet
  std::array<iovec, kPiecesMax> pieces_{};
  std::size_t first_ = 0;
  std::size_t end_ = 0;
  std::size_t written_ = 0;
};

class Stream {
 public:
  Stream() = default;
  Stream(Loop& loop, Handle connected, Endpoint peer, std::uint32_t readiness = kWritable)
      : watch_(std::make_unique<Watch>(loop, std::move(connected), Trigger::edge, readiness)), peer_(std::move(peer)) {}

  explicit operator bool() const { return watch_ != nullptr; }
  Watch& watch() const { return *watch_; }
  const Endpoint& peer() const { return peer_; }

  // Awaits at least one byte: their number; 0 at the end of the stream; or timeout, reset, cancelled.
  ReadOperation read(std::span<char> into, Time deadline) { return {*watch_, into, deadline}; }

  // Awaits that all of `pieces` (at most kPiecesMax) has been handed to the system. Errors: timeout, reset, cancelled.
  WriteOperation write(std::span<const std::string_view> pieces, const Patience& patience) { return {*watch_, pieces, patience}; }
  // The same with a deadline for the whole.
  WriteOperation write(std::span<const std::string_view> pieces, Time deadline) { return {*watch_, pieces, {Duration::zero(), 0, deadline}}; }

  void shutdown_write() { watch_->system().shutdown_write(watch_->fd()); }
  // Closes so that the peer sees a broken stream, never a clean end.
  void reset();
  void close() { watch_.reset(); }

 private:
  std::unique_ptr<Watch> watch_;
  Endpoint peer_;
};

// Connects. Errors: refused, unreachable, timeout, cancelled; full, when a Unix listener's backlog is.
Async<Result<Stream>> connect(Loop& loop, const Endpoint& to, Time deadline);

}  // namespace ringmaster::io
