// The disk of a simulated machine, as SQLite sees it: a TestVfs, with the processes of a SimWorld before it.
//
// A process that has been killed cannot write any more, whatever its unwinding code tries; what it had written survives.
// The index of the log, which is memory that processes share, does not: the next one makes it anew, as on a real machine,
// where it is emptied by the first one that opens it. Power is taken by lose_power(), and then unsynced writes are lost as
// TestVfs has it. A process may be killed, or power be lost, at any write or sync, too.
#pragma once

#include <sqlite3.h>

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
  SimDisk(io::SimWorld& world, std::uint64_t seed) : world_(world), inner_(seed), below_(sqlite3_vfs_find(inner_.name())) {
    name_ = "sim-disk-" + std::to_string(seed);
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

  void lose_power() { inner_.lose_power(); }
  void fail(unsigned thousandths) { inner_.fail(thousandths); }
  std::uint64_t failures() const { return inner_.failures(); }
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
  };
  static SimDisk& self(sqlite3_vfs* vfs) { return *static_cast<SimDisk*>(vfs->pAppData); }
  static Open& of(sqlite3_file* file) { return *reinterpret_cast<Open*>(file); }
  pid_t present() const { return world_.running() == nullptr ? 0 : world_.running()->pid; }
  bool is_dead(pid_t pid) const { return pid != 0 && !world_.is_alive(pid); }
  static bool is_dead(const Open& open) { return open.disk->is_dead(open.owner); }

  // The moment before something changes.
  static bool may_write(const Open& open) {
    if (!is_dead(open) && open.disk->on_write) open.disk->on_write();
    if (io::SimProcess* process = open.disk->world_.find(open.owner); process != nullptr && !process->ghost) {
      if (process->dies_at_call != 0 && --process->dies_at_call == 0) open.disk->world_.kill(*process, {0, 9});
    }
    return !is_dead(open);
  }

  static int open(sqlite3_vfs* v, const char* path, sqlite3_file* f, int flags, int* flags_out) {
    static const sqlite3_io_methods methods = {
        .iVersion = 2,
        .xClose = [](sqlite3_file* g) { return of(g).below->pMethods->xClose(of(g).below); },
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
        .xLock = [](sqlite3_file* g, int) { return is_dead(of(g)) ? SQLITE_IOERR_LOCK : SQLITE_OK; },
        .xUnlock = [](sqlite3_file*, int) { return SQLITE_OK; },
        .xCheckReservedLock = [](sqlite3_file*, int* held) { return *held = 0, SQLITE_OK; },
        .xFileControl = [](sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; },
        .xSectorSize = [](sqlite3_file*) { return 4096; },
        .xDeviceCharacteristics = [](sqlite3_file*) { return 0; },
        .xShmMap =
            [](sqlite3_file* g, int region, int bytes, int, void volatile** memory) {
              auto& shared = *of(g).shared;
              while (shared.size() <= static_cast<std::size_t>(region)) shared.push_back(std::make_unique<char[]>(static_cast<std::size_t>(bytes)));
              *memory = shared[static_cast<std::size_t>(region)].get();
              return SQLITE_OK;
            },
        .xShmLock = [](sqlite3_file* g, int, int, int) { return is_dead(of(g)) ? SQLITE_IOERR_SHMLOCK : SQLITE_OK; },
        .xShmBarrier = [](sqlite3_file*) {},
        .xShmUnmap = [](sqlite3_file*, int) { return SQLITE_OK; },
    };
    SimDisk& disk = self(v);
    const pid_t owner = disk.present();
    if (disk.is_dead(owner)) return SQLITE_CANTOPEN;
    auto* below = reinterpret_cast<sqlite3_file*>(reinterpret_cast<char*>(f) + sizeof(Open));
    const int code = disk.below_->xOpen(disk.below_, path, below, flags, flags_out);
    if (code != SQLITE_OK) return code;
    *reinterpret_cast<Open*>(f) = Open{{&methods}, &disk, owner, &disk.shared_[{path == nullptr ? "" : path, owner}], below};
    return SQLITE_OK;
  }

  io::SimWorld& world_;
  dispatch::TestVfs inner_;
  sqlite3_vfs* below_;
  sqlite3_vfs vfs_{};
  std::string name_;
  std::uint64_t syncs_ = 0;
  std::map<std::pair<std::string, pid_t>, std::vector<std::unique_ptr<char[]>>> shared_;
};

}  // namespace ringmaster::sim
