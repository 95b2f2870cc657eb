// The state file on a disk that fails, or loses its power, at every single operation: what it gives back is one whole version,
// and none before the last that was saved.
#include "supervise/state_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "io/real_system.h"
#include "io/replace_file.h"
#include "io/test_disk.h"

namespace ringmaster::supervise {
namespace {

using io::TestDisk;

// The calls on a disk in memory; a write takes less than it was given at times, or is interrupted.
class DiskCalls final : public io::FileCalls {
 public:
  explicit DiskCalls(TestDisk& disk) : disk_(disk) {}

  int open(const std::string& path, int flags, mode_t) override {
    if ((flags & O_DIRECTORY) != 0) return disk_.find(path) == nullptr && path != "/" ? fail(ENOENT) : hold({path, nullptr});
    TestDisk::File* file = disk_.find(path);
    if (file == nullptr) file = disk_.create(path);
    if (file == nullptr || (!file->now.empty() && !disk_.truncate(*file, 0))) return fail(EIO);
    return hold({path, file});
  }
  ssize_t write(int fd, std::string_view bytes) override {
    if (++writes_ % 3 == 0) return fail(EINTR);
    if (writes_ % 3 == 1) bytes = bytes.substr(0, bytes.size() / 2 + 1);
    TestDisk::File& file = *open_.at(fd).second;
    return disk_.write(file, file.now.size(), bytes) ? static_cast<ssize_t>(bytes.size()) : fail(ENOSPC);
  }
  int sync(int fd) override {
    const auto& [path, file] = open_.at(fd);
    return (file == nullptr ? disk_.sync_directory(path) : disk_.sync(*file)) ? 0 : fail(EIO);
  }
  int close(int fd) override { return open_.erase(fd) == 1 ? 0 : fail(EBADF); }
  int rename(const std::string& from, const std::string& to) override { return disk_.rename(from, to) ? 0 : fail(EIO); }
  int unlink(const std::string& path) override { return disk_.find(path) != nullptr && disk_.remove(path) ? 0 : fail(ENOENT); }
  int mkdir(const std::string& path, mode_t) override {
    if (disk_.find(path + "/") != nullptr) return fail(EEXIST);
    return disk_.create(path + "/") != nullptr ? 0 : fail(EIO);
  }
  int chmod(const std::string&, mode_t) override { return disk_.dead() ? fail(EIO) : 0; }

  bool all_closed() const { return open_.empty(); }

 private:
  static int fail(int error) {
    errno = error;
    return -1;
  }
  int hold(std::pair<std::string, TestDisk::File*> what) {
    open_[++last_] = std::move(what);
    return last_;
  }
  TestDisk& disk_;
  std::map<int, std::pair<std::string, TestDisk::File*>> open_;
  int last_ = 0;
  unsigned writes_ = 0;
};

class DiskSystem final : public io::RealSystem {
 public:
  explicit DiskSystem(TestDisk& disk) : disk_(disk), calls_(disk) {}
  base::Result<std::string> read_file(const std::string& path) override {
    if (disk_.dead()) return base::fail(base::Code::internal, "dead");
    const TestDisk::File* file = disk_.find(path);
    if (file == nullptr) return base::fail(base::Code::not_found, path);
    return file->now;
  }
  base::Result<void> replace_file(const std::string& path, std::string_view bytes, bool durable) override {
    return io::replace_file(calls_, path, bytes, durable);
  }
  base::Result<void> make_directory(const std::string& path, unsigned mode, bool durable) override { return io::make_directory(calls_, path, mode, durable); }
  base::Result<io::Handle> lock_file(const std::string&) override { return create_memory(1); }
  bool all_closed() const { return calls_.all_closed(); }

 private:
  TestDisk& disk_;
  DiskCalls calls_;
};

const std::string directory = "/srv/ringmaster/state";

// What a master knows of its state file, and does with it.
class Master {
 public:
  explicit Master(TestDisk& disk) : disk_(disk) {}

  // Several versions, the identity and the list of processes, by one master after another.
  std::string scenario() {
    for (int life = 0; life < 2; ++life) {
      DiskSystem system(disk_);
      auto file = StateFile::open(system, directory);
      if (!file) continue;
      if (const std::string problem = check(*file); !problem.empty()) return problem;
      for (int i = 0; i < 3; ++i) {
        if (file->save(text(++tried_))) saved_ = tried_;
        file->save_children({1});
        if (disk_.dead()) break;
        if (const std::string problem = check(*file); !problem.empty()) return problem;
      }
      base::Random random(static_cast<std::uint64_t>(life));
      if (const auto name = file->instance(random); name && instance_.empty()) instance_ = *name;
      if (!system.all_closed()) return "a descriptor is left open";
    }
    return "";
  }
  // By a master that starts now.
  std::string find_again() {
    DiskSystem system(disk_);
    auto file = StateFile::open(system, directory);
    if (!file) return "the state directory cannot be opened: " + file.error().detail;
    if (std::string problem = check(*file); !problem.empty()) return problem;
    base::Random random(99);
    const auto name = file->instance(random);
    if (!instance_.empty() && (!name || *name != instance_)) return "the identity is another";
    if (!file->save(text(++tried_))) return "nothing can be saved";
    saved_ = tried_;
    if (disk_.find(directory + "/desired.json.new") != nullptr) return "what was left over is still there";
    return check(*file);
  }

 private:
  static std::string text(std::uint32_t version) {
    DesiredPool pool;
    pool.configured = version;
    pool.slots.resize(version * 7 % 10, {.name = "Server"});
    return StateFile::text_of({{"pool", pool}});
  }
  std::string check(StateFile& file) const {
    const auto loaded = file.load();
    if (disk_.dead()) return "";
    if (!loaded) return loaded.error().detail;
    if (disk_.find(directory + "/desired.json.damaged") != nullptr) return "it is damaged";
    const std::string found = StateFile::text_of(*loaded);
    if (loaded->empty()) return saved_ == 0 ? "" : "it is lost";
    const std::uint32_t version = loaded->at("pool").configured;
    if (version < saved_) return fmt::format("version {} is back, and {} was saved", version, saved_);
    return version <= tried_ && found == text(version) ? "" : "it is none that was saved";
  }

  TestDisk& disk_;
  std::uint32_t tried_ = 0;
  std::uint32_t saved_ = 0;
  std::string instance_;
};

// The first thing that is wrong; and the number of operations.
enum class At : std::uint8_t { power_lost, process_killed, call_fails };
std::pair<std::string, std::uint64_t> sweep(At what, TestDisk::Lie lie = TestDisk::Lie::none) {
  TestDisk whole(1);
  std::string problem = Master(whole).scenario();
  for (std::uint64_t at = 1; at <= whole.operations() && problem.empty(); ++at) {
    for (std::uint64_t seed = 1; seed <= 5 && problem.empty(); ++seed) {
      TestDisk disk(at * 100 + seed);
      disk.lie(lie);
      what == At::call_fails ? disk.fail_at(at) : disk.die_at(at);
      Master master(disk);
      problem = master.scenario();
      if (what == At::process_killed && problem.empty()) {
        disk.only_process_died();
        problem = master.find_again();
      }
      for (int life = 0; life < 2 && problem.empty(); ++life) {
        disk.lose_power();
        problem = master.find_again();
      }
      if (!problem.empty()) problem = fmt::format("seed {}, operation {}: {}", seed, at, problem);
    }
  }
  return {problem, whole.operations()};
}

TEST(StateFileWithoutPower, IsOneWholeVersionWhicheverOperationIsTheLast) {
  const auto [problem, operations] = sweep(At::power_lost);
  EXPECT_EQ(problem, "");
  fmt::print("power sweep: {} operations x 5 seeds\n", operations);
}

TEST(StateFileWithoutPower, IsOneWholeVersionWhicheverOperationFails) { EXPECT_EQ(sweep(At::call_fails).first, ""); }

TEST(StateFileWithoutPower, IsOneWholeVersionWhicheverOperationTheProcessWasKilledIn) { EXPECT_EQ(sweep(At::process_killed).first, ""); }

// The check of the check: on a disk that does not do what it says, the same sweep finds losses.
TEST(StateFileWithoutPower, TheSweepNoticesADiskThatDoesNotSync) {
  for (const TestDisk::Lie lie : {TestDisk::Lie::file_syncs, TestDisk::Lie::directory_syncs}) EXPECT_NE(sweep(At::power_lost, lie).first, "");
}

}  // namespace
}  // namespace ringmaster::supervise
