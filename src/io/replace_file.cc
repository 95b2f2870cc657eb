#include "io/replace_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace ringmaster::io {

using base::from_errno;
using base::Result;

int FileCalls::open(const std::string& path, int flags, mode_t mode) { return ::open(path.c_str(), flags, mode); }
ssize_t FileCalls::write(int fd, std::string_view bytes) { return ::write(fd, bytes.data(), bytes.size()); }
int FileCalls::sync(int fd) { return ::fsync(fd); }
int FileCalls::close(int fd) { return ::close(fd); }
int FileCalls::rename(const std::string& from, const std::string& to) { return std::rename(from.c_str(), to.c_str()); }
int FileCalls::unlink(const std::string& path) { return ::unlink(path.c_str()); }
int FileCalls::mkdir(const std::string& path, mode_t mode) { return ::mkdir(path.c_str(), mode); }
int FileCalls::chmod(const std::string& path, mode_t mode) { return ::chmod(path.c_str(), mode); }

namespace {

// All of these give an errno, or 0.
int write_all(FileCalls& calls, int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t put = calls.write(fd, bytes);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return errno;
    bytes.remove_prefix(static_cast<std::size_t>(put));
  }
  return 0;
}

int write_file(FileCalls& calls, const std::string& path, std::string_view bytes, bool durable) {
  const int fd = calls.open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
  if (fd < 0) return errno;
  int error = write_all(calls, fd, bytes);
  if (error == 0 && durable && calls.sync(fd) != 0) error = errno;
  if (calls.close(fd) != 0 && error == 0) error = errno;
  return error;
}

int open_parent(FileCalls& calls, const std::string& path) {
  const std::string parent = path.substr(0, path.rfind('/') + 1);
  return calls.open(parent.empty() ? "." : parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
}

// Some file systems cannot sync a directory, and say so (EINVAL): there no more can be done.
int sync_names(FileCalls& calls, int directory) { return calls.sync(directory) == 0 || errno == EINVAL ? 0 : errno; }

}  // namespace

// Written beside, synced, renamed over, and the new name synced.
Result<void> replace_file(FileCalls& calls, const std::string& path, std::string_view bytes, bool durable) {
  // The directory first: once the file has been replaced, there should be little left that can fail.
  const int directory = durable ? open_parent(calls, path) : -1;
  if (durable && directory < 0) return std::unexpected(from_errno(errno, path));
  const std::string beside = path + ".new";
  int error = write_file(calls, beside, bytes, durable);
  if (error == 0 && calls.rename(beside, path) != 0) error = errno;
  if (error != 0) calls.unlink(beside);
  if (error == 0 && durable) error = sync_names(calls, directory);
  if (durable) calls.close(directory);
  if (error != 0) return std::unexpected(from_errno(error, path));
  return {};
}

Result<void> make_directory(FileCalls& calls, const std::string& path, mode_t mode, bool durable) {
  for (std::size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    const bool last = end == std::string::npos;
    const bool made = calls.mkdir(part, last ? mode : 0755) == 0;
    if (!made && errno != EEXIST) return std::unexpected(from_errno(errno, part));
    if (last && made && calls.chmod(part, mode) != 0) return std::unexpected(from_errno(errno, part));
    // The name of one that was there, too: whoever made it may not have come to that. As far as we may open where it is.
    if (const int parent = durable ? open_parent(calls, part) : -1; parent >= 0) {
      const int error = sync_names(calls, parent);
      calls.close(parent);
      if (made && error != 0) return std::unexpected(from_errno(error, part));
    }
    if (last) return {};
  }
}

}  // namespace ringmaster::io
