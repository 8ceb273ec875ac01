// SPDX-License-Identifier: Apache-2.0
// Everything the data path may know at one moment, immutable. Built on the xDS thread, adopted by a
// worker between two events, so a request sees one snapshot from start to end. Unchanged parts are
// shared between snapshots.
#pragma once
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "xds/model/authorization.h"
#include "xds/model/cluster.h"
#include "xds/model/listener.h"
#include "xds/model/network_policy.h"
#include "xds/model/route.h"
#include "xds/model/workload.h"

namespace weft::model {

template <typename T>
using Named = std::unordered_map<std::string, std::shared_ptr<const T>>;

struct Snapshot {
  uint64_t sequence = 0;  // grows by one with each change
  Named<Listener> listeners;
  Named<RouteConfiguration> routes;
  Named<Cluster> clusters;
  Named<Endpoints> endpoints;             // by EDS name
  Named<Workload> workloads;              // by uid
  Named<Service> services;                // by namespace/hostname
  Named<Authorization> authorizations;    // by namespace/name
  Named<NetworkPolicy> network_policies;  // by namespace/name; the agent's alone
  Named<ProcessPolicy> process_policies;  // by namespace/name; the agent's alone
  Named<LocalWorkload> local_workloads;   // by uid
  Named<Certificate> certificates;        // by identity
  Named<TrustBundle> trust_bundles;       // by trust domain
  // Indices, made by Finish().
  std::unordered_map<IpAddress, std::shared_ptr<const Workload>, AddressHash> workload_by_ip;
  std::unordered_set<IpAddress, AddressHash> marked_ips;   // of endpoints with in_mesh
  std::unordered_set<IpAddress, AddressHash> service_ips;  // no endpoint has one

  // Builds the indices. Call once, before sharing.
  void Finish();
  const Workload* FindWorkload(const IpAddress& ip) const;
  // Some endpoint at this address is of the mesh, whatever the workload API says.
  bool IsMarked(const IpAddress& ip) const { return marked_ips.contains(ip); }
  // A service of the mesh answers at this address, whether its listener has come or not.
  bool IsServiceAddress(const IpAddress& ip) const { return service_ips.contains(ip); }
};

}  // namespace weft::model
