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

struct HostEnds {
  std::vector<HostEnd> ends;
  // Why those are not every way out, for people: there is none, or another kind of interface leads
  // out of the pod as well, where no guard can be. Empty: they are.
  std::string problem;
};

// The host ends of the pod's veths, as the pod's own list of links shows them: whoever rules the
// pod rules that list.
absl::StatusOr<HostEnds> FindHostEnds(int pod_netns, int host_netns);

}  // namespace weft::bpf
