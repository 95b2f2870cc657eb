// How a file is replaced so that neither a crash nor the loss of power leaves a half of it.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "base/result.h"

namespace ringmaster::io {

// The system calls for that, which answer as those do, with errno. Virtual, so that a test's disk can fail at each of them.
class FileCalls {
 public:
  virtual ~FileCalls() = default;
  virtual int open(const std::string& path, int flags, mode_t mode);
  virtual ssize_t write(int fd, std::string_view bytes);
  virtual int sync(int fd);  // content and size, or a directory's names
  virtual int close(int fd);
  virtual int rename(const std::string& from, const std::string& to);
  virtual int unlink(const std::string& path);
  virtual int mkdir(const std::string& path, mode_t mode);
  virtual int chmod(const std::string& path, mode_t mode);
};

// When it has succeeded and was to be `durable`, the new content survives; when it has failed, or was interrupted, the file has
// the old content or the new.
base::Result<void> replace_file(FileCalls& calls, const std::string& path, std::string_view bytes, bool durable);

// And those above it, as needed. A new one has exactly this mode. If it is to be `durable`, its path survives.
base::Result<void> make_directory(FileCalls& calls, const std::string& path, mode_t mode, bool durable);

}  // namespace ringmaster::io
