// Text on its way to a descriptor that may not take it: a pipe whose reader has stopped reading, a terminal that is stopped, a
// file system that hangs. Whoever writes never waits: a thread of its own does, and what does not fit the bound meanwhile is
// dropped, counted, and said in the text once there is room again.
//
// Any thread. Never destroyed while the process lives: the thread may sit in write(2) for ever, and ends with the process.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

namespace ringmaster::base {

class Outbox {
 public:
  static constexpr std::size_t kBytesMax = 1 << 20;

  // Starts the thread. It takes no signals.
  explicit Outbox(int fd);
  Outbox(const Outbox&) = delete;
  Outbox& operator=(const Outbox&) = delete;

  // One or more whole lines. False: there is no room, they are dropped and counted.
  bool add(std::string_view lines);
  // Waits until all has been written, at most so long.
  void flush(std::chrono::milliseconds time_max);

 private:
  void write_on();

  int fd_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string waiting_;              // guarded by mutex_, as all below
  std::uint64_t lines_dropped_ = 0;  // since the last that was taken
  bool writing_ = false;
};

}  // namespace ringmaster::base
