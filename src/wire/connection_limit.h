// How many clients a listener may have, over all workers together. SO_REUSEPORT gives a connection to a worker whether or not
// that one has room, so the limit is common, and a worker that has none left makes room: by closing the connection that has
// been idle for the longest, its own or, if it has none, another worker's.
//
// Thread rule: any worker's thread. Members are called back on their own loop.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "io/loop.h"

namespace ringmaster::wire {

class ConnectionLimit {
 public:
  explicit ConnectionLimit(unsigned most) : most_(most) {}

  // A worker's server, as the limit knows it. Both calls come on `loop`, until leave().
  struct Member {
    io::Loop* loop;
    std::function<void()> free_one;  // somebody else needs a place: close an idle connection, if there is one
    std::function<void()> retry;     // a place is free
  };
  using MemberPtr = std::shared_ptr<Member>;

  void join(const MemberPtr& member);
  void leave(const MemberPtr& member);  // on the member's loop

  // A place for one connection. False: all are taken.
  bool take();
  void take_anyway();  // of those that were here before a stop
  void give();

  // `member` needs a place and can free none: others are asked to, and it is told when there is one.
  void wait(const MemberPtr& member);
  bool awaited() const { return waiting_count_.load(std::memory_order_seq_cst) > 0; }

  // Whether it is time to say that the limit has been reached: not more often than every ten seconds.
  bool should_say(base::Time now);
  unsigned most() const { return most_; }

 private:
  // Calls `what` of `member` on its loop, unless it has left by then.
  static void call(const MemberPtr& member, std::function<void()> Member::* what);

  const unsigned most_;
  std::atomic<unsigned> count_ = 0;
  std::atomic<unsigned> waiting_count_ = 0;
  std::atomic<base::Time> said_at_ = base::Time::min();
  std::mutex mutex_;
  std::vector<MemberPtr> members_;  // guarded by mutex_, as the next
  std::vector<MemberPtr> waiting_;
};

}  // namespace ringmaster::wire
