// SPDX-License-Identifier: Apache-2.0
// weft.policy.v1: policies whose selectors the control plane has resolved. Strict about everything
// that could make a rule say more or less than was meant.
#include <algorithm>

#include "xds/decode/fields.h"
#include "xds/decode/parts.h"
#include "xds/model/authorization.h"

namespace weft::xds {
namespace {

namespace wire = weft::policy::v1;
using google::protobuf::RepeatedPtrField;
using model::NetworkPolicy;
using model::ProcessPolicy;
using Texts = RepeatedPtrField<std::string>;

// What the kernel compares (WEFT_PATH_BYTES, WEFT_ARGUMENT_BYTES in bpf/abi.h).
constexpr size_t kMaxPathBytes = 247;
constexpr size_t kMaxArgumentBytes = 126;

absl::Status CheckSegment(const std::string& text) {
  if (text.empty()) return Bad("missing");
  return text.find('/') == std::string::npos ? absl::OkStatus() : Bad("must not contain /");
}

absl::Status DecodePrefix(const wire::Prefix& in, NetworkPolicy::Prefix* out) {
  WEFT_FIELD("address", DecodeIp(in.address(), &out->address));
  if (in.length() > in.address().size() * 8) {
    return Bad("length: " + std::to_string(in.length()) + " is longer than the address");
  }
  out->length = in.length();
  // Bits past the length would be part of a key, and nothing would ever match it.
  for (size_t bit = in.length(); bit < in.address().size() * 8; ++bit) {
    if ((static_cast<uint8_t>(in.address()[bit / 8]) >> (7 - bit % 8) & 1) != 0) {
      return Bad("address: has bits beyond its length");
    }
  }
  return absl::OkStatus();
}

absl::Status DecodeBlock(const wire::Block& in, NetworkPolicy::Block* out) {
  WEFT_FIELD("cidr", DecodePrefix(in.cidr(), &out->cidr));
  for (int i = 0; i < in.except_size(); ++i) {
    NetworkPolicy::Prefix& except = out->except.emplace_back();
    WEFT_FIELD(Indexed("except", i), DecodePrefix(in.except(i), &except));
    if (in.except(i).address().size() != in.cidr().address().size() ||
        except.length < out->cidr.length ||
        !except.address.InPrefix(out->cidr.address, out->cidr.length)) {
      return Bad(Indexed("except", i) + ": is not within cidr");
    }
  }
  return absl::OkStatus();
}

absl::Status DecodeBlocks(const RepeatedPtrField<wire::Block>& in,
                          std::vector<NetworkPolicy::Block>* out) {
  for (int i = 0; i < in.size(); ++i) {
    WEFT_FIELD(Indexed("blocks", i), DecodeBlock(in[i], &out->emplace_back()));
  }
  return absl::OkStatus();
}

absl::Status DecodePolicyPorts(const RepeatedPtrField<wire::Port>& in,
                               std::vector<NetworkPolicy::Port>* out) {
  for (int i = 0; i < in.size(); ++i) {
    const std::string at = Indexed("ports", i);
    NetworkPolicy::Port& port = out->emplace_back();
    switch (in[i].protocol()) {
      case wire::Port::TCP:
        port.protocol = NetworkPolicy::Protocol::kTcp;
        break;
      case wire::Port::UDP:
        port.protocol = NetworkPolicy::Protocol::kUdp;
        break;
      case wire::Port::SCTP:
        port.protocol = NetworkPolicy::Protocol::kSctp;
        break;
      default:
        return NotSupported(at + ": protocol " + std::to_string(in[i].protocol()));
    }
    WEFT_FIELD(at + ".first", DecodePort(in[i].first(), &port.first));
    WEFT_FIELD(at + ".last", DecodePort(in[i].last(), &port.last));
    if (port.last < port.first) return Bad(at + ": last is before first");
  }
  return absl::OkStatus();
}

absl::Status DecodeUids(std::string_view field, const Texts& in, std::vector<std::string>* out) {
  for (int i = 0; i < in.size(); ++i) {
    if (in[i].empty()) return Bad(Indexed(field, i) + ": empty");
  }
  out->assign(in.begin(), in.end());
  return absl::OkStatus();
}

// Each once and in order: who compiles them looks for one by halving.
absl::Status DecodeSubjects(const Texts& in, std::vector<std::string>* out) {
  WEFT_RETURN_IF_ERROR(DecodeUids("subjects", in, out));
  const bool ordered =
      std::adjacent_find(out->begin(), out->end(), std::greater_equal<>()) == out->end();
  return ordered ? absl::OkStatus() : Bad("subjects: not in order, or one is there twice");
}

absl::Status DecodeRule(const wire::NetworkPolicy::Rule& in, NetworkPolicy::Rule* out) {
  out->index = in.index();
  out->any_peer = in.any_peer();
  out->any_port = in.any_port();
  WEFT_RETURN_IF_ERROR(DecodeUids("workloads", in.workloads(), &out->workloads));
  WEFT_RETURN_IF_ERROR(DecodeBlocks(in.blocks(), &out->blocks));
  WEFT_RETURN_IF_ERROR(DecodePolicyPorts(in.ports(), &out->ports));
  if (out->any_peer && !(out->workloads.empty() && out->blocks.empty())) {
    return Bad("any_peer: and peers beside it");
  }
  if (out->any_port && !out->ports.empty()) return Bad("any_port: and ports beside it");
  return absl::OkStatus();
}

absl::Status CheckPath(const std::string& path) {
  if (path.empty() || path.front() != '/') return Bad("not an absolute path");
  if (path.size() > kMaxPathBytes) return Bad("too long");
  if (path.find('\0') != std::string::npos) return Bad("contains a zero byte");
  if (path.find('*') < path.size() - 1) return Bad("'*' may be last only");
  return absl::OkStatus();
}

absl::Status DecodePaths(std::string_view field, const Texts& in, std::vector<std::string>* out) {
  for (int i = 0; i < in.size(); ++i) WEFT_FIELD(Indexed(field, i), CheckPath(in[i]));
  out->assign(in.begin(), in.end());
  return absl::OkStatus();
}

absl::Status DecodeConnect(const wire::ProcessPolicy::Rule& in, ProcessPolicy::Rule* out) {
  out->connects = in.connects();
  WEFT_RETURN_IF_ERROR(DecodeUids("destinations", in.destinations(), &out->destinations));
  for (int i = 0; i < in.identities_size(); ++i) {
    if (!model::ParseIdentity(in.identities(i)).has_value()) {
      return Bad(Indexed("identities", i) + ": not of the form spiffe://TD/ns/NS/sa/SA");
    }
    out->identities.push_back(in.identities(i));
  }
  WEFT_RETURN_IF_ERROR(DecodeBlocks(in.blocks(), &out->blocks));
  WEFT_RETURN_IF_ERROR(DecodePolicyPorts(in.ports(), &out->ports));
  const bool names = !out->destinations.empty() || !out->identities.empty() ||
                     !out->blocks.empty() || !out->ports.empty();
  return names && !out->connects ? Bad("connects: not set, but destinations are named")
                                 : absl::OkStatus();
}

absl::Status DecodeRule(const wire::ProcessPolicy::Rule& in, ProcessPolicy::Rule* out) {
  out->name = in.name();
  WEFT_RETURN_IF_ERROR(DecodePaths("binaries", in.binaries(), &out->binaries));
  WEFT_RETURN_IF_ERROR(DecodePaths("not_binaries", in.not_binaries(), &out->not_binaries));
  for (int i = 0; i < in.arguments_size(); ++i) {
    const std::string& argument = in.arguments(i);
    if (argument.empty() || argument.size() > kMaxArgumentBytes ||
        argument.find('\0') != std::string::npos) {
      return Bad(Indexed("arguments", i) + ": empty, too long or with a zero byte");
    }
    out->arguments.push_back(argument);
  }
  WEFT_RETURN_IF_ERROR(DecodeConnect(in, out));
  switch (in.action()) {
    case wire::ProcessPolicy::LOG:
      out->action = ProcessPolicy::Action::kLog;
      return absl::OkStatus();
    case wire::ProcessPolicy::DENY:
      out->action = ProcessPolicy::Action::kDeny;
      return absl::OkStatus();
    case wire::ProcessPolicy::KILL:
      out->action = ProcessPolicy::Action::kKill;
      return absl::OkStatus();
    default:
      return NotSupported("action " + std::to_string(in.action()));
  }
}

}  // namespace

absl::Status DecodeNetworkPolicy(const wire::NetworkPolicy& in, NetworkPolicy* out) {
  WEFT_FIELD("name", CheckSegment(in.name()));
  WEFT_FIELD("namespace", CheckSegment(in.namespace_()));
  WEFT_RETURN_IF_ERROR(NoUnknownFields(in));
  out->name = in.name();
  out->namespace_name = in.namespace_();
  WEFT_RETURN_IF_ERROR(DecodeSubjects(in.subjects(), &out->subjects));
  out->isolates_ingress = in.isolates_ingress();
  out->isolates_egress = in.isolates_egress();
  for (int i = 0; i < in.ingress_size(); ++i) {
    WEFT_FIELD(Indexed("ingress", i), DecodeRule(in.ingress(i), &out->ingress.emplace_back()));
  }
  for (int i = 0; i < in.egress_size(); ++i) {
    WEFT_FIELD(Indexed("egress", i), DecodeRule(in.egress(i), &out->egress.emplace_back()));
  }
  return absl::OkStatus();
}

absl::Status DecodeProcessPolicy(const wire::ProcessPolicy& in, ProcessPolicy* out) {
  WEFT_FIELD("name", CheckSegment(in.name()));
  WEFT_FIELD("namespace", CheckSegment(in.namespace_()));
  WEFT_RETURN_IF_ERROR(NoUnknownFields(in));
  out->name = in.name();
  out->namespace_name = in.namespace_();
  WEFT_RETURN_IF_ERROR(DecodeSubjects(in.subjects(), &out->subjects));
  out->enforce = in.enforce();
  for (int i = 0; i < in.rules_size(); ++i) {
    WEFT_FIELD(Indexed("rules", i), DecodeRule(in.rules(i), &out->rules.emplace_back()));
  }
  return absl::OkStatus();
}

}  // namespace weft::xds
