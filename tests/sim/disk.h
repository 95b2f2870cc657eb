// The disk of a simulated machine, as SQLite sees it: a TestVfs, with the processes of a SimWorld before it.
//
// A process that has been killed cannot write any more, whatever its unwinding code tries; what it had written survives.
// The index of the log, which is memory that processes share, does not: the next one makes it anew, as on a real machine,
// where it is emptied by the first one that opens it. Power is taken by lose_power(), and then unsynced writes are lost as
// TestVfs has it. A process may be killed, or power be lost, at any write or sync, too.
#pragma once

#include <sqlite3.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "dispatch/test_vfs.h"
#include "io/sim_world.h"

namespace ringmaster::sim {

class SimDisk {
 public:
  // While it exists it is what SQLite uses unless told otherwise.
  SimDisk(io::SimWorld& world, std::uint64_t seed) : world_(world), seed_(seed) {
    name_ = "sim-disk-" + std::to_string(seed);
    begin({});
    vfs_ = *below_;
    vfs_.pNext = nullptr;
    vfs_.szOsFile = static_cast<int>(sizeof(Open)) + below_->szOsFile;
    vfs_.zName = name_.c_str();
    vfs_.pAppData = this;
    vfs_.xOpen = open;
    vfs_.xDelete = [](sqlite3_vfs* v, const char* path, int sync) {
      SimDisk& disk = self(v);
      return disk.is_dead(disk.present()) ? SQLITE_IOERR_DELETE : disk.below_->xDelete(disk.below_, path, sync);
    };
    vfs_.xAccess = [](sqlite3_vfs* v, const char* path, int flags, int* result) { return self(v).below_->xAccess(self(v).below_, path, flags, result); };
    vfs_.xRandomness = [](sqlite3_vfs* v, int bytes, char* out) { return self(v).below_->xRandomness(self(v).below_, bytes, out); };
    sqlite3_vfs_register(&vfs_, 1);
    sqlite3_randomness(0, nullptr);  // SQLite seeds its own chance once in a process: now anew, from this disk
  }
  SimDisk(const SimDisk&) = delete;
  SimDisk& operator=(const SimDisk&) = delete;
  ~SimDisk() { sqlite3_vfs_unregister(&vfs_); }

  void lose_power() { begin(disk().after_power_loss()); }
  void fail(unsigned thousandths) {
    fail_thousandths_ = thousandths;
    disk().fail(thousandths);
  }
  std::uint64_t failures() const {
    std::uint64_t failures = 0;
    for (const auto& life : lives_) failures += life->disk().failures();
    return failures;
  }
  std::uint64_t syncs() const { return syncs_; }
  // Before each write and sync.
  std::function<void()> on_write;

 private:
  struct Open {
    sqlite3_file base;
    SimDisk* disk;
    pid_t owner;
    std::vector<std::unique_ptr<char[]>>* shared;
    sqlite3_file* below;
    bool mapped;    // the log's index
    bool released;  // its owner is dead, and so holds no locks
  };
  static SimDisk& self(sqlite3_vfs* vfs) { return *static_cast<SimDisk*>(vfs->pAppData); }
  static Open& of(sqlite3_file* file) { return *reinterpret_cast<Open*>(file); }
  io::TestDisk& disk() const { return lives_.back()->disk(); }
  // The disk as it is when the power comes back. What dead processes still have open is on the one before.
  void begin(const io::TestDisk::Contents& contents) {
    lives_.push_back(std::make_unique<dispatch::TestVfs>(seed_ + lives_.size(), contents));
    disk().fail(fail_thousandths_);
    below_ = sqlite3_vfs_find(lives_.back()->name());
  }
  pid_t present() const { return world_.running() == nullptr ? 0 : world_.running()->pid; }
  bool is_dead(pid_t pid) const { return pid != 0 && !world_.is_alive(pid); }
  static bool is_dead(const Open& open) { return open.disk->is_dead(open.owner); }

  static void release(Open& open) {
    if (!std::exchange(open.released, true)) open.below->pMethods->xClose(open.below);
  }

  // The moment before something changes.
  static bool may_write(const Open& open) {
    if (!is_dead(open) && open.disk->on_write) open.disk->on_write();
    if (io::SimProcess* process = open.disk->world_.find(open.owner); process != nullptr && !process->ghost) {
      if (process->dies_now()) open.disk->world_.kill(*process, {0, 9});
    }
    return !is_dead(open);
  }

  static int open(sqlite3_vfs* v, const char* path, sqlite3_file* f, int flags, int* flags_out) {
    static const sqlite3_io_methods methods = {
        .iVersion = 2,
        .xClose =
            [](sqlite3_file* g) {
              std::erase(of(g).disk->opens_, &of(g));
              release(of(g));
              return SQLITE_OK;
            },
        .xRead = [](sqlite3_file* g, void* into, int count,
                    sqlite3_int64 offset) { return is_dead(of(g)) ? SQLITE_IOERR_READ : of(g).below->pMethods->xRead(of(g).below, into, count, offset); },
        .xWrite = [](sqlite3_file* g, const void* bytes, int count,
                     sqlite3_int64 offset) { return may_write(of(g)) ? of(g).below->pMethods->xWrite(of(g).below, bytes, count, offset) : SQLITE_IOERR_WRITE; },
        .xTruncate = [](sqlite3_file* g,
                        sqlite3_int64 size) { return may_write(of(g)) ? of(g).below->pMethods->xTruncate(of(g).below, size) : SQLITE_IOERR_TRUNCATE; },
        .xSync =
            [](sqlite3_file* g, int how) {
              if (!may_write(of(g))) return SQLITE_IOERR_FSYNC;
              ++of(g).disk->syncs_;
              return of(g).below->pMethods->xSync(of(g).below, how);
            },
        .xFileSize = [](sqlite3_file* g, sqlite3_int64* size) { return of(g).below->pMethods->xFileSize(of(g).below, size); },
        .xLock = [](sqlite3_file* g,
                    int level) { return is_dead(of(g)) || of(g).released ? SQLITE_IOERR_LOCK : of(g).below->pMethods->xLock(of(g).below, level); },
        .xUnlock = [](sqlite3_file* g, int level) { return of(g).released ? SQLITE_OK : of(g).below->pMethods->xUnlock(of(g).below, level); },
        .xCheckReservedLock = [](sqlite3_file* g,
                                 int* held) { return of(g).released ? SQLITE_IOERR_LOCK : of(g).below->pMethods->xCheckReservedLock(of(g).below, held); },
        .xFileControl = [](sqlite3_file* g, int what, void* with) { return of(g).below->pMethods->xFileControl(of(g).below, what, with); },
        .xSectorSize = [](sqlite3_file* g) { return of(g).below->pMethods->xSectorSize(of(g).below); },
        .xDeviceCharacteristics = [](sqlite3_file* g) { return of(g).below->pMethods->xDeviceCharacteristics(of(g).below); },
        .xShmMap =
            [](sqlite3_file* g, int region, int bytes, int, void volatile** memory) {
              auto& shared = *of(g).shared;
              of(g).mapped = true;
              while (shared.size() <= static_cast<std::size_t>(region)) shared.push_back(std::make_unique<char[]>(static_cast<std::size_t>(bytes)));
              *memory = shared[static_cast<std::size_t>(region)].get();
              return SQLITE_OK;
            },
        .xShmLock =
            [](sqlite3_file* g, int first, int count, int how) {
              const bool gone = is_dead(of(g)) || of(g).released;
              return gone ? SQLITE_IOERR_SHMLOCK : of(g).below->pMethods->xShmLock(of(g).below, first, count, how);
            },
        .xShmBarrier = [](sqlite3_file*) {},
        .xShmUnmap =
            [](sqlite3_file* g, int) {
              // The last of its process: the next one begins it anew.
              of(g).mapped = false;
              const auto& all = of(g).disk->opens_;
              if (std::ranges::none_of(all, [&](const Open* one) { return one->mapped && one->shared == of(g).shared; })) of(g).shared->clear();
              return SQLITE_OK;
            },
    };
    SimDisk& disk = self(v);
    const pid_t owner = disk.present();
    if (disk.is_dead(owner)) return SQLITE_CANTOPEN;
    for (Open* one : disk.opens_) {
      if (is_dead(*one)) release(*one);
    }
    auto* below = reinterpret_cast<sqlite3_file*>(reinterpret_cast<char*>(f) + sizeof(Open));
    const int code = disk.below_->xOpen(disk.below_, path, below, flags, flags_out);
    if (code != SQLITE_OK) return code;
    *reinterpret_cast<Open*>(f) = Open{{&methods}, &disk, owner, &disk.shared_[{path == nullptr ? "" : path, owner}], below, false, false};
    disk.opens_.push_back(&of(f));
    return SQLITE_OK;
  }

  io::SimWorld& world_;
  std::uint64_t seed_;
  unsigned fail_thousandths_ = 0;
  std::vector<std::unique_ptr<dispatch::TestVfs>> lives_;
  sqlite3_vfs* below_ = nullptr;
  sqlite3_vfs vfs_{};
  std::string name_;
  std::uint64_t syncs_ = 0;
  std::vector<Open*> opens_;
  std::map<std::pair<std::string, pid_t>, std::vector<std::unique_ptr<char[]>>> shared_;
};

}  // namespace ringmaster::sim
