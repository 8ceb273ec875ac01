// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/watcher.h"

#include <sys/sysmacros.h>

#include <cstring>

#include "control/bpf/kernel_maps.h"

namespace weft::bpf {
namespace {

constexpr char kLink[] = "watch";
constexpr unsigned kMinorBits = 20;  // of the kernel's own dev_t

}  // namespace

absl::Status Watcher::Attach() const {
  const EmbeddedObject embedded = WatchObject();
  WEFT_ASSIGN_OR_RETURN(ObjectPtr object, OpenObject(embedded, paths_, sizes_));
  WEFT_RETURN_IF_ERROR(LoadObject(embedded, object.get()));
  WEFT_ASSIGN_OR_RETURN(bpf_program * program, FindProgram(object.get(), "weft_sys_enter"));
  // The kernel cannot exchange the program of such a link: the new one is attached first.
  return AttachPinned(
      paths_, kLink, program, [](const bpf_link_info&) { return false; },
      [&] { return bpf_program__attach_trace(program); });
}

void Watcher::Set(uint64_t netns_cookie, bool under_auto) {
  const bool before = !under_auto_.empty();
  if (under_auto) {
    under_auto_.insert(netns_cookie);
  } else {
    under_auto_.erase(netns_cookie);
  }
  if (!before && under_auto) status_ = Attach();
  if (before && under_auto_.empty()) status_ = RemoveLink(paths_.links + "/" + kLink);
}

void Watcher::Settle() {
  if (!settled_ && under_auto_.empty()) status_ = RemoveLink(paths_.links + "/" + kLink);
  settled_ = true;
}

std::vector<BinaryVerdict> ReadBinaries(const UniqueFd& binaries) {
  std::vector<BinaryVerdict> all;
  for (const weft_binary_id& id : Keys<weft_binary_id>(binaries)) {
    weft_learned value{};
    if (bpf_map_lookup_elem(binaries.get(), &id, &value) != 0) continue;
    BinaryVerdict verdict;
    verdict.inode = id.inode;
    verdict.device = makedev(id.device >> kMinorBits, id.device & ((1u << kMinorBits) - 1));
    verdict.command.assign(reinterpret_cast<const char*>(value.comm),
                           strnlen(reinterpret_cast<const char*>(value.comm), sizeof value.comm));
    verdict.breaker = value.breaker;
    for (uint32_t side = 0; side < WEFT_SIDES; ++side) {
      verdict.seen[side] = value.seen[side];
      verdict.state[side] = weft_binary_judge(&value, side);
    }
    all.push_back(std::move(verdict));
  }
  return all;
}

}  // namespace weft::bpf
