// SPDX-License-Identifier: Apache-2.0
// Workloads of Istio's workload API, and the policies that hold for them.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "control/plane/translate.h"

namespace weft::plane {
namespace {

std::string LabelOr(const Workload& workload, std::initializer_list<const char*> names,
                    std::string fallback) {
  for (const char* name : names) {
    const auto found = workload.meta.labels.find(name);
    if (found != workload.meta.labels.end() && !found->second.empty()) return found->second;
  }
  return fallback;
}

std::string MeshSwitch(const Meta& meta) {
  for (const auto* map : {&meta.annotations, &meta.labels}) {
    if (const auto found = map->find("weft.dev/mesh"); found != map->end()) return found->second;
  }
  return "";
}

// Is this workload behind the Service? By its slices' addresses if it has any, else by its
// selector.
bool IsBehind(const Workload& workload, const Service& service, const Service::Port& port,
              uint16_t* target, const std::vector<const EndpointSlice*>& slices) {
  if (slices.empty()) {
    if (!Selects(service.selector, workload.meta.labels)) return false;
    *target = port.target_port;
    if (!port.target_name.empty()) {
      const auto named = workload.named_ports.find(port.target_name);
      if (named == workload.named_ports.end()) return false;
      *target = named->second;
    }
    return true;
  }
  for (const EndpointSlice* slice : slices) {
    const auto number = slice->ports.find(port.name);
    if (number == slice->ports.end()) continue;
    *target = number->second;
    for (const EndpointSlice::Endpoint& endpoint : slice->endpoints) {
      for (const IpAddress& address : endpoint.addresses) {
        if (std::find(workload.addresses.begin(), workload.addresses.end(), address) !=
            workload.addresses.end()) {
          return true;
        }
      }
    }
  }
  return false;
}

struct ServiceWithSlices {
  const Service* service;
  std::vector<const EndpointSlice*> slices;
};

std::vector<ServiceWithSlices> ServicesOf(const ManifestSet& set) {
  std::vector<ServiceWithSlices> services;
  const auto slices = set.All<EndpointSlice>();
  for (const Service* service : set.All<Service>()) {
    ServiceWithSlices each{service, {}};
    for (const EndpointSlice* slice : slices) {
      if (slice->meta.namespace_name == service->meta.namespace_name &&
          slice->service == service->meta.name) {
        each.slices.push_back(slice);
      }
    }
    services.push_back(std::move(each));
  }
  return services;
}

model::Workload WorkloadResource(const Workload& from, const ManifestSet& set,
                                 const std::vector<ServiceWithSlices>& services,
                                 const TranslateOptions& options) {
  model::Workload to{.uid = UidOf(from, options),
                     .name = from.meta.name,
                     .namespace_name = from.meta.namespace_name,
                     .service_account = from.service_account,
                     .trust_domain = options.trust_domain,
                     .node = from.node,
                     .cluster_id = options.cluster_id};
  to.canonical_name = LabelOr(
      from, {"service.istio.io/canonical-name", "app.kubernetes.io/name", "app"}, from.meta.name);
  to.canonical_revision =
      LabelOr(from, {"service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"},
              "latest");
  to.workload_name = from.meta.name;
  to.addresses = from.addresses;
  to.hbone = IsInMesh(from, set);
  to.healthy = from.ready;
  to.locality.zone = ZoneOf(from);
  to.capacity = WeightOf(from.meta.annotations);
  to.host_network = from.host_network;
  to.authorization_policies = PoliciesOf(from, set, options);
  for (const ServiceWithSlices& each : services) {
    if (each.service->meta.namespace_name != from.meta.namespace_name) continue;
    std::vector<model::Workload::ServicePort> ports;
    for (const Service::Port& port : each.service->ports) {
      uint16_t target = 0;
      if (IsBehind(from, *each.service, port, &target, each.slices))
        ports.push_back({port.port, target});
    }
    if (ports.empty()) continue;
    to.services[absl::StrCat(from.meta.namespace_name, "/", HostOf(*each.service, options))] =
        std::move(ports);
  }
  return to;
}

// Policies with a selector reach their own namespace; those of the root namespace every one
// (Istio).
template <typename Policy>
bool Reaches(const Policy& policy, const Workload& workload, const TranslateOptions& options) {
  return policy.meta.namespace_name == options.root_namespace ||
         policy.meta.namespace_name == workload.meta.namespace_name;
}

}  // namespace

std::string UidOf(const Workload& workload, const TranslateOptions& options) {
  // As Istio names them: pods have an empty API group.
  return absl::StrCat(options.cluster_id, "/", workload.is_pod ? "/Pod" : "weft.dev/Workload", "/",
                      workload.meta.namespace_name, "/", workload.meta.name);
}

std::string IdentityOf(const Workload& workload, const TranslateOptions& options) {
  return absl::StrCat("spiffe://", options.trust_domain, "/ns/", workload.meta.namespace_name,
                      "/sa/", workload.service_account);
}

std::string ZoneOf(const Workload& workload) {
  return LabelOr(workload, {"topology.kubernetes.io/zone"}, "");
}

bool IsInMesh(const Workload& workload, const ManifestSet& set) {
  if (workload.host_network) return false;
  std::string choice = MeshSwitch(workload.meta);
  if (choice.empty()) {
    const auto* space =
        set.Find<Namespace>(ObjectKind::kNamespace, "", workload.meta.namespace_name);
    if (space != nullptr) choice = MeshSwitch(space->meta);
  }
  return choice != "off";
}

std::vector<model::Workload> TranslateWorkloads(const ManifestSet& set,
                                                const TranslateOptions& options) {
  std::vector<model::Workload> workloads;
  const std::vector<ServiceWithSlices> services = ServicesOf(set);
  for (const Workload* workload : set.All<Workload>()) {
    if (workload->addresses.empty() || workload->finished) continue;
    workloads.push_back(WorkloadResource(*workload, set, services, options));
  }
  return workloads;
}

std::vector<std::string> PoliciesOf(const Workload& workload, const ManifestSet& set,
                                    const TranslateOptions& options) {
  std::vector<std::string> names;
  for (const AuthorizationPolicy* policy : set.All<AuthorizationPolicy>()) {
    if (!Reaches(*policy, workload, options) || !Selects(policy->selector, workload.meta.labels))
      continue;
    names.push_back(absl::StrCat(policy->meta.namespace_name, "/", policy->meta.name));
  }
  if (IsStrict(workload, set, options)) {
    names.push_back(absl::StrCat(options.root_namespace, "/", kStrictPolicyName));
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool IsStrict(const Workload& workload, const ManifestSet& set, const TranslateOptions& options) {
  // The narrowest counts: workload, namespace, mesh. Of several equally narrow ones the first by
  // name.
  std::optional<bool> of_workload, of_namespace, of_mesh;
  for (const PeerAuthentication* peer : set.All<PeerAuthentication>()) {
    if (!Reaches(*peer, workload, options)) continue;
    if (!peer->selector.empty()) {
      if (Selects(peer->selector, workload.meta.labels) && !of_workload) of_workload = peer->strict;
    } else if (peer->meta.namespace_name == workload.meta.namespace_name) {
      if (!of_namespace) of_namespace = peer->strict;
    } else if (!of_mesh) {
      of_mesh = peer->strict;
    }
  }
  if (of_workload.has_value()) return *of_workload;
  if (of_namespace.has_value()) return *of_namespace;
  return of_mesh.value_or(false);
}

std::vector<model::Authorization> TranslatePolicies(const ManifestSet& set,
                                                    const TranslateOptions& options) {
  using Authorization = model::Authorization;
  std::vector<Authorization> policies;
  for (const AuthorizationPolicy* from : set.All<AuthorizationPolicy>()) {
    Authorization to{.action = from->action,
                     .dry_run = from->dry_run,
                     .name = from->meta.name,
                     .namespace_name = from->meta.namespace_name};
    to.scope = !from->selector.empty() ? Authorization::Scope::kWorkload
               : from->meta.namespace_name == options.root_namespace
                   ? Authorization::Scope::kGlobal
                   : Authorization::Scope::kNamespace;
    for (const AuthorizationPolicy::Rule& rule : from->rules) {
      // All clauses must hold; a rule without any holds always, which an empty group says.
      std::vector<std::vector<Authorization::Match>> group;
      if (!rule.from.empty()) group.push_back(rule.from);
      if (!rule.to.empty()) group.push_back(rule.to);
      for (const Authorization::Match& condition : rule.when) group.push_back({condition});
      to.groups.push_back(std::move(group));
    }
    policies.push_back(std::move(to));
  }
  if (set.All<PeerAuthentication>().empty()) return policies;
  // Who has no identity came in plaintext.
  Authorization strict{.scope = Authorization::Scope::kWorkload,
                       .action = Authorization::Action::kDeny,
                       .name = kStrictPolicyName,
                       .namespace_name = options.root_namespace};
  strict.groups = {{{{.not_principals = {{Authorization::Text::Kind::kPresence, ""}}}}}};
  policies.push_back(std::move(strict));
  return policies;
}

}  // namespace weft::plane
