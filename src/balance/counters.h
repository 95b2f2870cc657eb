// Counters of work in flight, in memory that the engines of a fleet share: one cache line per replica.
//
// The master makes one block per engine generation and hands it over; each replica has a cell number, the same in every
// block. What a replica has in flight is the sum over the live generations, so capacity stays exact while a new engine
// takes over; a dead engine's block is dropped, and what it had leaked goes with it.
#pragma once

#include <atomic>
#include <cstdint>

namespace ringmaster::balance {

inline constexpr std::uint32_t kCellsMax = 16384;  // replicas at a time, those that are draining included

struct alignas(64) Cell {
  std::atomic<std::uint32_t> in_flight;
  std::atomic<std::uint32_t> unused;
  std::atomic<std::uint64_t> requests;  // begun
  std::atomic<std::uint64_t> failures;  // ended without a usable answer
};
static_assert(sizeof(Cell) == 64 && std::atomic<std::uint64_t>::is_always_lock_free);

inline constexpr std::size_t kBlockBytes = sizeof(Cell) * kCellsMax;  // zeroed memory is a valid, idle block

// The unit of capacity that a request or a task holds on a replica; given back by the destructor.
class Ticket {
 public:
  explicit Ticket(Cell& cell) : cell_(cell) {
    cell.in_flight.fetch_add(1, std::memory_order_relaxed);
    cell.requests.fetch_add(1, std::memory_order_relaxed);
  }
  Ticket(const Ticket&) = delete;
  Ticket& operator=(const Ticket&) = delete;
  ~Ticket() {
    // Release: whoever sees the count fall to zero (the master, before it stops the replica) sees all that was done.
    cell_.in_flight.fetch_sub(1, std::memory_order_release);
  }
  void failed() { cell_.failures.fetch_add(1, std::memory_order_relaxed); }

 private:
  Cell& cell_;
};

}  // namespace ringmaster::balance
