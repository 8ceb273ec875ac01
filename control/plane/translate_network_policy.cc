// SPDX-License-Identifier: Apache-2.0
// NetworkPolicy and ProcessPolicy -> what the agent compiles: selectors become uids, named ports
// the numbers that the pods in question give them. A name means a port of the pod that is called:
// of each destination where a rule is about calling, of each subject where it is about being
// called. So the policy is split: its parts differ in name, and in one part and direction a rule's
// index occurs once, since the agent knows rules by it.
#include <algorithm>
#include <map>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "control/plane/pod_index.h"
#include "control/plane/translate.h"

namespace weft::plane {
namespace {

using Port = model::NetworkPolicy::Port;
using Ports = std::vector<Port>;
using Selection = PodIndex::Selection;

bool IsLess(const Port& a, const Port& b) {
  return std::tuple(a.protocol, a.first, a.last) < std::tuple(b.protocol, b.first, b.last);
}
struct PortsLess {
  bool operator()(const Ports& a, const Ports& b) const {
    return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end(), IsLess);
  }
};

void SortUnique(Ports* ports) {
  std::sort(ports->begin(), ports->end(), IsLess);
  ports->erase(std::unique(ports->begin(), ports->end()), ports->end());
}

Ports ByNumber(const std::vector<PolicyPort>& ports) {
  Ports out;
  for (const PolicyPort& port : ports) {
    if (port.name.empty()) out.push_back(port.port);
  }
  SortUnique(&out);
  return out;
}

// What the named ones among `ports` mean at that workload; those that it does not have are left
// out.
Ports ByName(const std::vector<PolicyPort>& ports, const Workload& workload) {
  Ports out;
  for (const PolicyPort& port : ports) {
    if (port.name.empty()) continue;
    for (const Workload::ContainerPort& has : workload.container_ports) {
      if (has.name != port.name || has.protocol != port.port.protocol) continue;
      out.push_back({has.protocol, has.port, has.port});
    }
  }
  SortUnique(&out);
  return out;
}

bool HasNames(const std::vector<PolicyPort>& ports) {
  return std::any_of(ports.begin(), ports.end(),
                     [](const PolicyPort& port) { return !port.name.empty(); });
}

struct Peers {
  bool any = false;
  Selection pods;
  std::vector<model::NetworkPolicy::Block> blocks;
  std::vector<std::string> identities;

  bool nobody() const { return !any && pods.empty() && blocks.empty() && identities.empty(); }
};

Peers Resolve(const std::vector<PolicyPeer>& peers, const std::string& namespace_name,
              const PodIndex& index) {
  Peers out{.any = peers.empty()};
  for (const PolicyPeer& peer : peers) {
    if (peer.block.has_value()) out.blocks.push_back(*peer.block);
    out.identities.insert(out.identities.end(), peer.identities.begin(), peer.identities.end());
    if (peer.identities.empty()) {
      out.pods = PodIndex::Union(out.pods, index.Named(peer, namespace_name));
    }
  }
  return out;
}

// The pods behind all of it, for what a port's name means there.
Selection PodsBehind(const Peers& peers, const std::string& namespace_name, const PodIndex& index) {
  if (peers.any) return index.All();
  Selection out =
      PodIndex::Union(peers.pods, index.Named({.identities = peers.identities}, namespace_name));
  for (const auto& block : peers.blocks) out = PodIndex::Union(out, index.InBlock(block));
  return out;
}

// For each set of numbers that the names have somewhere: the pods where they have it.
std::map<Ports, Selection, PortsLess> GroupByPorts(const std::vector<PolicyPort>& ports,
                                                   const Selection& pods, const PodIndex& index) {
  std::map<Ports, Selection, PortsLess> groups;
  for (const uint32_t i : pods) {
    Ports resolved = ByName(ports, *index.pods()[i].workload);
    if (!resolved.empty()) groups[std::move(resolved)].push_back(i);
  }
  return groups;
}

using Rules = std::vector<model::NetworkPolicy::Rule>;

void AddRule(uint32_t position, const Peers& peers, bool any_port, Ports ports,
             const PodIndex& index, Rules* out) {
  // Nothing that matches: the model's empty lists match nothing either, so it need not be sent.
  if (peers.nobody() || (!any_port && ports.empty())) return;
  out->push_back({.index = position,
                  .any_peer = peers.any,
                  .workloads = index.Uids(peers.pods),
                  .blocks = peers.blocks,
                  .any_port = any_port,
                  .ports = std::move(ports)});
}

// Of each direction, by what names mean there.
using Parts = std::map<Ports, Rules, PortsLess>;

// The rules as far as they name no port, and the rest by what the names mean at the destinations.
Rules EgressRules(const NetworkPolicy& policy, const PodIndex& index, Parts* parts) {
  Rules rules;
  for (uint32_t i = 0; i < policy.egress.size(); ++i) {
    const NetworkPolicy::Rule& from = policy.egress[i];
    const Peers peers = Resolve(from.peers, policy.meta.namespace_name, index);
    AddRule(i, peers, from.ports.empty(), ByNumber(from.ports), index, &rules);
    if (!HasNames(from.ports)) continue;
    const Selection behind = PodsBehind(peers, policy.meta.namespace_name, index);
    for (const auto& [ports, pods] : GroupByPorts(from.ports, behind, index)) {
      AddRule(i, {.pods = pods}, false, ports, index, &(*parts)[ports]);
    }
  }
  return rules;
}

// `subject`: whose names count; null if the policy has none.
Rules IngressRules(const NetworkPolicy& policy, const std::vector<Peers>& peers,
                   const Workload* subject, const PodIndex& index) {
  Rules rules;
  for (uint32_t i = 0; i < policy.ingress.size(); ++i) {
    const NetworkPolicy::Rule& from = policy.ingress[i];
    Ports ports = ByNumber(from.ports);
    if (subject != nullptr) {
      const Ports named = ByName(from.ports, *subject);
      ports.insert(ports.end(), named.begin(), named.end());
      SortUnique(&ports);
    }
    AddRule(i, peers[i], from.ports.empty(), std::move(ports), index, &rules);
  }
  return rules;
}

const char* NameOf(model::NetworkPolicy::Protocol protocol) {
  switch (protocol) {
    case model::NetworkPolicy::Protocol::kTcp:
      return "";
    case model::NetworkPolicy::Protocol::kUdp:
      return "udp";
    case model::NetworkPolicy::Protocol::kSctp:
      return "sctp";
  }
  return "";
}

// "8080+53udp".
std::string Text(const Ports& ports) {
  std::string out;
  for (const Port& port : ports) {
    absl::StrAppend(&out, out.empty() ? "" : "+", port.first, NameOf(port.protocol));
  }
  return out;
}

// "http=8080,dns=53udp": what the names of the policy's ingress rules mean at this workload. A part
// of the resource's name, so that a pod that comes or goes renames no other part.
std::string Meaning(const NetworkPolicy& policy, const Workload& workload) {
  std::map<std::string, std::string> meanings;
  for (const NetworkPolicy::Rule& rule : policy.ingress) {
    for (const PolicyPort& port : rule.ports) {
      if (port.name.empty()) continue;
      std::string numbers = Text(ByName({port}, workload));
      if (numbers.empty()) numbers = absl::StrCat("none", NameOf(port.port.protocol));
      meanings[absl::StrCat(port.name, NameOf(port.port.protocol))] =
          absl::StrCat(port.name, "=", numbers);
    }
  }
  std::string out;
  for (const auto& [key, text] : meanings) absl::StrAppend(&out, out.empty() ? "" : ",", text);
  return out;
}

void AddNetworkPolicy(const NetworkPolicy& policy, const PodIndex& index,
                      std::vector<model::NetworkPolicy>* out) {
  const Selection subjects = index.InNamespace(policy.meta.namespace_name, policy.pods);
  if (subjects.empty()) return;
  model::NetworkPolicy base{.name = policy.meta.name,
                            .namespace_name = policy.meta.namespace_name,
                            .isolates_ingress = policy.isolates_ingress,
                            .isolates_egress = policy.isolates_egress};
  // Rules of a direction that policyTypes leaves out say nothing (Kubernetes).
  Parts egress_parts;
  if (policy.isolates_egress) base.egress = EgressRules(policy, index, &egress_parts);
  for (auto& [ports, rules] : egress_parts) {
    out->push_back({.name = absl::StrCat(policy.meta.name, "~to:", Text(ports)),
                    .namespace_name = policy.meta.namespace_name,
                    .subjects = index.Uids(subjects),
                    .isolates_egress = true,
                    .egress = std::move(rules)});
  }
  bool has_names = false;
  std::vector<Peers> peers;
  if (policy.isolates_ingress) {
    for (const NetworkPolicy::Rule& rule : policy.ingress) {
      has_names |= HasNames(rule.ports);
      peers.push_back(Resolve(rule.peers, policy.meta.namespace_name, index));
    }
  }
  if (!has_names) {
    base.subjects = index.Uids(subjects);
    if (policy.isolates_ingress) base.ingress = IngressRules(policy, peers, nullptr, index);
    out->push_back(std::move(base));
    return;
  }
  std::map<std::string, Selection> parts;
  for (const uint32_t i : subjects) parts[Meaning(policy, *index.pods()[i].workload)].push_back(i);
  for (const auto& [meaning, pods] : parts) {
    model::NetworkPolicy part = base;
    part.name = absl::StrCat(policy.meta.name, "~", meaning);
    part.subjects = index.Uids(pods);
    part.ingress = IngressRules(policy, peers, index.pods()[pods.front()].workload, index);
    out->push_back(std::move(part));
  }
}

void AddProcessRule(const ProcessPolicy::Rule& from, const std::string& namespace_name,
                    const PodIndex& index, std::vector<model::ProcessPolicy::Rule>* out) {
  const model::ProcessPolicy::Rule base{.name = from.name,
                                        .binaries = from.binaries,
                                        .not_binaries = from.not_binaries,
                                        .arguments = from.arguments,
                                        .connects = from.connects,
                                        .action = from.action};
  if (!from.connects) return out->push_back(base);
  const Peers peers = Resolve(from.to, namespace_name, index);
  // To the model an empty list means any: what resolves to nothing must not be sent.
  const auto add = [&](const Peers& to, Ports ports) {
    if (to.nobody() || (ports.empty() && !from.ports.empty())) return;
    model::ProcessPolicy::Rule rule = base;
    rule.destinations = index.Uids(to.pods);
    rule.identities = to.identities;
    rule.blocks = to.blocks;
    rule.ports = std::move(ports);
    out->push_back(std::move(rule));
  };
  add(peers, ByNumber(from.ports));
  if (!HasNames(from.ports)) return;
  const Selection behind = PodsBehind(peers, namespace_name, index);
  for (const auto& [ports, pods] : GroupByPorts(from.ports, behind, index)) {
    add({.pods = pods}, ports);
    out->back().name = absl::StrCat(from.name, "~to:", Text(ports));
  }
}

}  // namespace

void TranslatePodPolicies(const ManifestSet& set, const TranslateOptions& options,
                          Configuration* out) {
  const auto network_policies = set.All<NetworkPolicy>();
  const auto process_policies = set.All<ProcessPolicy>();
  if (network_policies.empty() && process_policies.empty()) return;
  const PodIndex index(set, options);
  for (const NetworkPolicy* policy : network_policies) {
    AddNetworkPolicy(*policy, index, &out->network_policies);
  }
  for (const ProcessPolicy* policy : process_policies) {
    const Selection subjects = index.InNamespace(policy->meta.namespace_name, policy->pods);
    if (subjects.empty()) continue;
    model::ProcessPolicy to{.name = policy->meta.name,
                            .namespace_name = policy->meta.namespace_name,
                            .subjects = index.Uids(subjects),
                            .enforce = policy->enforce};
    for (const ProcessPolicy::Rule& rule : policy->rules) {
      AddProcessRule(rule, policy->meta.namespace_name, index, &to.rules);
    }
    out->process_policies.push_back(std::move(to));
  }
}

}  // namespace weft::plane
