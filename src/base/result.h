// What went wrong, whose fault it was, and whether another try may help.
//
// Functions that can fail for reasons outside the program return Result<T>. Whether a failure *is* retried is
// decided in one place (Relay::may_retry in proxy/relay.cc); an Error only tells what is known. A broken
// invariant of our own is not an Error: it is a CHECK, and ends the process.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>

namespace ringmaster::base {

enum class Code : std::uint8_t {
  ok,           // only as the outcome of a wait; never inside an Error
  cancelled,    // whoever asked no longer wants the answer
  timeout,      // the deadline passed
  closed,       // the peer ended the stream where that is allowed to happen
  reset,        // the peer broke the stream
  refused,      // nobody listens at the address
  unreachable,  // no route, no such address
  full,         // a bounded resource is used up: backlog, queue, descriptors
  exited,       // the replica's process is known to have ended
  invalid,      // bytes or values that break the rules
  too_large,    // a limit was passed
  exists,       // the name or address is taken
  conflict,     // the key was used before, for something else
  not_found,
  denied,
  disk_full,
  unavailable,  // nobody can do it now
  internal,     // the operating system refused something that should work
};

// Whose fault it was: decides between a 4xx, a 502 and a 500.
enum class Source : std::uint8_t { client, replica, us };

struct Error {
  Code code = Code::internal;
  Source source = Source::us;
  std::string detail;  // one line for a person; empty where the code says it all
};

template <class T>
using Result = std::expected<T, Error>;

inline std::unexpected<Error> fail(Code code, std::string detail = {}, Source source = Source::us) {
  return std::unexpected(Error{code, source, std::move(detail)});
}

// The code as one lower-case word, as logs and problem documents show it.
std::string_view name(Code code);

// The error as one line: the detail if there is one, else the code's name.
std::string describe(const Error& error);

// Turns an errno into the nearest Code; `what` and the system's text become the detail.
Error from_errno(int error, std::string_view what);

}  // namespace ringmaster::base
