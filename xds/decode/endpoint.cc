// SPDX-License-Identifier: Apache-2.0
#include "xds/decode/fields.h"
#include "xds/decode/parts.h"

namespace weft::xds {
namespace {

namespace ep = envoy::config::endpoint::v3;

absl::Status DecodeHealth(envoy::config::core::v3::HealthStatus in, model::HealthStatus* out) {
  using model::HealthStatus;
  switch (in) {
    case envoy::config::core::v3::UNKNOWN:
      *out = HealthStatus::kUnknown;
      return absl::OkStatus();
    case envoy::config::core::v3::HEALTHY:
      *out = HealthStatus::kHealthy;
      return absl::OkStatus();
    case envoy::config::core::v3::UNHEALTHY:
    case envoy::config::core::v3::TIMEOUT:  // the same to Envoy
      *out = HealthStatus::kUnhealthy;
      return absl::OkStatus();
    case envoy::config::core::v3::DRAINING:
      *out = HealthStatus::kDraining;
      return absl::OkStatus();
    case envoy::config::core::v3::DEGRADED:
      *out = HealthStatus::kDegraded;
      return absl::OkStatus();
    default:
      return NotSupported("health_status " + std::to_string(in));
  }
}

// Istio marks an endpoint that is reached by HBONE so that a cluster can pick its transport socket:
// envoy.transport_socket_match {tunnel: "http"}, "h2" in older versions, or several with commas.
// Anything but silence about tunnels is a reason not to send plaintext there.
bool IsMarkedInMesh(const envoy::config::core::v3::Metadata& metadata) {
  const auto match = metadata.filter_metadata().find("envoy.transport_socket_match");
  if (match == metadata.filter_metadata().end()) return false;
  const auto tunnel = match->second.fields().find("tunnel");
  if (tunnel == match->second.fields().end()) return false;
  return !tunnel->second.has_string_value() || !tunnel->second.string_value().empty();
}

absl::Status DecodeEndpoint(const ep::LbEndpoint& in, model::Endpoint* out) {
  // Other metadata selects subsets and transport sockets, which clusters may not ask for.
  WEFT_RETURN_IF_ERROR(
      OnlyFields(in, {"endpoint", "health_status", "metadata", "load_balancing_weight"}));
  WEFT_FIELD("endpoint", OnlyFields(in.endpoint(), {"address", "hostname"}));
  WEFT_FIELD("endpoint.address", DecodeAddress(in.endpoint().address(), &out->address));
  if (out->address.port == 0) return Bad("endpoint.address: port 0");
  out->hostname = in.endpoint().hostname();
  out->in_mesh = IsMarkedInMesh(in.metadata());
  WEFT_RETURN_IF_ERROR(DecodeHealth(in.health_status(), &out->health));
  if (in.has_load_balancing_weight()) {
    if (in.load_balancing_weight().value() == 0) {
      return Bad("load_balancing_weight: must be 1 or more");
    }
    out->weight = in.load_balancing_weight().value();
  }
  return absl::OkStatus();
}

absl::Status DecodeLocality(const ep::LocalityLbEndpoints& in,
                            std::vector<model::Endpoint>* endpoints) {
  // The locality's weight counts only with locality_weighted_lb_config, which clusters may not ask
  // for.
  WEFT_RETURN_IF_ERROR(OnlyFields(
      in, {"locality", "metadata", "lb_endpoints", "load_balancing_weight", "priority"}));
  if (in.priority() > 128) return Bad("priority: more than 128");
  uint64_t sum = 0;
  for (int i = 0; i < in.lb_endpoints_size(); ++i) {
    model::Endpoint endpoint;
    endpoint.priority = in.priority();
    endpoint.locality = {in.locality().region(), in.locality().zone(), in.locality().sub_zone()};
    WEFT_FIELD(Indexed("lb_endpoints", i), DecodeEndpoint(in.lb_endpoints(i), &endpoint));
    sum += endpoint.weight;
    endpoints->push_back(std::move(endpoint));
  }
  if (sum > UINT32_MAX) return Bad("lb_endpoints: the weights sum to more than 4294967295");
  return absl::OkStatus();
}

}  // namespace

absl::Status DecodeEndpoints(const ep::ClusterLoadAssignment& in, model::Endpoints* out) {
  if (in.cluster_name().empty()) return Bad("cluster_name: missing");
  out->cluster = in.cluster_name();
  WEFT_RETURN_IF_ERROR(OnlyFields(in, {"cluster_name", "endpoints", "policy"}));
  WEFT_FIELD("policy", OnlyFields(in.policy(), {"overprovisioning_factor"}));
  if (in.policy().has_overprovisioning_factor() &&
      in.policy().overprovisioning_factor().value() != 140) {
    return NotSupported("policy: an overprovisioning_factor other than 140");
  }
  for (int i = 0; i < in.endpoints_size(); ++i) {
    WEFT_FIELD(Indexed("endpoints", i), DecodeLocality(in.endpoints(i), &out->endpoints));
  }
  return absl::OkStatus();
}

}  // namespace weft::xds
