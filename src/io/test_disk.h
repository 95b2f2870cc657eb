// For tests: a disk in memory, from which the power can be taken at any operation.
//
// It may do what POSIX allows and a file system of Linux does. A write reaches the disk for certain only by a sync of
// its file, and so does the file's own name (POSIX does not promise that, but ext4, XFS and Btrfs do it); any other
// name that was made, changed or removed only by a sync of its directory. Until then each may be as it was or as it
// became, in any order. Bytes that were under way are the old ones, the new ones, a part of each, or garbage; those
// beside them are safe. A sync that fails leaves its pages clean: some have been written, the others never will be, and
// the cache may have either version of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"

namespace ringmaster::io {

class TestDisk {
 public:
  using Contents = std::map<std::string, std::string>;  // by path; a directory's ends with a slash
  static constexpr std::size_t kPage = 4096;

  struct Change {
    std::size_t offset = 0;
    std::string bytes;
    bool truncates = false;
  };
  struct File {
    std::string now;     // as the cache has it
    std::string synced;  // as the disk has it for certain
    std::vector<Change> unsynced;
  };
  // What a disk may say that it has done, and has not. To see that a test would notice.
  enum class Lie : std::uint8_t { none, file_syncs, directory_syncs };

  explicit TestDisk(std::uint64_t seed) : random_(seed) {}
  TestDisk(std::uint64_t seed, const Contents& contents) : random_(seed) { start(contents); }

  // --- faults ---

  // Every call that changes anything counts as one operation; so does a sync.
  std::uint64_t operations() const { return operations_; }
  std::uint64_t failures() const { return failures_; }
  // The power fails during this operation: it may have happened in part, and no later call has an effect. 0: never.
  void die_at(std::uint64_t operation) { die_at_ = operation; }
  bool dead() const { return dead_; }
  // It was the process that died, and not the machine: the cache is as it was.
  void only_process_died() { dead_ = false; }
  // This operation fails, or each with this probability, in thousandths; the machine goes on.
  void fail_at(std::uint64_t operation) { fail_at_ = operation; }
  void fail(unsigned thousandths) { fail_thousandths_ = thousandths; }
  void lie(Lie lie) { lie_ = lie; }

  // What the disk may have when the power comes back; another one each time.
  Contents after_power_loss() {
    static constexpr unsigned kKept[] = {0, 100, 500, 900, 1000};
    const unsigned kept = kKept[random_.below(std::size(kKept))];
    Contents left;
    for (const auto& [name, versions] : names_) {
      const File* file = versions[random_.below(static_cast<std::uint32_t>(versions.size()))];
      const std::string parent = directory_of(name.back() == '/' ? name.substr(0, name.size() - 1) : name);
      if (file == nullptr || (names_.contains(parent) && !left.contains(parent))) continue;
      left[name] = file->synced;
      for (const Change& change : file->unsynced) reach_disk(left[name], change, kept);
    }
    return left;
  }
  // The power comes back. Nothing may be open.
  void lose_power() { start(after_power_loss()); }

  // --- what a file system does; false, or null: it failed, or the machine is dead ---

  File* find(const std::string& name) {
    const auto found = names_.find(name);
    return found == names_.end() || dead_ ? nullptr : found->second.back();
  }
  File* create(const std::string& name) {
    const Fate fate = next();
    if (fate == Fate::fails || fate == Fate::dead) return nullptr;
    File* file = files_.emplace_back(std::make_unique<File>()).get();
    bind(name, file);
    return fate == Fate::done ? file : nullptr;
  }
  bool write(File& file, std::size_t offset, std::string_view bytes) {
    const Fate fate = next();
    if (fate == Fate::dead) return false;
    if (fate != Fate::done) bytes = bytes.substr(0, random_.below(static_cast<std::uint32_t>(bytes.size()) + 1));
    change(file, {offset, std::string(bytes), false});
    return fate == Fate::done;
  }
  bool truncate(File& file, std::size_t size) {
    const Fate fate = next();
    if (fate == Fate::done || fate == Fate::dies) change(file, {size, {}, true});
    return fate == Fate::done;
  }
  bool sync(File& file) {
    const Fate fate = next();
    if (fate == Fate::fails) drop_dirty_pages(file);
    if (fate != Fate::done) return false;
    if (lie_ == Lie::file_syncs) return true;
    for (const Change& change : file.unsynced) apply(file.synced, change);
    file.unsynced.clear();
    for (auto& [name, versions] : names_) {
      if (versions.back() == &file) versions = {&file};
    }
    return true;
  }
  bool sync_directory(const std::string& directory) {
    if (next() != Fate::done) return false;
    if (lie_ == Lie::directory_syncs) return true;
    for (auto& [name, versions] : names_) {
      if (directory_of(name) == directory) versions.erase(versions.begin(), versions.end() - 1);
    }
    return true;
  }
  bool remove(const std::string& name) {
    const Fate fate = next();
    if (fate == Fate::done || fate == Fate::dies) bind(name, nullptr);
    return fate == Fate::done;
  }
  bool rename(const std::string& from, const std::string& to) {
    const Fate fate = next();
    if (fate == Fate::done || fate == Fate::dies) {
      bind(to, names_.at(from).back());
      bind(from, nullptr);
    }
    return fate == Fate::done;
  }
  // Up to the last slash, with it.
  static std::string directory_of(const std::string& name) { return name.substr(0, name.rfind('/') + 1); }

 private:
  enum class Fate : std::uint8_t { done, fails, dies, dead };

  Fate next() {
    if (dead_) return Fate::dead;
    ++operations_;
    dead_ = operations_ == die_at_;
    if (dead_) return Fate::dies;
    if (operations_ != fail_at_ && (fail_thousandths_ == 0 || random_.below(1000) >= fail_thousandths_)) return Fate::done;
    ++failures_;
    return Fate::fails;
  }

  void start(const Contents& contents) {
    names_.clear();
    files_.clear();
    for (const auto& [name, content] : contents) {
      names_[name] = {files_.emplace_back(std::make_unique<File>(File{content, content, {}})).get()};
    }
    operations_ = die_at_ = fail_at_ = 0;
    dead_ = false;
  }
  void bind(const std::string& name, File* file) {
    auto& versions = names_[name];
    if (versions.empty()) versions.push_back(nullptr);
    versions.push_back(file);
  }

  static void change(File& file, Change change) {
    apply(file.now, change);
    file.unsynced.push_back(std::move(change));
  }
  static void apply(std::string& content, const Change& change) {
    if (change.truncates) {
      content.resize(std::min(content.size(), change.offset));
    } else {
      content.resize(std::max(content.size(), change.offset + change.bytes.size()));
      content.replace(change.offset, change.bytes.size(), change.bytes);
    }
  }

  // With the probability `kept` the change is on the disk; else it is not, or in part, or garbage is.
  void reach_disk(std::string& content, const Change& change, unsigned kept) {
    if (random_.below(1000) < kept) return apply(content, change);
    if (change.truncates || random_.below(2) == 0) return;
    Change part = change;
    if (random_.below(4) == 0) {
      for (char& byte : part.bytes) byte = static_cast<char>(random_.next());
    } else {
      part.bytes.resize(random_.below(static_cast<std::uint32_t>(part.bytes.size()) + 1));
    }
    apply(content, part);
  }

  void drop_dirty_pages(File& file) {
    std::set<std::size_t> pages;
    for (const Change& change : file.unsynced) {
      if (change.truncates) continue;  // a matter of the file system's own journal, which keeps it for the next time
      reach_disk(file.synced, change, 500);
      for (std::size_t page = change.offset / kPage; page * kPage < change.offset + change.bytes.size(); ++page) pages.insert(page);
    }
    std::erase_if(file.unsynced, [](const Change& change) { return !change.truncates; });
    std::string on_disk = file.synced;
    on_disk.resize(file.now.size());
    for (const std::size_t page : pages) {
      if (page * kPage >= file.now.size() || random_.below(2) == 0) continue;
      const std::size_t size = std::min(kPage, file.now.size() - page * kPage);
      file.now.replace(page * kPage, size, on_disk, page * kPage, size);
    }
  }

  base::Random random_;
  std::uint64_t operations_ = 0;
  std::uint64_t failures_ = 0;
  std::uint64_t die_at_ = 0;
  std::uint64_t fail_at_ = 0;
  unsigned fail_thousandths_ = 0;
  bool dead_ = false;
  Lie lie_ = Lie::none;
  std::vector<std::unique_ptr<File>> files_;
  std::map<std::string, std::vector<File*>> names_;  // each with what it has meant since its directory was synced, the present last
};

}  // namespace ringmaster::io
