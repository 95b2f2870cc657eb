#include "balance/admission.h"

#include <algorithm>

namespace ringmaster::balance {

Ticket& Ticket::operator=(Ticket&& other) noexcept {
  release();
  replica_ = std::exchange(other.replica_, nullptr);
  counted_ = other.counted_;
  return *this;
}

void Ticket::release() {
  if (replica_ == nullptr) return;
  Replica& replica = *std::exchange(replica_, nullptr);
  PoolStatus& status = *replica.status;
  // The pool's count first: it must never be more than the sum of the replicas'.
  if (counted_) status.in_flight.fetch_sub(1, std::memory_order_relaxed);
  // Release: whoever sees the count fall to zero (the master, before it stops the replica) sees all that was done.
  replica.cell->in_flight.fetch_sub(1, std::memory_order_seq_cst);
  if (!counted_) return;
  status.completed.fetch_add(1, std::memory_order_relaxed);
  // Either we see who waits, or it sees the room: it announces itself before it looks, and both orders are total.
  if (status.waiting.load(std::memory_order_seq_cst) > 0 && status.waiters != nullptr) status.waiters->capacity_released();
}

std::uint64_t load_bound(std::uint32_t factor_thousandths, std::uint64_t weight, std::uint64_t weight_of_all, std::uint64_t in_flight) {
  const std::uint64_t divisor = 1000 * std::max<std::uint64_t>(weight_of_all, weight);
  return (factor_thousandths * weight * (in_flight + 1) + divisor - 1) / divisor;
}

std::uint64_t weight_in_use(const PoolView& pool) {
  const PoolStatus& status = *pool.status;
  std::uint64_t sum = status.ready_weight.load(std::memory_order_relaxed);
  if (status.panic(pool.panic_below_percent)) sum += status.doubtful_weight.load(std::memory_order_relaxed);
  return sum;
}

bool has_room(const PoolView& pool, const Replica& replica, std::uint64_t with_it, Bound bound) {
  if (pool.max_in_flight != 0 && with_it > pool.max_in_flight) return false;
  if (pool.bound_thousandths == 0 || bound == Bound::capacity) return true;
  const std::uint64_t others = pool.status->in_flight.load(std::memory_order_seq_cst);
  return with_it <= load_bound(pool.bound_thousandths, replica.weight, weight_in_use(pool), others);
}

bool try_admit(const PoolView& pool, Replica& replica, Ticket& ticket, Bound bound) {
  Cell& cell = *replica.cell;
  PoolStatus& status = *pool.status;
  if (pool.counted()) {
    if (!has_room(pool, replica, std::uint64_t{replica.in_flight()} + 1, bound)) return false;
    std::uint64_t with_it = std::uint64_t{cell.in_flight.fetch_add(1, std::memory_order_seq_cst)} + 1;
    for (const Cell* other : replica.other_cells) with_it += other->in_flight.load(std::memory_order_relaxed);
    if (!has_room(pool, replica, with_it, bound)) {
      cell.in_flight.fetch_sub(1, std::memory_order_seq_cst);
      // Our passing addition may have turned somebody away who would have fitted.
      if (status.waiting.load(std::memory_order_seq_cst) > 0 && status.waiters != nullptr) status.waiters->capacity_released();
      return false;
    }
    status.in_flight.fetch_add(1, std::memory_order_relaxed);
  } else {
    cell.in_flight.fetch_add(1, std::memory_order_relaxed);
  }
  cell.requests.fetch_add(1, std::memory_order_relaxed);
  ticket = Ticket();
  ticket.replica_ = &replica;
  ticket.counted_ = pool.counted();
  return true;
}

}  // namespace ringmaster::balance
