// Maglev hashing (Eisenbud and others, NSDI 2016): a table of entries, each naming a replica, filled so that all have
// their share and a change of membership moves few keys. A lookup is one array access, however large the pool.
//
// Over slots, never addresses: a slot's next replica inherits its keys. Immutable once built.
#pragma once

#include <cstdint>
#include <vector>

namespace ringmaster::balance {

class Maglev {
 public:
  struct Member {
    std::uint32_t slot;
    std::uint32_t weight;
    bool operator==(const Member&) const = default;
  };

  // The table has the least prime number of entries, of a few fixed ones, that is at least a hundred per member; so shares
  // are exact to about one per cent (the paper, section 5.3).
  explicit Maglev(const std::vector<Member>& members);

  std::uint32_t size() const { return static_cast<std::uint32_t>(entries_.size()); }
  // The index into `members` of who has the entry. Not on an empty table.
  std::uint32_t at(std::uint32_t entry) const { return entries_[entry]; }

 private:
  std::vector<std::uint32_t> entries_;
};

}  // namespace ringmaster::balance
