// SPDX-License-Identifier: Apache-2.0
// What the kernel shall know of the mesh's services: their endpoints, who of them gets new
// connections of this node, and how one is picked. Pure, a step of kernel_sync.h. Endpoints come
// from EDS where the service's listener has a cluster, else from the workload API. Not here: how a
// ring is made (control/bpf/balance_pool.h).
#pragma once
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "bpf/abi.h"
#include "control/bpf/service_config.h"
#include "control/policy/numbers.h"
#include "proxy/base/address.h"
#include "xds/model/snapshot.h"

namespace weft::agent {

// Where this node is, for services that prefer what is near.
struct NodePlace {
  std::string node;
  std::string zone;  // empty: that of a workload of this node, if one says
};

struct KernelService {
  uint32_t flags = 0;       // WEFT_SVC_*
  bool maglev = false;      // the client's address chooses
  uint32_t affinity_s = 0;  // 0: none
  std::vector<SocketAddress> vips;
  std::vector<bpf::ServiceBackend> backends;  // by address
  bool operator==(const KernelService&) const = default;
};

// By number. VIPs of the two families of one service port are two services here: each has the
// endpoints of its own family, or, if there is none, all.
std::map<uint32_t, KernelService> CompileServices(const model::Snapshot& snapshot,
                                                  const NodePlace& place,
                                                  const std::set<IpAddress>& on_this_node,
                                                  rules::Numbers& numbers);

// Whom connections to a service port may reach through the proxy, by (service key, port): the
// workloads of the service and, where a VIP has a listener, the endpoints of every cluster that the
// listener or a route of it names. Also those that get nothing new just now.
using Reachable = std::map<std::pair<std::string, uint16_t>, std::set<SocketAddress>>;
Reachable ReachableEndpoints(const model::Snapshot& snapshot);

}  // namespace weft::agent
