#include "balance/maglev.h"

#include <xxhash.h>

#include <algorithm>
#include <array>

namespace ringmaster::balance {

static std::uint32_t table_size(std::size_t members) {
  // Primes, so that every skip visits every entry.
  static constexpr std::array<std::uint32_t, 4> kSizes = {5003, 65537, 655373, 1600033};
  for (const std::uint32_t size : kSizes) {
    if (members * 100 <= size) return size;
  }
  return kSizes.back();
}

Maglev::Maglev(const std::vector<Member>& members) {
  static constexpr std::uint32_t kFree = UINT32_MAX;
  if (members.empty()) return;
  const std::uint32_t size = table_size(members.size());
  struct Walk {
    std::uint32_t next;
    std::uint32_t skip;
    double due;  // when its next turn is; turns come in proportion to weight
  };
  std::uint32_t heaviest = 1;
  for (const Member& member : members) heaviest = std::max(heaviest, member.weight);
  std::vector<Walk> walks;
  for (const Member& member : members) {
    const std::uint64_t slot = member.slot;
    const std::uint64_t offset = XXH3_64bits_withSeed(&slot, sizeof slot, 1);
    const std::uint64_t skip = XXH3_64bits_withSeed(&slot, sizeof slot, 2);
    walks.push_back({static_cast<std::uint32_t>(offset % size), static_cast<std::uint32_t>(skip % (size - 1)) + 1,
                     1 - static_cast<double>(member.weight) / heaviest});  // so that the first round gives everybody one
  }
  entries_.assign(size, kFree);
  for (std::uint32_t filled = 0;;) {
    for (std::uint32_t i = 0; i < members.size(); ++i) {
      Walk& walk = walks[i];
      walk.due += static_cast<double>(members[i].weight) / heaviest;
      if (walk.due < 1) continue;
      walk.due -= 1;
      while (entries_[walk.next] != kFree) walk.next = (walk.next + walk.skip) % size;
      entries_[walk.next] = i;
      if (++filled == size) return;
    }
  }
}

}  // namespace ringmaster::balance
