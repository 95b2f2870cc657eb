#include "balance/polynomial.h"

#include <array>
#include <charconv>

#include "base/check.h"

namespace ringmaster::balance {

using base::Code;
using base::Result;

static constexpr std::size_t kNestingMax = 8;
static constexpr std::size_t kStackMax = 64;  // values at a time: at most three a level, and powers
static constexpr std::size_t kStepsMax = 1000;
static constexpr std::uint64_t kPowerMax = 16;
static constexpr std::size_t kTextBytesMax = 256;

class PolynomialParser {
 public:
  PolynomialParser(std::string_view text, bool allow_j) : text_(text), allow_j_(allow_j) {}

  Result<Polynomial> run() {
    if (text_.size() > kTextBytesMax) return base::fail(Code::invalid, "the polynomial is longer than 256 characters");
    if (expression() && (skip_spaces(), at_ != text_.size())) complain("an operator is missing");
    if (!complaint_.empty()) return base::fail(Code::invalid, complaint_ + " at character " + std::to_string(at_ + 1));
    result_.text_ = text_;
    return result_;
  }

 private:
  using Op = Polynomial::Op;

  bool complain(std::string what) {
    if (complaint_.empty()) complaint_ = std::move(what);
    return false;
  }
  void skip_spaces() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }
  bool accept(char c) {
    skip_spaces();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void emit(Op op, std::uint64_t number = 0) { result_.steps_.push_back({op, number}); }

  bool expression() {  // NOLINT(misc-no-recursion): bounded by kNestingMax
    if (++depth_ > kNestingMax) return complain("the polynomial is nested too deeply");
    if (accept('-')) {
      emit(Op::number, 0);
      if (!term()) return false;
      emit(Op::subtract);
    } else if (!term()) {
      return false;
    }
    while (true) {
      if (accept('+')) {
        if (!term()) return false;
        emit(Op::add);
      } else if (accept('-')) {
        if (!term()) return false;
        emit(Op::subtract);
      } else {
        --depth_;
        return true;
      }
    }
  }

  bool term() {  // NOLINT(misc-no-recursion)
    if (!factor()) return false;
    while (accept('*')) {
      if (!factor()) return false;
      emit(Op::multiply);
    }
    return true;
  }

  bool factor() {  // NOLINT(misc-no-recursion)
    const std::size_t begin = result_.steps_.size();
    if (!atom()) return false;
    if (!accept('^')) return true;
    skip_spaces();
    std::uint64_t power = 0;
    if (!digits(power)) return complain("a power needs a number");
    if (power == 0 || power > kPowerMax) return complain("a power must be from 1 to 16");
    const std::vector<Polynomial::Step> base(result_.steps_.begin() + static_cast<std::ptrdiff_t>(begin), result_.steps_.end());
    if (base.size() * power > kStepsMax) return complain("the polynomial is too large");
    for (std::uint64_t k = 1; k < power; ++k) {
      result_.steps_.insert(result_.steps_.end(), base.begin(), base.end());
      emit(Op::multiply);
    }
    return true;
  }

  bool digits(std::uint64_t& number) {
    const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), number);
    if (error == std::errc::result_out_of_range) return complain("a number is too large");
    if (error != std::errc{}) return false;
    at_ = static_cast<std::size_t>(end - text_.data());
    return true;
  }

  bool atom() {  // NOLINT(misc-no-recursion)
    skip_spaces();
    std::uint64_t number = 0;
    if (digits(number)) {
      emit(Op::number, number);
      return true;
    }
    if (accept('i')) {
      emit(Op::i);
      return true;
    }
    if (allow_j_ && accept('j')) {
      emit(Op::j);
      return true;
    }
    if (!accept('(')) return complain(allow_j_ ? "a number, i, j or '(' is needed" : "a number, i or '(' is needed");
    if (!expression()) return false;
    return accept(')') || complain("')' is missing");
  }

  std::string_view text_;
  bool allow_j_;
  std::size_t at_ = 0;
  std::size_t depth_ = 0;
  std::string complaint_;
  Polynomial result_;
};

Result<Polynomial> Polynomial::parse(std::string_view text, bool allow_j) { return PolynomialParser(text, allow_j).run(); }

std::uint32_t Polynomial::evaluate(std::uint64_t i, std::uint64_t j, std::uint32_t m) const {
  std::array<std::uint64_t, kStackMax> stack{};
  std::size_t top = 0;
  for (const Step& step : steps_) {
    switch (step.op) {
      case Op::number: stack[top++] = step.number % m; break;
      case Op::i: stack[top++] = i % m; break;
      case Op::j: stack[top++] = j % m; break;
      default: {
        const std::uint64_t right = stack[--top];
        std::uint64_t& left = stack[top - 1];
        if (step.op == Op::add) left = (left + right) % m;
        if (step.op == Op::subtract) left = (left + m - right) % m;
        if (step.op == Op::multiply) left = left * right % m;
      }
    }
    CHECK(top < stack.size());
  }
  return static_cast<std::uint32_t>(stack[0]);
}

}  // namespace ringmaster::balance
