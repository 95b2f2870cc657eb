// Capacity: who may take one more request, and the ticket that says so.
//
// Counters are shared by all workers and admission is "add, check, undo": the check sees the own addition, so two that
// admit at once cannot both get the last place. What is compared is always on the safe side: a replica's count includes
// those that are just being tried, the pool's only those that were admitted.
#pragma once

#include <utility>

#include "balance/view.h"

namespace ringmaster::balance {

enum class Bound : std::uint8_t;

// The unit of capacity that a request or a task holds on a replica; given back by the destructor.
class Ticket {
 public:
  Ticket() = default;
  Ticket(Ticket&& other) noexcept : replica_(std::exchange(other.replica_, nullptr)), counted_(other.counted_), task_(other.task_) {}
  Ticket& operator=(Ticket&& other) noexcept;
  ~Ticket() { release(); }

  explicit operator bool() const { return replica_ != nullptr; }
  // How the work went, as far as it says something of the replica. For the master, who may replace an unhealthy one.
  void failed() { replica_->cell->failures.fetch_add(1, std::memory_order_relaxed); }
  void succeeded() {
    if (!replica_->ready()) replica_->cell->good_while_ill.fetch_add(1, std::memory_order_relaxed);
  }
  void release();

 private:
  friend bool try_admit(const PoolView& pool, Replica& replica, Ticket& ticket, Bound bound);
  friend bool try_admit_task(const PoolView& pool, Replica& replica, Ticket& ticket);
  Ticket(Replica& replica, bool counted, bool task) : replica_(&replica), counted_(counted), task_(task) {}
  Replica* replica_ = nullptr;  // outlives the ticket: whoever holds one holds its Upstream
  bool counted_ = false;        // in the pool's status, too
  bool task_ = false;
};

// How many requests a replica may have when there are `in_flight` in its pool and one more is to be admitted:
// ceil(factor · weight share · (in_flight + 1)) (Mirrokni, Thorup, Zadimoghaddam, "Consistent hashing with bounded loads", 2018).
std::uint64_t load_bound(std::uint32_t factor_thousandths, std::uint64_t weight, std::uint64_t weight_of_all, std::uint64_t in_flight);

// The sum of weights that shares are of: of the replicas that get requests now.
std::uint64_t weight_in_use(const PoolView& pool);

// Bounded load is for keys, which have other places to go; a sticky session has not, and only capacity counts.
enum class Bound : std::uint8_t { load_and_capacity, capacity };

// Whether the replica may have `with_it` requests in flight now.
bool has_room(const PoolView& pool, const Replica& replica, std::uint64_t with_it, Bound bound = Bound::load_and_capacity);

// Takes a ticket if the replica has room.
bool try_admit(const PoolView& pool, Replica& replica, Ticket& ticket, Bound bound = Bound::load_and_capacity);

// Takes a ticket for a task: of the same that requests take, but at most `tasks_max` of a replica. Requests, for their part,
// leave `tasks_reserved` of them alone, so that neither can starve the other.
bool try_admit_task(const PoolView& pool, Replica& replica, Ticket& ticket);

}  // namespace ringmaster::balance
