// Control groups (cgroup v2), one for each process that bears a mark: whatever it starts stays in its group, in whatever session
// and with whatever environment, and the kernel ends all of it with one write (cgroup.kill, Linux 5.14).
//
// Only below a group that is ours to divide: one that systemd has delegated (Delegate=, see systemd's "Control Group APIs and
// Delegation"), one that belongs to our user, or the root of the hierarchy as we see it (a container's own namespace).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ringmaster::io {

class Cgroups {
 public:
  Cgroups() = default;
  Cgroups(const Cgroups&) = delete;
  Cgroups& operator=(const Cgroups&) = delete;
  ~Cgroups();  // waits a moment for what has been ended to be gone
  // A group's folder, made now; "" if there is none to be had. `mark` may have slashes.
  std::string make(std::string_view mark);
  // Ends all that is in the group, and removes it: at once, or as soon as clear() finds that all of it has been reaped.
  void end(std::string_view mark);
  // The same for all groups whose marks begin so, whoever made them.
  void end_all(std::string_view mark_prefix);
  void clear();

 private:
  const std::string& parent();
  std::string path_of(std::string_view mark);
  std::optional<std::string> parent_;  // "": nothing is delegated to us; not looked for yet
  std::vector<std::string> ended_;     // folders that could not be removed yet
};

}  // namespace ringmaster::io
