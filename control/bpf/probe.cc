// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/probe.h"

#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <system_error>

namespace weft::bpf {
namespace {

constexpr long kBpffsMagic = 0xcafe4a11;
constexpr char kOurSource[] = "weft-bpf";  // tells the mounts that we made from others

struct Mount {
  std::string point, type, source;
};

void ForEachMount(const std::function<void(const Mount&)>& visit) {
  std::ifstream mounts("/proc/self/mountinfo");
  std::string line;
  while (std::getline(mounts, line)) {
    // id parent major:minor root mountpoint options [optional...] - type source superoptions
    std::istringstream fields(line);
    std::string id, parent, device, root, word;
    Mount mount;
    fields >> id >> parent >> device >> root >> mount.point;
    while (fields >> word && word != "-") {
    }
    if (fields >> mount.type >> mount.source) visit(mount);
  }
}

}  // namespace

absl::StatusOr<std::string> FindCgroup2Root() {
  std::string found;
  ForEachMount([&](const Mount& mount) {
    if (found.empty() && mount.type == "cgroup2") found = mount.point;
  });
  if (found.empty()) return absl::NotFoundError("no cgroup v2 mount in /proc/self/mountinfo");
  return found;
}

absl::Status CheckCgroup2(const std::string& path) {
  struct statfs info{};
  if (statfs(path.c_str(), &info) != 0) return ErrnoStatus(errno, path);
  if (info.f_type == CGROUP2_SUPER_MAGIC) return absl::OkStatus();
  return absl::FailedPreconditionError(
      path + " is not a cgroup v2 mount; \"grep cgroup2 /proc/mounts\" shows them");
}

bool IsBpffs(const std::string& path) {
  struct statfs info{};
  return statfs(path.c_str(), &info) == 0 && info.f_type == kBpffsMagic;
}

absl::Status MountBpffs(const std::string& path) {
  if (IsBpffs(path)) return absl::OkStatus();
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return ErrnoStatus(errno, "mkdir " + path);
  // A mount would hide what is there: most likely the path is not the one that was meant.
  std::error_code error;
  if (!std::filesystem::is_empty(path, error) || error) {
    return absl::FailedPreconditionError(
        path + (error ? ": " + error.message()
                      : " is neither a bpffs nor an empty folder; mount one (mount -t bpf bpf " +
                            path + ") or name another with --bpffs"));
  }
  if (mount(kOurSource, path.c_str(), "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") != 0) {
    return ErrnoStatus(errno, "mount bpffs at " + path);
  }
  return absl::OkStatus();
}

absl::Status UnmountBpffsIfOurs(const std::string& path) {
  bool ours = false;
  ForEachMount([&](const Mount& mount) {
    if (mount.point == path) ours = mount.type == "bpf" && mount.source == kOurSource;
  });
  if (!ours) return absl::OkStatus();
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(path, error)) {
    if (entry.path().extension() != ".debug") return absl::OkStatus();  // the kernel's own two
  }
  if (umount(path.c_str()) != 0) return ErrnoStatus(errno, "unmount " + path);
  return absl::OkStatus();
}

}  // namespace weft::bpf
