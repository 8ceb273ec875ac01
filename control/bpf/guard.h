// SPDX-License-Identifier: Apache-2.0
// Private to control/bpf: the programs at the host ends of workloads' veths
// (bpf/tc/workload.bpf.c), and the stamps that let sockets from before the enrolment go on
// (bpf/sockops/enrol.bpf.c). Links are pinned: the guard outlives the agent. Thread: the agent's.
// Owns both programs.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bpf/abi.h"
#include "control/bpf/host_end.h"
#include "control/bpf/kernel_maps.h"
#include "control/bpf/programs.h"

namespace weft::bpf {

class Guard final {
 public:
  static absl::StatusOr<std::unique_ptr<Guard>> Create(const PinPaths& paths,
                                                       const MapSizes& sizes);

  // False: this kernel has no tcx, so nothing can be guarded; do not call the next two.
  bool available() const { return object_ != nullptr; }
  // Stamps the TCP sockets of the netns that have none. The workload's entry must be in force, so
  // that sockets made from then on get theirs by themselves. Returns how many.
  absl::StatusOr<uint32_t> StampOpenSockets(uint64_t netns_cookie, int netns_fd);
  // True if an interface of the workload is guarded.
  bool Holds(uint64_t netns_cookie) const;
  // Guards these interfaces of the workload as well as those that are guarded already, which are
  // adopted as they were known first: MAC and link-local address are not believed again. Lets go
  // of interfaces that no longer exist.
  absl::Status Attach(uint64_t netns_cookie, const weft_workload& workload,
                      const std::vector<HostEnd>& ends, int host_netns);
  // The workload's addresses changed.
  absl::Status Update(uint64_t netns_cookie, const weft_workload& workload);
  // Lets go of the workload. OK if it was not guarded.
  absl::Status Detach(uint64_t netns_cookie);

 private:
  struct Walk {
    uint64_t* netns_cookie;
    uint32_t* stamped;
    uint32_t* failed;
    uint8_t* listening;
  };
  Guard() = default;
  absl::Status LoadWalk(const PinPaths& paths, const MapSizes& sizes);
  absl::Status Write(uint32_t ifindex, const weft_guard& entry);
  absl::Status AttachOne(uint64_t netns_cookie, uint32_t ifindex, int host_netns);
  absl::Status DetachOne(uint64_t netns_cookie, uint32_t ifindex);
  // Whether a guard stands at that interface. It does until the interface is deleted.
  bool Stands(uint64_t netns_cookie, uint32_t ifindex) const;
  absl::Status Add(uint64_t netns_cookie, const weft_workload& workload, const HostEnd& end,
                   int host_netns);
  std::vector<uint32_t> GuardedBy(uint64_t netns_cookie) const;

  PinPaths paths_;
  UniqueFd guards_;
  ObjectPtr object_, walk_object_;
  LinkPtr walk_link_;
  Walk walk_{};
};

}  // namespace weft::bpf
