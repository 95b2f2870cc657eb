// Tasks in one SQLite file, in WAL mode with synchronous=EXTRA: a commit is in the log and on the disk when it returns.
//
// One connection writes and checkpoints (Debian's 3.40 lacks the fix for a race between two that do); a second one only
// reads. A file that is damaged when it is opened is set aside, never deleted, and a new one begun: see damage().
#pragma once

#include <sqlite3.h>

#include <atomic>
#include <memory>
#include <mutex>

#include "dispatch/statement.h"
#include "dispatch/store.h"

namespace ringmaster::dispatch {

class SqliteStore final : public Store {
 public:
  // `vfs`: SQLite's file layer; null is the system's. Errors: what keeps the file from being opened or made.
  static Result<std::unique_ptr<SqliteStore>> open(const std::string& file, Millis now, const char* vfs = nullptr);
  ~SqliteStore() override;

  // Empty, or what was wrong with the file that was found, and where it is now.
  const std::string& damage() const { return damage_; }

  Result<void> commit(std::span<const Write* const> writes) override;
  Result<std::size_t> sweep(const Retention& retention, Millis now, std::size_t most) override;
  Result<std::vector<Task>> live() override;
  Result<std::vector<std::uint64_t>> callbacks_due() override;
  Result<std::vector<QueueState>> queues() override;
  Result<std::uint64_t> last_id() override;
  Result<std::optional<Task>> find(std::uint64_t id) override;
  Result<std::optional<std::pair<std::uint64_t, std::uint64_t>>> find_key(const std::string& idempotency_key) override;
  Result<std::vector<Task>> list(const Filter& filter, std::uint64_t before, std::size_t most) override;

 private:
  SqliteStore(std::string file, const char* vfs) : file_(std::move(file)), vfs_(vfs) {}
  Result<void> connect();
  Result<void> migrate();
  Result<void> check();
  Result<void> count_final();
  void close();
  Result<void> write(const Write& write);
  Result<void> execute(const char* sql);
  Result<std::vector<Task>> read_tasks(Statement& statement);
  base::Error error(sqlite3* database, int code);

  std::string file_;
  const char* vfs_;
  std::string damage_;
  std::atomic<bool> damaged_ = false;  // SQLite has said so
  // The journal's thread.
  sqlite3* writer_ = nullptr;
  std::uint64_t final_most_ = 0;  // at least as many final tasks as there are: counting a million takes a while
  std::uint64_t to_delete_ = 0;   // as retention by count has it
  Statement begin_, commit_, rollback_, insert_, update_, save_queue_, count_, delete_old_, delete_many_;
  // Any thread's, with the mutex held.
  std::mutex reading_;
  sqlite3* reader_ = nullptr;
  Statement find_, find_key_, live_, callbacks_due_, queues_, last_id_;
};

}  // namespace ringmaster::dispatch
