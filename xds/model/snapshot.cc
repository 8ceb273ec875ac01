// SPDX-License-Identifier: Apache-2.0
#include "xds/model/snapshot.h"

namespace weft::model {

std::string Workload::Identity() const {
  // Istio's convention: no service account means "default".
  std::string_view account = "default";
  if (!service_account.empty()) account = service_account;
  std::string out = "spiffe://";
  out.reserve(out.size() + trust_domain.size() + namespace_name.size() + account.size() + 8);
  out.append(trust_domain).append("/ns/").append(namespace_name).append("/sa/").append(account);
  return out;
}

void Snapshot::Finish() {
  workload_by_ip.clear();
  for (const auto& [uid, workload] : workloads) {
    // A pod on the host's network shares the node's address with others: the address says nothing
    // about it.
    if (workload->host_network) continue;
    for (const IpAddress& ip : workload->addresses) {
      auto [at, inserted] = workload_by_ip.try_emplace(ip, workload);
      // Two claim one address (a pod was replaced and the removal has not come yet): the same one
      // wins every time.
      if (!inserted && workload->uid < at->second->uid) at->second = workload;
    }
  }
  service_ips.clear();
  for (const auto& [name, service] : services) {
    service_ips.insert(service->addresses.begin(), service->addresses.end());
  }
  marked_ips.clear();
  auto mark = [this](const std::vector<Endpoint>& all) {
    for (const Endpoint& endpoint : all) {
      if (endpoint.in_mesh) marked_ips.insert(endpoint.address.ip);
    }
  };
  for (const auto& [name, assignment] : endpoints) mark(assignment->endpoints);
  for (const auto& [name, cluster] : clusters) mark(cluster->endpoints);
}

const Workload* Snapshot::FindWorkload(const IpAddress& ip) const {
  const auto at = workload_by_ip.find(ip);
  return at == workload_by_ip.end() ? nullptr : at->second.get();
}

}  // namespace weft::model
