#include "wire/connection_limit.h"

#include <algorithm>

namespace ringmaster::wire {

void ConnectionLimit::join(const MemberPtr& member) {
  const std::lock_guard lock(mutex_);
  members_.push_back(member);
}

void ConnectionLimit::leave(const MemberPtr& member) {
  const std::lock_guard lock(mutex_);
  std::erase(members_, member);
  if (std::erase(waiting_, member) > 0) --waiting_count_;
  member->free_one = member->retry = nullptr;  // for calls that are on their way
}

void ConnectionLimit::call(const MemberPtr& member, std::function<void()> Member::* what) {
  member->loop->post([member, what] {
    if ((*member).*what) ((*member).*what)();
  });
}

bool ConnectionLimit::take() {
  unsigned count = count_.load(std::memory_order_relaxed);
  while (count < most_) {
    if (count_.compare_exchange_weak(count, count + 1, std::memory_order_seq_cst)) return true;
  }
  return false;
}

void ConnectionLimit::take_anyway() { count_.fetch_add(1, std::memory_order_seq_cst); }

void ConnectionLimit::give() {
  count_.fetch_sub(1, std::memory_order_seq_cst);
  if (!awaited()) return;
  // All of them: one that cannot use it any more (its newcomer has left) must not keep it from the others.
  const std::lock_guard lock(mutex_);
  for (const MemberPtr& member : waiting_) call(member, &Member::retry);
  waiting_.clear();
  waiting_count_ = 0;
}

void ConnectionLimit::wait(const MemberPtr& member) {
  const std::lock_guard lock(mutex_);
  if (std::ranges::find(waiting_, member) == waiting_.end()) {
    waiting_.push_back(member);
    ++waiting_count_;
  }
  for (const MemberPtr& other : members_) {
    if (other != member) call(other, &Member::free_one);
  }
  // What was given back just before we stood in the list.
  if (count_.load(std::memory_order_seq_cst) < most_) call(member, &Member::retry);
}

bool ConnectionLimit::should_say(base::Time now) {
  static constexpr base::Duration kEvery = std::chrono::seconds(10);
  base::Time said = said_at_.load(std::memory_order_relaxed);
  if (said != base::Time::min() && now - said < kEvery) return false;
  return said_at_.compare_exchange_strong(said, now, std::memory_order_relaxed);
}

}  // namespace ringmaster::wire
