// SPDX-License-Identifier: Apache-2.0
#include "tests/mesh/kernel_links.h"

#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <set>

#include "absl/strings/str_cat.h"
#include "control/cli/bpf_objects.h"

namespace weft::mesh_test {
namespace {

bpf_attr Zeroed() {
  bpf_attr attr;
  memset(&attr, 0, sizeof attr);
  return attr;
}

int Bpf(bpf_cmd command, bpf_attr* attr) {
  return static_cast<int>(syscall(SYS_bpf, command, attr, sizeof *attr));
}

// Fills `info` for the descriptor and closes it.
template <typename Info>
bool InfoOf(int fd, Info* info) {
  if (fd < 0) return false;
  bpf_attr attr = Zeroed();
  attr.info.bpf_fd = static_cast<uint32_t>(fd);
  attr.info.info_len = sizeof *info;
  attr.info.info = reinterpret_cast<uint64_t>(info);
  const bool ok = Bpf(BPF_OBJ_GET_INFO_BY_FD, &attr) == 0;
  close(fd);
  return ok;
}

int LinkById(uint32_t id) {
  bpf_attr attr = Zeroed();
  attr.link_id = id;
  return Bpf(BPF_LINK_GET_FD_BY_ID, &attr);
}

struct Program {
  std::string name;
  std::vector<uint32_t> maps;
};

Program ProgramById(uint32_t id) {
  std::array<uint32_t, 64> maps{};
  bpf_prog_info info{};
  info.nr_map_ids = maps.size();
  info.map_ids = reinterpret_cast<uint64_t>(maps.data());
  bpf_attr attr = Zeroed();
  attr.prog_id = id;
  if (!InfoOf(Bpf(BPF_PROG_GET_FD_BY_ID, &attr), &info)) return {};
  const size_t count = std::min<size_t>(info.nr_map_ids, maps.size());
  return {info.name, {maps.begin(), maps.begin() + static_cast<ptrdiff_t>(count)}};
}

std::string HookOf(const bpf_link_info& link, const std::string& program) {
  if (link.type == BPF_LINK_TYPE_CGROUP) {
    return absl::StrCat("cgroup ", link.cgroup.cgroup_id, " attach ", link.cgroup.attach_type);
  }
  if (link.type == BPF_LINK_TYPE_NETNS) {
    return absl::StrCat("netns ", link.netns.netns_ino, " attach ", link.netns.attach_type);
  }
  // The guards. All host ends of a node are in one netns, so their numbers differ.
  if (link.type == BPF_LINK_TYPE_TCX) {
    return absl::StrCat("interface ", link.tcx.ifindex, " attach ", link.tcx.attach_type);
  }
  return absl::StrCat("link type ", link.type, " of ", program);
}

}  // namespace

std::vector<KernelLink> LinksOfNode(const std::string& pins) {
  std::set<uint32_t> maps;
  for (const cli::BpfObject& object : cli::PinnedBelow(pins)) {
    if (object.kind == cli::BpfObject::Kind::kMap) maps.insert(object.id);
  }
  std::vector<KernelLink> found;
  for (uint32_t id = 0;;) {
    bpf_attr attr = Zeroed();
    attr.start_id = id;
    if (Bpf(BPF_LINK_GET_NEXT_ID, &attr) != 0) break;
    id = attr.next_id;
    bpf_link_info link{};
    if (!InfoOf(LinkById(id), &link)) continue;
    const Program program = ProgramById(link.prog_id);
    const bool ours = std::any_of(program.maps.begin(), program.maps.end(),
                                  [&](uint32_t map) { return maps.contains(map); });
    if (ours) found.push_back({HookOf(link, program.name), id});
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace weft::mesh_test
