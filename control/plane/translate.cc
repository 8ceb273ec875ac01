// SPDX-License-Identifier: Apache-2.0
// Services: listeners, clusters, endpoints. Routes, workloads and policies have files of their own.
#include "control/plane/translate.h"

#include <algorithm>
#include <unordered_map>

#include "absl/strings/str_cat.h"
#include "control/plane/references.h"
#include "proxy/base/status.h"

namespace weft::plane {
namespace {

using App = model::Service::Port::App;

// A connect that fails has moved no byte, so another endpoint may always be tried.
constexpr uint32_t kTcpConnectAttempts = 3;

bool IsDeclaredHttp(const Service& service, const Service::Port& port) {
  return port.app == App::kHttp1 || port.app == App::kHttp2 || port.app == App::kGrpc ||
         service.traffic.protocol == DeclaredProtocol::kHttp;
}

model::CircuitBreaker BreakerOf(const TrafficOptions& traffic) {
  model::CircuitBreaker breaker;
  breaker.max_connections = traffic.max_connections.value_or(breaker.max_connections);
  breaker.max_pending_requests =
      traffic.max_pending_requests.value_or(breaker.max_pending_requests);
  breaker.max_requests = traffic.max_requests.value_or(breaker.max_requests);
  breaker.max_retries = traffic.max_retries.value_or(breaker.max_retries);
  if (traffic.retry_budget_percent.has_value()) {
    breaker.budget = model::CircuitBreaker::Budget{
        .percent = static_cast<double>(*traffic.retry_budget_percent)};
  }
  return breaker;
}

std::optional<model::OutlierDetection> OutlierOf(const TrafficOptions& traffic) {
  if (!traffic.outlier_consecutive_5xx && !traffic.outlier_base_ejection &&
      !traffic.outlier_interval && !traffic.outlier_max_ejection_percent) {
    return std::nullopt;
  }
  model::OutlierDetection outlier;
  outlier.consecutive_5xx = traffic.outlier_consecutive_5xx.value_or(outlier.consecutive_5xx);
  outlier.base_ejection_time = traffic.outlier_base_ejection.value_or(outlier.base_ejection_time);
  // Envoy: the longest ejection is never shorter than the first one.
  outlier.max_ejection_time = std::max(outlier.max_ejection_time, outlier.base_ejection_time);
  outlier.interval = traffic.outlier_interval.value_or(outlier.interval);
  outlier.max_ejection_percent =
      traffic.outlier_max_ejection_percent.value_or(outlier.max_ejection_percent);
  return outlier;
}

model::Cluster ClusterOf(const Service& service, const Service::Port& port, std::string name) {
  model::Cluster cluster{.name = name, .type = model::DiscoveryType::kEds, .eds_name = name};
  cluster.lb = service.traffic.lb_policy.value_or(cluster.lb);
  cluster.connect_timeout = service.traffic.connect_timeout.value_or(cluster.connect_timeout);
  cluster.breaker = BreakerOf(service.traffic);
  cluster.outlier = OutlierOf(service.traffic);
  switch (port.app) {
    case App::kHttp2:
    case App::kGrpc:
      cluster.http = model::HttpVersion::kHttp2;
      break;
    case App::kUnknown:
      cluster.http = model::HttpVersion::kSameAsDownstream;
      break;
    default:
      cluster.http = model::HttpVersion::kHttp1;
  }
  return cluster;
}

// What endpoints have from the workload at their address.
struct AtAddress {
  bool in_mesh = false;  // a proxy that has the endpoint without its workload must know
  uint32_t weight = 1;
};
using AddressTable = std::unordered_map<IpAddress, AtAddress, AddressHash>;

AddressTable WorkloadsByAddress(const ManifestSet& set) {
  AddressTable table;
  for (const Workload* workload : set.All<Workload>()) {
    if (workload->finished) continue;
    const bool in_mesh = IsInMesh(*workload, set);
    const uint32_t weight = WeightOf(workload->meta.annotations);
    for (const IpAddress& address : workload->addresses) {
      AtAddress& facts = table[address];  // pods on the host's network share one
      facts.in_mesh |= in_mesh;
      facts.weight = std::max(facts.weight, weight);
    }
  }
  return table;
}

model::Endpoints EndpointsResource(const std::vector<ServiceEndpoint>& endpoints,
                                   const AddressTable& table, std::string name) {
  model::Endpoints resource{.cluster = std::move(name)};
  for (const ServiceEndpoint& each : endpoints) {
    const auto found = table.find(each.address.ip);
    const AtAddress facts = found == table.end() ? AtAddress() : found->second;
    resource.endpoints.push_back({.address = each.address,
                                  .weight = facts.weight,
                                  .health = each.health,
                                  .locality = {.zone = each.zone},
                                  .in_mesh = facts.in_mesh});
  }
  return resource;
}

model::Listener ListenerOf(const Service& service, const Service::Port& port,
                           const IpAddress& address, const std::string& name, bool is_l7) {
  model::Listener listener{
      .name = name, .address = SocketAddress{address, port.port}, .bind_to_port = false};
  // A port that is not declared is carried as what its first bytes say.
  if (is_l7) listener.http = model::HttpFilterChain{.stat_prefix = name, .rds_name = name};
  if (!is_l7 || !IsDeclaredHttp(service, port)) {
    listener.tcp = model::TcpFilterChain{.stat_prefix = name,
                                         .clusters = {{.cluster = name, .weight = 1}},
                                         .max_connect_attempts = kTcpConnectAttempts};
  }
  return listener;
}

model::Service ServiceResource(const Service& service, const TranslateOptions& options) {
  model::Service resource{.name = service.meta.name,
                          .namespace_name = service.meta.namespace_name,
                          .hostname = HostOf(service, options),
                          .addresses = service.addresses,
                          .prefers_same_node = service.prefers_same_node,
                          .prefers_same_zone = service.prefers_same_zone,
                          .affinity_s = service.affinity_s};
  for (const Service::Port& port : service.ports) {
    App app = port.app;
    if (app == App::kUnknown && service.traffic.protocol == DeclaredProtocol::kHttp)
      app = App::kHttp1;
    if (app == App::kUnknown && service.traffic.protocol == DeclaredProtocol::kTcp) app = App::kTcp;
    resource.ports.push_back(
        {.service_port = port.port, .target_port = port.target_port, .app = app});
  }
  return resource;
}

void CheckTargetName(const ManifestSet& set, const Service& service, const Service::Port& port,
                     Problems* problems) {
  if (port.target_name.empty()) return;
  for (const Workload* workload : set.All<Workload>()) {
    if (workload->meta.namespace_name == service.meta.namespace_name &&
        Selects(service.selector, workload->meta.labels) &&
        workload->named_ports.contains(port.target_name)) {
      return;
    }
  }
  for (const EndpointSlice* slice : set.All<EndpointSlice>()) {
    if (slice->meta.namespace_name == service.meta.namespace_name &&
        slice->service == service.meta.name)
      return;
  }
  problems->push_back(
      {port.origin,
       absl::StrCat("targetPort: no selected pod has a port named \"", port.target_name,
                    "\", so this port has no endpoints"),
       absl::StrCat("Service ", service.meta.namespace_name, "/", service.meta.name)});
}

// What the kernel alone does, for the connections that it balances.
void CheckBalancing(const Service& service, const Service::Port& port, bool is_l7,
                    Problems* problems) {
  const std::string object =
      absl::StrCat("Service ", service.meta.namespace_name, "/", service.meta.name);
  const auto add = [&](std::string_view what) {
    problems->push_back({port.origin,
                         absl::StrCat(AbslView(what), ": has no effect on port ", port.port,
                                      ", whose requests the proxy balances one by one"),
                         object});
  };
  if (!is_l7) return;
  if (service.affinity_s != 0) add("sessionAffinity");
  if (service.prefers_same_zone) add("trafficDistribution");
  if (service.traffic.lb_policy == model::LbPolicy::kMaglev) add("weft.dev/lb-policy: maglev");
}

// A workload has one endpoint a port: its address of the family that the Service speaks first.
const IpAddress* PickAddress(const Workload& workload, const Service& service) {
  if (workload.addresses.empty()) return nullptr;
  if (!service.addresses.empty()) {
    for (const IpAddress& address : workload.addresses) {
      if (address.is_v4() == service.addresses.front().is_v4()) return &address;
    }
  }
  return &workload.addresses.front();
}

std::vector<ServiceEndpoint> EndpointsFromSlices(const std::vector<const EndpointSlice*>& slices,
                                                 const Service::Port& port) {
  std::vector<ServiceEndpoint> endpoints;
  for (const EndpointSlice* slice : slices) {
    const auto number = slice->ports.find(port.name);
    if (number == slice->ports.end()) continue;
    for (const EndpointSlice::Endpoint& each : slice->endpoints) {
      const bool drains = !each.ready && each.terminating && each.serving;
      if (!each.ready && !drains) continue;
      // Addresses of one endpoint are interchangeable (Kubernetes): the first stands for it.
      endpoints.push_back({{each.addresses.front(), number->second},
                           drains ? model::HealthStatus::kDraining : model::HealthStatus::kHealthy,
                           each.zone});
    }
  }
  return endpoints;
}

}  // namespace

std::string OutboundName(uint16_t port, std::string_view subset, std::string_view host) {
  return absl::StrCat("outbound|", port, "|", AbslView(subset), "|", AbslView(host));
}

std::string HostOf(const Service& service, const TranslateOptions& options) {
  return absl::StrCat(service.meta.name, ".", service.meta.namespace_name, ".svc.",
                      options.cluster_domain);
}

bool IsL7(const ManifestSet& set, const Service& service, const Service::Port& port) {
  if (IsDeclaredTcp(service, port)) return false;
  if (service.traffic.asks_for_l7()) return true;
  for (const HttpRoute* route : set.All<HttpRoute>()) {
    if (route->meta.namespace_name != service.meta.namespace_name) continue;
    for (const HttpRoute::Parent& parent : route->parents) {
      if (parent.service == service.meta.name && AttachesTo(parent, port)) return true;
    }
  }
  return false;
}

std::vector<ServiceEndpoint> EndpointsOf(const ManifestSet& set, const Service& service,
                                         const Service::Port& port) {
  std::vector<const EndpointSlice*> slices;
  for (const EndpointSlice* slice : set.All<EndpointSlice>()) {
    if (slice->meta.namespace_name == service.meta.namespace_name &&
        slice->service == service.meta.name) {
      slices.push_back(slice);
    }
  }
  std::vector<ServiceEndpoint> endpoints;
  if (!slices.empty()) {
    endpoints = EndpointsFromSlices(slices, port);
  } else {
    for (const Workload* workload : set.All<Workload>()) {
      if (workload->meta.namespace_name != service.meta.namespace_name || !workload->ready ||
          workload->finished || !Selects(service.selector, workload->meta.labels)) {
        continue;
      }
      const IpAddress* address = PickAddress(*workload, service);
      uint16_t number = port.target_port;
      if (!port.target_name.empty()) {
        const auto named = workload->named_ports.find(port.target_name);
        number = named == workload->named_ports.end() ? 0 : named->second;
      }
      if (address != nullptr && number != 0)
        endpoints.push_back({.address = {*address, number}, .zone = ZoneOf(*workload)});
    }
  }
  // In the order of addresses, one of each: the same set gives the same bytes.
  std::stable_sort(
      endpoints.begin(), endpoints.end(),
      [](const ServiceEndpoint& a, const ServiceEndpoint& b) { return a.address < b.address; });
  endpoints.erase(std::unique(endpoints.begin(), endpoints.end(),
                              [](const ServiceEndpoint& a, const ServiceEndpoint& b) {
                                return a.address == b.address;
                              }),
                  endpoints.end());
  return endpoints;
}

Configuration Translate(const ManifestSet& set, const TranslateOptions& options,
                        Problems* problems) {
  Configuration out;
  const AddressTable table = WorkloadsByAddress(set);
  for (const Service* service : set.All<Service>()) {
    for (const Service::Port& port : service->ports) {
      const std::string name = OutboundName(port.port, "", HostOf(*service, options));
      const bool is_l7 = IsL7(set, *service, port);
      CheckBalancing(*service, port, is_l7, problems);
      out.clusters.push_back(ClusterOf(*service, port, name));
      out.endpoints.push_back(EndpointsResource(EndpointsOf(set, *service, port), table, name));
      CheckTargetName(set, *service, port, problems);
      for (size_t i = 0; i < service->addresses.size(); ++i) {
        // A listener has one address; those of further families carry it in their name.
        const std::string suffix = i == 0 ? "" : "|" + service->addresses[i].ToString();
        model::Listener listener = ListenerOf(*service, port, service->addresses[i], name, is_l7);
        listener.name += suffix;
        out.listeners.push_back(std::move(listener));
      }
      if (is_l7) out.routes.push_back(TranslateRoutes(set, *service, port, options));
    }
    out.services.push_back(ServiceResource(*service, options));
  }
  out.workloads = TranslateWorkloads(set, options);
  out.authorizations = TranslatePolicies(set, options);
  TranslatePodPolicies(set, options, &out);
  return out;
}

}  // namespace weft::plane
