// What survives the master: the desired set (which slots there are and what they are called, as /add and /rm left it),
// and the processes that run, so that the next master can end those that the last one could not.
//
//   <state_dir>/lock          held while a master lives: one master per state directory
//   <state_dir>/desired.json  replaced as a whole, and synced
//   <state_dir>/children.json replaced as a whole; only matters until the next boot, so not synced
#pragma once

#include <map>
#include <string>
#include <vector>

#include "balance/replica.h"
#include "base/random.h"
#include "io/system.h"

namespace ringmaster::supervise {

struct DesiredSlot {
  std::uint32_t slot = 0;
  std::uint64_t epoch = 0;
  std::string name;
  balance::Origin origin = balance::Origin::process;
  std::string server;        // of one that is not ours: where
  std::uint64_t ttl_ms = 0;  // of a registered one; 0: none
};

struct DesiredPool {
  std::uint32_t configured = 0;  // `replicas` of the configuration when this was written
  std::uint32_t containers = 0;  // and `containers`
  std::vector<DesiredSlot> slots;
};
using Desired = std::map<std::string, DesiredPool>;

class StateFile {
 public:
  // Makes the directory and takes the lock. Errors: another master has it; it cannot be written.
  static base::Result<StateFile> open(io::System& system, const std::string& directory);

  // Empty when there is none, or when it is damaged (which is logged, and the file set aside). Error: it is there, but cannot be
  // read; whoever went on would overwrite it.
  base::Result<Desired> load();
  static std::string text_of(const Desired& desired);
  // False, after one line in the log, when it could not be written: the disk is full, say. What runs goes on. Any thread, one at
  // a time.
  bool save(const std::string& text);

  void save_children(const std::vector<std::int64_t>& pids);
  // Ends what an earlier master left running, with what those had started. Returns how many were looked for.
  unsigned kill_leftovers();

  // Tells this Ringmaster's containers from those of others: random letters, made once for a state directory.
  base::Result<std::string> instance(base::Random& random);

  const std::string& directory() const { return directory_; }

 private:
  StateFile(io::System& system, std::string directory, io::Handle lock) : system_(&system), directory_(std::move(directory)), lock_(std::move(lock)) {}
  io::System* system_;
  std::string directory_;
  io::Handle lock_;
  bool failing_ = false;
};

}  // namespace ringmaster::supervise
