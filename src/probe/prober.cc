#include "probe/prober.h"

#include <algorithm>

#include "base/log.h"
#include "wire/client.h"

namespace ringmaster::probe {

using balance::Phase;
using base::Code;
using base::Duration;
using io::Async;
using namespace std::chrono_literals;

static constexpr Duration kNewsOfDeath = 1s;

Prober::Prober(io::Loop& loop, Report report) : loop_(loop), report_(std::move(report)), graveyard_(loop) {}

Prober::~Prober() { CHECK(subjects_.empty()); }

void Prober::watch(const Record& replica, const config::Health& settings) {
  auto& subject = subjects_[replica.get()];
  if (subject) return;
  subject = std::make_unique<Subject>(loop_);
  subject->scope.spawn(follow(replica, settings, subject->wanted));
}

void Prober::forget(const Record& replica) {
  auto node = subjects_.extract(replica.get());
  if (node.empty()) return;
  node.mapped()->scope.cancel();
  graveyard_.spawn(bury(std::move(node.mapped())));
}

Async<void> Prober::bury(std::unique_ptr<Subject> subject) { co_await subject->scope.join(); }

void Prober::suspect(const Record& replica) {
  const auto subject = subjects_.find(replica.get());
  if (subject != subjects_.end()) subject->second->wanted.notify();
}

Async<void> Prober::stop() {
  while (!subjects_.empty()) {
    auto node = subjects_.extract(subjects_.begin());
    node.mapped()->scope.cancel();
    graveyard_.spawn(bury(std::move(node.mapped())));
  }
  co_await graveyard_.join();
}

Async<Prober::Check> Prober::check(const balance::Replica& replica, const config::Health& settings) {
  wire::FetchRequest request;
  request.target = settings.path;
  request.head_only = true;
  const auto response = co_await wire::fetch(loop_, replica.endpoint, request, loop_.now() + settings.timeout, 0);
  if (response) co_return response->status >= 200 && response->status < 400 ? Check::good : Check::bad;
  const Code code = response.error().code;
  if (code == Code::refused) co_return Check::refused;
  if (code == Code::full) co_return Check::unknown;  // a full backlog, or no descriptor left of our own: it says nothing of health
  co_return code == Code::reset || code == Code::closed ? Check::broken : Check::bad;
}

// A worker may have made it a suspect meanwhile; whatever the check has found settles that, too.
void Prober::decide(const Record& replica, Phase phase) {
  const Phase before = replica->phase.load();
  if (before == Phase::draining || before == phase) return;
  replica->phase = phase;
  if (phase == Phase::ready) {
    base::log::info("{} (slot {}) is ready", replica->name, replica->slot);
    report_(replica, true);
  } else if (phase == Phase::unhealthy) {
    base::log::warning("{} (slot {}) is unhealthy", replica->name, replica->slot);
    report_(replica, false);
  }
}

// True once a check has succeeded; false when cancelled.
Async<bool> Prober::until_started(const balance::Replica& replica, const config::Health& settings, io::Signal& wanted) {
  static constexpr Duration kFirst = 5ms;
  static constexpr Duration kLongest = 250ms;
  Duration pause = kFirst;
  while (true) {
    if (replica.phase != Phase::backing_off) {
      const Check found = co_await check(replica, settings);
      if (found == Check::good) co_return true;
    }
    const Code woken = co_await wanted.wait(loop_, loop_.now() + pause);
    if (woken == Code::cancelled) co_return false;
    pause = std::min(kLongest, pause + pause / 4);
  }
}

Async<void> Prober::follow(Record replica, config::Health settings, io::Signal& wanted) {
  if (replica->phase != Phase::ready) {  // else the master remembers that it was
    const bool started = co_await until_started(*replica, settings, wanted);
    if (!started) co_return;
    decide(replica, Phase::ready);
  }
  unsigned good = 0;
  unsigned bad = 0;
  while (true) {
    if (replica->phase != Phase::suspect) {
      const Code woken = co_await wanted.wait(loop_, loop_.now() + settings.interval);
      if (woken == Code::cancelled) co_return;
    }
    Check found = co_await check(*replica, settings);
    const auto lost = [&] { return found == Check::refused || found == Check::broken; };
    auto ready = Phase::ready;
    if (lost()) replica->phase.compare_exchange_strong(ready, Phase::suspect);
    const bool suspected = replica->phase == Phase::suspect;
    // Nobody listens there any more, or not for long: most likely its process has just ended, and the news of that, which ends this fiber,
    // is on its way. Until then it stays a suspect: worth waiting for, as its successor is being started.
    const base::Time verdict = loop_.now() + kNewsOfDeath;
    while (suspected && (lost() || found == Check::unknown) && loop_.now() < verdict) {
      const Code woken = co_await wanted.wait(loop_, loop_.now() + 20ms);
      if (woken == Code::cancelled) co_return;
      found = co_await check(*replica, settings);
    }
    io::Fiber& fiber = co_await io::this_fiber();
    if (fiber.cancelled) co_return;
    if (found == Check::unknown) continue;
    good = found == Check::good ? good + 1 : 0;
    bad = found == Check::good ? 0 : bad + 1;
    // A suspect is judged by one check: it was ready, and somebody waits for the verdict.
    if (good >= settings.rise || (suspected && good > 0)) decide(replica, Phase::ready);
    if (bad >= settings.fall || found == Check::refused || (suspected && bad > 0)) decide(replica, Phase::unhealthy);
  }
}

}  // namespace ringmaster::probe
