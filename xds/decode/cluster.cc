// SPDX-License-Identifier: Apache-2.0
#include "envoy/extensions/load_balancing_policies/least_request/v3/least_request.pb.h"
#include "envoy/extensions/load_balancing_policies/round_robin/v3/round_robin.pb.h"
#include "envoy/extensions/transport_sockets/tls/v3/tls.pb.h"
#include "envoy/extensions/upstreams/http/v3/http_protocol_options.pb.h"
#include "xds/decode/fields.h"
#include "xds/decode/parts.h"

namespace weft::xds {
namespace {

using ClusterProto = envoy::config::cluster::v3::Cluster;
using OutlierProto = envoy::config::cluster::v3::OutlierDetection;
using Thresholds = envoy::config::cluster::v3::CircuitBreakers::Thresholds;
namespace lb = envoy::extensions::load_balancing_policies;

constexpr std::string_view kHttpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
// Its class is not among the generated ones; the message has no field that Weft supports.
constexpr std::string_view kRandomPolicy =
    "envoy.extensions.load_balancing_policies.random.v3.Random";

absl::Status DecodeThresholds(const Thresholds& in, model::CircuitBreaker* out) {
  if (in.priority() != envoy::config::core::v3::DEFAULT) {
    return NotSupported("priority " + envoy::config::core::v3::RoutingPriority_Name(in.priority()));
  }
  WEFT_RETURN_IF_ERROR(OnlyFields(in, {"max_connections", "max_pending_requests", "max_requests",
                                       "max_retries", "retry_budget", "track_remaining"}));
  if (in.has_max_connections()) out->max_connections = in.max_connections().value();
  if (in.has_max_pending_requests()) out->max_pending_requests = in.max_pending_requests().value();
  if (in.has_max_requests()) out->max_requests = in.max_requests().value();
  if (in.has_max_retries()) out->max_retries = in.max_retries().value();
  if (!in.has_retry_budget()) return absl::OkStatus();
  const auto& budget = in.retry_budget();
  WEFT_FIELD("retry_budget", OnlyFields(budget, {"budget_percent", "min_retry_concurrency"}));
  out->budget.emplace();
  if (budget.has_budget_percent()) out->budget->percent = budget.budget_percent().value();
  if (!(out->budget->percent >= 0 && out->budget->percent <= 100)) {
    return Bad("retry_budget.budget_percent: must be 0 to 100");
  }
  if (budget.has_min_retry_concurrency()) {
    out->budget->min_concurrency = budget.min_retry_concurrency().value();
  }
  return absl::OkStatus();
}

absl::Status DecodeBreakers(const envoy::config::cluster::v3::CircuitBreakers& in,
                            model::CircuitBreaker* out) {
  WEFT_RETURN_IF_ERROR(OnlyFields(in, {"thresholds"}));
  for (int i = 0; i < in.thresholds_size(); ++i) {
    WEFT_FIELD(Indexed("thresholds", i), DecodeThresholds(in.thresholds(i), out));
    if (i > 0) return Bad(Indexed("thresholds", i) + ": priority DEFAULT is there twice");
  }
  return absl::OkStatus();
}

absl::Status Percent(const google::protobuf::UInt32Value& in, uint32_t* out) {
  if (in.value() > 100) return Bad("must be 0 to 100");
  *out = in.value();
  return absl::OkStatus();
}

// The ways of ejection that Weft does not have must be off. Success rate is on by default in Envoy:
// not mentioned, it stays off here; its own settings ask for it.
absl::Status CheckOtherEjections(const OutlierProto& in) {
  if (in.enforcing_success_rate().value() > 0) return NotSupported("enforcing_success_rate");
  const bool success_rate = in.has_success_rate_minimum_hosts() ||
                            in.has_success_rate_request_volume() ||
                            in.has_success_rate_stdev_factor();
  if (success_rate && !in.has_enforcing_success_rate()) {
    return Bad("enforcing_success_rate: must be 0, ejection by success rate is not supported");
  }
  if (in.enforcing_consecutive_gateway_failure().value() > 0) {
    return NotSupported("enforcing_consecutive_gateway_failure");
  }
  if (in.enforcing_failure_percentage().value() > 0) {
    return NotSupported("enforcing_failure_percentage");
  }
  // The local-origin fields count only with the split, which is not accepted.
  return OnlyFields(in, {"consecutive_5xx",
                         "interval",
                         "base_ejection_time",
                         "max_ejection_time",
                         "max_ejection_percent",
                         "enforcing_consecutive_5xx",
                         "enforcing_success_rate",
                         "success_rate_minimum_hosts",
                         "success_rate_request_volume",
                         "success_rate_stdev_factor",
                         "consecutive_gateway_failure",
                         "enforcing_consecutive_gateway_failure",
                         "consecutive_local_origin_failure",
                         "enforcing_consecutive_local_origin_failure",
                         "enforcing_local_origin_success_rate",
                         "failure_percentage_threshold",
                         "enforcing_failure_percentage",
                         "enforcing_failure_percentage_local_origin",
                         "failure_percentage_minimum_hosts",
                         "failure_percentage_request_volume",
                         "successful_active_health_check_uneject_host",
                         "always_eject_one_host"});
}

absl::Status DecodeOutlier(const OutlierProto& in, model::OutlierDetection* out) {
  WEFT_RETURN_IF_ERROR(CheckOtherEjections(in));
  if (in.has_consecutive_5xx()) out->consecutive_5xx = in.consecutive_5xx().value();
  if (in.has_enforcing_consecutive_5xx()) {
    WEFT_FIELD("enforcing_consecutive_5xx",
               Percent(in.enforcing_consecutive_5xx(), &out->enforcing_consecutive_5xx_percent));
  }
  if (in.has_max_ejection_percent()) {
    WEFT_FIELD("max_ejection_percent",
               Percent(in.max_ejection_percent(), &out->max_ejection_percent));
  }
  if (in.has_interval()) WEFT_FIELD("interval", DecodePositive(in.interval(), &out->interval));
  if (in.has_base_ejection_time()) {
    WEFT_FIELD("base_ejection_time",
               DecodePositive(in.base_ejection_time(), &out->base_ejection_time));
  }
  if (in.has_max_ejection_time()) {
    WEFT_FIELD("max_ejection_time",
               DecodePositive(in.max_ejection_time(), &out->max_ejection_time));
  }
  out->max_ejection_time = std::max(out->max_ejection_time, out->base_ejection_time);
  return absl::OkStatus();
}

absl::Status CheckBias(bool present, double bias) {
  return !present || bias == 1.0 ? absl::OkStatus() : NotSupported("active_request_bias");
}

absl::Status DecodeChoices(const google::protobuf::UInt32Value& in, uint32_t* out) {
  if (in.value() < 2) return Bad("choice_count: must be 2 or more");
  *out = in.value();
  return absl::OkStatus();
}

absl::Status DecodeLeastRequest(const google::protobuf::Any& config, model::Cluster* out) {
  lb::least_request::v3::LeastRequest in;
  WEFT_RETURN_IF_ERROR(Unpack(config, &in));
  WEFT_RETURN_IF_ERROR(OnlyFields(in, {"choice_count", "active_request_bias"}));
  WEFT_RETURN_IF_ERROR(
      CheckBias(in.has_active_request_bias(), in.active_request_bias().default_value()));
  if (in.has_choice_count()) {
    WEFT_RETURN_IF_ERROR(DecodeChoices(in.choice_count(), &out->least_request_choices));
  }
  out->lb = model::LbPolicy::kLeastRequest;
  return absl::OkStatus();
}

// The first policy of the list that is known counts; its settings must be.
absl::Status DecodePolicyList(const envoy::config::cluster::v3::LoadBalancingPolicy& in,
                              model::Cluster* out) {
  std::string seen;
  for (int i = 0; i < in.policies_size(); ++i) {
    const auto& extension = in.policies(i).typed_extension_config();
    const google::protobuf::Any& config = extension.typed_config();
    const std::string at = Indexed("policies", i) + " " + extension.name();
    const std::string_view type = TypeName(config);
    if (type == lb::least_request::v3::LeastRequest::descriptor()->full_name()) {
      return Annotate(DecodeLeastRequest(config, out), at);
    }
    if (type == lb::round_robin::v3::RoundRobin::descriptor()->full_name()) {
      lb::round_robin::v3::RoundRobin round_robin;
      WEFT_FIELD(at, Unpack(config, &round_robin));
      out->lb = model::LbPolicy::kRoundRobin;
      return Annotate(OnlyFields(round_robin, {}), at);
    }
    if (type == kRandomPolicy) {
      if (!config.value().empty()) return Bad(at + ": settings are not supported");
      out->lb = model::LbPolicy::kRandom;
      return absl::OkStatus();
    }
    seen += (seen.empty() ? "" : ", ") + std::string(type);
  }
  return Bad("none of the policies is supported: " + (seen.empty() ? "(none)" : seen));
}

absl::Status DecodeBalancer(const ClusterProto& in, model::Cluster* out) {
  if (in.has_load_balancing_policy()) {
    return Annotate(DecodePolicyList(in.load_balancing_policy(), out), "load_balancing_policy");
  }
  switch (in.lb_policy()) {
    case ClusterProto::ROUND_ROBIN:
      out->lb = model::LbPolicy::kRoundRobin;
      break;
    case ClusterProto::LEAST_REQUEST:
      out->lb = model::LbPolicy::kLeastRequest;
      break;
    case ClusterProto::RANDOM:
      out->lb = model::LbPolicy::kRandom;
      break;
    case ClusterProto::MAGLEV:
      out->lb = model::LbPolicy::kMaglev;
      break;
    case ClusterProto::CLUSTER_PROVIDED:
      if (in.type() != ClusterProto::ORIGINAL_DST) {
        return Bad("lb_policy: CLUSTER_PROVIDED needs type ORIGINAL_DST");
      }
      break;
    default:
      return NotSupported("lb_policy: " + ClusterProto::LbPolicy_Name(in.lb_policy()));
  }
  if (in.has_round_robin_lb_config()) {
    WEFT_FIELD("round_robin_lb_config", OnlyFields(in.round_robin_lb_config(), {}));
  }
  if (in.has_least_request_lb_config()) {
    const auto& config = in.least_request_lb_config();
    WEFT_FIELD("least_request_lb_config",
               OnlyFields(config, {"choice_count", "active_request_bias"}));
    WEFT_FIELD("least_request_lb_config", CheckBias(config.has_active_request_bias(),
                                                    config.active_request_bias().default_value()));
    if (config.has_choice_count()) {
      WEFT_FIELD("least_request_lb_config",
                 DecodeChoices(config.choice_count(), &out->least_request_choices));
    }
  }
  return absl::OkStatus();
}

absl::Status DecodeHttpOptions(const google::protobuf::Any& any, model::Cluster* out) {
  envoy::extensions::upstreams::http::v3::HttpProtocolOptions in;
  WEFT_RETURN_IF_ERROR(Unpack(any, &in));
  WEFT_RETURN_IF_ERROR(OnlyFields(in, {"common_http_protocol_options", "explicit_http_config",
                                       "use_downstream_protocol_config"}));
  if (in.has_common_http_protocol_options()) {
    const auto& common = in.common_http_protocol_options();
    WEFT_FIELD("common_http_protocol_options", OnlyFields(common, {"max_requests_per_connection"}));
    out->max_requests_per_connection = common.max_requests_per_connection().value();
  }
  if (in.has_use_downstream_protocol_config()) {
    const auto& config = in.use_downstream_protocol_config();
    WEFT_FIELD("use_downstream_protocol_config",
               OnlyFields(config, {"http_protocol_options", "http2_protocol_options"}));
    WEFT_FIELD("http_protocol_options", OnlyFields(config.http_protocol_options(), {}));
    WEFT_FIELD("http2_protocol_options", OnlyFields(config.http2_protocol_options(), {}));
    out->http = model::HttpVersion::kSameAsDownstream;
    return absl::OkStatus();
  }
  if (!in.has_explicit_http_config()) return Bad("explicit_http_config: missing");
  const auto& config = in.explicit_http_config();
  WEFT_FIELD("explicit_http_config",
             OnlyFields(config, {"http_protocol_options", "http2_protocol_options"}));
  if (config.has_http2_protocol_options()) {
    WEFT_FIELD("explicit_http_config.http2_protocol_options",
               OnlyFields(config.http2_protocol_options(), {}));
    out->http = model::HttpVersion::kHttp2;
  } else {
    WEFT_FIELD("explicit_http_config.http_protocol_options",
               OnlyFields(config.http_protocol_options(), {}));
  }
  return absl::OkStatus();
}

absl::Status DecodeTls(const google::protobuf::Any& any, model::UpstreamTls* out) {
  envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext in;
  WEFT_RETURN_IF_ERROR(Unpack(any, &in));
  WEFT_RETURN_IF_ERROR(OnlyFields(in, {"sni", "common_tls_context"}));
  const auto& common = in.common_tls_context();
  WEFT_FIELD("common_tls_context", OnlyFields(common, {"validation_context_sds_secret_config"}));
  const auto& secret = common.validation_context_sds_secret_config();
  WEFT_FIELD("common_tls_context.validation_context_sds_secret_config",
             OnlyFields(secret, {"name", "sds_config"}));
  if (secret.name().empty()) {
    return Bad(
        "common_tls_context.validation_context_sds_secret_config: TLS without verification "
        "is not supported");
  }
  WEFT_FIELD("common_tls_context.validation_context_sds_secret_config.sds_config",
             CheckConfigSource(secret.sds_config()));
  // Without a name Envoy would take any certificate that the CA ever signed.
  if (in.sni().empty()) return Bad("sni: TLS to nobody in particular is not supported");
  out->sni = in.sni();
  out->validation_context = secret.name();
  return absl::OkStatus();
}

absl::Status DecodeTransport(const envoy::config::core::v3::TransportSocket& in,
                             model::Cluster* out) {
  if (TypeName(in.typed_config()) == "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer") {
    return absl::OkStatus();
  }
  return DecodeTls(in.typed_config(), &out->tls.emplace());
}

absl::Status DecodeCommonLb(const ClusterProto::CommonLbConfig& in, model::Cluster* out) {
  WEFT_RETURN_IF_ERROR(OnlyFields(in, {"healthy_panic_threshold"}));
  if (!in.has_healthy_panic_threshold()) return absl::OkStatus();
  const double percent = in.healthy_panic_threshold().value();
  if (!(percent >= 0 && percent <= 100)) return Bad("healthy_panic_threshold: must be 0 to 100");
  out->panic_threshold_percent = static_cast<uint32_t>(percent);
  return absl::OkStatus();
}

absl::Status DecodeDiscovery(const ClusterProto& in, model::Cluster* out) {
  if (in.has_load_assignment() && in.type() != ClusterProto::STATIC) {
    return Bad("load_assignment: only a STATIC cluster has one");
  }
  if (in.has_eds_cluster_config() && in.type() != ClusterProto::EDS) {
    return Bad("eds_cluster_config: only an EDS cluster has one");
  }
  switch (in.type()) {
    case ClusterProto::STATIC: {
      out->type = model::DiscoveryType::kStatic;
      if (!in.has_load_assignment()) return Bad("load_assignment: missing");
      model::Endpoints endpoints;
      WEFT_FIELD("load_assignment", DecodeEndpoints(in.load_assignment(), &endpoints));
      out->endpoints = std::move(endpoints.endpoints);
      return absl::OkStatus();
    }
    case ClusterProto::EDS: {
      out->type = model::DiscoveryType::kEds;
      const auto& config = in.eds_cluster_config();
      WEFT_FIELD("eds_cluster_config", OnlyFields(config, {"eds_config", "service_name"}));
      WEFT_FIELD("eds_cluster_config.eds_config", CheckConfigSource(config.eds_config()));
      out->eds_name = config.service_name().empty() ? in.name() : config.service_name();
      return absl::OkStatus();
    }
    case ClusterProto::ORIGINAL_DST:
      out->type = model::DiscoveryType::kOriginalDst;
      out->lb = model::LbPolicy::kOriginalDst;
      if (in.lb_policy() != ClusterProto::CLUSTER_PROVIDED) {
        return Bad("lb_policy: an ORIGINAL_DST cluster needs CLUSTER_PROVIDED");
      }
      return absl::OkStatus();
    default:
      return NotSupported("type: " + ClusterProto::DiscoveryType_Name(in.type()));
  }
}

}  // namespace

absl::Status DecodeCluster(const ClusterProto& in, model::Cluster* out) {
  if (in.name().empty()) return Bad("name: missing");
  out->name = in.name();
  // Names and metadata are for people and for features that are refused; the DNS family is for
  // clusters that are.
  WEFT_RETURN_IF_ERROR(OnlyFields(
      in,
      {"name", "alt_stat_name", "metadata", "dns_lookup_family", "type", "eds_cluster_config",
       "connect_timeout", "lb_policy", "load_assignment", "circuit_breakers",
       "max_requests_per_connection", "http2_protocol_options", "typed_extension_protocol_options",
       "outlier_detection", "common_lb_config", "transport_socket", "load_balancing_policy",
       "least_request_lb_config", "round_robin_lb_config"}));
  WEFT_RETURN_IF_ERROR(DecodeDiscovery(in, out));
  WEFT_RETURN_IF_ERROR(DecodeBalancer(in, out));
  if (in.has_connect_timeout()) {
    WEFT_FIELD("connect_timeout", DecodePositive(in.connect_timeout(), &out->connect_timeout));
  }
  WEFT_FIELD("circuit_breakers", DecodeBreakers(in.circuit_breakers(), &out->breaker));
  if (in.has_outlier_detection()) {
    WEFT_FIELD("outlier_detection", DecodeOutlier(in.outlier_detection(), &out->outlier.emplace()));
  }
  WEFT_FIELD("common_lb_config", DecodeCommonLb(in.common_lb_config(), out));
  out->max_requests_per_connection = in.max_requests_per_connection().value();
  if (in.has_http2_protocol_options()) {
    WEFT_FIELD("http2_protocol_options", OnlyFields(in.http2_protocol_options(), {}));
    out->http = model::HttpVersion::kHttp2;
  }
  for (const auto& [name, options] : in.typed_extension_protocol_options()) {
    const std::string at = "typed_extension_protocol_options[" + name + "]";
    if (name != kHttpOptions) return NotSupported(at);
    WEFT_FIELD(at, DecodeHttpOptions(options, out));
  }
  if (in.has_transport_socket()) {
    WEFT_FIELD("transport_socket", DecodeTransport(in.transport_socket(), out));
  }
  return absl::OkStatus();
}

}  // namespace weft::xds
