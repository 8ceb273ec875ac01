// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/probe.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cerrno>
#include <fstream>
#include <sstream>

namespace weft::bpf {
namespace {
constexpr long kBpffsMagic = 0xcafe4a11;
}

absl::StatusOr<std::string> FindCgroup2Root() {
  std::ifstream mounts("/proc/self/mountinfo");
  std::string line;
  while (std::getline(mounts, line)) {
    // id parent major:minor root mountpoint options [optional...] - type source superoptions
    std::istringstream fields(line);
    std::string id, parent, device, root, point, word;
    fields >> id >> parent >> device >> root >> point;
    while (fields >> word && word != "-") {
    }
    std::string type;
    if (fields >> type && type == "cgroup2") return point;
  }
  return absl::NotFoundError("no cgroup v2 mount in /proc/self/mountinfo");
}

bool IsBpffs(const std::string& path) {
  struct statfs info{};
  return statfs(path.c_str(), &info) == 0 && info.f_type == kBpffsMagic;
}

absl::Status MountBpffs(const std::string& path) {
  if (IsBpffs(path)) return absl::OkStatus();
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return ErrnoStatus(errno, "mkdir " + path);
  if (mount("bpf", path.c_str(), "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") != 0) {
    return ErrnoStatus(errno, "mount bpffs at " + path);
  }
  return absl::OkStatus();
}

}  // namespace weft::bpf
