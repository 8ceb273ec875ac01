// SPDX-License-Identifier: Apache-2.0
// Which programs of a node are attached where: every link of this kernel whose program uses one of
// the node's maps, pinned or not. Thread: any; keeps nothing.
#pragma once
#include <compare>
#include <cstdint>
#include <string>
#include <vector>

namespace weft::mesh_test {

struct KernelLink {
  std::string hook;  // "cgroup 123 attach 10": what can be attached to twice
  uint32_t id = 0;
  auto operator<=>(const KernelLink&) const = default;
};

// `pins`: the node's folder in the bpf filesystem. Sorted.
std::vector<KernelLink> LinksOfNode(const std::string& pins);

}  // namespace weft::mesh_test
