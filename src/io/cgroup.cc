#include "io/cgroup.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace ringmaster::io {

static constexpr std::string_view kPrefix = "ringmaster:";

// Where this process is, as a folder; "" where there is no cgroup v2. See cgroups(7) and proc_pid_mountinfo(5).
static std::string own_folder() {
  std::ifstream groups("/proc/self/cgroup");
  std::string place;
  for (std::string line; std::getline(groups, line);) {
    if (line.starts_with("0::")) place = line.substr(3);
  }
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; !place.empty() && std::getline(mounts, line);) {
    if (line.find(" - cgroup2 ") == std::string::npos) continue;
    std::istringstream fields(line);
    std::string skipped;
    std::string root;
    std::string point;
    fields >> skipped >> skipped >> skipped >> root >> point;
    if (root == "/") return point + (place == "/" ? "" : place);
    if (place.starts_with(root)) return point + place.substr(root.size());
  }
  return {};
}

static bool is_delegated(const std::string& folder) {
  struct stat found{};
  if (folder.empty() || ::stat(folder.c_str(), &found) != 0 || ::access((folder + "/cgroup.procs").c_str(), W_OK) != 0) return false;
  if (found.st_uid == ::geteuid() && found.st_uid != 0) return true;
  std::array<char, 2> value{};
  for (const char* name : {"trusted.delegate", "user.delegate"}) {
    if (::getxattr(folder.c_str(), name, value.data(), value.size()) == 1 && value[0] == '1') return true;
  }
  return ::access((folder + "/cgroup.type").c_str(), F_OK) != 0;  // only the root of a hierarchy has none
}

static bool put(const std::string& path, std::string_view text) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool done = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  ::close(fd);
  return done;
}

Cgroups::~Cgroups() {
  static constexpr int kTries = 100;
  for (int i = 0; i < kTries && !ended_.empty(); ++i) {
    ::usleep(1000);
    clear();
  }
}

const std::string& Cgroups::parent() {
  if (!parent_) {
    parent_ = own_folder();
    if (!is_delegated(*parent_)) parent_ = "";
  }
  return *parent_;
}

std::string Cgroups::path_of(std::string_view mark) {
  std::string name(mark);
  std::ranges::replace(name, '/', ':');
  return parent() + "/" + std::string(kPrefix) + name;
}

std::string Cgroups::make(std::string_view mark) {
  if (parent().empty()) return {};
  const std::string folder = path_of(mark);
  return ::mkdir(folder.c_str(), 0755) == 0 || errno == EEXIST ? folder : "";
}

void Cgroups::end(std::string_view mark) {
  if (parent().empty()) return;
  const std::string folder = path_of(mark);
  if (put(folder + "/cgroup.kill", "1")) ended_.push_back(folder);
  clear();
}

void Cgroups::end_all(std::string_view mark_prefix) {
  if (parent().empty()) return;
  const std::string prefix = path_of(mark_prefix);
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(parent(), error)) {
    if (entry.path().native().starts_with(prefix) && put(entry.path().native() + "/cgroup.kill", "1")) ended_.push_back(entry.path());
  }
  clear();
}

void Cgroups::clear() {
  std::erase_if(ended_, [](const std::string& folder) { return ::rmdir(folder.c_str()) == 0 || errno == ENOENT; });
}

}  // namespace ringmaster::io
