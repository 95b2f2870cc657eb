// For tests: SQLite's file layer on a disk in memory (io/test_disk.h), whose power may fail. It does what SQLite's own
// layer for Linux does: it has locks, syncs the directory with the first sync of a new journal or log, and counts on it
// that a write harms no bytes beside its own.
//
// One thread, one process.
#pragma once

#include <sqlite3.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "io/test_disk.h"

namespace ringmaster::dispatch {

class TestVfs {
 public:
  explicit TestVfs(std::uint64_t seed, const io::TestDisk::Contents& contents = {})
      : name_("test-" + std::to_string(++made)), random_(seed), disk_(seed, contents) {
    vfs_.iVersion = 1;
    vfs_.szOsFile = sizeof(Open);
    vfs_.mxPathname = 200;
    vfs_.zName = name_.c_str();
    vfs_.pAppData = this;
    vfs_.xOpen = open;
    vfs_.xDelete = remove;
    vfs_.xAccess = access;
    vfs_.xFullPathname = [](sqlite3_vfs*, const char* path, int bytes, char* out) {
      sqlite3_snprintf(bytes, out, "%s", path);
      return SQLITE_OK;
    };
    vfs_.xRandomness = [](sqlite3_vfs* v, int bytes, char* out) {
      for (int i = 0; i < bytes; ++i) out[i] = static_cast<char>(self(v).random_.next());
      return bytes;
    };
    vfs_.xSleep = [](sqlite3_vfs*, int micros) { return micros; };
    vfs_.xCurrentTime = [](sqlite3_vfs*, double* days) { return *days = 2461000, SQLITE_OK; };
    vfs_.xGetLastError = [](sqlite3_vfs*, int, char*) { return 0; };
    sqlite3_vfs_register(&vfs_, 0);
  }
  TestVfs(const TestVfs&) = delete;
  TestVfs& operator=(const TestVfs&) = delete;
  ~TestVfs() { sqlite3_vfs_unregister(&vfs_); }

  const char* name() const { return name_.c_str(); }
  io::TestDisk& disk() { return disk_; }
  const io::TestDisk& disk() const { return disk_; }
  // A checkpoint after so many pages, whatever the store asks for.
  void checkpoint_every(int pages) { checkpoint_every_ = pages; }

 private:
  using File = io::TestDisk::File;
  struct Open {
    sqlite3_file base;
    TestVfs* vfs;
    File* file;
    const char* path;     // SQLite keeps it while the file is open
    bool sync_directory;  // with the first sync of the file
    int lock;
    unsigned shared_slots, exclusive_slots;  // of the log's index
    bool mapped;
    sqlite3* database;
  };
  static TestVfs& self(sqlite3_vfs* vfs) { return *static_cast<TestVfs*>(vfs->pAppData); }
  static Open& of(sqlite3_file* file) { return *reinterpret_cast<Open*>(file); }

  // Whether any other connection's handle on the same file is so.
  template <typename Is>
  static bool other(const Open& open, Is is) {
    return std::ranges::any_of(open.vfs->opens_, [&](const Open* one) { return one != &open && one->file == open.file && is(*one); });
  }

  static int write(sqlite3_file* f, const void* bytes, int count, sqlite3_int64 offset) {
    TestVfs& vfs = *of(f).vfs;
    const std::string_view text(static_cast<const char*>(bytes), static_cast<std::size_t>(count));
    if (vfs.disk_.write(*of(f).file, static_cast<std::size_t>(offset), text)) return SQLITE_OK;
    return !vfs.disk_.dead() && vfs.random_.below(2) == 0 ? SQLITE_FULL : SQLITE_IOERR_WRITE;
  }
  static int read(sqlite3_file* f, void* into, int count, sqlite3_int64 offset) {
    if (of(f).vfs->disk_.dead()) return SQLITE_IOERR_READ;
    const std::string& now = of(f).file->now;
    const auto at = std::min(static_cast<std::size_t>(offset), now.size());
    const std::size_t got = std::min(static_cast<std::size_t>(count), now.size() - at);
    std::memset(into, 0, static_cast<std::size_t>(count));
    std::memcpy(into, now.data() + at, got);
    return got == static_cast<std::size_t>(count) ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
  }
  static int sync(sqlite3_file* f, int) {
    Open& open = of(f);
    if (!open.vfs->disk_.sync(*open.file)) return SQLITE_IOERR_FSYNC;
    // SQLite's layer does not hear of a directory that could not be synced, either.
    if (std::exchange(open.sync_directory, false)) (void)open.vfs->disk_.sync_directory(io::TestDisk::directory_of(open.path));
    return SQLITE_OK;
  }
  static int truncate(sqlite3_file* f, sqlite3_int64 size) {
    return of(f).vfs->disk_.truncate(*of(f).file, static_cast<std::size_t>(size)) ? SQLITE_OK : SQLITE_IOERR_TRUNCATE;
  }
  static int size(sqlite3_file* f, sqlite3_int64* size) {
    *size = static_cast<sqlite3_int64>(of(f).file->now.size());
    return of(f).vfs->disk_.dead() ? SQLITE_IOERR_FSTAT : SQLITE_OK;
  }
  static int remove(sqlite3_vfs* v, const char* path, int sync_directory) {
    io::TestDisk& disk = self(v).disk_;
    if (disk.dead()) return SQLITE_IOERR_DELETE;
    if (disk.find(path) == nullptr) return SQLITE_IOERR_DELETE_NOENT;
    if (!disk.remove(path)) return SQLITE_IOERR_DELETE;
    return sync_directory == 0 || disk.sync_directory(io::TestDisk::directory_of(path)) ? SQLITE_OK : SQLITE_IOERR_DIR_FSYNC;
  }
  static int access(sqlite3_vfs* v, const char* path, int, int* result) {
    const File* file = self(v).disk_.find(path);
    *result = file != nullptr && !file->now.empty() ? 1 : 0;  // SQLite's layer takes an empty file for none
    return self(v).disk_.dead() ? SQLITE_IOERR_ACCESS : SQLITE_OK;
  }

  static int lock(sqlite3_file* f, int level) {
    Open& open = of(f);
    if (open.vfs->disk_.dead()) return SQLITE_IOERR_LOCK;
    const int bar = level == SQLITE_LOCK_SHARED ? SQLITE_LOCK_PENDING : level == SQLITE_LOCK_RESERVED ? SQLITE_LOCK_RESERVED : SQLITE_LOCK_SHARED;
    if (level > open.lock && other(open, [&](const Open& one) { return one.lock >= bar; })) return SQLITE_BUSY;
    open.lock = std::max(open.lock, level);
    return SQLITE_OK;
  }
  static int unlock(sqlite3_file* f, int level) { return of(f).lock = std::min(of(f).lock, level), SQLITE_OK; }
  static int is_reserved(sqlite3_file* f, int* held) {
    *held = other(of(f), [](const Open& one) { return one.lock >= SQLITE_LOCK_RESERVED; }) ? 1 : 0;
    return SQLITE_OK;
  }
  static int lock_slots(sqlite3_file* f, int first, int count, int flags) {
    Open& open = of(f);
    if (open.vfs->disk_.dead()) return SQLITE_IOERR_SHMLOCK;
    const unsigned slots = ((1U << count) - 1) << first;
    const bool exclusive = (flags & SQLITE_SHM_EXCLUSIVE) != 0;
    unsigned& held = exclusive ? open.exclusive_slots : open.shared_slots;
    if ((flags & SQLITE_SHM_UNLOCK) != 0) {
      held &= ~slots;
      return SQLITE_OK;
    }
    if (other(open, [&](const Open& one) { return ((one.exclusive_slots | (exclusive ? one.shared_slots : 0)) & slots) != 0; })) return SQLITE_BUSY;
    held |= slots;
    return SQLITE_OK;
  }
  static int map(sqlite3_file* f, int region, int bytes, int, void volatile** memory) {
    Open& open = of(f);
    if (open.vfs->disk_.dead()) return SQLITE_IOERR_SHMMAP;
    open.mapped = true;
    auto& index = open.vfs->indexes_[open.file];
    while (index.size() <= static_cast<std::size_t>(region)) index.push_back(std::make_unique<char[]>(static_cast<std::size_t>(bytes)));
    *memory = index[static_cast<std::size_t>(region)].get();
    return SQLITE_OK;
  }
  // The first that comes begins it anew.
  static int unmap(sqlite3_file* f, int) {
    of(f).mapped = false;
    if (!other(of(f), [](const Open& one) { return one.mapped; })) of(f).vfs->indexes_.erase(of(f).file);
    return SQLITE_OK;
  }
  static int control(sqlite3_file* f, int what, void* argument) {
    Open& open = of(f);
    if (what == SQLITE_FCNTL_PDB) open.database = *static_cast<sqlite3**>(argument);
    if (what != SQLITE_FCNTL_PRAGMA || open.vfs->checkpoint_every_ == 0) return SQLITE_NOTFOUND;
    if (std::strcmp(static_cast<char**>(argument)[1], "wal_autocheckpoint") != 0) return SQLITE_NOTFOUND;
    return sqlite3_wal_autocheckpoint(open.database, open.vfs->checkpoint_every_);
  }
  static int close(sqlite3_file* f) {
    std::erase(of(f).vfs->opens_, &of(f));
    return SQLITE_OK;
  }

  static int open(sqlite3_vfs* v, const char* path, sqlite3_file* f, int flags, int* flags_out) {
    static const sqlite3_io_methods methods = {
        .iVersion = 2,
        .xClose = close,
        .xRead = read,
        .xWrite = write,
        .xTruncate = truncate,
        .xSync = sync,
        .xFileSize = size,
        .xLock = lock,
        .xUnlock = unlock,
        .xCheckReservedLock = is_reserved,
        .xFileControl = control,
        .xSectorSize = [](sqlite3_file*) { return static_cast<int>(io::TestDisk::kPage); },
        .xDeviceCharacteristics = [](sqlite3_file*) { return SQLITE_IOCAP_POWERSAFE_OVERWRITE; },
        .xShmMap = map,
        .xShmLock = lock_slots,
        .xShmBarrier = [](sqlite3_file*) {},
        .xShmUnmap = unmap,
    };
    TestVfs& vfs = self(v);
    f->pMethods = nullptr;
    if (path == nullptr) return SQLITE_CANTOPEN;  // a temporary one: the store keeps those in memory
    File* file = vfs.disk_.find(path);
    const bool makes = file == nullptr && (flags & SQLITE_OPEN_CREATE) != 0;
    if (makes) file = vfs.disk_.create(path);
    if (file == nullptr) return SQLITE_CANTOPEN;
    Open& open = of(f);
    open = Open{};
    open.base.pMethods = &methods;
    open.vfs = &vfs;
    open.file = file;
    open.path = path;
    open.sync_directory = makes && (flags & (SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL | SQLITE_OPEN_WAL)) != 0;
    vfs.opens_.push_back(&open);
    if (flags_out != nullptr) *flags_out = flags;
    return SQLITE_OK;
  }

  static inline std::atomic<unsigned> made = 0;
  std::string name_;
  sqlite3_vfs vfs_{};
  base::Random random_;
  io::TestDisk disk_;
  int checkpoint_every_ = 0;
  std::vector<Open*> opens_;
  std::map<const File*, std::vector<std::unique_ptr<char[]>>> indexes_;
};

}  // namespace ringmaster::dispatch
