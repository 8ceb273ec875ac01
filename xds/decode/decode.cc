// SPDX-License-Identifier: Apache-2.0
#include "xds/decode/decode.h"

#include "xds/decode/fields.h"
#include "xds/decode/parts.h"

namespace weft::xds {
namespace {

template <typename Proto>
absl::Status Parse(std::string_view bytes, Proto* out) {
  if (bytes.size() > INT32_MAX ||
      !out->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return Bad("the bytes do not parse as " + out->GetDescriptor()->full_name());
  }
  return absl::OkStatus();
}

std::string NameOf(const envoy::config::cluster::v3::Cluster& in) { return in.name(); }
std::string NameOf(const envoy::config::endpoint::v3::ClusterLoadAssignment& in) {
  return in.cluster_name();
}
std::string NameOf(const envoy::config::listener::v3::Listener& in) { return in.name(); }
std::string NameOf(const envoy::config::route::v3::RouteConfiguration& in) { return in.name(); }
std::string NameOf(const istio::workload::Address& in) {
  if (in.has_workload()) return in.workload().uid();
  return in.has_service() ? in.service().namespace_() + "/" + in.service().hostname() : "";
}
std::string NameOf(const istio::security::Authorization& in) {
  return in.namespace_() + "/" + in.name();
}
std::string NameOf(const weft::node::v1::LocalWorkload& in) { return in.uid(); }
std::string NameOf(const weft::node::v1::Certificate& in) { return in.identity(); }
std::string NameOf(const weft::node::v1::TrustBundle& in) { return in.trust_domain(); }
std::string NameOf(const weft::policy::v1::NetworkPolicy& in) {
  return in.namespace_() + "/" + in.name();
}
std::string NameOf(const weft::policy::v1::ProcessPolicy& in) {
  return in.namespace_() + "/" + in.name();
}

template <typename Proto>
std::string ReadName(std::string_view bytes) {
  Proto in;
  return Parse(bytes, &in).ok() ? NameOf(in) : std::string();
}

// `fill` decodes Proto into Model; `kind` and the name begin each error.
template <typename Model, typename Proto, typename Fill>
absl::StatusOr<Decoded> Build(std::string_view kind, const std::string& name, const Proto& in,
                              Fill fill) {
  auto out = std::make_shared<Model>();
  WEFT_RETURN_IF_ERROR(
      Annotate(fill(in, out.get()), std::string(kind) + " " + (name.empty() ? "\"\"" : name)));
  return Decoded{name, std::shared_ptr<const Model>(std::move(out))};
}

using Decoder = absl::StatusOr<Decoded> (*)(std::string_view bytes, const DecodeOptions& options);

absl::StatusOr<Decoded> ClusterResource(std::string_view bytes, const DecodeOptions&) {
  envoy::config::cluster::v3::Cluster in;
  WEFT_RETURN_IF_ERROR(Parse(bytes, &in));
  return Build<model::Cluster>("cluster", NameOf(in), in, DecodeCluster);
}

absl::StatusOr<Decoded> EndpointsResource(std::string_view bytes, const DecodeOptions&) {
  envoy::config::endpoint::v3::ClusterLoadAssignment in;
  WEFT_RETURN_IF_ERROR(Parse(bytes, &in));
  return Build<model::Endpoints>("endpoints", NameOf(in), in, DecodeEndpoints);
}

absl::StatusOr<Decoded> ListenerResource(std::string_view bytes, const DecodeOptions& options) {
  envoy::config::listener::v3::Listener in;
  WEFT_RETURN_IF_ERROR(Parse(bytes, &in));
  return Build<model::Listener>(
      "listener", NameOf(in), in,
      [&](const auto& proto, model::Listener* out) { return DecodeListener(proto, options, out); });
}

absl::StatusOr<Decoded> RouteResource(std::string_view bytes, const DecodeOptions& options) {
  envoy::config::route::v3::RouteConfiguration in;
  WEFT_RETURN_IF_ERROR(Parse(bytes, &in));
  if (in.name().empty()) return Bad("routes \"\": name: missing");
  return Build<model::RouteConfiguration>("routes", NameOf(in), in,
                                          [&](const auto& proto, model::RouteConfiguration* out) {
                                            return DecodeRoutes(proto, options, out);
                                          });
}

absl::StatusOr<Decoded> AddressResource(std::string_view bytes, const DecodeOptions&) {
  istio::workload::Address in;
  WEFT_RETURN_IF_ERROR(Parse(bytes, &in));
  if (in.has_workload()) {
    return Build<model::Workload>("workload", NameOf(in), in.workload(), DecodeWorkload);
  }
  if (!in.has_service()) return Bad("address: neither a workload nor a service");
  return Build<model::Service>("service", NameOf(in), in.service(), DecodeService);
}

absl::StatusOr<Decoded> AuthorizationResource(std::string_view bytes, const DecodeOptions&) {
  istio::security::Authorization in;
  WEFT_RETURN_IF_ERROR(Parse(bytes, &in));
  return Build<model::Authorization>("authorization", NameOf(in), in, DecodeAuthorization);
}

absl::StatusOr<Decoded> LocalWorkloadResource(std::string_view bytes, const DecodeOptions&) {
  weft::node::v1::LocalWorkload in;
  WEFT_RETURN_IF_ERROR(Parse(bytes, &in));
  return Build<model::LocalWorkload>("local workload", NameOf(in), in, DecodeLocalWorkload);
}

absl::StatusOr<Decoded> CertificateResource(std::string_view bytes, const DecodeOptions&) {
  weft::node::v1::Certificate in;
  WEFT_RETURN_IF_ERROR(Parse(bytes, &in));
  return Build<model::Certificate>("certificate", NameOf(in), in, DecodeCertificate);
}

absl::StatusOr<Decoded> TrustBundleResource(std::string_view bytes, const DecodeOptions&) {
  weft::node::v1::TrustBundle in;
  WEFT_RETURN_IF_ERROR(Parse(bytes, &in));
  return Build<model::TrustBundle>("trust bundle", NameOf(in), in, DecodeTrustBundle);
}

absl::StatusOr<Decoded> NetworkPolicyResource(std::string_view bytes, const DecodeOptions&) {
  weft::policy::v1::NetworkPolicy in;
  WEFT_RETURN_IF_ERROR(Parse(bytes, &in));
  return Build<model::NetworkPolicy>("network policy", NameOf(in), in, DecodeNetworkPolicy);
}

absl::StatusOr<Decoded> ProcessPolicyResource(std::string_view bytes, const DecodeOptions&) {
  weft::policy::v1::ProcessPolicy in;
  WEFT_RETURN_IF_ERROR(Parse(bytes, &in));
  return Build<model::ProcessPolicy>("process policy", NameOf(in), in, DecodeProcessPolicy);
}

struct Type {
  std::string_view url;
  Decoder decode;
  std::string (*read_name)(std::string_view bytes);
};
constexpr Type kTypes[] = {
    {kClusterType, ClusterResource, ReadName<envoy::config::cluster::v3::Cluster>},
    {kEndpointsType, EndpointsResource,
     ReadName<envoy::config::endpoint::v3::ClusterLoadAssignment>},
    {kListenerType, ListenerResource, ReadName<envoy::config::listener::v3::Listener>},
    {kRouteType, RouteResource, ReadName<envoy::config::route::v3::RouteConfiguration>},
    {kAddressType, AddressResource, ReadName<istio::workload::Address>},
    {kAuthorizationType, AuthorizationResource, ReadName<istio::security::Authorization>},
    {kLocalWorkloadType, LocalWorkloadResource, ReadName<weft::node::v1::LocalWorkload>},
    {kCertificateType, CertificateResource, ReadName<weft::node::v1::Certificate>},
    {kTrustBundleType, TrustBundleResource, ReadName<weft::node::v1::TrustBundle>},
    {kNetworkPolicyType, NetworkPolicyResource, ReadName<weft::policy::v1::NetworkPolicy>},
    {kProcessPolicyType, ProcessPolicyResource, ReadName<weft::policy::v1::ProcessPolicy>},
};

const Type* FindType(std::string_view type_url) {
  for (const Type& type : kTypes) {
    if (type.url == type_url) return &type;
  }
  return nullptr;
}

}  // namespace

absl::StatusOr<Decoded> DecodeResource(std::string_view type_url, std::string_view bytes,
                                       const DecodeOptions& options) {
  const Type* type = FindType(type_url);
  if (type == nullptr) return NotSupported("type " + std::string(type_url));
  return type->decode(bytes, options);
}

std::string ResourceName(std::string_view type_url, std::string_view bytes) {
  const Type* type = FindType(type_url);
  return type == nullptr ? std::string() : type->read_name(bytes);
}

bool IsKnownType(std::string_view type_url) { return FindType(type_url) != nullptr; }

}  // namespace weft::xds
