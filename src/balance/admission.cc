#include "balance/admission.h"

#include <algorithm>

namespace ringmaster::balance {

Ticket& Ticket::operator=(Ticket&& other) noexcept {
  release();
  replica_ = std::exchange(other.replica_, nullptr);
  counted_ = other.counted_;
  task_ = other.task_;
  return *this;
}

// There may be room now. Either we see who waits, or it sees the room: it announces itself before it looks, and both orders
// are total.
static void tell_waiters(PoolStatus& status) {
  if (status.waiting.load(std::memory_order_seq_cst) > 0 && status.waiters != nullptr) status.waiters->capacity_released();
  if (status.tasks_wait.load(std::memory_order_seq_cst) && status.task_waiters != nullptr) status.task_waiters->capacity_released();
}

void Ticket::release() {
  if (replica_ == nullptr) return;
  Replica& replica = *std::exchange(replica_, nullptr);
  PoolStatus& status = *replica.status;
  // The pool's count first: it must never be more than the sum of the replicas'.
  if (counted_) status.in_flight.fetch_sub(1, std::memory_order_relaxed);
  // Before the replica's: requests must not see the room without seeing that it is reserved again.
  if (task_) replica.tasks.fetch_sub(1, std::memory_order_seq_cst);
  // Release: whoever sees the count fall to zero (the master, before it stops the replica) sees all that was done.
  replica.cell->in_flight.fetch_sub(1, std::memory_order_seq_cst);
  if (!counted_) return;
  status.completed.fetch_add(1, std::memory_order_relaxed);
  tell_waiters(status);
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
  if (pool.tasks_reserved != 0) {
    const std::uint64_t tasks = replica.tasks.load(std::memory_order_seq_cst);
    if (tasks < pool.tasks_reserved && with_it + pool.tasks_reserved - tasks > pool.max_in_flight) return false;
  }
  if (pool.bound_thousandths == 0 || bound == Bound::capacity) return true;
  const std::uint64_t others = pool.status->in_flight.load(std::memory_order_seq_cst);
  return with_it <= load_bound(pool.bound_thousandths, replica.weight, weight_in_use(pool), others);
}

// Add, check, undo: one more in flight, if `fits` says so of the number with it.
template <class F>
static bool add_if(const PoolView& pool, Replica& replica, F fits) {
  if (!fits(std::uint64_t{replica.in_flight()} + 1)) return false;
  Cell& cell = *replica.cell;
  std::uint64_t with_it = std::uint64_t{cell.in_flight.fetch_add(1, std::memory_order_seq_cst)} + 1;
  for (const Cell* other : replica.other_cells) with_it += other->in_flight.load(std::memory_order_seq_cst);
  if (fits(with_it)) return true;
  cell.in_flight.fetch_sub(1, std::memory_order_seq_cst);
  tell_waiters(*pool.status);  // our passing addition may have turned somebody away who would have fitted
  return false;
}

bool try_admit(const PoolView& pool, Replica& replica, Ticket& ticket, Bound bound) {
  Cell& cell = *replica.cell;
  if (pool.counted()) {
    if (!add_if(pool, replica, [&](std::uint64_t with_it) { return has_room(pool, replica, with_it, bound); })) return false;
    pool.status->in_flight.fetch_add(1, std::memory_order_relaxed);
  } else {
    cell.in_flight.fetch_add(1, std::memory_order_relaxed);
  }
  cell.requests.fetch_add(1, std::memory_order_relaxed);
  ticket = Ticket(replica, pool.counted(), false);
  return true;
}

// Tasks are admitted by one thread, so their own number needs no undoing; what requests count with it is on the safe side.
bool try_admit_task(const PoolView& pool, Replica& replica, Ticket& ticket) {
  if (pool.tasks_max != 0 && replica.tasks.load(std::memory_order_relaxed) >= pool.tasks_max) return false;
  const auto fits = [&](std::uint64_t with_it) { return pool.max_in_flight == 0 || with_it <= pool.max_in_flight; };
  if (!add_if(pool, replica, fits)) return false;
  replica.tasks.fetch_add(1, std::memory_order_seq_cst);
  if (pool.counted()) pool.status->in_flight.fetch_add(1, std::memory_order_relaxed);
  // Until its own number was there, requests saw a place taken and one still reserved for it.
  if (pool.tasks_reserved != 0) tell_waiters(*pool.status);
  ticket = Ticket(replica, pool.counted(), true);
  return true;
}

}  // namespace ringmaster::balance
