#include "balance/ring.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

namespace ringmaster::balance {
namespace {

std::vector<Ring::Server> first_servers(std::uint32_t n) {
  std::vector<Ring::Server> servers;
  for (std::uint32_t slot = 1; slot <= n; ++slot) servers.push_back({slot});
  return servers;
}

TEST(Polynomial, IsExactModuloM) {
  const Polynomial h = *Polynomial::parse("i*i + 2*i + 17", false);
  for (const std::uint64_t i : {0ULL, 1ULL, 123456ULL, 999999ULL, 4294967295ULL}) {
    const auto expected = static_cast<std::uint32_t>((static_cast<unsigned __int128>(i) * i + 2 * i + 17) % 512);
    EXPECT_EQ(h.evaluate(i, 0, 512), expected);
  }
  EXPECT_EQ(Polynomial::parse("-3 + i^3*(j - 2)", true)->evaluate(5, 1, 1000), 872U);  // -128 mod 1000
  EXPECT_EQ(Polynomial::parse("18446744073709551615 * i", false)->evaluate(18446744073709551615ULL, 0, 97),
            static_cast<std::uint32_t>(18446744073709551615ULL % 97 * (18446744073709551615ULL % 97) % 97));
}

TEST(Polynomial, SaysWhereItIsWrong) {
  const auto complaint = [](std::string_view text) { return Polynomial::parse(text, false).error().detail; };
  EXPECT_EQ(complaint("i + j"), "a number, i or '(' is needed at character 5");
  EXPECT_EQ(complaint("i i"), "an operator is missing at character 3");
  EXPECT_EQ(complaint("(i + 1"), "')' is missing at character 7");
  EXPECT_EQ(complaint("i^99"), "a power must be from 1 to 16 at character 5");
  EXPECT_EQ(complaint(""), "a number, i or '(' is needed at character 1");
  EXPECT_EQ(complaint("99999999999999999999"), "a number is too large at character 1");
  EXPECT_EQ(complaint(std::string(40, '(')), "the polynomial is nested too deeply at character 9");
  EXPECT_EQ(complaint("i^16^2"), "an operator is missing at character 5");
}

// By hand: server 1 of N = 1, K = 9: Φ(1, j) = 26 + j² + 2j.
TEST(Ring, PlacesTheClassicFunctions) {
  RingSettings settings;
  ASSERT_TRUE(apply_preset("s1", settings));
  const Ring ring = *Ring::build(settings, {{1}});
  for (std::uint32_t j = 1; j <= 9; ++j) EXPECT_EQ(ring.owner(26 + j * j + 2 * j), 0U);
  EXPECT_EQ(ring.hash(123456), (123456ULL * 123456 + 2 * 123456 + 17) % 512);
  EXPECT_EQ(ring.occupied_from(0), 29U);
  EXPECT_EQ(ring.occupied_from(29), 29U);
  EXPECT_EQ(ring.occupied_from(126), 29U);  // past the last one: around
}

TEST(Ring, ClassicHashReaches87Residues) {
  RingSettings settings;
  ASSERT_TRUE(apply_preset("s1", settings));
  const Ring ring = *Ring::build(settings, {{1}});
  std::set<std::uint32_t> residues;
  for (std::uint64_t i = 100000; i <= 999999; ++i) residues.insert(ring.hash(i));
  EXPECT_EQ(residues.size(), 87U);
}

TEST(Ring, ProbesPastTakenSlots) {
  RingSettings settings;
  settings.slots = 8;
  settings.virtual_servers = 3;
  settings.virtual_function = {false, *Polynomial::parse("2", true)};
  const Ring linear = *Ring::build(settings, {{1}});
  EXPECT_EQ(linear.owner(2), 0U);
  EXPECT_EQ(linear.virtual_number(3), 1U);
  EXPECT_EQ(linear.virtual_number(4), 2U);
  settings.probing = Probing::quadratic;
  const Ring quadratic = *Ring::build(settings, {{1}});
  EXPECT_EQ(quadratic.virtual_number(3), 1U);
  EXPECT_EQ(quadratic.virtual_number(6), 2U);
}

TEST(Ring, QuadraticProbingGoesOnLinearlyUpToAFullRing) {
  RingSettings settings;
  ASSERT_TRUE(apply_preset("s2", settings));
  for (std::uint32_t n = 1; n <= 56; ++n) {
    const auto ring = Ring::build(settings, first_servers(n));
    ASSERT_TRUE(ring.has_value());
    std::map<std::uint32_t, int> seats;
    for (std::uint32_t slot = 0; slot < 512; ++slot) {
      if (ring->owner(slot) != Ring::kNobody) ++seats[ring->owner(slot)];
    }
    ASSERT_EQ(seats.size(), n);
    for (const auto& [server, count] : seats) EXPECT_EQ(count, 9) << server;
  }
  EXPECT_EQ(Ring::build(settings, first_servers(57)).error().detail, "57 servers with 9 virtual servers each need 513 slots; the ring has 512");
}

TEST(Ring, IsEmptyWithoutServers) {
  const auto ring = Ring::build({}, {});
  EXPECT_EQ(ring->occupied_from(0), Ring::kNobody);
}

}  // namespace
}  // namespace ringmaster::balance
