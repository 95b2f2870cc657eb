// For tests: a file layer for SQLite in memory, from which the power can be taken. What was written since the last sync is
// then kept or not, write by write, at random, and one that is kept may be torn; and any call may fail before.
//
// One thread, one process: so locks are always granted. Deleting a file is taken to be durable at once.
#pragma once

#include <sqlite3.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"

namespace ringmaster::dispatch {

class TestVfs {
 public:
  explicit TestVfs(std::uint64_t seed) : name_("test-" + std::to_string(seed)), random_(seed) {
    vfs_.iVersion = 1;
    vfs_.szOsFile = sizeof(Open);
    vfs_.mxPathname = 200;
    vfs_.zName = name_.c_str();
    vfs_.pAppData = this;
    vfs_.xOpen = open;
    vfs_.xDelete = [](sqlite3_vfs* v, const char* path, int) { return self(v).files_.erase(path) != 0 ? SQLITE_OK : SQLITE_IOERR_DELETE_NOENT; };
    vfs_.xAccess = [](sqlite3_vfs* v, const char* path, int, int* result) { return *result = self(v).files_.contains(path) ? 1 : 0, SQLITE_OK; };
    vfs_.xFullPathname = [](sqlite3_vfs*, const char* path, int bytes, char* out) { return sqlite3_snprintf(bytes, out, "%s", path), SQLITE_OK; };
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
  // Each write or sync fails with this probability, in thousandths.
  void fail(unsigned thousandths) { fail_thousandths_ = thousandths; }
  std::uint64_t failures() const { return failures_; }

  // After everything has been closed: what the disk has when the power comes back.
  void lose_power() {
    for (auto& [path, file] : files_) {
      std::string found = file->synced;
      for (const Change& change : file->unsynced) {
        if (random_.below(2) == 0) continue;
        std::size_t length = change.bytes.size();
        if (random_.below(3) == 0) length = random_.below(static_cast<std::uint32_t>(length) + 1);
        apply(found, {change.offset, change.bytes.substr(0, length), change.truncates});
      }
      *file = File{found, found, {}, {}};
    }
  }

 private:
  struct Change {
    std::size_t offset;
    std::string bytes;
    bool truncates;
  };
  struct File {
    std::string now;
    std::string synced;
    std::vector<Change> unsynced;
    std::vector<std::unique_ptr<char[]>> shared;  // the index of the log, which connections share
  };
  struct Open {
    sqlite3_file base;
    TestVfs* vfs;
    File* file;
  };
  static TestVfs& self(sqlite3_vfs* vfs) { return *static_cast<TestVfs*>(vfs->pAppData); }
  static Open& of(sqlite3_file* file) { return *reinterpret_cast<Open*>(file); }

  static void apply(std::string& content, const Change& change) {
    if (change.truncates) {
      content.resize(std::min(content.size(), change.offset));
    } else {
      content.resize(std::max(content.size(), change.offset + change.bytes.size()));
      content.replace(change.offset, change.bytes.size(), change.bytes);
    }
  }

  bool fails() {
    if (fail_thousandths_ == 0 || random_.below(1000) >= fail_thousandths_) return false;
    ++failures_;
    return true;
  }

  static int write(sqlite3_file* f, const void* bytes, int count, sqlite3_int64 offset) {
    Open& open = of(f);
    std::string text(static_cast<const char*>(bytes), static_cast<std::size_t>(count));
    const bool fails = open.vfs->fails();
    if (fails) text.resize(open.vfs->random_.below(static_cast<std::uint32_t>(count)));  // a part may have been written all the same
    const Change change{static_cast<std::size_t>(offset), std::move(text), false};
    apply(open.file->now, change);
    open.file->unsynced.push_back(change);
    if (!fails) return SQLITE_OK;
    return open.vfs->random_.below(2) == 0 ? SQLITE_FULL : SQLITE_IOERR_WRITE;
  }
  static int read(sqlite3_file* f, void* into, int count, sqlite3_int64 offset) {
    const std::string& now = of(f).file->now;
    const auto at = std::min(static_cast<std::size_t>(offset), now.size());
    const std::size_t got = std::min(static_cast<std::size_t>(count), now.size() - at);
    std::memset(into, 0, static_cast<std::size_t>(count));
    std::memcpy(into, now.data() + at, got);
    return got == static_cast<std::size_t>(count) ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
  }
  static int sync(sqlite3_file* f, int) {
    Open& open = of(f);
    if (open.vfs->fails()) return SQLITE_IOERR_FSYNC;
    open.file->synced = open.file->now;
    open.file->unsynced.clear();
    return SQLITE_OK;
  }
  static int truncate(sqlite3_file* f, sqlite3_int64 size) {
    const Change change{static_cast<std::size_t>(size), {}, true};
    apply(of(f).file->now, change);
    of(f).file->unsynced.push_back(change);
    return SQLITE_OK;
  }
  static int map(sqlite3_file* f, int region, int bytes, int, void volatile** memory) {
    auto& shared = of(f).file->shared;
    while (shared.size() <= static_cast<std::size_t>(region)) shared.push_back(std::make_unique<char[]>(static_cast<std::size_t>(bytes)));
    *memory = shared[static_cast<std::size_t>(region)].get();
    return SQLITE_OK;
  }

  static int open(sqlite3_vfs* v, const char* path, sqlite3_file* f, int flags, int* flags_out) {
    static const sqlite3_io_methods methods = {
        .iVersion = 2,
        .xClose = [](sqlite3_file*) { return SQLITE_OK; },
        .xRead = read,
        .xWrite = write,
        .xTruncate = truncate,
        .xSync = sync,
        .xFileSize = [](sqlite3_file* g, sqlite3_int64* size) { return *size = static_cast<sqlite3_int64>(of(g).file->now.size()), SQLITE_OK; },
        .xLock = [](sqlite3_file*, int) { return SQLITE_OK; },
        .xUnlock = [](sqlite3_file*, int) { return SQLITE_OK; },
        .xCheckReservedLock = [](sqlite3_file*, int* held) { return *held = 0, SQLITE_OK; },
        .xFileControl = [](sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; },
        .xSectorSize = [](sqlite3_file*) { return 4096; },
        .xDeviceCharacteristics = [](sqlite3_file*) { return 0; },
        .xShmMap = map,
        .xShmLock = [](sqlite3_file*, int, int, int) { return SQLITE_OK; },
        .xShmBarrier = [](sqlite3_file*) {},
        .xShmUnmap = [](sqlite3_file*, int) { return SQLITE_OK; },
    };
    TestVfs& vfs = self(v);
    auto& file = vfs.files_[path == nullptr ? "temporary-" + std::to_string(vfs.files_.size()) : path];
    if (!file) file = std::make_unique<File>();
    *reinterpret_cast<Open*>(f) = Open{{&methods}, &vfs, file.get()};
    if (flags_out != nullptr) *flags_out = flags;
    return SQLITE_OK;
  }

  std::string name_;
  sqlite3_vfs vfs_{};
  base::Random random_;
  unsigned fail_thousandths_ = 0;
  std::uint64_t failures_ = 0;
  std::map<std::string, std::unique_ptr<File>> files_;
};

}  // namespace ringmaster::dispatch
