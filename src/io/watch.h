// A descriptor that the loop watches. It remembers what the system said of it (edge-triggered, so it says so once), and
// who waits to read, to write, or for the peer to hang up. Readiness to write is asked for only once a write had to wait.
// It has a fixed address; Stream and others own one by pointer.
#pragma once

#include "io/system.h"
#include "io/wait.h"

namespace ringmaster::io {

class Watch {
 public:
  // Watches `handle` at once. `readiness` is what is known of it already.
  Watch(Loop& loop, Handle handle, Trigger trigger = Trigger::edge, std::uint32_t readiness = 0);
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  ~Watch();

  int fd() const { return handle_.fd(); }
  Loop& loop() const { return loop_; }
  System& system() const { return handle_.system(); }

  bool readable() const { return (readiness_ & (kReadable | kHangup | kBroken)) != 0; }
  bool writable() const { return (readiness_ & (kWritable | kBroken)) != 0; }
  bool hung_up() const { return (readiness_ & (kHangup | kBroken)) != 0; }
  void not_readable() { readiness_ &= ~static_cast<std::uint32_t>(kReadable); }
  void not_writable();
  // Nothing is being written any more: readiness to write need not be told, until a write has to wait again.
  void calm();

  // Called by the loop. Level-triggered watches keep nothing: the system says it again.
  void notify(std::uint32_t readiness);

  // From now on every operation ends with `why`; those that wait now, too.
  void abort(Code why);
  Code aborted() const { return aborted_; }

  // Closes the descriptor of a watch that is paused, and stays so.
  void close() { handle_.reset(); }

  // Stops and resumes the events of a level-triggered watch (a listener that is full).
  void pause();
  void resume();

  Wait* reader = nullptr;
  Wait* writer = nullptr;
  Wait* hangup = nullptr;

  // Awaits readiness to read (or to write): Code::ok, timeout, cancelled, or what abort() said.
  class Ready final : public FiberWait {
   public:
    Ready(Watch& watch, bool to_read, Time deadline)
        : FiberWait(watch.loop()), watch_(watch), slot_(to_read ? watch.reader : watch.writer), deadline_(deadline), to_read_(to_read) {}
    template <class P>
    bool await_suspend(std::coroutine_handle<P> frame) {
      if (watch_.aborted_ != Code::ok || (to_read_ ? watch_.readable() : watch_.writable())) {
        early_ = true;
        return false;
      }
      if (!suspend(frame, deadline_)) return false;
      CHECK(slot_ == nullptr);
      slot_ = this;
      return true;
    }
    Code await_resume() const {
      if (early_) return watch_.aborted_;
      return cancelled() ? Code::cancelled : outcome();
    }

   private:
    void detach() override { slot_ = nullptr; }
    Watch& watch_;
    Wait*& slot_;
    Time deadline_;
    bool to_read_;
    bool early_ = false;
  };
  Ready until_readable(Time deadline = base::kNever) { return {*this, true, deadline}; }
  Ready until_writable(Time deadline = base::kNever) { return {*this, false, deadline}; }

 private:
  Loop& loop_;
  Handle handle_;
  Trigger trigger_;
  bool paused_ = false;
  bool writing_;  // the system tells when it is writable
  Code aborted_ = Code::ok;
  std::uint32_t readiness_;
};

}  // namespace ringmaster::io
