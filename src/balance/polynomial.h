// Integer polynomials in i and j, given as text ("i*i + 2*i + 17"), evaluated exactly modulo m.
//
//   expression = ["-"] term { ("+" | "-") term }      term   = factor { "*" factor }
//   factor     = atom [ "^" digits ]                  atom   = digits | "i" | "j" | "(" expression ")"
//
// All arithmetic is in the ring of integers modulo m, so nothing overflows however large i is, and the value is the one
// that unbounded integers would give, reduced once at the end.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace ringmaster::balance {

class Polynomial {
 public:
  // The error says what is wrong and at which character, counted from 1. `allow_j`: whether j may be used.
  static base::Result<Polynomial> parse(std::string_view text, bool allow_j);

  // The value for i and j, in [0, m); 0 < m <= 2^31.
  std::uint32_t evaluate(std::uint64_t i, std::uint64_t j, std::uint32_t m) const;

  const std::string& text() const { return text_; }

 private:
  friend class PolynomialParser;
  enum class Op : std::uint8_t { number, i, j, add, subtract, multiply };
  struct Step {
    Op op;
    std::uint64_t number = 0;
  };
  std::string text_;
  std::vector<Step> steps_;  // reverse Polish
};

}  // namespace ringmaster::balance
