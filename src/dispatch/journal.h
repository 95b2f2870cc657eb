// The way into the store: one thread that commits, each commit taking all that waits ("group commit"; DeWitt and others,
// "Implementation techniques for main memory database systems", 1984). So a disk that syncs 5,000 times a second takes many
// times as many tasks.
//
//   fibers:  commit(write) ─┐                 ┌─▶ all go on, with the outcome
//            commit(write) ─┼─▶ [ batch ] ─▶ one transaction, one sync (on the journal's own thread)
//            commit(write) ─┘    while it runs, the next batch gathers
//
// Everything but the transaction itself happens on the loop's thread.
#pragma once

#include <vector>

#include "dispatch/store.h"
#include "io/loop.h"

namespace ringmaster::dispatch {

class Journal {
 public:
  Journal(io::Loop& loop, Store& store);
  ~Journal();  // when nobody waits for it any more

  struct Figures {
    std::uint64_t commits = 0;
    std::uint64_t writes = 0;
    std::uint64_t failures = 0;
    base::Duration busy{};  // in the store
  };
  const Figures& figures() const { return figures_; }

  // Awaits the commit of `write`. Cannot be cancelled: what has been begun is known to have happened or not.
  class Commit final : public io::FiberWait {
   public:
    Commit(Journal& journal, Write write) : FiberWait(journal.loop_), journal_(journal), write_(std::move(write)) {}
    template <class P>
    bool await_suspend(std::coroutine_handle<P> frame) {
      io::Fiber* fiber = frame.promise().fiber;
      const bool was = std::exchange(fiber->cancelled, false);
      suspend(frame, base::kNever);
      fiber->cancelled = was;
      journal_.add(*this);
      return true;
    }
    Result<void> await_resume() { return std::move(result_); }
    void cancel() override {}

   private:
    friend class Journal;
    Journal& journal_;
    Write write_;
    Result<void> result_;
  };
  Commit commit(Write write) { return {*this, std::move(write)}; }

  // Awaits a step of retention, in its turn between two commits. Gives how many tasks it deleted.
  io::Async<Result<std::size_t>> sweep(Retention retention, Millis now, std::size_t most);

 private:
  void add(Commit& commit);
  void begin_batch();
  void end_batch(const Result<void>& result, base::Duration took);

  io::Loop& loop_;
  Store& store_;
  std::unique_ptr<io::LoopThread> writer_;
  std::vector<Commit*> waiting_;
  std::vector<Commit*> batch_;  // the writer's, while there is one
  std::vector<const Write*> writes_;
  Figures figures_;
};

}  // namespace ringmaster::dispatch
