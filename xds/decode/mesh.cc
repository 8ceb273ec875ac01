// SPDX-License-Identifier: Apache-2.0
// Istio's workload and authorization types, and Weft's own local ones.
#include <algorithm>

#include "xds/decode/fields.h"
#include "xds/decode/parts.h"
#include "xds/wire/balance.pb.h"

namespace weft::xds {
namespace {

namespace wl = istio::workload;
namespace sec = istio::security;

// Fields of istiod's API that our .proto leaves out, by number: those that are only labels may be
// there.
absl::Status OnlyUnknown(const google::protobuf::Message& in, std::initializer_list<int> harmless) {
  const auto& unknown = in.GetReflection()->GetUnknownFields(in);
  for (int i = 0; i < unknown.field_count(); ++i) {
    const int number = unknown.field(i).number();
    if (std::find(harmless.begin(), harmless.end(), number) == harmless.end()) {
      return NotSupported("field number " + std::to_string(number));
    }
  }
  return absl::OkStatus();
}

absl::Status DecodePorts(const google::protobuf::RepeatedPtrField<wl::Port>& in,
                         std::vector<model::Workload::ServicePort>* out) {
  for (int i = 0; i < in.size(); ++i) {
    model::Workload::ServicePort port{};
    WEFT_FIELD(Indexed("ports", i), DecodePort(in[i].service_port(), &port.service_port));
    WEFT_FIELD(Indexed("ports", i), DecodePort(in[i].target_port(), &port.target_port));
    out->push_back(port);
  }
  return absl::OkStatus();
}

// A part of an identity or of a resource's name: it must not bring separators of its own.
absl::Status CheckSegment(const std::string& text) {
  if (text.empty()) return Bad("missing");
  return text.find('/') == std::string::npos ? absl::OkStatus() : Bad("must not contain /");
}

absl::Status DecodeApp(wl::AppProtocol in, model::Service::Port::App* out) {
  using App = model::Service::Port::App;
  switch (in) {
    case wl::UNKNOWN:
      *out = App::kUnknown;
      return absl::OkStatus();
    case wl::HTTP11:
      *out = App::kHttp1;
      return absl::OkStatus();
    case wl::HTTP2:
      *out = App::kHttp2;
      return absl::OkStatus();
    case wl::GRPC:
      *out = App::kGrpc;
      return absl::OkStatus();
    case wl::TCP:
      *out = App::kTcp;
      return absl::OkStatus();
    case wl::TLS:
      *out = App::kTls;
      return absl::OkStatus();
    default:
      return NotSupported("app_protocol " + std::to_string(in));
  }
}

using Texts = google::protobuf::RepeatedPtrField<sec::StringMatch>;
absl::Status DecodeTexts(std::string_view field, const Texts& in,
                         std::vector<model::Authorization::Text>* out) {
  using Kind = model::Authorization::Text::Kind;
  for (int i = 0; i < in.size(); ++i) {
    switch (in[i].match_type_case()) {
      case sec::StringMatch::kExact:
        out->push_back({Kind::kExact, in[i].exact()});
        break;
      case sec::StringMatch::kPrefix:
        out->push_back({Kind::kPrefix, in[i].prefix()});
        break;
      case sec::StringMatch::kSuffix:
        out->push_back({Kind::kSuffix, in[i].suffix()});
        break;
      case sec::StringMatch::kPresence:
        out->push_back({Kind::kPresence, ""});
        break;
      default:
        return Bad(Indexed(field, i) +
                   ": no pattern");  // left out, the policy would mean something else
    }
  }
  return absl::OkStatus();
}

using Addresses = google::protobuf::RepeatedPtrField<sec::Address>;
absl::Status DecodePrefixes(std::string_view field, const Addresses& in,
                            std::vector<model::Authorization::Prefix>* out) {
  for (int i = 0; i < in.size(); ++i) {
    model::Authorization::Prefix prefix{.length = in[i].length()};
    WEFT_FIELD(Indexed(field, i), DecodeIp(in[i].address(), &prefix.address));
    if (prefix.length > (prefix.address.is_v4() ? 32u : 128u)) {
      return Bad(Indexed(field, i) + ": length " + std::to_string(prefix.length));
    }
    out->push_back(prefix);
  }
  return absl::OkStatus();
}

using Accounts = google::protobuf::RepeatedPtrField<sec::ServiceAccountMatch>;
void DecodeAccounts(const Accounts& in, std::vector<model::Authorization::ServiceAccount>* out) {
  for (const auto& account : in) out->push_back({account.namespace_(), account.serviceaccount()});
}

using Ports = google::protobuf::RepeatedField<uint32_t>;
absl::Status DecodePortList(std::string_view field, const Ports& in, std::vector<uint32_t>* out) {
  for (int i = 0; i < in.size(); ++i) {
    if (in[i] > 65535) return Bad(Indexed(field, i) + ": more than 65535");
    out->push_back(in[i]);
  }
  return absl::OkStatus();
}

absl::Status DecodeMatch(const sec::Match& in, model::Authorization::Match* out) {
  WEFT_RETURN_IF_ERROR(DecodeTexts("namespaces", in.namespaces(), &out->namespaces));
  WEFT_RETURN_IF_ERROR(DecodeTexts("not_namespaces", in.not_namespaces(), &out->not_namespaces));
  WEFT_RETURN_IF_ERROR(DecodeTexts("principals", in.principals(), &out->principals));
  WEFT_RETURN_IF_ERROR(DecodeTexts("not_principals", in.not_principals(), &out->not_principals));
  DecodeAccounts(in.service_accounts(), &out->service_accounts);
  DecodeAccounts(in.not_service_accounts(), &out->not_service_accounts);
  WEFT_RETURN_IF_ERROR(DecodePrefixes("source_ips", in.source_ips(), &out->source_ips));
  WEFT_RETURN_IF_ERROR(DecodePrefixes("not_source_ips", in.not_source_ips(), &out->not_source_ips));
  WEFT_RETURN_IF_ERROR(
      DecodePrefixes("destination_ips", in.destination_ips(), &out->destination_ips));
  WEFT_RETURN_IF_ERROR(
      DecodePrefixes("not_destination_ips", in.not_destination_ips(), &out->not_destination_ips));
  WEFT_RETURN_IF_ERROR(
      DecodePortList("destination_ports", in.destination_ports(), &out->destination_ports));
  return DecodePortList("not_destination_ports", in.not_destination_ports(),
                        &out->not_destination_ports);
}

// What to prefer counts, not in which order Istio lists it: it goes from far to near.
absl::Status DecodeBalancing(const wl::Service& in, model::Service* out) {
  const auto mode = in.load_balancing().mode();
  if (mode == wl::LoadBalancing::STRICT || mode == wl::LoadBalancing::PASSTHROUGH) {
    return NotSupported("load_balancing.mode " + wl::LoadBalancing::Mode_Name(mode));
  }
  for (const int scope : in.load_balancing().routing_preference()) {
    if (mode != wl::LoadBalancing::FAILOVER) break;
    out->prefers_same_node |= scope == wl::LoadBalancing::NODE;
    out->prefers_same_zone |= scope == wl::LoadBalancing::ZONE;
  }
  for (const wl::Extension& extension : in.extensions()) {
    weft::balance::v1::SessionAffinity affinity;
    if (!extension.config().Is<weft::balance::v1::SessionAffinity>()) continue;
    if (!extension.config().UnpackTo(&affinity)) return Bad("extensions: SessionAffinity");
    if (affinity.client_timeout_seconds() < 1 || affinity.client_timeout_seconds() > 86400) {
      return Bad("extensions: client_timeout_seconds: 1 to 86400");
    }
    out->affinity_s = affinity.client_timeout_seconds();
  }
  return absl::OkStatus();
}

absl::Status DecodeIdentity(const std::string& in, std::string* out) {
  if (!in.starts_with("spiffe://") || in.size() > 2048) return Bad("is not a SPIFFE id");
  *out = in;
  return absl::OkStatus();
}

}  // namespace

absl::Status DecodeIp(const std::string& bytes, IpAddress* out) {
  const auto ip =
      IpAddress::FromBytes({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
  if (!ip) return Bad("an address of " + std::to_string(bytes.size()) + " bytes");
  *out = *ip;
  return absl::OkStatus();
}

absl::Status DecodePort(uint32_t in, uint16_t* out) {
  if (in > 65535) return Bad("port " + std::to_string(in));
  *out = static_cast<uint16_t>(in);
  return absl::OkStatus();
}

absl::Status DecodeWorkload(const wl::Workload& in, model::Workload* out) {
  if (in.uid().empty()) return Bad("uid: missing");
  if (in.has_waypoint()) return NotSupported("waypoint");
  if (in.has_network_gateway()) return NotSupported("network_gateway");
  WEFT_RETURN_IF_ERROR(OnlyUnknown(in, {26 /* extensions */}));
  WEFT_FIELD("namespace", CheckSegment(in.namespace_()));
  if (in.service_account().find('/') != std::string::npos) {
    return Bad("service_account: must not contain /");
  }
  out->uid = in.uid();
  out->name = in.name();
  out->namespace_name = in.namespace_();
  out->service_account = in.service_account();
  // Istio leaves out its default.
  out->trust_domain = in.trust_domain().empty() ? "cluster.local" : in.trust_domain();
  WEFT_FIELD("trust_domain", CheckSegment(out->trust_domain));
  out->node = in.node();
  out->cluster_id = in.cluster_id();
  out->network = in.network();
  out->canonical_name = in.canonical_name();
  out->canonical_revision = in.canonical_revision();
  out->workload_name = in.workload_name();
  for (int i = 0; i < in.addresses_size(); ++i) {
    WEFT_FIELD(Indexed("addresses", i), DecodeIp(in.addresses(i), &out->addresses.emplace_back()));
  }
  out->hbone = in.tunnel_protocol() == wl::HBONE;
  out->healthy = in.status() == wl::HEALTHY;
  out->host_network = in.network_mode() == wl::HOST_NETWORK;
  out->locality = {in.locality().region(), in.locality().zone(), in.locality().subzone()};
  if (in.has_capacity()) {
    if (in.capacity().value() == 0) return Bad("capacity: must be 1 or more");
    out->capacity = in.capacity().value();
  }
  out->authorization_policies.assign(in.authorization_policies().begin(),
                                     in.authorization_policies().end());
  for (const auto& [key, ports] : in.services()) {
    WEFT_FIELD("services[" + key + "]", DecodePorts(ports.ports(), &out->services[key]));
  }
  return absl::OkStatus();
}

absl::Status DecodeService(const wl::Service& in, model::Service* out) {
  if (in.hostname().empty()) return Bad("hostname: missing");
  WEFT_FIELD("namespace", CheckSegment(in.namespace_()));
  if (in.has_waypoint()) return NotSupported("waypoint");
  WEFT_RETURN_IF_ERROR(DecodeBalancing(in, out));
  WEFT_RETURN_IF_ERROR(
      OnlyUnknown(in, {11 /* canonical */, 12 /* ingress_use_waypoint */, 14 /* visibility */}));
  out->name = in.name();
  out->namespace_name = in.namespace_();
  out->hostname = in.hostname();
  for (int i = 0; i < in.addresses_size(); ++i) {
    const auto& address = in.addresses(i);
    IpAddress& ip = out->addresses.emplace_back();
    WEFT_FIELD(Indexed("addresses", i), DecodeIp(address.address(), &ip));
    if (address.has_length() && address.length() != (ip.is_v4() ? 32u : 128u)) {
      return NotSupported(Indexed("addresses", i) + ": a range of addresses");
    }
  }
  for (int i = 0; i < in.ports_size(); ++i) {
    model::Service::Port& port = out->ports.emplace_back();
    WEFT_FIELD(Indexed("ports", i), DecodePort(in.ports(i).service_port(), &port.service_port));
    WEFT_FIELD(Indexed("ports", i), DecodePort(in.ports(i).target_port(), &port.target_port));
    WEFT_FIELD(Indexed("ports", i), DecodeApp(in.ports(i).app_protocol(), &port.app));
  }
  out->subject_alt_names.assign(in.subject_alt_names().begin(), in.subject_alt_names().end());
  return absl::OkStatus();
}

absl::Status DecodeAuthorization(const sec::Authorization& in, model::Authorization* out) {
  WEFT_FIELD("name", CheckSegment(in.name()));
  if (in.namespace_().find('/') != std::string::npos) return Bad("namespace: must not contain /");
  // What is not understood here could make a rule weaker than it was written.
  WEFT_RETURN_IF_ERROR(NoUnknownFields(in));
  out->name = in.name();
  out->namespace_name = in.namespace_();
  out->dry_run = in.dry_run();
  switch (in.scope()) {
    case sec::GLOBAL:
      out->scope = model::Authorization::Scope::kGlobal;
      break;
    case sec::NAMESPACE:
      out->scope = model::Authorization::Scope::kNamespace;
      break;
    case sec::WORKLOAD_SELECTOR:
      out->scope = model::Authorization::Scope::kWorkload;
      break;
    default:
      return NotSupported("scope " + std::to_string(in.scope()));
  }
  if (in.action() != sec::ALLOW && in.action() != sec::DENY) {
    return NotSupported("action " + std::to_string(in.action()));
  }
  out->action = in.action() == sec::DENY ? model::Authorization::Action::kDeny
                                         : model::Authorization::Action::kAllow;
  for (int g = 0; g < in.groups_size(); ++g) {
    auto& group = out->groups.emplace_back();
    for (int r = 0; r < in.groups(g).rules_size(); ++r) {
      auto& rule = group.emplace_back();
      const auto& matches = in.groups(g).rules(r).matches();
      for (int m = 0; m < matches.size(); ++m) {
        const std::string at =
            Indexed("groups", g) + "." + Indexed("rules", r) + "." + Indexed("matches", m);
        WEFT_FIELD(at, DecodeMatch(matches[m], &rule.emplace_back()));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status DecodeLocalWorkload(const weft::node::v1::LocalWorkload& in,
                                 model::LocalWorkload* out) {
  if (in.uid().empty()) return Bad("uid: missing");
  WEFT_RETURN_IF_ERROR(NoUnknownFields(in));
  out->uid = in.uid();
  out->id = in.id();
  out->generation = in.generation();
  WEFT_FIELD("identity", DecodeIdentity(in.identity(), &out->identity));
  for (int i = 0; i < in.addresses_size(); ++i) {
    WEFT_FIELD(Indexed("addresses", i), DecodeIp(in.addresses(i), &out->addresses.emplace_back()));
  }
  out->namespace_name = in.namespace_();
  out->name = in.name();
  out->tenant = in.tenant();
  out->policy_epoch = in.policy_epoch();
  for (int i = 0; i < in.resolvers_size(); ++i) {
    WEFT_FIELD(Indexed("resolvers", i), DecodeIp(in.resolvers(i), &out->resolvers.emplace_back()));
  }
  return absl::OkStatus();
}

absl::Status DecodeCertificate(const weft::node::v1::Certificate& in, model::Certificate* out) {
  WEFT_FIELD("identity", DecodeIdentity(in.identity(), &out->identity));
  WEFT_RETURN_IF_ERROR(NoUnknownFields(in));
  out->key_id = in.key_id();
  out->chain.assign(in.chain().begin(), in.chain().end());
  if (out->chain.empty()) return Bad("chain: empty");
  out->not_before = in.not_before();
  out->not_after = in.not_after();
  return out->not_before <= out->not_after ? absl::OkStatus() : Bad("not_after: before not_before");
}

absl::Status DecodeTrustBundle(const weft::node::v1::TrustBundle& in, model::TrustBundle* out) {
  WEFT_FIELD("trust_domain", CheckSegment(in.trust_domain()));
  WEFT_RETURN_IF_ERROR(NoUnknownFields(in));
  out->trust_domain = in.trust_domain();
  out->roots.assign(in.roots().begin(), in.roots().end());
  return absl::OkStatus();
}

}  // namespace weft::xds
