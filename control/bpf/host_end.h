// SPDX-License-Identifier: Apache-2.0
// Private to control/bpf: which interfaces lead out of a pod's network namespace, and where their
// host ends are. Thread: any; keeps nothing.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "proxy/base/address.h"
#include "proxy/base/status.h"

namespace weft::bpf {

struct HostEnd {
  uint32_t ifindex = 0;  // in the host's namespace
  std::string pod_name;  // of the pod's end: "eth0"
  std::array<uint8_t, 6> mac{};
  std::optional<IpAddress> link_local;  // the one the pod uses on it
};

// The host ends of the pod's veths. FailedPrecondition, for people, if there is none or if another
// kind of interface leads out of the pod as well: nothing could be guarded there.
absl::StatusOr<std::vector<HostEnd>> FindHostEnds(int pod_netns, int host_netns);

}  // namespace weft::bpf
