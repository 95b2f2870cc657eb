#include "io/loop.h"

#include <utility>

#include "io/watch.h"

namespace ringmaster::io {

static constexpr std::size_t kEventsPerTurn = 256;
static constexpr unsigned kOperationsPerResume = 32;

void Wait::begin(Time deadline) {
  waiting_ = true;
  outcome_ = Code::ok;
  if (deadline != base::kNever) loop_.wheel_.set(*this, deadline);
}

void Wait::wake(Code outcome) {
  if (!waiting_) return;
  waiting_ = false;
  outcome_ = outcome;
  TimerWheel::clear(*this);
  detach();
  loop_.ready_.push_back(*this);
}

void Wait::abandon() {
  if (waiting_) {
    waiting_ = false;
    TimerWheel::clear(*this);
    detach();
  }
  static_cast<base::Link<ReadyTag>*>(this)->unlink();
}

Loop::Loop(System& system)
    : system_(system), now_(system.now()), random_(system.random_seed()), any_order_(system.any_order()), wheel_(now_), events_(kEventsPerTurn), root_(*this) {}

Loop::~Loop() { CHECK(root_.empty()); }

void Loop::run() {
  while (!stopping_.load(std::memory_order_acquire)) turn(std::chrono::hours(1));
  root_.cancel();
  while (!root_.empty()) turn(std::chrono::hours(1));
}

void Loop::stop() {
  stopping_.store(true, std::memory_order_release);
  system_.wake();
}

void Loop::post(std::function<void()> call) {
  {
    const std::lock_guard lock(posted_mutex_);
    posted_.push_back(std::move(call));
  }
  // Only the first of a batch needs to wake the loop: run_posted() clears the flag before it takes the batch.
  if (!has_posted_.exchange(true, std::memory_order_acq_rel)) system_.wake();
}

bool Loop::turn(Duration wait_max) {
  if (!ready_.empty() || has_posted_.load(std::memory_order_acquire)) wait_max = Duration::zero();
  const Time next = wheel_.next();
  if (next != base::kNever) wait_max = std::clamp(next - system_.now(), Duration::zero(), wait_max);
  const std::size_t count = system_.poll(events_, wait_max);
  now_ = system_.now();
  for (std::size_t i = 0; i < count; ++i) static_cast<Watch*>(events_[i].tag)->notify(events_[i].readiness);
  const bool posted = has_posted_.load(std::memory_order_acquire);
  if (posted) run_posted();
  wheel_.advance(now_);
  const bool ran = count > 0 || posted || !ready_.empty();
  run_ready();
  return ran;
}

void Loop::run_posted() {
  has_posted_.store(false, std::memory_order_release);
  std::vector<std::function<void()>> batch;
  {
    const std::lock_guard lock(posted_mutex_);
    batch.swap(posted_);
  }
  for (const auto& call : batch) call();
}

void Loop::run_ready() {
  // Only what is ready now: what these wake runs in the next turn, after the descriptors have had their say.
  base::IntrusiveList<Wait, ReadyTag> batch;
  batch.splice_back(ready_);
  if (any_order_) {
    base::IntrusiveList<Wait, ReadyTag> mixed;
    while (Wait* wait = batch.pop_front()) random_.below(2) == 0 ? mixed.push_back(*wait) : mixed.push_front(*wait);
    batch.splice_back(mixed);
  }
  while (Wait* wait = batch.pop_front()) {
    budget_ = kOperationsPerResume;
    wait->done();
  }
}

void Loop::start_background(Background& work) {
  work.begun_ = true;
  auto run = [this, &work] {
    work.work_();
    post([&work] { work.wake(Code::ok); });
  };
  if (work.where_ != nullptr) {
    work.where_->post(run);
  } else {
    system_.run_in_background(run);
  }
}

}  // namespace ringmaster::io
