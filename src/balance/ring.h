// The slotted ring: M slots, K virtual servers a server, exact integer hash functions H (of a request's id) and Φ (of a
// virtual server). A request goes to the nearest virtual server clockwise, its own slot included.
//
//        0   1   2   3   4   5   6   7          server 1 at 2 and 5, server 2 at 6
//      ┌───┬───┬───┬───┬───┬───┬───┬───┐        a request whose H is 3 goes on to 5: server 1
//      │   │   │1,1│   │   │1,2│2,1│   │        one whose H is 7 wraps around to 2: server 1
//      └───┴───┴───┴───┴───┴───┴───┴───┘
//
// Immutable once built. A slot of the *pool* (a server's number) is called `server` here, to keep it apart from the
// ring's own slots.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "balance/polynomial.h"
#include "base/result.h"

namespace ringmaster::balance {

enum class Probing : std::uint8_t { linear, quadratic };

// H or Φ: a polynomial, or xxHash (XXH3, 64 bits) when there is none.
struct RingFunction {
  bool xxhash = true;
  Polynomial polynomial;
  // "xxhash", or a polynomial; `allow_j`: whether it may use j. Errors as Polynomial::parse's.
  static base::Result<RingFunction> parse(const std::string& text, bool allow_j);
  // As parse() reads it.
  std::string text() const { return xxhash ? "xxhash" : polynomial.text(); }
  std::uint32_t evaluate(std::uint64_t i, std::uint64_t j, std::uint32_t m) const;
};

struct RingSettings {
  std::uint32_t slots = 512;          // M
  std::uint32_t virtual_servers = 9;  // K
  Probing probing = Probing::linear;
  std::uint32_t server_base = 1;   // the id of the pool's first server in Φ
  std::uint32_t virtual_base = 1;  // the first j
  RingFunction request_function;   // H(i)
  RingFunction virtual_function;   // Φ(i, j)
};

// The printed functions: "s1" is H = i²+2i+17, Φ = i²+j²+2j+25 with linear probing; "s2" is H = i+2i²+17,
// Φ = i+j+2j²+25 with quadratic probing; "xxhash". Sets the functions and the probing; false for any other name.
bool apply_preset(std::string_view name, RingSettings& settings);

class Ring {
 public:
  static constexpr std::uint32_t kNobody = UINT32_MAX;

  Ring() = default;
  struct Server {
    std::uint32_t slot;  // of the pool, counted from 1
    std::uint32_t weight = 1;
  };
  // Places the servers in order, each with K · weight virtual ones, j inner. Error: more of these than M.
  static base::Result<Ring> build(const RingSettings& settings, const std::vector<Server>& servers);

  // The ring slot of the request's id.
  std::uint32_t hash(std::uint64_t id) const;
  // The first occupied ring slot at or clockwise after `slot`; kNobody on an empty ring.
  std::uint32_t occupied_from(std::uint32_t slot) const { return next_.empty() ? kNobody : next_[slot]; }
  // The index into `servers` of who sits in an occupied ring slot, and the virtual server's number from 0.
  std::uint32_t owner(std::uint32_t slot) const { return owners_[slot].server; }
  std::uint32_t virtual_number(std::uint32_t slot) const { return owners_[slot].virtual_number; }
  std::uint32_t slots() const { return static_cast<std::uint32_t>(owners_.size()); }

 private:
  struct Seat {
    std::uint32_t server = kNobody;
    std::uint32_t virtual_number = 0;
  };
  bool xxhash_ = false;
  std::vector<std::uint32_t> hash_of_residue_;  // H depends on i mod M only
  std::vector<Seat> owners_;
  std::vector<std::uint32_t> next_;
};

}  // namespace ringmaster::balance
