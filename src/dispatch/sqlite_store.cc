#include "dispatch/sqlite_store.h"

#include <fmt/format.h>

#include <array>
#include <cstdio>

namespace ringmaster::dispatch {

namespace {

// Migrations: each brings a file from its place in this list to the next; PRAGMA user_version says how far it is. Never
// change one that has been released: add the next.
//
// The indexes are those that listing needs: by state; and by type, queue and replica, within each by state (see list()).
// Payload and result come last, and as blobs: so a list neither reads large ones nor their overflow pages.
constexpr std::array kMigrations = {R"sql(
CREATE TABLE task (
  id INTEGER PRIMARY KEY,
  created INTEGER NOT NULL, queue TEXT NOT NULL, type TEXT NOT NULL, priority INTEGER NOT NULL,
  timeout INTEGER NOT NULL, failures_max INTEGER NOT NULL, unique_key TEXT, idempotency_key TEXT, fingerprint INTEGER NOT NULL, callback_url TEXT,
  state INTEGER NOT NULL, attempt INTEGER NOT NULL, failures INTEGER NOT NULL, replica TEXT, run_at INTEGER NOT NULL, deadline INTEGER NOT NULL,
  started INTEGER NOT NULL, finished INTEGER NOT NULL, lease_until INTEGER NOT NULL, result_type TEXT, error TEXT, callback INTEGER NOT NULL,
  payload BLOB NOT NULL, result BLOB
) STRICT;
CREATE INDEX task_by_state ON task (state, id);
CREATE INDEX task_by_type ON task (type, state, id);
CREATE INDEX task_by_queue ON task (queue, state, id);
CREATE INDEX task_by_replica ON task (replica, state, id) WHERE replica IS NOT NULL;
CREATE INDEX task_finished ON task (finished) WHERE finished > 0;
CREATE INDEX task_callback_due ON task (id) WHERE callback = 1;
CREATE UNIQUE INDEX task_by_key ON task (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE TABLE queue (name TEXT PRIMARY KEY, paused INTEGER NOT NULL, in_progress_max INTEGER NOT NULL) STRICT;
)sql",
                                    R"sql(
ALTER TABLE task ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;
)sql"};

constexpr std::string_view kInsert =
    "INSERT INTO task (id, created, queue, type, priority, timeout, failures_max, unique_key, idempotency_key, fingerprint, callback_url, state,"
    " attempt, failures, replica, run_at, deadline, started, finished, lease_until, result_type, error, callback, crashes, result, payload)"
    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";
constexpr std::string_view kUpdate =
    "UPDATE task SET state=?, attempt=?, failures=?, replica=?, run_at=?, deadline=?, started=?, finished=?, lease_until=?, result_type=?,"
    " error=?, callback=?, crashes=?, result=? WHERE id=?";
// All columns, in the order of the table; `payload` and `result` as given.
std::string select(const char* payload, const char* result) {
  return std::string("SELECT id, created, queue, type, ") + payload +
         ", priority, timeout, failures_max, unique_key, idempotency_key, fingerprint, callback_url, state, attempt, failures, replica, run_at, deadline,"
         " started, finished, lease_until, " +
         result + ", result_type, error, callback, crashes FROM task ";
}
std::string select_whole() { return select("payload", "result"); }

void bind(Statement& statement, const Progress& progress) {
  statement.bind(static_cast<std::int64_t>(progress.state)).bind(std::int64_t{progress.attempt}).bind(std::int64_t{progress.failures});
  statement.bind_or_null(progress.replica).bind(progress.run_at).bind(progress.deadline).bind(progress.started).bind(progress.finished);
  statement.bind(progress.lease_until).bind_or_null(progress.result_type).bind_or_null(progress.error);
  statement.bind(static_cast<std::int64_t>(progress.callback)).bind(std::int64_t{progress.crashes}).bind_blob(progress.result);
}

Task read_task(Statement& row) {
  Task task;
  task.id = static_cast<std::uint64_t>(row.number());
  task.created = row.number();
  task.spec.queue = row.text();
  task.spec.type = row.text();
  task.spec.payload = row.text();
  task.spec.priority = static_cast<int>(row.number());
  task.spec.timeout = row.number();
  task.spec.failures_max = static_cast<unsigned>(row.number());
  task.spec.unique_key = row.text();
  task.spec.idempotency_key = row.text();
  task.spec.fingerprint = static_cast<std::uint64_t>(row.number());
  task.spec.callback = row.text();
  Progress& progress = task.progress;
  progress.state = static_cast<task::State>(row.number());
  progress.attempt = static_cast<unsigned>(row.number());
  progress.failures = static_cast<unsigned>(row.number());
  progress.replica = row.text();
  progress.run_at = row.number();
  progress.deadline = row.number();
  progress.started = row.number();
  progress.finished = row.number();
  progress.lease_until = row.number();
  progress.result = row.text();
  progress.result_type = row.text();
  progress.error = row.text();
  progress.callback = static_cast<task::Callback>(row.number());
  progress.crashes = static_cast<unsigned>(row.number());
  return task;
}

bool is_damage(int code) {
  const int primary = code & 0xff;
  return primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB;
}

}  // namespace

base::Error SqliteStore::error(sqlite3* database, int code) {
  const int primary = code & 0xff;
  const int system = database == nullptr ? 0 : sqlite3_system_errno(database);
  const bool full = primary == SQLITE_FULL || (primary == SQLITE_IOERR && (system == ENOSPC || system == EDQUOT));
  const std::string why = database == nullptr ? sqlite3_errstr(code) : sqlite3_errmsg(database);
  if (is_damage(code)) damaged_ = true;
  return {full ? Code::disk_full : Code::internal, base::Source::us, file_ + ": " + why};
}

// --- opening ---

Result<std::unique_ptr<SqliteStore>> SqliteStore::open(const std::string& file, Millis now, const char* vfs) {
  std::unique_ptr<SqliteStore> store(new SqliteStore(file, vfs));
  auto opened = store->connect();
  if (!opened && store->damaged_) {
    // Set aside with its log: both may be needed to save what can be saved.
    store->close();
    const std::string aside = file + ".damaged-" + std::to_string(now);
    for (const char* part : {"", "-wal"}) {
      if (std::rename((file + part).c_str(), (aside + part).c_str()) != 0 && part[0] == '\0') return std::unexpected(opened.error());
    }
    std::remove((file + "-shm").c_str());
    store->damage_ = opened.error().detail + "; it is now " + aside + ", and a new one has been begun";
    opened = store->connect();
  }
  if (!opened) return std::unexpected(opened.error());
  return store;
}

SqliteStore::~SqliteStore() { close(); }

void SqliteStore::close() {
  for (Statement* statement : {&begin_, &commit_, &rollback_, &insert_, &update_, &save_queue_, &count_, &delete_old_, &delete_many_, &find_, &find_key_,
                               &live_, &callbacks_due_, &queues_, &last_id_}) {
    const Statement closed = std::move(*statement);
  }
  sqlite3_close(std::exchange(reader_, nullptr));
  sqlite3_close(std::exchange(writer_, nullptr));
}

Result<void> SqliteStore::execute(const char* sql) {
  const int code = sqlite3_exec(writer_, sql, nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) return std::unexpected(error(writer_, sqlite3_extended_errcode(writer_)));
  return {};
}

Result<void> SqliteStore::connect() {
  static constexpr int kCommon = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_READWRITE;
  const auto open_one = [&](sqlite3** database, int flags) -> Result<void> {
    const int code = sqlite3_open_v2(file_.c_str(), database, kCommon | flags, vfs_);
    if (code != SQLITE_OK) return std::unexpected(error(*database, code));
    sqlite3_extended_result_codes(*database, 1);
    sqlite3_busy_timeout(*database, 5000);
    return {};
  };
  if (auto opened = open_one(&writer_, SQLITE_OPEN_CREATE); !opened) return opened;
  // EXTRA is FULL, and the removal of the journal in which the file was begun is synced, too. Without that it may come back
  // with the next power loss and empty the file, if we are killed before the log is first synced. So it comes before the log.
  //
  // A checkpoint copies the log into the file and waits for the disk twice: every 4,000 pages (16 MiB), so that few commits
  // meet one. The log is cut back to that when it has grown beyond, under a long read.
  for (const char* sql : {"PRAGMA synchronous = EXTRA", "PRAGMA auto_vacuum = INCREMENTAL", "PRAGMA journal_mode = WAL", "PRAGMA wal_autocheckpoint = 4000",
                          "PRAGMA journal_size_limit = 33554432", "PRAGMA cache_size = -16384", "PRAGMA temp_store = MEMORY"}) {
    if (auto done = execute(sql); !done) return done;
  }
  if (auto sound = check(); !sound) return sound;
  if (auto migrated = migrate(); !migrated) return migrated;
  if (auto opened = open_one(&reader_, 0); !opened) return opened;
  sqlite3_exec(reader_, "PRAGMA query_only = 1; PRAGMA cache_size = -8192", nullptr, nullptr, nullptr);
  begin_ = Statement(writer_, "BEGIN IMMEDIATE");
  commit_ = Statement(writer_, "COMMIT");
  rollback_ = Statement(writer_, "ROLLBACK");
  insert_ = Statement(writer_, kInsert);
  update_ = Statement(writer_, kUpdate);
  save_queue_ = Statement(writer_, "INSERT OR REPLACE INTO queue (name, paused, in_progress_max) VALUES (?,?,?)");
  count_ = Statement(writer_, "SELECT count(*) FROM task INDEXED BY task_finished WHERE finished > 0");
  static constexpr const char* kDelete = "DELETE FROM task WHERE id IN (SELECT id FROM task INDEXED BY task_finished WHERE finished > 0 ";
  delete_old_ = Statement(writer_, std::string(kDelete) + "AND finished < ? AND callback <> 1 ORDER BY finished LIMIT ?)");
  delete_many_ = Statement(writer_, std::string(kDelete) + "AND callback <> 1 ORDER BY finished LIMIT ?)");
  find_ = Statement(reader_, select_whole() + "WHERE id = ?");
  find_key_ = Statement(reader_, "SELECT id, fingerprint FROM task WHERE idempotency_key = ?");
  live_ = Statement(reader_, select_whole() + "INDEXED BY task_by_state WHERE state < 3");
  callbacks_due_ = Statement(reader_, "SELECT id FROM task INDEXED BY task_callback_due WHERE callback = 1");
  queues_ = Statement(reader_, "SELECT name, paused, in_progress_max FROM queue");
  last_id_ = Statement(reader_, "SELECT coalesce(max(id), 0) FROM task");
  for (const Statement* statement : {&insert_, &update_, &save_queue_, &count_, &delete_old_, &delete_many_}) {
    if (statement->code() != SQLITE_OK) return std::unexpected(error(writer_, statement->code()));
  }
  for (const Statement* statement : {&find_, &find_key_, &live_, &callbacks_due_, &queues_, &last_id_}) {
    if (statement->code() != SQLITE_OK) return std::unexpected(error(reader_, statement->code()));
  }
  return count_final();
}

Result<void> SqliteStore::check() {
  Statement quick_check(writer_, "PRAGMA quick_check(1)");
  const int code = quick_check.step();
  if (code != SQLITE_ROW) return std::unexpected(error(writer_, sqlite3_extended_errcode(writer_)));
  const std::string found = quick_check.text();
  damaged_ = found != "ok";
  if (damaged_) return base::fail(Code::internal, file_ + " is damaged: " + found);
  return {};
}

Result<void> SqliteStore::migrate() {
  Statement read_version(writer_, "PRAGMA user_version");
  if (read_version.step() != SQLITE_ROW) return std::unexpected(error(writer_, sqlite3_extended_errcode(writer_)));
  const auto version = static_cast<std::size_t>(read_version.number());
  read_version.reset();
  if (version > kMigrations.size()) {
    return base::fail(Code::internal, file_ + " was written by a newer Ringmaster (format " + std::to_string(version) + ")");
  }
  for (std::size_t next = version; next < kMigrations.size(); ++next) {
    const std::string sql = std::string("BEGIN IMMEDIATE;") + kMigrations.at(next) + "PRAGMA user_version = " + std::to_string(next + 1) + "; COMMIT;";
    if (auto done = execute(sql.c_str()); !done) {
      sqlite3_exec(writer_, "ROLLBACK", nullptr, nullptr, nullptr);
      return done;
    }
  }
  return {};
}

// --- writing ---

Result<void> SqliteStore::write(const Write& write) {
  Statement* statement = nullptr;
  if (const auto* insert = std::get_if<Insert>(&write)) {
    const Task& task = *insert->task;
    statement = &insert_;
    insert_.bind(static_cast<std::int64_t>(task.id)).bind(task.created).bind(task.spec.queue).bind(task.spec.type);
    insert_.bind(std::int64_t{task.spec.priority}).bind(task.spec.timeout).bind(std::int64_t{task.spec.failures_max}).bind_or_null(task.spec.unique_key);
    insert_.bind_or_null(task.spec.idempotency_key).bind(static_cast<std::int64_t>(task.spec.fingerprint)).bind_or_null(task.spec.callback);
    bind(insert_, task.progress);
    insert_.bind_blob(task.spec.payload);
  } else if (const auto* update = std::get_if<Update>(&write)) {
    statement = &update_;
    bind(update_, update->progress);
    update_.bind(static_cast<std::int64_t>(update->id));
  } else {
    const auto& queue = std::get<QueueState>(write);
    statement = &save_queue_;
    save_queue_.bind(queue.queue).bind(std::int64_t{queue.paused}).bind(std::int64_t{queue.in_progress_max});
  }
  const int code = statement->step();
  const Result<void> result = code == SQLITE_DONE ? Result<void>{} : std::unexpected(error(writer_, code));
  statement->reset();
  return result;
}

Result<void> SqliteStore::commit(std::span<const Write* const> writes) {
  const auto run = [&](Statement& statement) -> Result<void> {
    const int code = statement.step();
    const Result<void> result = code == SQLITE_DONE ? Result<void>{} : std::unexpected(error(writer_, code));
    statement.reset();
    return result;
  };
  Result<void> result = run(begin_);
  for (std::size_t i = 0; result && i < writes.size(); ++i) result = write(*writes[i]);
  if (result) result = run(commit_);
  for (std::size_t i = 0; result && i < writes.size(); ++i) {
    const auto* update = std::get_if<Update>(writes[i]);
    final_most_ += update != nullptr && update->progress.finished > 0 ? 1 : 0;
  }
  // A failed COMMIT can leave the transaction open; some faults have rolled it back already.
  if (!result && sqlite3_get_autocommit(writer_) == 0) (void)run(rollback_);
  return result;
}

Result<void> SqliteStore::count_final() {
  if (count_.step() != SQLITE_ROW) return std::unexpected(error(writer_, sqlite3_extended_errcode(writer_)));
  final_most_ = static_cast<std::uint64_t>(count_.number());
  count_.reset();
  return {};
}

Result<std::size_t> SqliteStore::sweep(const Retention& retention, Millis now, std::size_t most) {
  const auto finish = [&](Statement& statement) -> Result<std::size_t> {
    const int code = statement.step();
    if (code != SQLITE_DONE) {
      statement.reset();
      return std::unexpected(error(writer_, code));
    }
    const auto deleted = static_cast<std::size_t>(sqlite3_changes64(writer_));
    statement.reset();
    final_most_ -= std::min<std::uint64_t>(deleted, final_most_);
    return deleted;
  };
  delete_old_.bind(now - retention.age).bind(static_cast<std::int64_t>(most));
  Result<std::size_t> deleted = finish(delete_old_);
  if (!deleted || *deleted == most) return deleted;
  if (to_delete_ == 0 && final_most_ > retention.count) {
    if (auto counted = count_final(); !counted) return std::unexpected(counted.error());
    // A little more than needed, so that counting is rare.
    if (final_most_ > retention.count) to_delete_ = final_most_ - retention.count + retention.count / 100;
  }
  if (to_delete_ > 0) {
    delete_many_.bind(static_cast<std::int64_t>(std::min<std::uint64_t>(to_delete_, most - *deleted)));
    const Result<std::size_t> more = finish(delete_many_);
    if (!more) return more;
    to_delete_ -= std::min<std::uint64_t>(*more == 0 ? to_delete_ : *more, to_delete_);
    *deleted += *more;
  }
  // Pages that are free now are given back bit by bit, so that the file shrinks after a flood.
  if (*deleted == 0) sqlite3_exec(writer_, "PRAGMA incremental_vacuum(256)", nullptr, nullptr, nullptr);
  return deleted;
}

// --- reading ---

Result<std::vector<Task>> SqliteStore::read_tasks(Statement& statement) {
  std::vector<Task> tasks;
  int code = SQLITE_ROW;
  while ((code = statement.step()) == SQLITE_ROW) tasks.push_back(read_task(statement));
  const Result<std::vector<Task>> result = code == SQLITE_DONE ? Result<std::vector<Task>>(std::move(tasks)) : std::unexpected(error(reader_, code));
  statement.reset();
  return result;
}

Result<std::vector<Task>> SqliteStore::live() {
  const std::lock_guard lock(reading_);
  return read_tasks(live_);
}

Result<std::vector<std::uint64_t>> SqliteStore::callbacks_due() {
  const std::lock_guard lock(reading_);
  std::vector<std::uint64_t> ids;
  int code = SQLITE_ROW;
  while ((code = callbacks_due_.step()) == SQLITE_ROW) ids.push_back(static_cast<std::uint64_t>(callbacks_due_.number()));
  callbacks_due_.reset();
  if (code != SQLITE_DONE) return std::unexpected(error(reader_, code));
  return ids;
}

Result<std::vector<QueueState>> SqliteStore::queues() {
  const std::lock_guard lock(reading_);
  std::vector<QueueState> queues;
  int code = SQLITE_ROW;
  while ((code = queues_.step()) == SQLITE_ROW) {
    QueueState& queue = queues.emplace_back();
    queue.queue = queues_.text();
    queue.paused = queues_.number() != 0;
    queue.in_progress_max = static_cast<unsigned>(queues_.number());
  }
  queues_.reset();
  if (code != SQLITE_DONE) return std::unexpected(error(reader_, code));
  return queues;
}

Result<std::uint64_t> SqliteStore::last_id() {
  const std::lock_guard lock(reading_);
  const int code = last_id_.step();
  const Result<std::uint64_t> result =
      code == SQLITE_ROW ? Result<std::uint64_t>(static_cast<std::uint64_t>(last_id_.number())) : std::unexpected(error(reader_, code));
  last_id_.reset();
  return result;
}

Result<std::optional<Task>> SqliteStore::find(std::uint64_t id) {
  const std::lock_guard lock(reading_);
  find_.bind(static_cast<std::int64_t>(id));
  auto found = read_tasks(find_);
  if (!found) return std::unexpected(found.error());
  if (found->empty()) return std::nullopt;
  return std::move(found->front());
}

Result<std::optional<std::pair<std::uint64_t, std::uint64_t>>> SqliteStore::find_key(const std::string& idempotency_key) {
  const std::lock_guard lock(reading_);
  find_key_.bind(idempotency_key);
  std::optional<std::pair<std::uint64_t, std::uint64_t>> found;
  const int code = find_key_.step();
  if (code == SQLITE_ROW) {
    const auto id = static_cast<std::uint64_t>(find_key_.number());
    found = {id, static_cast<std::uint64_t>(find_key_.number())};
  }
  find_key_.reset();
  if (code != SQLITE_ROW && code != SQLITE_DONE) return std::unexpected(error(reader_, code));
  return found;
}

// The newest of each state by an index that has exactly them in order, and of these the newest: so no list has to look at
// more rows than it shows for each of the states, unless two of type, queue and replica are asked for at once.
Result<std::vector<Task>> SqliteStore::list(const Filter& filter, std::uint64_t before, std::size_t most) {
  const char* index = !filter.replica.empty() ? "task_by_replica" : !filter.type.empty() ? "task_by_type" : !filter.queue.empty() ? "task_by_queue" : "";
  std::string conditions = "id < ?1";
  if (!filter.replica.empty()) conditions += " AND replica = ?3";
  if (!filter.type.empty()) conditions += " AND type = ?4";
  if (!filter.queue.empty()) conditions += " AND queue = ?5";
  std::string ids;
  for (std::size_t state = 0; state < task::kStateNames.size(); ++state) {
    if (filter.state && static_cast<std::size_t>(*filter.state) != state) continue;
    if (!ids.empty()) ids += " UNION ALL ";
    ids += fmt::format("SELECT id FROM (SELECT id FROM task INDEXED BY {} WHERE state = {} AND {} ORDER BY id DESC LIMIT ?2)",
                       *index != '\0' ? index : "task_by_state", state, conditions);
  }
  if (*index == '\0' && !filter.state) ids = "SELECT id FROM (SELECT id FROM task NOT INDEXED WHERE id < ?1 ORDER BY id DESC LIMIT ?2)";
  const auto shortened = [](const std::string& column) {
    return "iif(length(" + column + ") <= " + std::to_string(kListedBytesMax) + ", " + column + ", NULL)";
  };
  const std::string sql = select(shortened("payload").c_str(), shortened("result").c_str()) + "WHERE id IN (" + ids + ") ORDER BY id DESC LIMIT ?2";
  const std::lock_guard lock(reading_);
  Statement statement(reader_, sql);
  if (statement.code() != SQLITE_OK) return std::unexpected(error(reader_, statement.code()));
  statement.bind(static_cast<std::int64_t>(std::min<std::uint64_t>(before, INT64_MAX))).bind(static_cast<std::int64_t>(most));
  statement.bind(filter.replica).bind(filter.type).bind(filter.queue);
  return read_tasks(statement);
}

}  // namespace ringmaster::dispatch
