// SPDX-License-Identifier: Apache-2.0
// Private to control/bpf: a node of two workloads for the self-test, joined by a veth pair, with
// programs and maps of its own below a scratch cgroup that the calling process moves into. For a
// child process that ends afterwards; CleanUp is the parent's. Thread: the child's only one.
#pragma once
#include <memory>
#include <string>

#include "control/bpf/loader.h"
#include "control/bpf/pins.h"
#include "control/bpf/self_test.h"

namespace weft::bpf {

struct ScratchPair {
  UniqueFd client, server;  // O_NONBLOCK
};

class ScratchNode final {
 public:
  // What is left outside the child: pins, cgroups.
  struct Traces {
    std::string bpffs_root, node, cgroup;
    absl::Status CleanUp() const;
  };
  static absl::StatusOr<Traces> PlaceOf(const SelfTestOptions& options);
  static absl::StatusOr<std::unique_ptr<ScratchNode>> Create(const Traces& traces);

  Kernel& kernel() { return *kernel_; }
  // A connection from one workload to the other, accepted. Not spliced before its programs are
  // learned.
  absl::StatusOr<ScratchPair> Connect(uint16_t port);
  absl::Status Listen(uint16_t port);
  // Runs the walks that are due until nobody waits for one.
  void Settle();

 private:
  ScratchNode() = default;
  UniqueFd netns_[2];
  UniqueFd listener_;
  std::unique_ptr<Kernel> kernel_;
};

}  // namespace weft::bpf
