// SPDX-License-Identifier: Apache-2.0
// Which kernel objects (maps, programs, links) are pinned below a directory, and whether they still
// exist: for the check that nothing is left behind. By bpf(2) itself, since libbpf belongs to
// control/bpf. Thread: any.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace weft::cli {

struct BpfObject {
  enum class Kind : uint8_t { kMap, kProgram, kLink } kind = Kind::kMap;
  uint32_t id = 0;
  std::string pin;  // for messages
};

// What is pinned below `directory`; empty if it is no bpffs.
std::vector<BpfObject> PinnedBelow(const std::string& directory);
// Ids are not reused soon: they count up.
bool StillExists(const BpfObject& object);

}  // namespace weft::cli
