// The access log: one line a request. Workers fill buffers of their own and hand them over whole; a thread beside the
// loops writes them. When the disk cannot follow, lines are dropped and counted: a worker never waits for it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

#include "config/config.h"
#include "io/loop.h"
#include "wire/server.h"

namespace ringmaster::proxy {

// Where the lines go; one for all workers.
class AccessLogFile {
 public:
  AccessLogFile(io::System& system, const config::AccessLog& settings);
  ~AccessLogFile();  // waits until all has been written

  // Takes lines, any thread; `system` is the caller's own.
  void submit(io::System& system, std::string lines);
  std::uint64_t dropped_bytes() const { return dropped_.load(std::memory_order_relaxed); }

 private:
  void write_all();
  void reopen_now_and_then();

  static constexpr std::size_t kWaitingBytesMax = 8 << 20;
  io::Handle file_;
  std::atomic<int> fd_ = -1;
  io::System& system_;
  std::string path_;
  bool in_log_;           // "-": among the lines of the log, which knows how to drop
  base::Time opened_at_;  // the writing thread's
  std::mutex mutex_;
  std::condition_variable idle_;
  std::vector<std::string> waiting_;  // guarded by mutex_, as the next two
  std::size_t waiting_bytes_ = 0;
  bool writing_ = false;
  std::atomic<std::uint64_t> dropped_ = 0;
};

// What is known of a request when it has ended.
struct AccessRecord {
  std::string_view route;
  std::string_view replica;  // empty: none answered
  std::string_view request_id;
  base::Duration took{};
  unsigned tries = 0;
  std::string_view reason;  // why it was refused, or failed: for whoever reads the log, not for the client
};

// One worker's end of it.
class AccessLog {
 public:
  // `file` may be null: nothing is logged.
  AccessLog(io::Loop& loop, const config::AccessLog& settings, AccessLogFile* file);
  ~AccessLog() { flush(); }

  bool wants(unsigned status);
  void add(const wire::Exchange& exchange, const AccessRecord& record);
  // Of a request that could not be read.
  void add(const wire::Handler::Refused& refused);

 private:
  void flush();
  io::Async<void> flush_now_and_then();
  void append_common_start(std::string_view client);
  void append_json_start();
  void add_common(const wire::Exchange& exchange, const AccessRecord& record);
  void add_json(const wire::Exchange& exchange, const AccessRecord& record);

  static constexpr std::size_t kBufferBytes = 32 * 1024;
  io::Loop& loop_;
  const config::AccessLog& settings_;
  AccessLogFile* file_;
  std::string buffer_;
  io::Scope scope_;

 public:
  io::Async<void> stop();
};

}  // namespace ringmaster::proxy
