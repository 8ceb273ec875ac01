// SPDX-License-Identifier: Apache-2.0
// weft.policy.v1, the inverse of xds/decode/policy.cc.
#include "xds/server/encode.h"
#include "xds/server/encode_internal.h"
#include "xds/wire/policy.pb.h"

namespace weft::xds {
namespace {

namespace wire = weft::policy::v1;
using model::NetworkPolicy;
using model::ProcessPolicy;

void EncodePrefix(const NetworkPolicy::Prefix& in, wire::Prefix* out) {
  out->set_address(IpBytes(in.address));
  out->set_length(in.length);
}

template <typename Rule>
void EncodeBlocks(const std::vector<NetworkPolicy::Block>& in, Rule* out) {
  for (const NetworkPolicy::Block& block : in) {
    wire::Block* to = out->add_blocks();
    EncodePrefix(block.cidr, to->mutable_cidr());
    for (const NetworkPolicy::Prefix& except : block.except) EncodePrefix(except, to->add_except());
  }
}

template <typename Rule>
void EncodePorts(const std::vector<NetworkPolicy::Port>& in, Rule* out) {
  for (const NetworkPolicy::Port& port : in) {
    wire::Port* to = out->add_ports();
    switch (port.protocol) {
      case NetworkPolicy::Protocol::kTcp:
        to->set_protocol(wire::Port::TCP);
        break;
      case NetworkPolicy::Protocol::kUdp:
        to->set_protocol(wire::Port::UDP);
        break;
      case NetworkPolicy::Protocol::kSctp:
        to->set_protocol(wire::Port::SCTP);
        break;
    }
    to->set_first(port.first);
    to->set_last(port.last);
  }
}

void EncodeRule(const NetworkPolicy::Rule& in, wire::NetworkPolicy::Rule* out) {
  out->set_index(in.index);
  out->set_any_peer(in.any_peer);
  for (const std::string& uid : in.workloads) out->add_workloads(uid);
  EncodeBlocks(in.blocks, out);
  out->set_any_port(in.any_port);
  EncodePorts(in.ports, out);
}

wire::ProcessPolicy::Action EncodeAction(ProcessPolicy::Action in) {
  switch (in) {
    case ProcessPolicy::Action::kLog:
      return wire::ProcessPolicy::LOG;
    case ProcessPolicy::Action::kDeny:
      return wire::ProcessPolicy::DENY;
    case ProcessPolicy::Action::kKill:
      break;
  }
  return wire::ProcessPolicy::KILL;
}

}  // namespace

Encoded Encode(const NetworkPolicy& in) {
  wire::NetworkPolicy out;
  out.set_name(in.name);
  out.set_namespace_(in.namespace_name);
  for (const std::string& uid : in.subjects) out.add_subjects(uid);
  out.set_isolates_ingress(in.isolates_ingress);
  out.set_isolates_egress(in.isolates_egress);
  for (const NetworkPolicy::Rule& rule : in.ingress) EncodeRule(rule, out.add_ingress());
  for (const NetworkPolicy::Rule& rule : in.egress) EncodeRule(rule, out.add_egress());
  return {std::string(kNetworkPolicyType), in.Key(), Serialize(out)};
}

Encoded Encode(const ProcessPolicy& in) {
  wire::ProcessPolicy out;
  out.set_name(in.name);
  out.set_namespace_(in.namespace_name);
  for (const std::string& uid : in.subjects) out.add_subjects(uid);
  out.set_enforce(in.enforce);
  for (const ProcessPolicy::Rule& rule : in.rules) {
    wire::ProcessPolicy::Rule* to = out.add_rules();
    to->set_name(rule.name);
    for (const std::string& path : rule.binaries) to->add_binaries(path);
    for (const std::string& path : rule.not_binaries) to->add_not_binaries(path);
    for (const std::string& argument : rule.arguments) to->add_arguments(argument);
    for (const std::string& uid : rule.destinations) to->add_destinations(uid);
    for (const std::string& identity : rule.identities) to->add_identities(identity);
    EncodeBlocks(rule.blocks, to);
    EncodePorts(rule.ports, to);
    to->set_connects(rule.connects);
    to->set_action(EncodeAction(rule.action));
  }
  return {std::string(kProcessPolicyType), in.Key(), Serialize(out)};
}

}  // namespace weft::xds
