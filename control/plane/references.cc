// SPDX-License-Identifier: Apache-2.0
#include "control/plane/references.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"

namespace weft::plane {
namespace {

struct Claim {
  ObjectKey key;
  Origin at;
  bool had_it = false;
};
using Claims = std::map<IpAddress, std::vector<Claim>>;

std::vector<IpAddress> AddressesOf(const Object& object) {
  if (const auto* workload = std::get_if<Workload>(&object)) {
    // Pods on the host's network share the node's address; finished ones have given theirs back.
    if (workload->host_network || workload->finished) return {};
    return workload->addresses;
  }
  if (const auto* service = std::get_if<Service>(&object)) return service->addresses;
  return {};
}

Claims CollectClaims(const ManifestSet& set, const ManifestSet& last_good) {
  Claims claims;
  for (const auto& [key, stored] : set.objects) {
    for (const IpAddress& address : AddressesOf(*stored.object)) {
      bool had_it = false;
      if (const auto previous = last_good.objects.find(key); previous != last_good.objects.end()) {
        const auto before = AddressesOf(*previous->second.object);
        had_it = std::find(before.begin(), before.end(), address) != before.end();
      }
      claims[address].push_back({key, MetaOf(*stored.object).origin, had_it});
    }
  }
  return claims;
}

const Service::Port* FindPort(const Service& service, uint16_t number) {
  for (const Service::Port& port : service.ports) {
    if (port.port == number) return &port;
  }
  return nullptr;
}

void CheckParents(const ManifestSet& set, const HttpRoute& route, Problems* problems) {
  for (const HttpRoute::Parent& parent : route.parents) {
    const Service* service = set.FindService(route.meta.namespace_name, parent.service);
    if (service == nullptr) {
      problems->push_back({parent.origin,
                           absl::StrCat("parentRefs: there is no Service ",
                                        route.meta.namespace_name, "/", parent.service),
                           ""});
      continue;
    }
    bool attached = false;
    for (const Service::Port& port : service->ports) {
      if (!AttachesTo(parent, port)) continue;
      // Attached to the whole Service, the route leaves its TCP ports alone.
      const bool names_port = parent.port.has_value() || !parent.section.empty();
      attached |= !IsDeclaredTcp(*service, port);
      if (!names_port || !IsDeclaredTcp(*service, port)) continue;
      problems->push_back({parent.origin,
                           absl::StrCat("parentRefs: port ", port.port, " of Service ",
                                        parent.service, " is declared TCP"),
                           ""});
      attached = true;
    }
    if (attached) continue;
    problems->push_back(
        {parent.origin,
         absl::StrCat("parentRefs: Service ", parent.service, " has no such HTTP port"), ""});
  }
}

void CheckBackends(const ManifestSet& set, const HttpRoute& route, Problems* problems) {
  for (const HttpRoute::Rule& rule : route.rules) {
    for (const HttpRoute::Backend& backend : rule.backends) {
      const Service* service = set.FindService(route.meta.namespace_name, backend.service);
      if (service == nullptr) {
        problems->push_back({backend.origin,
                             absl::StrCat("backendRefs: there is no Service ",
                                          route.meta.namespace_name, "/", backend.service),
                             ""});
      } else if (FindPort(*service, backend.port) == nullptr) {
        problems->push_back(
            {backend.origin,
             absl::StrCat("backendRefs: Service ", backend.service, " has no port ", backend.port),
             ""});
      }
    }
  }
}

}  // namespace

std::vector<Conflict> FindConflicts(const ManifestSet& set, const ManifestSet& last_good) {
  std::vector<Conflict> conflicts;
  for (auto& [address, claims] : CollectClaims(set, last_good)) {
    if (claims.size() < 2) continue;
    std::vector<Claim> order = claims;
    std::stable_sort(order.begin(), order.end(), [](const Claim& a, const Claim& b) {
      return std::tuple(!a.had_it, a.at.file, a.at.line, a.at.column) <
             std::tuple(!b.had_it, b.at.file, b.at.line, b.at.column);
    });
    for (size_t i = 1; i < order.size(); ++i) {
      conflicts.push_back(
          {order[i].key,
           {order[i].at,
            absl::StrCat("address ", address.ToString(), " belongs to ", order[0].key.ToString(),
                         " (", order[0].at.ToString(), ") already"),
            order[i].key.ToString()}});
    }
  }
  return conflicts;
}

std::vector<ObjectKey> RoutesWithProblems(const ManifestSet& set, Problems* problems) {
  std::vector<ObjectKey> wrong;
  for (const auto& [key, stored] : set.objects) {
    const auto* route = std::get_if<HttpRoute>(stored.object.get());
    if (route == nullptr) continue;
    const size_t before = problems->size();
    CheckParents(set, *route, problems);
    CheckBackends(set, *route, problems);
    for (size_t i = before; i < problems->size(); ++i) (*problems)[i].object = key.ToString();
    if (problems->size() != before) wrong.push_back(key);
  }
  return wrong;
}

bool AttachesTo(const HttpRoute::Parent& parent, const Service::Port& port) {
  if (parent.port.has_value() && *parent.port != port.port) return false;
  return parent.section.empty() || parent.section == port.name;
}

bool IsDeclaredTcp(const Service& service, const Service::Port& port) {
  using App = model::Service::Port::App;
  return port.app == App::kTcp || port.app == App::kTls ||
         service.traffic.protocol == DeclaredProtocol::kTcp;
}

}  // namespace weft::plane
