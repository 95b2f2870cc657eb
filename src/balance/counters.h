// Counters of work in flight, in memory that the engines of a fleet share: one cache line per replica.
//
// The master makes one block per engine generation and hands it over; each replica has a cell number, the same in every
// block. What a replica has in flight is the sum over the live generations, so capacity stays exact while a new engine
// takes over; a dead engine's block is dropped, and what it had leaked goes with it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace ringmaster::balance {

inline constexpr std::uint32_t kCellsMax = 16384;  // replicas at a time, those that are draining included

struct alignas(64) Cell {
  std::atomic<std::uint32_t> in_flight;
  std::atomic<std::uint32_t> good_while_ill;  // good answers that it gave while it was not ready: its checks may be wrong
  std::atomic<std::uint64_t> requests;        // begun
  std::atomic<std::uint64_t> failures;        // ended without a usable answer
};
static_assert(sizeof(Cell) == 64 && std::atomic<std::uint64_t>::is_always_lock_free);

inline constexpr std::size_t kBlockBytes = sizeof(Cell) * kCellsMax;  // zeroed memory is a valid, idle block

}  // namespace ringmaster::balance
