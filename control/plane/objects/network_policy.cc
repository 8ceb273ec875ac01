// SPDX-License-Identifier: Apache-2.0
// Kubernetes' NetworkPolicy (networking.k8s.io/v1), all of it. What it means is in
// translate_network_policy.cc.
#include "absl/strings/str_cat.h"
#include "control/plane/objects/parse.h"
#include "control/plane/objects/policy_parts.h"

namespace weft::plane {
namespace {

PolicyPeer ReadPeer(Fields& fields) {
  PolicyPeer peer;
  const size_t before = fields.problems()->size();
  peer.pods = ParseLabelSelector(fields, "podSelector");
  peer.namespaces = ParseLabelSelector(fields, "namespaceSelector");
  peer.block = ParseIpBlock(fields, "ipBlock");
  const bool has_block = fields.Find("ipBlock") != nullptr;
  fields.Done();
  if (fields.problems()->size() != before) return peer;
  const bool selects = peer.pods.has_value() || peer.namespaces.has_value();
  if (selects && has_block) {
    fields.AddProblem(fields.PathOf("ipBlock") + ": does not go with a selector");
  } else if (!selects && !has_block) {
    fields.AddProblem(fields.PathOf("podSelector") +
                      ": one of podSelector, namespaceSelector and ipBlock is needed");
  }
  return peer;
}

// `direction`: "ingress" with `from`, "egress" with `to`.
std::vector<NetworkPolicy::Rule> ReadRules(Fields& spec, const char* direction, const char* peers) {
  std::vector<NetworkPolicy::Rule> rules;
  const std::vector<const Yaml*> items = spec.List(direction);
  for (size_t i = 0; i < items.size(); ++i) {
    Fields fields(*items[i], spec.file(), spec.PathOf(direction, i), spec.problems());
    NetworkPolicy::Rule& rule = rules.emplace_back();
    const std::vector<const Yaml*> peer_items = fields.List(peers);
    for (size_t j = 0; j < peer_items.size(); ++j) {
      Fields peer(*peer_items[j], spec.file(), fields.PathOf(peers, j), spec.problems());
      rule.peers.push_back(ReadPeer(peer));
    }
    rule.ports = ParsePolicyPorts(fields, "ports");
    fields.Done();
  }
  return rules;
}

}  // namespace

NetworkPolicy ParseNetworkPolicy(Fields& fields, Meta meta) {
  NetworkPolicy policy{.meta = std::move(meta)};
  fields.Ignore({"status"});
  const Yaml* node = fields.Require("spec");
  if (node == nullptr) return policy;
  Fields spec(*node, fields.file(), "spec", fields.problems());
  // Absent, it would mean every pod: too much to be guessed from what may be a slip.
  if (spec.Require("podSelector") != nullptr) {
    policy.pods = ParseLabelSelector(spec, "podSelector").value_or(LabelSelector());
  }
  policy.ingress = ReadRules(spec, "ingress", "from");
  policy.egress = ReadRules(spec, "egress", "to");
  const std::vector<LocatedText> types = spec.Texts("policyTypes");
  for (const LocatedText& type : types) {
    if (type.value == "Ingress") {
      policy.isolates_ingress = true;
    } else if (type.value == "Egress") {
      policy.isolates_egress = true;
    } else {
      fields.problems()->push_back(
          {type.at,
           absl::StrCat("spec.policyTypes: expected Ingress or Egress, found \"", type.value, "\""),
           ""});
    }
  }
  if (types.empty()) {
    policy.isolates_ingress = true;
    policy.isolates_egress = !policy.egress.empty();
  }
  spec.Done();
  return policy;
}

}  // namespace weft::plane
