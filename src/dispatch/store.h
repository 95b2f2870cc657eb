// Where tasks are kept: what a commit() has taken survives the end of the process, of the machine, and of the power.
//
// An interface, as there will be others than SQLite (several Ringmasters on one PostgreSQL). Thread rule: commit() and
// sweep() are called by one thread at a time, the journal's; the readers by any, at any time, and they see what is committed.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "task/task.h"

namespace ringmaster::dispatch {

using base::Code;
using base::Result;
using task::Millis;
using task::Progress;
using task::Task;

// What an operator has set of a queue, beside its configuration.
struct QueueState {
  std::string queue;
  bool paused = false;
  unsigned in_progress_max = 0;  // 0: as configured
};

// A new task; the caller leaves it alone until it is committed.
struct Insert {
  const Task* task = nullptr;
};
struct Update {
  std::uint64_t id = 0;
  Progress progress;
};
using Write = std::variant<Insert, Update, QueueState>;

struct Filter {
  std::optional<task::State> state;
  std::string queue;    // empty: all
  std::string type;     // likewise
  std::string replica;  // likewise
};

struct Retention {
  Millis age = 0;           // final tasks older than this go
  std::uint64_t count = 0;  // and the oldest of more than so many
};

class Store {
 public:
  virtual ~Store() = default;

  // All of it, or nothing; durable when it returns. Errors: disk_full, and internal with the reason.
  virtual Result<void> commit(std::span<const Write* const> writes) = 0;
  // Deletes final tasks that need not be kept, at most `most` at a time. Gives how many.
  virtual Result<std::size_t> sweep(const Retention& retention, Millis now, std::size_t most) = 0;

  // All that are not final, whole.
  virtual Result<std::vector<Task>> live() = 0;
  // Final tasks whose callback is due.
  virtual Result<std::vector<std::uint64_t>> callbacks_due() = 0;
  virtual Result<std::vector<QueueState>> queues() = 0;
  virtual Result<std::uint64_t> last_id() = 0;
  virtual Result<std::optional<Task>> find(std::uint64_t id) = 0;
  // The id and the fingerprint of the request that brought this key.
  virtual Result<std::optional<std::pair<std::uint64_t, std::uint64_t>>> find_key(const std::string& idempotency_key) = 0;
  // Newest first, with ids below `before`. Payloads and results above kListedBytesMax are left out.
  static constexpr std::size_t kListedBytesMax = 1024;
  virtual Result<std::vector<Task>> list(const Filter& filter, std::uint64_t before, std::size_t most) = 0;
};

}  // namespace ringmaster::dispatch
