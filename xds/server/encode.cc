// SPDX-License-Identifier: Apache-2.0
// Clusters, endpoints and Istio's and Weft's types; listeners and routes are in encode_http.cc.
#include "xds/server/encode.h"

#include "envoy/config/cluster/v3/cluster.pb.h"
#include "envoy/config/endpoint/v3/endpoint.pb.h"
#include "envoy/extensions/load_balancing_policies/least_request/v3/least_request.pb.h"
#include "envoy/extensions/transport_sockets/tls/v3/tls.pb.h"
#include "envoy/extensions/upstreams/http/v3/http_protocol_options.pb.h"
#include "xds/server/encode_internal.h"
#include "xds/wire/authorization.pb.h"
#include "xds/wire/balance.pb.h"
#include "xds/wire/node.pb.h"
#include "xds/wire/workload.pb.h"

namespace weft::xds {
namespace {

namespace cl = envoy::config::cluster::v3;
namespace ep = envoy::config::endpoint::v3;
namespace sec = istio::security;
namespace wl = istio::workload;
using envoy::extensions::upstreams::http::v3::HttpProtocolOptions;

envoy::config::core::v3::HealthStatus EncodeHealth(model::HealthStatus in) {
  switch (in) {
    case model::HealthStatus::kUnknown:
      return envoy::config::core::v3::UNKNOWN;
    case model::HealthStatus::kHealthy:
      return envoy::config::core::v3::HEALTHY;
    case model::HealthStatus::kUnhealthy:
      return envoy::config::core::v3::UNHEALTHY;
    case model::HealthStatus::kDraining:
      return envoy::config::core::v3::DRAINING;
    case model::HealthStatus::kDegraded:
      return envoy::config::core::v3::DEGRADED;
  }
  return envoy::config::core::v3::UNKNOWN;
}

// Neighbours of one locality and priority share a group: the order of the endpoints stays.
void EncodeEndpoints(const std::vector<model::Endpoint>& in, ep::ClusterLoadAssignment* out) {
  const model::Endpoint* last = nullptr;
  ep::LocalityLbEndpoints* group = nullptr;
  for (const model::Endpoint& endpoint : in) {
    if (last == nullptr || last->locality != endpoint.locality ||
        last->priority != endpoint.priority) {
      group = out->add_endpoints();
      group->mutable_locality()->set_region(endpoint.locality.region);
      group->mutable_locality()->set_zone(endpoint.locality.zone);
      group->mutable_locality()->set_sub_zone(endpoint.locality.sub_zone);
      group->set_priority(endpoint.priority);
    }
    last = &endpoint;
    ep::LbEndpoint* to = group->add_lb_endpoints();
    EncodeAddress(endpoint.address, to->mutable_endpoint()->mutable_address());
    to->mutable_endpoint()->set_hostname(endpoint.hostname);
    to->set_health_status(EncodeHealth(endpoint.health));
    to->mutable_load_balancing_weight()->set_value(endpoint.weight);
    if (endpoint.in_mesh) {  // as Istio marks what is reached by HBONE
      auto& match =
          (*to->mutable_metadata()->mutable_filter_metadata())["envoy.transport_socket_match"];
      (*match.mutable_fields())["tunnel"].set_string_value("http");
    }
  }
}

void EncodeBreaker(const model::CircuitBreaker& in, cl::Cluster* out) {
  auto* to = out->mutable_circuit_breakers()->add_thresholds();
  to->mutable_max_connections()->set_value(in.max_connections);
  to->mutable_max_pending_requests()->set_value(in.max_pending_requests);
  to->mutable_max_requests()->set_value(in.max_requests);
  to->mutable_max_retries()->set_value(in.max_retries);
  if (!in.budget) return;
  to->mutable_retry_budget()->mutable_budget_percent()->set_value(in.budget->percent);
  to->mutable_retry_budget()->mutable_min_retry_concurrency()->set_value(
      in.budget->min_concurrency);
}

void EncodeOutlier(const model::OutlierDetection& in, cl::OutlierDetection* out) {
  out->mutable_consecutive_5xx()->set_value(in.consecutive_5xx);
  out->mutable_enforcing_consecutive_5xx()->set_value(in.enforcing_consecutive_5xx_percent);
  out->mutable_enforcing_success_rate()->set_value(0);
  out->mutable_max_ejection_percent()->set_value(in.max_ejection_percent);
  EncodeDuration(in.interval, out->mutable_interval());
  EncodeDuration(in.base_ejection_time, out->mutable_base_ejection_time());
  EncodeDuration(in.max_ejection_time, out->mutable_max_ejection_time());
}

void EncodeBalancer(const model::Cluster& in, cl::Cluster* out) {
  switch (in.lb) {
    case model::LbPolicy::kRoundRobin:
      out->set_lb_policy(cl::Cluster::ROUND_ROBIN);
      break;
    case model::LbPolicy::kLeastRequest:
      out->set_lb_policy(cl::Cluster::LEAST_REQUEST);
      break;
    case model::LbPolicy::kRandom:
      out->set_lb_policy(cl::Cluster::RANDOM);
      break;
    case model::LbPolicy::kMaglev:
      out->set_lb_policy(cl::Cluster::MAGLEV);
      break;
    case model::LbPolicy::kOriginalDst:
      out->set_lb_policy(cl::Cluster::CLUSTER_PROVIDED);
      break;
  }
  if (in.least_request_choices != model::Cluster().least_request_choices) {
    out->mutable_least_request_lb_config()->mutable_choice_count()->set_value(
        in.least_request_choices);
  }
}

void EncodeHttpOptions(const model::Cluster& in, cl::Cluster* out) {
  if (in.http == model::HttpVersion::kHttp1 && in.max_requests_per_connection == 0) return;
  HttpProtocolOptions options;
  switch (in.http) {
    case model::HttpVersion::kHttp1:
      options.mutable_explicit_http_config()->mutable_http_protocol_options();
      break;
    case model::HttpVersion::kHttp2:
      options.mutable_explicit_http_config()->mutable_http2_protocol_options();
      break;
    case model::HttpVersion::kSameAsDownstream:
      options.mutable_use_downstream_protocol_config()->mutable_http_protocol_options();
      options.mutable_use_downstream_protocol_config()->mutable_http2_protocol_options();
      break;
  }
  if (in.max_requests_per_connection > 0) {
    options.mutable_common_http_protocol_options()
        ->mutable_max_requests_per_connection()
        ->set_value(in.max_requests_per_connection);
  }
  Pack(options,
       &(*out->mutable_typed_extension_protocol_options())[options.GetDescriptor()->full_name()]);
}

void EncodeTls(const model::UpstreamTls& in, envoy::config::core::v3::TransportSocket* out) {
  envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext tls;
  tls.set_sni(in.sni);
  auto* secret = tls.mutable_common_tls_context()->mutable_validation_context_sds_secret_config();
  secret->set_name(in.validation_context);
  EncodeAds(secret->mutable_sds_config());
  out->set_name("envoy.transport_sockets.tls");
  Pack(tls, out->mutable_typed_config());
}

void EncodePort(uint32_t service, uint32_t target, wl::Port* out) {
  out->set_service_port(service);
  out->set_target_port(target);
}

using Texts = google::protobuf::RepeatedPtrField<sec::StringMatch>;
void EncodeTexts(const std::vector<model::Authorization::Text>& in, Texts* out) {
  using Kind = model::Authorization::Text::Kind;
  for (const auto& text : in) {
    sec::StringMatch* to = out->Add();
    switch (text.kind) {
      case Kind::kExact:
        to->set_exact(text.value);
        break;
      case Kind::kPrefix:
        to->set_prefix(text.value);
        break;
      case Kind::kSuffix:
        to->set_suffix(text.value);
        break;
      case Kind::kPresence:
        to->mutable_presence();
        break;
    }
  }
}

using Accounts = google::protobuf::RepeatedPtrField<sec::ServiceAccountMatch>;
void EncodeAccounts(const std::vector<model::Authorization::ServiceAccount>& in, Accounts* out) {
  for (const auto& account : in) {
    sec::ServiceAccountMatch* to = out->Add();
    to->set_namespace_(account.namespace_name);
    to->set_serviceaccount(account.name);
  }
}

using Prefixes = google::protobuf::RepeatedPtrField<sec::Address>;
void EncodePrefixes(const std::vector<model::Authorization::Prefix>& in, Prefixes* out) {
  for (const auto& prefix : in) {
    sec::Address* to = out->Add();
    to->set_address(IpBytes(prefix.address));
    to->set_length(prefix.length);
  }
}

void EncodeMatch(const model::Authorization::Match& in, sec::Match* out) {
  EncodeTexts(in.namespaces, out->mutable_namespaces());
  EncodeTexts(in.not_namespaces, out->mutable_not_namespaces());
  EncodeTexts(in.principals, out->mutable_principals());
  EncodeTexts(in.not_principals, out->mutable_not_principals());
  EncodeAccounts(in.service_accounts, out->mutable_service_accounts());
  EncodeAccounts(in.not_service_accounts, out->mutable_not_service_accounts());
  EncodePrefixes(in.source_ips, out->mutable_source_ips());
  EncodePrefixes(in.not_source_ips, out->mutable_not_source_ips());
  EncodePrefixes(in.destination_ips, out->mutable_destination_ips());
  EncodePrefixes(in.not_destination_ips, out->mutable_not_destination_ips());
  for (uint32_t port : in.destination_ports) out->add_destination_ports(port);
  for (uint32_t port : in.not_destination_ports) out->add_not_destination_ports(port);
}

wl::AppProtocol EncodeApp(model::Service::Port::App in) {
  using App = model::Service::Port::App;
  switch (in) {
    case App::kUnknown:
      return wl::UNKNOWN;
    case App::kHttp1:
      return wl::HTTP11;
    case App::kHttp2:
      return wl::HTTP2;
    case App::kGrpc:
      return wl::GRPC;
    case App::kTcp:
      return wl::TCP;
    case App::kTls:
      return wl::TLS;
  }
  return wl::UNKNOWN;
}

}  // namespace

Encoded Encode(const model::Cluster& in) {
  cl::Cluster out;
  out.set_name(in.name);
  switch (in.type) {
    case model::DiscoveryType::kStatic:
      out.set_type(cl::Cluster::STATIC);
      out.mutable_load_assignment()->set_cluster_name(in.name);
      EncodeEndpoints(in.endpoints, out.mutable_load_assignment());
      break;
    case model::DiscoveryType::kEds:
      out.set_type(cl::Cluster::EDS);
      EncodeAds(out.mutable_eds_cluster_config()->mutable_eds_config());
      if (in.eds_name != in.name) out.mutable_eds_cluster_config()->set_service_name(in.eds_name);
      break;
    case model::DiscoveryType::kOriginalDst:
      out.set_type(cl::Cluster::ORIGINAL_DST);
      break;
  }
  EncodeBalancer(in, &out);
  EncodeDuration(in.connect_timeout, out.mutable_connect_timeout());
  EncodeBreaker(in.breaker, &out);
  if (in.outlier) EncodeOutlier(*in.outlier, out.mutable_outlier_detection());
  if (in.panic_threshold_percent != model::Cluster().panic_threshold_percent) {
    out.mutable_common_lb_config()->mutable_healthy_panic_threshold()->set_value(
        in.panic_threshold_percent);
  }
  EncodeHttpOptions(in, &out);
  if (in.tls) EncodeTls(*in.tls, out.mutable_transport_socket());
  return {std::string(kClusterType), in.name, Serialize(out)};
}

Encoded Encode(const model::Endpoints& in) {
  ep::ClusterLoadAssignment out;
  out.set_cluster_name(in.cluster);
  EncodeEndpoints(in.endpoints, &out);
  return {std::string(kEndpointsType), in.cluster, Serialize(out)};
}

Encoded Encode(const model::Workload& in) {
  wl::Address address;
  wl::Workload& out = *address.mutable_workload();
  out.set_uid(in.uid);
  out.set_name(in.name);
  out.set_namespace_(in.namespace_name);
  out.set_service_account(in.service_account);
  out.set_trust_domain(in.trust_domain);
  out.set_node(in.node);
  out.set_cluster_id(in.cluster_id);
  out.set_network(in.network);
  out.set_canonical_name(in.canonical_name);
  out.set_canonical_revision(in.canonical_revision);
  out.set_workload_name(in.workload_name);
  out.set_workload_type(wl::POD);
  for (const IpAddress& ip : in.addresses) out.add_addresses(IpBytes(ip));
  out.set_tunnel_protocol(in.hbone ? wl::HBONE : wl::NONE);
  out.set_status(in.healthy ? wl::HEALTHY : wl::UNHEALTHY);
  out.set_network_mode(in.host_network ? wl::HOST_NETWORK : wl::STANDARD);
  if (in.locality != model::Locality()) {
    out.mutable_locality()->set_region(in.locality.region);
    out.mutable_locality()->set_zone(in.locality.zone);
    out.mutable_locality()->set_subzone(in.locality.sub_zone);
  }
  if (in.capacity != 1) out.mutable_capacity()->set_value(in.capacity);
  for (const std::string& name : in.authorization_policies) out.add_authorization_policies(name);
  for (const auto& [key, ports] : in.services) {
    wl::PortList& to = (*out.mutable_services())[key];
    for (const auto& port : ports) EncodePort(port.service_port, port.target_port, to.add_ports());
  }
  return {std::string(kAddressType), in.uid, Serialize(address)};
}

// As istiod says trafficDistribution.
void EncodeBalancing(const model::Service& in, wl::Service* out) {
  if (in.prefers_same_node || in.prefers_same_zone) {
    wl::LoadBalancing& to = *out->mutable_load_balancing();
    to.set_mode(wl::LoadBalancing::FAILOVER);
    if (in.prefers_same_zone) {
      to.add_routing_preference(wl::LoadBalancing::NETWORK);
      to.add_routing_preference(wl::LoadBalancing::REGION);
      to.add_routing_preference(wl::LoadBalancing::ZONE);
    }
    if (in.prefers_same_node) to.add_routing_preference(wl::LoadBalancing::NODE);
  }
  if (in.affinity_s == 0) return;
  weft::balance::v1::SessionAffinity affinity;
  affinity.set_client_timeout_seconds(in.affinity_s);
  wl::Extension& extension = *out->add_extensions();
  extension.set_name("weft.dev/session-affinity");
  extension.mutable_config()->PackFrom(affinity);
}

Encoded Encode(const model::Service& in) {
  wl::Address address;
  wl::Service& out = *address.mutable_service();
  out.set_name(in.name);
  out.set_namespace_(in.namespace_name);
  out.set_hostname(in.hostname);
  for (const IpAddress& ip : in.addresses) out.add_addresses()->set_address(IpBytes(ip));
  for (const auto& port : in.ports) {
    wl::Port* to = out.add_ports();
    EncodePort(port.service_port, port.target_port, to);
    to->set_app_protocol(EncodeApp(port.app));
  }
  for (const std::string& name : in.subject_alt_names) out.add_subject_alt_names(name);
  EncodeBalancing(in, &out);
  return {std::string(kAddressType), in.Key(), Serialize(address)};
}

Encoded Encode(const model::Authorization& in) {
  sec::Authorization out;
  out.set_name(in.name);
  out.set_namespace_(in.namespace_name);
  switch (in.scope) {
    case model::Authorization::Scope::kGlobal:
      out.set_scope(sec::GLOBAL);
      break;
    case model::Authorization::Scope::kNamespace:
      out.set_scope(sec::NAMESPACE);
      break;
    case model::Authorization::Scope::kWorkload:
      out.set_scope(sec::WORKLOAD_SELECTOR);
      break;
  }
  out.set_action(in.action == model::Authorization::Action::kDeny ? sec::DENY : sec::ALLOW);
  out.set_dry_run(in.dry_run);
  for (const auto& group : in.groups) {
    sec::Group* to_group = out.add_groups();
    for (const auto& rule : group) {
      sec::Rules* to_rule = to_group->add_rules();
      for (const auto& match : rule) EncodeMatch(match, to_rule->add_matches());
    }
  }
  return {std::string(kAuthorizationType), in.Key(), Serialize(out)};
}

Encoded Encode(const model::LocalWorkload& in) {
  weft::node::v1::LocalWorkload out;
  out.set_uid(in.uid);
  out.set_id(in.id);
  out.set_generation(in.generation);
  out.set_identity(in.identity);
  for (const IpAddress& ip : in.addresses) out.add_addresses(IpBytes(ip));
  out.set_namespace_(in.namespace_name);
  out.set_name(in.name);
  out.set_tenant(in.tenant);
  out.set_policy_epoch(in.policy_epoch);
  for (const IpAddress& ip : in.resolvers) out.add_resolvers(IpBytes(ip));
  return {std::string(kLocalWorkloadType), in.uid, Serialize(out)};
}

Encoded Encode(const model::Certificate& in) {
  weft::node::v1::Certificate out;
  out.set_identity(in.identity);
  out.set_key_id(in.key_id);
  for (const std::string& der : in.chain) out.add_chain(der);
  out.set_not_before(in.not_before);
  out.set_not_after(in.not_after);
  return {std::string(kCertificateType), in.identity, Serialize(out)};
}

Encoded Encode(const model::TrustBundle& in) {
  weft::node::v1::TrustBundle out;
  out.set_trust_domain(in.trust_domain);
  for (const std::string& der : in.roots) out.add_roots(der);
  return {std::string(kTrustBundleType), in.trust_domain, Serialize(out)};
}

}  // namespace weft::xds
