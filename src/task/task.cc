#include "task/task.h"

#include <algorithm>
#include <charconv>

#include "base/check.h"

namespace ringmaster::task {

using base::Code;
using base::Result;
using base::Source;

std::optional<State> parse_state(std::string_view name) {
  const auto found = std::ranges::find(kStateNames, name);
  if (found == kStateNames.end()) return std::nullopt;
  return static_cast<State>(found - kStateNames.begin());
}

std::string to_text(std::uint64_t id) {
  static constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text(16, '0');
  for (std::size_t i = 16; i-- > 0; id >>= 4) text[i] = kDigits[id & 15];
  return text;
}

std::optional<std::uint64_t> parse_id(std::string_view text) {
  std::uint64_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id, 16);
  // The highest bit stays clear: stores know signed numbers only.
  if (text.size() != 16 || error != std::errc{} || end != text.data() + 16 || id > INT64_MAX) return std::nullopt;
  return id;
}

std::uint64_t next_id(std::uint64_t last, Millis now) {
  static constexpr unsigned kCountBits = 20;
  return std::max(last + 1, static_cast<std::uint64_t>(now) << kCountBits);
}

Millis delay(const BackOff& back_off, unsigned failures, base::Random& random) {
  Millis whole = std::clamp<Millis>(back_off.base, 1, std::max<Millis>(back_off.most, 1));
  for (unsigned i = 1; i < failures && whole < back_off.most; ++i) whole = std::min(whole * 2, back_off.most);
  return whole - static_cast<Millis>(random.unit() * static_cast<double>(whole) / 2);
}

static void finish(Task& task, State state, Millis now) {
  task.progress.state = state;
  task.progress.finished = now;
  task.progress.lease_until = 0;
  if (!task.spec.callback.empty()) task.progress.callback = Callback::due;
}

static bool is_late(const Task& task, Millis now) { return task.progress.deadline != 0 && now >= task.progress.deadline; }

static void expire(Task& task, Millis now) {
  finish(task, State::expired, now);
  task.progress.error = "its deadline has passed" + (task.progress.error.empty() ? "" : "; before that: " + task.progress.error);
}

static void wait_until(Task& task, Millis when, Millis now) {
  task.progress.run_at = when;
  task.progress.state = when > now ? State::scheduled : State::pending;
  task.progress.lease_until = 0;
}

void admit(Task& task, Millis now) {
  task.created = now;
  task.progress.deadline = task.spec.deadline;
  wait_until(task, task.spec.run_at, now);
}

unsigned begin_attempt(Task& task, std::string_view replica, Millis now) {
  CHECK(task.progress.state == State::pending);
  task.progress.state = State::in_progress;
  task.progress.replica = replica;
  task.progress.started = now;
  return ++task.progress.attempt;
}

Result<void> check_attempt(const Task& task, unsigned attempt) {
  const Progress& progress = task.progress;
  if (progress.state == State::in_progress && progress.attempt == attempt) return {};
  const std::string number = std::to_string(attempt);
  const std::string present = std::to_string(progress.attempt);
  return base::fail(Code::exists, "attempt " + number + " is over: the task is " + std::string(name(progress.state)) + ", attempt " + present, Source::client);
}

Result<void> conclude(Task& task, unsigned attempt, Outcome outcome, const BackOff& back_off, Millis now, base::Random& random) {
  if (auto present = check_attempt(task, attempt); !present) return present;
  Progress& progress = task.progress;
  using Kind = Outcome::Kind;
  if (outcome.kind == Kind::success) {
    progress.result = std::move(outcome.text);
    progress.result_type = std::move(outcome.content_type);
    progress.error.clear();
    finish(task, State::done, now);
    return {};
  }
  if (outcome.kind != Kind::unavailable) progress.error = std::move(outcome.text);
  if (outcome.kind == Kind::rejected || outcome.kind == Kind::failure) ++progress.failures;
  if (outcome.kind == Kind::rejected || progress.failures >= task.spec.failures_max) {
    finish(task, State::failed, now);
  } else if (is_late(task, now)) {
    expire(task, now);
  } else {
    wait_until(task, outcome.kind == Kind::failure ? now + delay(back_off, progress.failures, random) : now, now);
  }
  return {};
}

Result<void> cancel(Task& task, Millis now) {
  if (is_final(task.progress.state)) return base::fail(Code::exists, "the task is " + std::string(name(task.progress.state)) + " already", Source::client);
  finish(task, State::cancelled, now);
  return {};
}

Result<void> retry(Task& task, Millis now) {
  Progress& progress = task.progress;
  if (progress.state == State::done || !is_final(progress.state)) {
    return base::fail(Code::exists, "only failed, cancelled and expired tasks can be tried again; this one is " + std::string(name(progress.state)),
                      Source::client);
  }
  // Whoever asks for it wants it in spite of the old deadline.
  if (is_late(task, now)) progress.deadline = 0;
  progress.failures = 0;
  progress.finished = 0;
  progress.callback = Callback::none;
  wait_until(task, now, now);
  return {};
}

Millis next_alarm(const Task& task) {
  const Progress& progress = task.progress;
  Millis soonest = 0;
  const auto consider = [&](Millis when) {
    if (when != 0 && (soonest == 0 || when < soonest)) soonest = when;
  };
  if (progress.state == State::scheduled) consider(progress.run_at);
  if (progress.state == State::scheduled || progress.state == State::pending) consider(progress.deadline);
  if (progress.state == State::in_progress) consider(progress.lease_until);
  return soonest;
}

bool on_time(Task& task, Millis now) {
  const State state = task.progress.state;
  if (state != State::scheduled && state != State::pending) return false;
  if (is_late(task, now)) {
    expire(task, now);
    return true;
  }
  if (state != State::scheduled || task.progress.run_at > now) return false;
  task.progress.state = State::pending;
  return true;
}

}  // namespace ringmaster::task
