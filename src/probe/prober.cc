#include "probe/prober.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "http/proxy_protocol.h"
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

void Prober::watch(const Record& replica, const config::Pool& settings) {
  if (stopped_) return;
  auto& subject = subjects_[replica.get()];
  if (subject) return;
  subject = std::make_unique<Subject>(loop_, settings);
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

void Prober::failing(const Record& replica) {
  const auto found = subjects_.find(replica.get());
  if (found == subjects_.end() || !replica->ready()) return;
  Subject& subject = *found->second;
  if (subject.settings.health.only_idle) {
    decide(replica, Phase::unhealthy);
    subject.wanted.notify();
    return;
  }
  static constexpr std::uint32_t kLongest = 10;  // times the first duration
  const balance::PoolStatus& status = *replica->status;
  const std::uint32_t living = status.ready + status.doubtful;
  const config::Ejection& ejection = subject.settings.ejection;
  if ((status.ejected + 1) * 100 > living * ejection.most_percent) {
    if (!std::exchange(subject.spared, true)) {
      base::log::warning("{} (slot {}) fails, but no more of the pool may be ejected", replica->name, replica->slot);
    }
    return;
  }
  subject.spared = false;
  replica->errors_in_a_row = 0;
  // The next time takes longer; a long good time forgets that.
  if (loop_.now() - replica->ready_since.load() > kLongest * ejection.duration) subject.ejections = 0;
  const Duration out = ejection.duration * std::min(kLongest, ++subject.ejections);
  ++replica->ejections;
  base::log::warning("{} (slot {}) is ejected for {} ms: {} errors in a row", replica->name, replica->slot, out / 1ms, ejection.errors);
  replica->set_ejected(true);
  subject.scope.spawn(return_later(replica, out));
}

Async<void> Prober::return_later(Record replica, Duration after) {
  const Code slept = co_await loop_.sleep(after);
  if (slept == Code::cancelled) co_return;
  replica->errors_in_a_row = 0;
  replica->ready_since = loop_.now();
  replica->set_ejected(false);
  base::log::info("{} (slot {}) gets requests again", replica->name, replica->slot);
  if (replica->ready()) report_(replica, true);
}

Async<void> Prober::stop() {
  stopped_ = true;
  while (!subjects_.empty()) {
    auto node = subjects_.extract(subjects_.begin());
    node.mapped()->scope.cancel();
    graveyard_.spawn(bury(std::move(node.mapped())));
  }
  co_await graveyard_.join();
}

Async<Prober::Check> Prober::check(const balance::Replica& replica, const config::Pool& pool) {
  static constexpr std::size_t kBodyBytesMax = 1 << 20;
  const config::Health& settings = pool.health;
  wire::FetchRequest request;
  // A server that wants PROXY headers wants them from checks, too: we speak for ourselves.
  if (pool.proxy_protocol == config::ProxyProtocol::v1) http::append_proxy_v1(request.preface, {}, {});
  if (pool.proxy_protocol == config::ProxyProtocol::v2) http::append_proxy_v2(request.preface, {}, {});
  request.method = settings.method;
  request.target = settings.path;
  request.host = settings.host;
  request.head_only = settings.body.empty();
  const auto response = co_await wire::fetch(loop_, replica.endpoint, request, loop_.now() + settings.timeout, kBodyBytesMax);
  if (response) {
    const bool good =
        std::ranges::any_of(settings.statuses, [&](const auto& range) { return response->status >= range.first && response->status <= range.second; });
    co_return good && response->body.contains(settings.body) ? Check::good : Check::bad;
  }
  const Code code = response.error().code;
  if (code == Code::refused) co_return Check::refused;
  if (code == Code::full) co_return Check::unknown;  // a full backlog, or no descriptor left of our own: it says nothing of health
  co_return code == Code::reset || code == Code::closed ? Check::broken : Check::bad;
}

// Slow start is for one that joins others at work: those that begin together are equally cold, and share evenly.
void Prober::warm_up(balance::Replica& replica) {
  static constexpr Duration kTogether = 1s;
  balance::PoolStatus& status = *replica.status;
  if (status.ready == 0) status.serving_since = loop_.now();
  const bool joins = loop_.now() - status.serving_since.load() > kTogether;
  replica.ready_since = joins ? loop_.now() : base::Time{};
}

// A worker may have made it a suspect meanwhile; whatever the check has found settles that, too.
void Prober::decide(const Record& replica, Phase phase) {
  const Phase before = replica->phase();
  if (before == Phase::draining || before == phase) return;
  if (phase == Phase::ready && before != Phase::suspect) warm_up(*replica);
  replica->set_phase(phase);
  if (phase == Phase::ready) {
    replica->errors_in_a_row = 0;
    base::log::info("{} (slot {}) is ready", replica->name, replica->slot);
    report_(replica, true);
  } else if (phase == Phase::unhealthy) {
    base::log::warning("{} (slot {}) is unhealthy", replica->name, replica->slot);
    report_(replica, false);
  }
}

// True once a check has succeeded; false when cancelled.
Async<bool> Prober::until_started(const Record& record, const config::Pool& pool, io::Signal& wanted) {
  balance::Replica& replica = *record;
  static constexpr Duration kFirst = 5ms;
  static constexpr Duration kOwnLongest = 250ms;
  const Duration longest = balance::is_owned(replica.origin) ? kOwnLongest : pool.health.interval;  // one that nobody starts may be away for long
  Duration pause = kFirst;
  while (true) {
    if (replica.phase() != Phase::backing_off && replica.endpoint.family != base::Endpoint::Family::none) {
      const Check found = co_await check(replica, pool);
      if (found == Check::good) co_return true;
      if (!balance::is_owned(replica.origin) && found != Check::unknown && replica.mark_silent()) report_(record, false);
    }
    const Code woken = co_await wanted.wait(loop_, loop_.now() + pause);
    if (woken == Code::cancelled) co_return false;
    pause = std::min(longest, pause + pause / 4);
  }
}

// Nobody listens there any more, or not for long: most likely its process has just ended, and the news of that, which ends
// this fiber, is on its way. Until then it stays a suspect: worth waiting for, as its successor is being started. Of a server
// that is not ours there will be no news.
Async<Prober::Check> Prober::settle(const Record& replica, const config::Pool& pool, io::Signal& wanted) {
  Check found = co_await check(*replica, pool);
  const auto lost = [&] { return found == Check::refused || found == Check::broken; };
  if (!balance::is_owned(replica->origin)) {
    if (found != Check::unknown) co_return found;
    co_await wanted.wait(loop_, loop_.now() + 20ms);  // nothing is learnt, not even by hurrying
    co_return found;
  }
  if (lost()) replica->change_phase(Phase::ready, Phase::suspect);
  const bool suspected = replica->phase() == Phase::suspect;
  const base::Time verdict = loop_.now() + kNewsOfDeath;
  while (suspected && (lost() || found == Check::unknown) && loop_.now() < verdict) {
    const Code woken = co_await wanted.wait(loop_, loop_.now() + 20ms);
    if (woken == Code::cancelled) co_return Check::unknown;
    found = co_await check(*replica, pool);
  }
  co_return found;
}

Async<void> Prober::follow(Record replica, const config::Pool& pool, io::Signal& wanted) {
  const config::Health& settings = pool.health;
  io::Fiber& fiber = co_await io::this_fiber();
  if (replica->phase() != Phase::ready) {  // else the master remembers that it was
    const bool started = co_await until_started(replica, pool, wanted);
    if (!started) co_return;
    decide(replica, Phase::ready);
  }
  unsigned good = 0;
  unsigned bad = 0;
  std::uint64_t requests = replica->cell->requests;
  while (true) {
    Code woken = Code::timeout;
    if (replica->phase() != Phase::suspect) woken = co_await wanted.wait(loop_, loop_.now() + settings.interval);
    if (woken == Code::cancelled) co_return;
    const std::uint64_t passed = replica->cell->requests - std::exchange(requests, replica->cell->requests.load());
    const bool idle = passed == 0 && replica->in_flight() == 0;
    if (settings.only_idle && !idle && replica->phase() == Phase::ready) continue;
    const Check found = co_await settle(replica, pool, wanted);
    if (fiber.cancelled) co_return;
    if (found == Check::unknown) continue;
    const bool suspected = replica->phase() == Phase::suspect;
    good = found == Check::good ? good + 1 : 0;
    bad = found == Check::good ? 0 : bad + 1;
    // A suspect is judged by one check: it was ready, and somebody waits for the verdict.
    const bool at_once = suspected || settings.only_idle;
    if (good >= settings.rise || (at_once && good > 0)) decide(replica, Phase::ready);
    if (bad >= settings.fall || found == Check::refused || (at_once && bad > 0)) decide(replica, Phase::unhealthy);
  }
}

}  // namespace ringmaster::probe
