#include "task/expression.h"

#include <gtest/gtest.h>

#include <cmath>

namespace ringmaster::task {
namespace {

const Surroundings quiet{[](double) {}, [] { return false; }};

std::string value_of(std::string_view text) {
  const auto value = evaluate(text, quiet);
  return value ? to_text(*value) : value.error().detail;
}

TEST(Expression, IsEvaluated) {
  EXPECT_EQ(value_of("2*(3+4)"), "14");
  EXPECT_EQ(value_of("7/2"), "3.5");
  EXPECT_EQ(value_of("isprime(524287) + 2^10"), "1025");
  EXPECT_EQ(value_of("isprime(524288)"), "0");
  double slept = 0;
  EXPECT_EQ(evaluate("sleep(7) + 1", {[&](double seconds) { slept = seconds; }, [] { return false; }}).value(), 8);
  EXPECT_EQ(slept, 7);
}

TEST(Expression, FaultsAreToldWithTheirPosition) {
  EXPECT_EQ(check_expression("2*(3+").error().detail, "Unexpected end of expression at position 6");
  EXPECT_EQ(check_expression("1+foo").error().detail, "Unexpected token \"foo\" found at position 3");
  EXPECT_EQ(check_expression("2 3").error().detail, "Unexpected value \"3\" found at position 3");
  EXPECT_FALSE(check_expression("a=3"));
  EXPECT_FALSE(check_expression(""));
  EXPECT_FALSE(check_expression("\"text\""));
  EXPECT_FALSE(check_expression("2 \n+ 3"));
}

TEST(Expression, CheckingRunsNothing) {
  EXPECT_TRUE(check_expression("sleep(60) + isprime(9007199254740881)"));
  EXPECT_TRUE(check_expression("1/0"));  // known only when it runs
}

TEST(Expression, HostileOnesAreRefused) {
  EXPECT_FALSE(check_expression(std::string(1 << 20, '1')));
  EXPECT_FALSE(check_expression(std::string(51, '(') + "1" + std::string(51, ')')));
  EXPECT_TRUE(check_expression(std::string(50, '(') + "1" + std::string(50, ')')));
  EXPECT_EQ(value_of("1/0"), "the result is infinite: division by zero, or too large");
  EXPECT_EQ(value_of("sqrt(-1)"), "the result is not a number");
  EXPECT_EQ(value_of("sleep(61)"), "sleep() takes 0 to 60 seconds");
  EXPECT_EQ(value_of("sleep(0/0)"), "sleep() takes 0 to 60 seconds");
  EXPECT_EQ(value_of("isprime(1.5)"), "isprime() takes whole numbers from 0 to 9007199254740992");
}

TEST(Expression, LongOnesCanBeStopped) {
  int asked = 0;
  const auto value = evaluate("isprime(9007199254740881)", {[](double) {}, [&] { return ++asked > 1; }});
  ASSERT_FALSE(value);
  EXPECT_EQ(value.error().code, base::Code::cancelled);
}

TEST(Expression, PrimesArePrimes) {
  const auto never = [] { return false; };
  for (const std::uint64_t prime : {2ULL, 3ULL, 5ULL, 524287ULL, 6700417ULL}) EXPECT_TRUE(is_prime(prime, never)) << prime;
  for (const std::uint64_t other : {0ULL, 1ULL, 4ULL, 9ULL, 25ULL, 524287ULL * 3}) EXPECT_FALSE(is_prime(other, never)) << other;
}

}  // namespace
}  // namespace ringmaster::task
