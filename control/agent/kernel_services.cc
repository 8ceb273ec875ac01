// SPDX-License-Identifier: Apache-2.0
#include "control/agent/kernel_services.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <variant>

namespace weft::agent {
namespace {

using model::HealthStatus;

enum class Distance : uint8_t { kSameNode, kSameZone, kElsewhere };

struct Candidate {
  SocketAddress address;
  uint32_t weight = 1;
  // Smaller is better: priorities in their order, within one what is degraded last.
  std::pair<uint32_t, bool> tier;
  Distance distance = Distance::kElsewhere;
};

std::map<SocketAddress, const model::Listener*> ListenersOf(const model::Snapshot& snapshot) {
  std::map<SocketAddress, const model::Listener*> listeners;
  for (const auto& [name, listener] : snapshot.listeners) {
    if (listener->address) listeners[*listener->address] = listener.get();
  }
  return listeners;
}

// Null: not known here.
const std::vector<model::Endpoint>* EndpointsOf(const model::Snapshot& snapshot,
                                                const std::string& cluster_name) {
  const auto cluster = snapshot.clusters.find(cluster_name);
  if (cluster == snapshot.clusters.end()) return nullptr;
  if (cluster->second->type == model::DiscoveryType::kStatic) return &cluster->second->endpoints;
  const auto found = snapshot.endpoints.find(cluster->second->eds_name);
  if (cluster->second->type != model::DiscoveryType::kEds || found == snapshot.endpoints.end()) {
    return nullptr;
  }
  return &found->second->endpoints;
}

// All that the proxy may choose: which route a request takes is up to its client.
std::set<std::string> ClustersOf(const model::Snapshot& snapshot, const model::Listener& listener) {
  std::set<std::string> clusters;
  const auto add = [&clusters](const std::vector<model::WeightedCluster>& some) {
    for (const model::WeightedCluster& weighted : some) clusters.insert(weighted.cluster);
  };
  if (listener.tcp) add(listener.tcp->clusters);
  if (!listener.http) return clusters;
  const model::RouteConfiguration* routes = listener.http->inline_routes.get();
  const auto named = snapshot.routes.find(listener.http->rds_name);
  if (routes == nullptr && named != snapshot.routes.end()) routes = named->second.get();
  if (routes == nullptr) return clusters;
  for (const model::VirtualHost& host : routes->virtual_hosts) {
    for (const model::Route& route : host.routes) {
      if (const auto* forward = std::get_if<model::Forward>(&route.action)) add(forward->clusters);
    }
  }
  return clusters;
}

class Compiler {
 public:
  Compiler(const model::Snapshot& snapshot, const NodePlace& place,
           const std::set<IpAddress>& on_this_node);
  // Nullopt: the port has no VIP of that family.
  std::optional<KernelService> Compile(const model::Service& service,
                                       const model::Service::Port& port, bool v4) const;

 private:
  using WorkloadPort = std::pair<const model::Workload*, uint16_t>;

  Distance DistanceTo(const IpAddress& address, const std::string& zone) const;
  std::vector<Candidate> FromEds(const std::vector<model::Endpoint>& endpoints) const;
  std::vector<Candidate> FromWorkloads(const std::string& service, uint16_t port) const;

  const model::Snapshot& snapshot_;
  const NodePlace& place_;
  const std::set<IpAddress>& on_this_node_;
  std::string zone_;
  const std::map<SocketAddress, const model::Listener*> listeners_;
  std::map<std::pair<std::string, uint16_t>, std::vector<WorkloadPort>> workloads_;
};

Compiler::Compiler(const model::Snapshot& snapshot, const NodePlace& place,
                   const std::set<IpAddress>& on_this_node)
    : snapshot_(snapshot),
      place_(place),
      on_this_node_(on_this_node),
      zone_(place.zone),
      listeners_(ListenersOf(snapshot)) {
  std::set<std::string> zones;
  for (const auto& [uid, workload] : snapshot.workloads) {
    if (workload->node == place.node && !workload->locality.zone.empty()) {
      zones.insert(workload->locality.zone);
    }
    if (!workload->healthy) continue;
    for (const auto& [service, ports] : workload->services) {
      for (const auto& port : ports) {
        workloads_[{service, port.service_port}].emplace_back(workload.get(), port.target_port);
      }
    }
  }
  if (zone_.empty() && !place.node.empty() && zones.size() == 1) zone_ = *zones.begin();
}

Distance Compiler::DistanceTo(const IpAddress& address, const std::string& zone) const {
  if (on_this_node_.contains(address)) return Distance::kSameNode;
  const model::Workload* workload = snapshot_.FindWorkload(address);
  if (workload != nullptr && !place_.node.empty() && workload->node == place_.node) {
    return Distance::kSameNode;
  }
  const std::string& its = !zone.empty() || workload == nullptr ? zone : workload->locality.zone;
  return !zone_.empty() && its == zone_ ? Distance::kSameZone : Distance::kElsewhere;
}

// Draining and unhealthy endpoints get nothing new. A workload's address of the other family stands
// beside the one that EDS names.
std::vector<Candidate> Compiler::FromEds(const std::vector<model::Endpoint>& endpoints) const {
  std::vector<Candidate> out;
  for (const model::Endpoint& endpoint : endpoints) {
    if (endpoint.health == HealthStatus::kDraining || endpoint.health == HealthStatus::kUnhealthy) {
      continue;
    }
    Candidate candidate{.address = endpoint.address,
                        .weight = endpoint.weight,
                        .tier = {endpoint.priority, endpoint.health == HealthStatus::kDegraded},
                        .distance = DistanceTo(endpoint.address.ip, endpoint.locality.zone)};
    out.push_back(candidate);
    const model::Workload* workload = snapshot_.FindWorkload(endpoint.address.ip);
    if (workload == nullptr) continue;
    for (const IpAddress& other : workload->addresses) {
      if (other.is_v4() == endpoint.address.ip.is_v4()) continue;
      candidate.address.ip = other;
      out.push_back(candidate);
    }
  }
  return out;
}

std::vector<Candidate> Compiler::FromWorkloads(const std::string& service, uint16_t port) const {
  std::vector<Candidate> out;
  const auto found = workloads_.find({service, port});
  if (found == workloads_.end()) return out;
  for (const auto& [workload, target] : found->second) {
    for (const IpAddress& ip : workload->addresses) {
      out.push_back({.address = {ip, target},
                     .weight = workload->capacity,
                     .distance = DistanceTo(ip, workload->locality.zone)});
    }
  }
  return out;
}

void KeepFamily(bool v4, std::vector<Candidate>* candidates) {
  const auto other = [v4](const Candidate& c) { return c.address.ip.is_v4() != v4; };
  if (!std::ranges::all_of(*candidates, other)) std::erase_if(*candidates, other);
}

// Who of the best tier gets new connections: the nearest that the service prefers and that exist.
Distance FarthestPreferred(const model::Service& service, const std::vector<Candidate>& best) {
  const auto any = [&best](Distance d) {
    return std::ranges::any_of(best, [d](const Candidate& c) { return c.distance <= d; });
  };
  if (service.prefers_same_node && any(Distance::kSameNode)) return Distance::kSameNode;
  if ((service.prefers_same_node || service.prefers_same_zone) && any(Distance::kSameZone)) {
    return Distance::kSameZone;
  }
  return Distance::kElsewhere;
}

std::vector<bpf::ServiceBackend> Choose(const model::Service& service,
                                        std::vector<Candidate> candidates) {
  std::vector<bpf::ServiceBackend> out;
  if (candidates.empty()) return out;
  std::ranges::stable_sort(candidates, {}, &Candidate::address);
  const auto repeated = std::ranges::unique(candidates, {}, &Candidate::address);
  candidates.erase(repeated.begin(), repeated.end());
  const auto tier = std::ranges::min(candidates, {}, &Candidate::tier).tier;
  std::vector<Candidate> best;
  std::ranges::copy_if(candidates, std::back_inserter(best),
                       [&tier](const Candidate& c) { return c.tier == tier; });
  const Distance farthest = FarthestPreferred(service, best);
  for (const Candidate& c : candidates) {
    const bool gets_new = c.tier == tier && c.distance <= farthest;
    // Others are kept for clients that have them already.
    if (gets_new || service.affinity_s != 0) out.emplace_back(c.address, c.weight, gets_new);
  }
  return out;
}

std::optional<KernelService> Compiler::Compile(const model::Service& service,
                                               const model::Service::Port& port, bool v4) const {
  KernelService out;
  const model::Listener* listener = nullptr;
  for (const IpAddress& ip : service.addresses) {
    if (ip.is_v4() != v4) continue;
    out.vips.push_back({ip, port.service_port});
    const auto found = listeners_.find(out.vips.back());
    if (found == listeners_.end()) continue;
    listener = found->second;
    // Bytes decide, or shares of several clusters: the proxy's.
    if (listener->http || (listener->tcp && listener->tcp->clusters.size() > 1)) {
      out.flags |= WEFT_SVC_L7;
    }
  }
  if (out.vips.empty()) return std::nullopt;
  const model::Cluster* cluster = nullptr;
  if (listener != nullptr && listener->tcp && !listener->tcp->clusters.empty()) {
    const auto found = snapshot_.clusters.find(listener->tcp->clusters.front().cluster);
    if (found != snapshot_.clusters.end()) cluster = found->second.get();
  }
  const std::vector<model::Endpoint>* eds =
      cluster == nullptr ? nullptr
                         : EndpointsOf(snapshot_, listener->tcp->clusters.front().cluster);
  std::vector<Candidate> candidates =
      eds != nullptr ? FromEds(*eds) : FromWorkloads(service.Key(), port.service_port);
  KeepFamily(v4, &candidates);
  out.backends = Choose(service, std::move(candidates));
  out.maglev = cluster != nullptr && cluster->lb == model::LbPolicy::kMaglev;
  out.affinity_s = service.affinity_s;
  return out;
}

}  // namespace

std::map<uint32_t, KernelService> CompileServices(const model::Snapshot& snapshot,
                                                  const NodePlace& place,
                                                  const std::set<IpAddress>& on_this_node,
                                                  rules::Numbers& numbers) {
  std::map<uint32_t, KernelService> services;
  const Compiler compiler(snapshot, place, on_this_node);
  for (const auto& [key, service] : snapshot.services) {
    for (const model::Service::Port& port : service->ports) {
      std::string name = key + ":" + std::to_string(port.service_port);
      for (const bool v4 : {true, false}) {
        std::optional<KernelService> compiled = compiler.Compile(*service, port, v4);
        if (!compiled) continue;
        services[numbers.Of(name)] = *std::move(compiled);
        name += "/ipv6";  // of a service of both families
      }
    }
  }
  return services;
}

Reachable ReachableEndpoints(const model::Snapshot& snapshot) {
  Reachable reachable;
  for (const auto& [uid, workload] : snapshot.workloads) {
    for (const auto& [service, ports] : workload->services) {
      for (const auto& port : ports) {
        auto& addresses = reachable[{service, port.service_port}];
        for (const IpAddress& ip : workload->addresses) addresses.insert({ip, port.target_port});
      }
    }
  }
  const auto listeners = ListenersOf(snapshot);
  for (const auto& [key, service] : snapshot.services) {
    for (const model::Service::Port& port : service->ports) {
      for (const IpAddress& ip : service->addresses) {
        const auto listener = listeners.find({ip, port.service_port});
        if (listener == listeners.end()) continue;
        for (const std::string& cluster : ClustersOf(snapshot, *listener->second)) {
          const auto* endpoints = EndpointsOf(snapshot, cluster);
          if (endpoints == nullptr) continue;
          auto& addresses = reachable[{key, port.service_port}];
          for (const model::Endpoint& endpoint : *endpoints) {
            addresses.insert(endpoint.address);
            const model::Workload* workload = snapshot.FindWorkload(endpoint.address.ip);
            if (workload == nullptr) continue;
            for (const IpAddress& other : workload->addresses) {
              addresses.insert({other, endpoint.address.port});
            }
          }
        }
      }
    }
  }
  return reachable;
}

}  // namespace weft::agent
