// A task: a unit of work that somebody asked for once, and that is tried until it is done or given up.
//
//   submit ─▶ scheduled ──time──▶ pending ──attempt──▶ in_progress ──▶ done
//                 ▲                 ▲                    │  │  └─────▶ failed      a final answer, or tries used up
//                 └── back-off ─────┴────────────────────┘  └────────▶ expired     its deadline has passed
//   cancel(): from every state that is not final ─▶ cancelled         retry(): failed, cancelled, expired ─▶ pending
//
// Every attempt has a number, which only grows; whoever reports on an attempt names it, and is refused unless it is the
// present one (fencing: Kleppmann, "How to do distributed locking", 2016). Pure: no clock, no sockets. Times are
// milliseconds since 1970, as they outlive the process.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/random.h"
#include "base/result.h"

namespace ringmaster::task {

using Millis = std::int64_t;

enum class State : std::uint8_t { scheduled, pending, in_progress, done, failed, cancelled, expired };
inline constexpr std::array<std::string_view, 7> kStateNames = {"scheduled", "pending", "in_progress", "done", "failed", "cancelled", "expired"};
inline std::string_view name(State state) { return kStateNames[static_cast<std::size_t>(state)]; }
std::optional<State> parse_state(std::string_view name);
inline bool is_final(State state) { return state >= State::done; }

// What was asked for; never changes.
struct Spec {
  std::string queue;
  std::string type;
  std::string payload;  // JSON text
  int priority = 0;     // higher first
  Millis run_at = 0;    // not before; 0: at once
  Millis deadline = 0;  // not after; 0: none
  Millis timeout = 60'000;
  unsigned failures_max = 10;  // then it is dead
  std::string unique_key;      // no two live tasks of a queue have the same; empty: none
  std::string idempotency_key;
  std::uint64_t fingerprint = 0;  // of the request that brought the idempotency key
  std::string callback;           // URL; empty: none
};

// A callback has to be told (once the task is final), has been, or could not be.
enum class Callback : std::uint8_t { none, due, told, given_up };

// What has become of it.
struct Progress {
  State state = State::pending;
  unsigned attempt = 0;   // the present or last one
  unsigned failures = 0;  // attempts that count against Spec::failures_max
  unsigned crashes = 0;   // attempts in a row during which our engine ended
  std::string replica;    // who has, or had, the last attempt
  Millis run_at = 0;      // scheduled: until then
  Millis deadline = 0;    // as asked for, until retry() drops it; 0: none
  Millis started = 0;     // of the last attempt
  Millis finished = 0;
  Millis lease_until = 0;  // a pull worker has it; 0: it was offered to a replica
  std::string result;
  std::string result_type;
  std::string error;  // of the last attempt that failed
  Callback callback = Callback::none;
};

struct Task {
  std::uint64_t id = 0;  // grows with the time of acceptance; never used twice
  Millis created = 0;
  Spec spec;
  Progress progress;
};

// Ids: 16 hexadecimal digits.
std::string to_text(std::uint64_t id);
std::optional<std::uint64_t> parse_id(std::string_view text);
// The next id after `last`: milliseconds and a count, so that not even a store that was lost makes them come again.
std::uint64_t next_id(std::uint64_t last, Millis now);

// How long to wait before the next attempt: base · 2^(failures - 1), at most `most`, of which the upper half is random.
struct BackOff {
  Millis base = 100;
  Millis most = 60'000;
};
Millis delay(const BackOff& back_off, unsigned failures, base::Random& random);

// What an attempt came to.
struct Outcome {
  enum class Kind : std::uint8_t {
    success,
    rejected,     // will never work: no further attempt
    failure,      // may work another time
    unavailable,  // was not begun: somebody else is asked, and it does not count
    interrupted,  // nobody knows, and it is not the task's fault (our own end, a rest): does not count either
  };
  Kind kind = Kind::failure;
  std::string text;  // the result, or the reason
  std::string content_type{};
};

void admit(Task& task, Millis now);
// From pending. Gives the attempt's number.
unsigned begin_attempt(Task& task, std::string_view replica, Millis now);
// Whether `attempt` is the one in progress. Error exists: what is so instead.
base::Result<void> check_attempt(const Task& task, unsigned attempt);
// Errors as check_attempt().
base::Result<void> conclude(Task& task, unsigned attempt, Outcome outcome, const BackOff& back_off, Millis now, base::Random& random);
base::Result<void> cancel(Task& task, Millis now);
base::Result<void> retry(Task& task, Millis now);
// When it has to be looked at again (its time, its deadline, its lease); 0: never.
Millis next_alarm(const Task& task);
// What the time has brought: scheduled ─▶ pending, or expired. True if anything changed. What is in progress is left alone:
// whoever runs the attempt ends it.
bool on_time(Task& task, Millis now);

}  // namespace ringmaster::task
