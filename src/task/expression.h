// Arithmetic as text, evaluated by muParser: its usual functions, and sleep(s) and isprime(n).
//
// What comes from a client may be hostile, so length and depth are bounded, and whoever evaluates can stop it: a long
// isprime() or sleep() asks every few milliseconds. Thread-safe: each call has its own parser.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace ringmaster::task {

inline constexpr std::size_t kExpressionBytesMax = 1000;
inline constexpr unsigned kExpressionDepthMax = 50;
inline constexpr double kSleepSecondsMax = 60;

// Trial division. False at once when `stopped` says so; it is asked every million steps.
bool is_prime(std::uint64_t n, const std::function<bool()>& stopped);

// Whether it can be understood. Error invalid: what is wrong, and at which position (counted from 1) where that is known.
base::Result<void> check_expression(std::string_view text);

// What evaluating needs from outside.
struct Surroundings {
  std::function<void(double seconds)> sleep;  // returns early once stopped
  std::function<bool()> stopped;              // then the value is worthless
};

// Errors: invalid, as above or "division by zero"; cancelled once stopped.
base::Result<double> evaluate(std::string_view text, const Surroundings& surroundings);

// As JSON shows it: whole numbers without a fraction.
std::string to_text(double value);

}  // namespace ringmaster::task
