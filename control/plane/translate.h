// SPDX-License-Identifier: Apache-2.0
// Objects -> xDS resources as model values (ARCHITECTURE.md, "Which service port goes where";
// DESIGN.md 8). Pure: the same objects give the same resources in the same order. Not here: bytes
// and versions (publisher.h).
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "control/plane/manifest_set.h"
#include "xds/model/authorization.h"
#include "xds/model/listener.h"
#include "xds/model/network_policy.h"

namespace weft::plane {

struct TranslateOptions {
  std::string trust_domain = "cluster.local";
  std::string cluster_domain = "cluster.local";
  // Policies without a selector in this namespace hold for the whole mesh (Istio's default name).
  std::string root_namespace = "istio-system";
  std::string cluster_id = "Kubernetes";  // first part of workload uids (Istio's default)
};

struct Configuration {
  std::vector<model::Listener> listeners;
  std::vector<model::RouteConfiguration> routes;
  std::vector<model::Cluster> clusters;
  std::vector<model::Endpoints> endpoints;
  std::vector<model::Workload> workloads;
  std::vector<model::Service> services;
  std::vector<model::Authorization> authorizations;
  std::vector<model::NetworkPolicy> network_policies;
  std::vector<model::ProcessPolicy> process_policies;
};

// `problems` gets what is well-formed but cannot be carried out in part (a named targetPort that no
// pod has).
Configuration Translate(const ManifestSet& set, const TranslateOptions& options,
                        Problems* problems);

// The denial of plaintext that workloads under STRICT refer to, in the root namespace. '_' keeps it
// apart from objects.
inline constexpr char kStrictPolicyName[] = "weft_strict_mtls";

// ---- Steps of Translate(), for its files and their tests. ----
// "outbound|80||web.demo.svc.cluster.local".
std::string OutboundName(uint16_t port, std::string_view subset, std::string_view host);
std::string HostOf(const Service& service, const TranslateOptions& options);
std::string UidOf(const Workload& workload, const TranslateOptions& options);
// spiffe://TD/ns/NS/sa/SA.
std::string IdentityOf(const Workload& workload, const TranslateOptions& options);
// Its label topology.kubernetes.io/zone.
std::string ZoneOf(const Workload& workload);
bool IsInMesh(const Workload& workload, const ManifestSet& set);
bool IsL7(const ManifestSet& set, const Service& service, const Service::Port& port);

model::RouteConfiguration TranslateRoutes(const ManifestSet& set, const Service& service,
                                          const Service::Port& port,
                                          const TranslateOptions& options);
std::vector<model::Workload> TranslateWorkloads(const ManifestSet& set,
                                                const TranslateOptions& options);
std::vector<model::Authorization> TranslatePolicies(const ManifestSet& set,
                                                    const TranslateOptions& options);
// Fills network_policies and process_policies. A NetworkPolicy that names ports becomes several,
// for each meaning of the names at the pods: "NAME~http=8080" for ingress, "NAME~to:8080" for
// egress; so does a rule of a ProcessPolicy. One that selects nobody becomes none.
void TranslatePodPolicies(const ManifestSet& set, const TranslateOptions& options,
                          Configuration* out);
// Sorted "namespace/name" of the selector policies that hold for the workload, and the STRICT one
// where it applies.
std::vector<std::string> PoliciesOf(const Workload& workload, const ManifestSet& set,
                                    const TranslateOptions& options);
bool IsStrict(const Workload& workload, const ManifestSet& set, const TranslateOptions& options);

struct ServiceEndpoint {
  SocketAddress address;
  model::HealthStatus health = model::HealthStatus::kHealthy;
  std::string zone;
};
// From the Service's EndpointSlices, or without any from the workloads that it selects. Those that
// are not ready are left out; those that end but still serve are draining.
std::vector<ServiceEndpoint> EndpointsOf(const ManifestSet& set, const Service& service,
                                         const Service::Port& port);

}  // namespace weft::plane
