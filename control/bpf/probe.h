// SPDX-License-Identifier: Apache-2.0
// What this kernel offers, for `weft check` and for Kernel::Open: each feature by trying it, with
// what its absence means. Thread: any; nothing is kept. Needs root for most probes; says so instead
// of guessing.
#pragma once
#include <string>
#include <vector>

#include "proxy/base/status.h"

namespace weft::bpf {

struct Feature {
  std::string name;  // "netns_cookie"
  bool present = false;
  bool required = false;    // without it Weft does not start
  std::string detail;       // what was found, or the error
  std::string consequence;  // if absent
  std::string remedy;       // if absent
};

// All features, in the order they should be shown.
std::vector<Feature> ProbeFeatures(const std::string& bpffs_root = "/sys/fs/bpf");

// Linux 6.6: a program at an interface, by a link, beside others.
bool HasTcx();
// Whether the kernel has a function of that name (/proc/kallsyms).
bool KernelHasFunction(const char* name);

// The mount point of cgroup v2, from /proc/self/mountinfo: /sys/fs/cgroup, or
// /sys/fs/cgroup/unified on hybrid hosts.
absl::StatusOr<std::string> FindCgroup2Root();
absl::Status CheckCgroup2(const std::string& path);
bool IsBpffs(const std::string& path);
// Mounts a bpffs at `path` (made if missing) unless there is one. Refused where it would hide
// something.
absl::Status MountBpffs(const std::string& path);
// Unmounts it again if MountBpffs made it, in whichever process, and nothing is pinned there any
// more.
absl::Status UnmountBpffsIfOurs(const std::string& path);

}  // namespace weft::bpf
