// SPDX-License-Identifier: Apache-2.0
// Private to control/bpf: the programs of bpf/trace/process.bpf.c, attached, and the scan for
// processes that ran before. Thread: the agent's.
#pragma once
#include <memory>

#include "control/bpf/programs.h"

namespace weft::bpf {

class ProcessWatcher final {
 public:
  static absl::StatusOr<std::unique_ptr<ProcessWatcher>> Create(const PinPaths& paths,
                                                                const MapSizes& sizes);
  // Processes of that netns that were not known.
  absl::StatusOr<uint32_t> Scan(uint64_t netns_cookie);

 private:
  ProcessWatcher() = default;
  ObjectPtr object_;
  LinkPtr scan_;
  uint64_t* cookie_ = nullptr;
  uint32_t* found_ = nullptr;
};

}  // namespace weft::bpf
