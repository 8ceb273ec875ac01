// SPDX-License-Identifier: Apache-2.0
// Private to control/bpf: attaches bpf/sockops/watch.bpf.c, which learns under `splice: auto` what
// programs do with their sockets, and reads what it learned. It makes every system call of the
// machine a little slower, so it is attached only while a workload is under `auto`. Its link is
// pinned: a program that does what the splice breaks is noticed while no agent runs as well.
// Thread: the agent's.
#pragma once
#include <set>
#include <vector>

#include "control/bpf/loader.h"
#include "control/bpf/programs.h"

namespace weft::bpf {

class Watcher final {
 public:
  Watcher(const PinPaths& paths, const MapSizes& sizes) : paths_(paths), sizes_(sizes) {}
  // Attaches with the first workload under `auto`, detaches with the last one. What an earlier
  // agent attached is replaced without a gap.
  void Set(uint64_t netns_cookie, bool under_auto);
  // Every workload of the node has been named: what an earlier agent left attached for one that is
  // no more, or no longer under `auto`, goes. Further calls do nothing.
  void Settle();
  // Why this kernel cannot watch: nothing new is learned then.
  const absl::Status& status() const { return status_; }

 private:
  absl::Status Attach() const;

  const PinPaths paths_;
  const MapSizes sizes_;
  std::set<uint64_t> under_auto_;  // by netns cookie
  bool settled_ = false;
  absl::Status status_;
};

std::vector<BinaryVerdict> ReadBinaries(const UniqueFd& binaries);

}  // namespace weft::bpf
