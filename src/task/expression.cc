#include "task/expression.h"

#include <muParser.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace ringmaster::task {

using base::Code;
using base::Result;
using base::Source;

bool is_prime(std::uint64_t n, const std::function<bool()>& stopped) {
  static constexpr std::uint64_t kStepsBetweenQuestions = 1 << 20;
  if (n < 4) return n > 1;
  if (n % 2 == 0) return false;
  std::uint64_t steps = 0;
  for (std::uint64_t d = 3; d <= n / d; d += 2) {
    if (n % d == 0) return false;
    if (++steps % kStepsBetweenQuestions == 0 && stopped()) return false;
  }
  return true;
}

namespace {

// muParser tells of faults by throwing; nothing of that leaves this file.
struct Fault {
  std::string why;
};

// What one evaluation's functions refer to: muParser hands a pointer through.
double call_sleep(void* data, double seconds) {
  if (!(seconds >= 0 && seconds <= kSleepSecondsMax)) throw Fault{"sleep() takes 0 to 60 seconds"};
  static_cast<const Surroundings*>(data)->sleep(seconds);
  return seconds;
}

// Takes no time: for checking.
double call_nothing(void*, double) { return 0; }

double call_isprime(void* data, double n) {
  if (!(n >= 0 && n <= 9007199254740992.0 && n == std::floor(n))) throw Fault{"isprime() takes whole numbers from 0 to 9007199254740992"};
  return is_prime(static_cast<std::uint64_t>(n), static_cast<const Surroundings*>(data)->stopped) ? 1 : 0;
}

Result<void> check_bounds(std::string_view text) {
  if (text.empty()) return base::fail(Code::invalid, "the expression is empty", Source::client);
  if (text.size() > kExpressionBytesMax) {
    return base::fail(Code::too_large, "the expression has " + std::to_string(text.size()) + " characters; at most 1000 are taken", Source::client);
  }
  unsigned depth = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c < ' ' || c > '~') return base::fail(Code::invalid, "character " + std::to_string(i + 1) + " is not printable ASCII", Source::client);
    // Assignment would make variables, and quotes strings: this is arithmetic only.
    if (c == '"' || c == '#') return base::fail(Code::invalid, "unexpected character at position " + std::to_string(i + 1), Source::client);
    if (c == '(' && ++depth > kExpressionDepthMax) {
      return base::fail(Code::invalid, "brackets are nested more than 50 deep at position " + std::to_string(i + 1), Source::client);
    }
    if (c == ')' && depth > 0) --depth;
  }
  return {};
}

// Evaluates `text` with these functions, and turns what that throws into an error.
Result<double> run(std::string_view text, const Surroundings& surroundings, mu::fun_userdata_type1 sleep, mu::fun_userdata_type1 isprime) {
  if (const auto bounded = check_bounds(text); !bounded) return std::unexpected(bounded.error());
  try {
    mu::Parser parser;
    void* data = const_cast<Surroundings*>(&surroundings);  // NOLINT(cppcoreguidelines-pro-type-const-cast): muParser's signature
    // Not optimised away: they have effects, or throw.
    parser.DefineFunUserData("sleep", sleep, data, false);
    parser.DefineFunUserData("isprime", isprime, data, false);
    parser.EnableBuiltInOprt(true);
    parser.EnableOptimizer(false);
    parser.SetExpr(std::string(text));
    return parser.Eval();
  } catch (const Fault& fault) {
    return base::fail(Code::invalid, fault.why, Source::client);
  } catch (const mu::Parser::exception_type& error) {
    // muParser counts from 0, and says so in some of its messages only.
    const std::string& message = error.GetMsg();
    std::string why = message.substr(0, std::min(message.find(" at position"), message.find(" at expression position")));
    while (!why.empty() && (why.back() == '.' || why.back() == '\n')) why.pop_back();
    return base::fail(Code::invalid,
                      why + " at position " + std::to_string(std::min<std::size_t>(static_cast<std::size_t>(std::max(error.GetPos(), 0)), text.size()) + 1),
                      Source::client);
  } catch (const std::exception& error) {
    return base::fail(Code::invalid, error.what(), Source::client);
  }
}

}  // namespace

Result<void> check_expression(std::string_view text) {
  // muParser compiles when it evaluates. With these two doing nothing that takes no time, and has no faults of values: those
  // the real evaluation tells.
  static const Surroundings nothing;
  const auto checked = run(text, nothing, call_nothing, call_nothing);
  if (!checked) return std::unexpected(checked.error());
  return {};
}

Result<double> evaluate(std::string_view text, const Surroundings& surroundings) {
  const auto value = run(text, surroundings, call_sleep, call_isprime);
  if (surroundings.stopped()) return base::fail(Code::cancelled, "it was stopped");
  if (value && !std::isfinite(*value)) {
    // muParser's own division gives infinities.
    return base::fail(Code::invalid, std::isnan(*value) ? "the result is not a number" : "the result is infinite: division by zero, or too large",
                      Source::client);
  }
  return value;
}

std::string to_text(double value) {
  static constexpr double kExactMax = 9007199254740992.0;  // 2^53: up to here every whole number is itself
  std::array<char, 32> room;
  const bool whole = value == std::floor(value) && std::abs(value) <= kExactMax;
  const auto end = whole ? std::to_chars(room.data(), room.data() + room.size(), static_cast<std::int64_t>(value)).ptr
                         : std::to_chars(room.data(), room.data() + room.size(), value).ptr;
  return {room.data(), end};
}

}  // namespace ringmaster::task
