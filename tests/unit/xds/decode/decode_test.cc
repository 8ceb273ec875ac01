// SPDX-License-Identifier: Apache-2.0
// What a server may send, as protobuf text, and what becomes of it: the model, or the error in its
// exact words.
#include "xds/decode/decode.h"

#include <google/protobuf/text_format.h>

#include <random>

#include "envoy/config/cluster/v3/cluster.pb.h"
#include "envoy/config/endpoint/v3/endpoint.pb.h"
#include "envoy/config/listener/v3/listener.pb.h"
#include "envoy/config/route/v3/route.pb.h"
#include "envoy/extensions/filters/http/router/v3/router.pb.h"
#include "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.pb.h"
#include "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.pb.h"
#include "envoy/extensions/load_balancing_policies/least_request/v3/least_request.pb.h"
#include "envoy/extensions/upstreams/http/v3/http_protocol_options.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proxy/base/status.h"
#include "xds/decode/ca_messages.h"
#include "xds/wire/authorization.pb.h"
#include "xds/wire/node.pb.h"
#include "xds/wire/workload.pb.h"

namespace weft::xds {
namespace {

using testing::HasSubstr;

// Makes the generated classes known to the text parser, which finds them by name in an Any.
void LinkAll() {
  envoy::extensions::filters::http::router::v3::Router::descriptor();
  envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy::descriptor();
  envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest::descriptor();
  envoy::extensions::upstreams::http::v3::HttpProtocolOptions::descriptor();
  envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager::
      descriptor();
}

template <typename Proto>
std::string Bytes(const std::string& text) {
  LinkAll();
  Proto proto;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &proto)) << text;
  return proto.SerializeAsString();
}

template <typename Model>
std::shared_ptr<const Model> As(const absl::StatusOr<Decoded>& decoded) {
  EXPECT_TRUE(decoded.ok()) << decoded.status().ToString();
  if (!decoded.ok()) return std::make_shared<const Model>();
  return std::get<std::shared_ptr<const Model>>(decoded->resource);
}

std::string ErrorOf(const absl::StatusOr<Decoded>& decoded) {
  return decoded.ok() ? "OK" : std::string(StdView(decoded.status().message()));
}

absl::StatusOr<Decoded> Cluster(const std::string& text) {
  return DecodeResource(kClusterType, Bytes<envoy::config::cluster::v3::Cluster>(text));
}
absl::StatusOr<Decoded> Routes(const std::string& text, const DecodeOptions& options = {}) {
  return DecodeResource(kRouteType, Bytes<envoy::config::route::v3::RouteConfiguration>(text),
                        options);
}
absl::StatusOr<Decoded> Listener(const std::string& text, const DecodeOptions& options = {}) {
  return DecodeResource(kListenerType, Bytes<envoy::config::listener::v3::Listener>(text), options);
}
absl::StatusOr<Decoded> Endpoints(const std::string& text) {
  return DecodeResource(kEndpointsType,
                        Bytes<envoy::config::endpoint::v3::ClusterLoadAssignment>(text));
}
absl::StatusOr<Decoded> Policy(const std::string& text) {
  return DecodeResource(kAuthorizationType, Bytes<istio::security::Authorization>(text));
}
absl::StatusOr<Decoded> Address(const std::string& text) {
  return DecodeResource(kAddressType, Bytes<istio::workload::Address>(text));
}

constexpr char kEds[] = R"(name: "web" type: EDS eds_cluster_config { eds_config { ads {} } } )";

TEST(Cluster, DefaultsAreEnvoys) {
  const auto cluster = As<model::Cluster>(Cluster(kEds));
  model::Cluster expected{.name = "web", .type = model::DiscoveryType::kEds, .eds_name = "web"};
  EXPECT_EQ(*cluster, expected);
  EXPECT_EQ(cluster->connect_timeout.count(), 5000);
  EXPECT_EQ(cluster->breaker.max_requests, 1024u);
}

TEST(Cluster, TakesWhatWeftSupports) {
  const auto cluster = As<model::Cluster>(Cluster(std::string(kEds) + R"(
    connect_timeout { seconds: 1 nanos: 500 }
    lb_policy: LEAST_REQUEST least_request_lb_config { choice_count { value: 4 } }
    circuit_breakers { thresholds { max_connections { value: 7 } max_retries { value: 1 }
      retry_budget { budget_percent { value: 12.5 } } } }
    outlier_detection { consecutive_5xx { value: 3 } enforcing_success_rate { value: 0 }
      base_ejection_time { seconds: 600 } }
    common_lb_config { healthy_panic_threshold { value: 0 } }
    typed_extension_protocol_options { key: "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
      value { [type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions] {
        explicit_http_config { http2_protocol_options {} } } } })"));
  EXPECT_EQ(cluster->connect_timeout.count(), 1001) << "rounded up, never to 0";
  EXPECT_EQ(cluster->lb, model::LbPolicy::kLeastRequest);
  EXPECT_EQ(cluster->least_request_choices, 4u);
  EXPECT_EQ(cluster->breaker.max_connections, 7u);
  EXPECT_EQ(cluster->breaker.max_pending_requests, 1024u);
  ASSERT_TRUE(cluster->breaker.budget);
  EXPECT_EQ(cluster->breaker.budget->percent, 12.5);
  EXPECT_EQ(cluster->breaker.budget->min_concurrency, 3u);
  ASSERT_TRUE(cluster->outlier);
  EXPECT_EQ(cluster->outlier->consecutive_5xx, 3u);
  EXPECT_EQ(cluster->outlier->max_ejection_time.count(), 600000) << "not less than the base";
  EXPECT_EQ(cluster->panic_threshold_percent, 0u);
  EXPECT_EQ(cluster->http, model::HttpVersion::kHttp2);
}

TEST(Cluster, TakesTheFirstPolicyOfTheListThatItKnows) {
  const auto cluster = As<model::Cluster>(Cluster(std::string(kEds) + R"(load_balancing_policy {
    policies { typed_extension_config { name: "x" typed_config { type_url: "a/x.Unknown" } } }
    policies { typed_extension_config { name: "lr" typed_config {
      [type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest] {
        choice_count { value: 3 } } } } } })"));
  EXPECT_EQ(cluster->lb, model::LbPolicy::kLeastRequest);
  EXPECT_EQ(cluster->least_request_choices, 3u);
}

TEST(Cluster, RefusalsNameClusterAndField) {
  const std::pair<std::string, std::string> kCases[] = {
      {"", "cluster \"\": name: missing"},
      {R"(name: "a" type: STRICT_DNS)", "cluster a: type: STRICT_DNS is not supported"},
      {R"(name: "a" type: EDS)", "cluster a: eds_cluster_config.eds_config: must be ads or self"},
      {R"(name: "a" type: EDS eds_cluster_config { eds_config { path: "/x" } })",
       "cluster a: eds_cluster_config.eds_config: path is not supported"},
      {R"(name: "a" type: STATIC)", "cluster a: load_assignment: missing"},
      {std::string(kEds) + "lb_policy: RING_HASH",
       "cluster web: lb_policy: RING_HASH is not supported"},
      {std::string(kEds) + "lb_policy: CLUSTER_PROVIDED",
       "cluster web: lb_policy: CLUSTER_PROVIDED needs type ORIGINAL_DST"},
      {std::string(kEds) + "circuit_breakers { thresholds {} thresholds { priority: HIGH } }",
       "cluster web: circuit_breakers: thresholds[1]: priority HIGH is not supported"},
      {std::string(kEds) + "circuit_breakers { thresholds { max_connection_pools { value: 1 } } }",
       "cluster web: circuit_breakers: thresholds[0]: max_connection_pools is not supported"},
      {std::string(kEds) +
           "circuit_breakers { thresholds { retry_budget { budget_percent { value: nan } } } }",
       "cluster web: circuit_breakers: thresholds[0]: retry_budget.budget_percent: must be 0 to "
       "100"},
      {std::string(kEds) +
           "outlier_detection { enforcing_consecutive_gateway_failure { value: 1 } }",
       "cluster web: outlier_detection: enforcing_consecutive_gateway_failure is not supported"},
      {std::string(kEds) + "outlier_detection { split_external_local_origin_errors: true }",
       "cluster web: outlier_detection: split_external_local_origin_errors is not supported"},
      {std::string(kEds) + "outlier_detection { success_rate_minimum_hosts { value: 1 } }",
       "cluster web: outlier_detection: enforcing_success_rate: must be 0, ejection by success "
       "rate is not supported"},
      {std::string(kEds) + "connect_timeout { seconds: -1 }",
       "cluster web: connect_timeout: must be a duration between 0 and ten years"},
      {std::string(kEds) + "connect_timeout {}",
       "cluster web: connect_timeout: must be more than 0"},
      {std::string(kEds) + "health_checks {}", "cluster web: health_checks is not supported"},
      {std::string(kEds) +
           "transport_socket { name: \"tls\" typed_config { type_url: \"t/x.Y\" } }",
       "cluster web: transport_socket: t/x.Y is not supported"},
  };
  for (const auto& [text, error] : kCases) EXPECT_EQ(ErrorOf(Cluster(text)), error) << text;
}

TEST(Cluster, AFieldOfANewerApiIsRefusedByItsNumber) {
  std::string bytes = Bytes<envoy::config::cluster::v3::Cluster>(kEds);
  bytes += std::string("\xb8\x3e\x01", 3);  // field 999 = 1
  EXPECT_EQ(ErrorOf(DecodeResource(kClusterType, bytes)), "cluster web: unknown field number 999");
}

TEST(Cluster, TlsIsToSomebody) {
  const auto tls = [](const std::string& sni) {
    return Cluster(std::string(kEds) + R"(
      transport_socket { name: "tls" typed_config {
        [type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext] { )" +
                   sni + R"( common_tls_context { validation_context_sds_secret_config {
          name: "roots" sds_config { ads {} } } } } } })");
  };
  EXPECT_EQ(As<model::Cluster>(tls("sni: \"web.example\""))->tls,
            (model::UpstreamTls{"web.example", "roots"}));
  EXPECT_THAT(ErrorOf(tls("")), HasSubstr("sni: TLS to nobody in particular is not supported"));
}

TEST(Endpoints, TakesLocalitiesWeightsPrioritiesHealth) {
  const auto endpoints = As<model::Endpoints>(Endpoints(R"(cluster_name: "web"
    endpoints { locality { region: "r" zone: "z" sub_zone: "s" } priority: 1
      load_balancing_weight { value: 3 }
      lb_endpoints { endpoint { address { socket_address { address: "10.0.0.1" port_value: 80 } }
        hostname: "h" } health_status: DRAINING load_balancing_weight { value: 9 } } }
    endpoints { lb_endpoints { endpoint { address { socket_address {
      address: "fd00::1" port_value: 81 } } } } })"));
  ASSERT_EQ(endpoints->endpoints.size(), 2u);
  EXPECT_EQ(endpoints->endpoints[0],
            (model::Endpoint{.address = *SocketAddress::Parse("10.0.0.1:80"),
                             .weight = 9,
                             .health = model::HealthStatus::kDraining,
                             .locality = {"r", "z", "s"},
                             .priority = 1,
                             .hostname = "h"}));
  EXPECT_EQ(endpoints->endpoints[1].address.ToString(), "[fd00::1]:81");
  EXPECT_EQ(endpoints->endpoints[1].weight, 1u);
}

// Istio's mark of what is reached by HBONE: "http" today, "h2" once, several with commas.
TEST(Endpoints, AMarkOfTheMeshIsKept) {
  const auto marked = [](const std::string& metadata) {
    return As<model::Endpoints>(
               Endpoints(R"(cluster_name: "web" endpoints { lb_endpoints { endpoint { address {
                 socket_address { address: "10.0.0.1" port_value: 80 } } } metadata { )" +
                         metadata + " } } }"))
        ->endpoints.at(0)
        .in_mesh;
  };
  const auto match = [](const std::string& key, const std::string& value) {
    return R"(filter_metadata { key: "envoy.transport_socket_match" value { fields { key: ")" +
           key + R"(" value { )" + value + " } } } }";
  };
  EXPECT_TRUE(marked(match("tunnel", R"(string_value: "http")")));
  EXPECT_TRUE(marked(match("tunnel", R"(string_value: "h2")")));
  EXPECT_TRUE(marked(match("tunnel", R"(string_value: "quic,http")")));
  EXPECT_TRUE(marked(match("tunnel", "bool_value: true")));
  EXPECT_FALSE(marked(match("tunnel", R"(string_value: "")")));
  EXPECT_FALSE(marked(match("tlsMode", R"(string_value: "disabled")")));
  EXPECT_FALSE(marked(R"(filter_metadata { key: "istio" value { fields { key: "tunnel"
      value { string_value: "http" } } } })"));
  EXPECT_FALSE(marked(""));
}

TEST(Endpoints, Refusals) {
  const auto one = [](const std::string& endpoint) {
    return "cluster_name: \"web\" endpoints { lb_endpoints { " + endpoint + " } }";
  };
  EXPECT_EQ(ErrorOf(Endpoints("")), "endpoints \"\": cluster_name: missing");
  EXPECT_EQ(
      ErrorOf(Endpoints(one(
          R"(endpoint { address { socket_address { address: "web.example" port_value: 1 } } })"))),
      "endpoints web: endpoints[0]: lb_endpoints[0]: endpoint.address: socket_address.address: "
      "\"web.example\" is not an IP address");
  EXPECT_EQ(ErrorOf(Endpoints(one("endpoint { address { pipe { path: \"/x\" } } }"))),
            "endpoints web: endpoints[0]: lb_endpoints[0]: endpoint.address: pipe is not "
            "supported");
  EXPECT_THAT(ErrorOf(Endpoints(one(R"(endpoint { address { socket_address { address: "1.1.1.1"
      port_value: 1 } } } load_balancing_weight { value: 0 })"))),
              HasSubstr("load_balancing_weight: must be 1 or more"));
  EXPECT_THAT(ErrorOf(Endpoints(R"(cluster_name: "web" policy { drop_overloads {} })")),
              HasSubstr("policy: drop_overloads is not supported"));
}

std::string OneRoute(const std::string& route) {
  return R"(name: "r" virtual_hosts { name: "v" domains: "*" routes { )" + route + " } }";
}
std::string OneMatch(const std::string& match) {
  return OneRoute("match { " + match + " } route { cluster: \"c\" }");
}
std::string OneAction(const std::string& action) {
  return OneRoute("match { prefix: \"/\" } " + action);
}

model::Route Only(const std::string& text) {
  const auto routes = As<model::RouteConfiguration>(Routes(text));
  if (routes->virtual_hosts.size() != 1 || routes->virtual_hosts[0].routes.size() != 1) {
    ADD_FAILURE() << text;
    return {};
  }
  return routes->virtual_hosts[0].routes[0];
}

TEST(Routes, Paths) {
  using Kind = model::PathMatch::Kind;
  EXPECT_EQ(Only(OneMatch("prefix: \"/a\"")).path, (model::PathMatch{Kind::kPrefix, "/a"}));
  EXPECT_EQ(Only(OneMatch("path: \"/a\" case_sensitive { value: false }")).path,
            (model::PathMatch{Kind::kExact, "/a", false}));
  EXPECT_EQ(Only(OneMatch("safe_regex { regex: \"/a.*\" }")).path,
            (model::PathMatch{Kind::kRegex, "/a.*"}));
  EXPECT_EQ(Only(OneMatch("path_separated_prefix: \"/a\"")).path,
            (model::PathMatch{Kind::kSeparatedPrefix, "/a"}));
}

TEST(Routes, HeadersAndQueries) {
  const model::Route route = Only(OneMatch(R"(prefix: "/"
    headers { name: "X-A" exact_match: "1" }
    headers { name: "x-b" string_match { prefix: "p" ignore_case: true } invert_match: true }
    headers { name: "x-c" range_match { start: -1 end: 9 } }
    headers { name: "x-d" present_match: false }
    headers { name: "x-e" }
    headers { name: "Host" string_match { safe_regex { regex: "a+" } } }
    headers { name: ":method" contains_match: "E" treat_missing_header_as_empty: true }
    query_parameters { name: "q" string_match { suffix: "s" } }
    query_parameters { name: "p" present_match: true }
    grpc {})"));
  using Kind = model::StringMatch::Kind;
  ASSERT_EQ(route.headers.size(), 7u);
  EXPECT_EQ(route.headers[0].name, "x-a");
  EXPECT_EQ(route.headers[0].value, (model::StringMatch{Kind::kExact, "1"}));
  EXPECT_EQ(route.headers[1].value, (model::StringMatch{Kind::kPrefix, "p", true}));
  EXPECT_TRUE(route.headers[1].invert);
  EXPECT_EQ(route.headers[2].range, (model::HeaderMatch::Range{-1, 9}));
  EXPECT_FALSE(route.headers[3].present);
  EXPECT_TRUE(route.headers[4].present);
  EXPECT_EQ(route.headers[5].name, ":authority");
  EXPECT_EQ(route.headers[5].value, (model::StringMatch{Kind::kRegex, "a+"}));
  EXPECT_TRUE(route.headers[6].treat_missing_as_empty);
  ASSERT_EQ(route.query.size(), 2u);
  EXPECT_EQ(route.query[0].value, (model::StringMatch{Kind::kSuffix, "s"}));
  EXPECT_FALSE(route.query[1].value);
  EXPECT_TRUE(route.grpc_only);
}

TEST(Routes, ForwardWithEverything) {
  const model::Route route = Only(R"(name: "r" virtual_hosts { name: "v" domains: "A.example:80"
    retry_policy { retry_on: "reset" }
    routes { match { prefix: "/" } request_body_buffer_limit { value: 9 }
      request_headers_to_add { header { key: "X-One" value: "50%%" }
        append_action: OVERWRITE_IF_EXISTS_OR_ADD }
      request_headers_to_add { header { key: "x-empty" } }
      request_headers_to_remove: "X-Gone"
      response_headers_to_add { header { key: "x-two" value: "2" } append { value: false } }
      route { timeout {} idle_timeout { seconds: 2 } prefix_rewrite: "/new"
        host_rewrite_literal: "inner"
        weighted_clusters { clusters { name: "a" weight { value: 90 } }
          clusters { name: "b" weight { value: 10 } response_headers_to_remove: "x-b" } }
        retry_policy { retry_on: "5xx, connect-failure,retriable-status-codes"
          num_retries { value: 3 } per_try_timeout { nanos: 250000000 }
          retriable_status_codes: 429 host_selection_retry_max_attempts: 5
          retry_host_predicate { name: "envoy.retry_host_predicates.previous_hosts" }
          retry_back_off { base_interval { nanos: 10000000 } } } } } })");
  using Action = model::HeaderChange::Action;
  EXPECT_EQ(route.request_headers,
            (std::vector<model::HeaderChange>{{Action::kRemove, "x-gone", ""},
                                              {Action::kOverwriteOrAdd, "x-one", "50%"}}));
  EXPECT_EQ(route.response_headers,
            (std::vector<model::HeaderChange>{{Action::kOverwriteOrAdd, "x-two", "2"}}));
  const auto& forward = std::get<model::Forward>(route.action);
  EXPECT_EQ(forward.timeout.count(), 0);
  EXPECT_EQ(forward.idle_timeout.count(), 2000);
  EXPECT_EQ(forward.retry_buffer_bytes, 9u);
  EXPECT_EQ(forward.prefix_rewrite, "/new");
  EXPECT_EQ(forward.host_rewrite, "inner");
  ASSERT_EQ(forward.clusters.size(), 2u);
  EXPECT_EQ(forward.clusters[1].weight, 10u);
  EXPECT_EQ(forward.clusters[1].response_headers[0].action, Action::kRemove);
  ASSERT_TRUE(forward.retry);
  EXPECT_EQ(*forward.retry,
            (model::RetryPolicy{.retry_on = model::kRetry5xx | model::kRetryConnectFailure |
                                            model::kRetryRetriableStatusCodes,
                                .num_retries = 3,
                                .per_try_timeout = std::chrono::milliseconds(250),
                                .base_interval = std::chrono::milliseconds(10),
                                .max_interval = std::chrono::milliseconds(100),
                                .status_codes = {429},
                                .avoid_previous_hosts = true,
                                .host_selection_attempts = 5}));
}

TEST(Routes, ARouteTakesOverTheRetriesOfItsHost) {
  const model::Route route = Only(R"(name: "r" virtual_hosts { name: "v" domains: "*"
    retry_policy { retry_on: "reset" } routes { match { prefix: "/" } route { cluster: "c" } } })");
  ASSERT_TRUE(std::get<model::Forward>(route.action).retry);
  EXPECT_EQ(std::get<model::Forward>(route.action).retry->retry_on, model::kRetryReset);
  EXPECT_EQ(std::get<model::Forward>(route.action).timeout.count(), 15000);
}

TEST(Routes, RedirectAndDirectResponse) {
  const model::Route redirect = Only(OneAction(
      R"(redirect { https_redirect: true host_redirect: "h" port_redirect: 8443
         path_redirect: "/p" response_code: PERMANENT_REDIRECT strip_query: true })"));
  EXPECT_EQ(std::get<model::Redirect>(redirect.action), (model::Redirect{.status = 308,
                                                                         .scheme = "https",
                                                                         .host = "h",
                                                                         .path = "/p",
                                                                         .port = 8443,
                                                                         .strip_query = true}));
  const model::Route direct =
      Only(OneAction(R"(direct_response { status: 418 body { inline_string: "tea" } })"));
  EXPECT_EQ(std::get<model::DirectResponse>(direct.action), (model::DirectResponse{418, "tea"}));
}

TEST(Routes, RefusalsNameTheRouteAndTheField) {
  const std::string at = "routes r: virtual_hosts[0] v: routes[0]: ";
  const std::pair<std::string, std::string> kCases[] = {
      {OneRoute("route { cluster: \"c\" }"),
       at + "match: prefix: missing, and every other way to match a path too"},
      {OneMatch("prefix: \"/\" cookies { name: \"c\" }"), at + "match: cookies is not supported"},
      {OneMatch("prefix: \"/\" runtime_fraction {}"),
       at + "match: runtime_fraction is not supported"},
      {OneMatch("connect_matcher {}"), at + "match: connect_matcher is not supported"},
      {OneMatch("safe_regex { regex: \"" + std::string(1025, 'a') + "\" }"),
       at + "match: safe_regex: regex: longer than 1024 bytes"},
      {OneMatch("prefix: \"/\" headers { name: \"a b\" }"),
       at + "match: headers[0]: name: \"a b\" is not a field name that may be used here"},
      {OneAction("route {}"), at + "route: cluster: missing"},
      {OneAction("route { cluster_header: \"x\" }"), at + "route: cluster_header is not supported"},
      {OneAction("route { cluster: \"c\" priority: HIGH }"),
       at + "route: priority: HIGH is not supported"},
      {OneAction("route { cluster: \"c\" retry_policy { retry_on: \"5xx,cancelled\" } }"),
       at + "route: retry_policy: retry_on: cancelled is not supported"},
      {OneAction("route { cluster: \"c\" retry_policy { retry_host_predicate { name: \"om\" } } }"),
       at + "route: retry_policy: retry_host_predicate[0] om is not supported"},
      {OneAction("route { weighted_clusters { clusters { name: \"a\" weight {} } } }"),
       at + "route: weighted_clusters: clusters: the weights must sum to 1..4294967295"},
      {OneAction("direct_response { status: 99 }"),
       at + "direct_response: status: must be 200 to 599"},
      {OneAction("direct_response { status: 200 body { filename: \"/etc/passwd\" } }"),
       at + "direct_response: body: filename is not supported"},
      {OneAction("redirect { regex_rewrite {} }"), at + "redirect: regex_rewrite is not supported"},
      {OneAction("non_forwarding_action {}"), at + "non_forwarding_action is not supported"},
      {OneAction("route { cluster: \"c\" } request_headers_to_add { header { key: \"x\" value: "
                 "\"a %REQ(:path)% b\" } }"),
       at + "request_headers_to_add[0]: header.value: formatter %REQ(:path)% is not supported"},
      {OneAction("route { cluster: \"c\" } request_headers_to_remove: \":path\""),
       at + "request_headers_to_remove[0]: \":path\" is not a field name that may be used here"},
      {OneAction("route { cluster: \"c\" } request_headers_to_add { header { key: \"x\" value: "
                 "\"a\\nb\" } }"),
       at + "request_headers_to_add[0]: header.value: contains a line break or a zero byte"},
      {"", "routes \"\": name: missing"},
      {R"(name: "r" virtual_hosts { name: "v" domains: "a*b" })",
       "routes r: virtual_hosts[0] v: domains[0]: \"a*b\": a * may stand at one end only"},
      {R"(name: "r" virtual_hosts { name: "v" domains: "A" } virtual_hosts { name: "w" domains: "a" })",
       "routes r: virtual_hosts[1] w: domain \"a\" is there twice"},
      {R"(name: "r" virtual_hosts { name: "v" domains: "a" cors {} })",
       "routes r: virtual_hosts[0] v: cors is not supported"},
  };
  for (const auto& [text, error] : kCases) EXPECT_EQ(ErrorOf(Routes(text)), error) << text;
}

TEST(Routes, TheCallersCheckMakesAResourceBad) {
  DecodeOptions options;
  options.check_routes = [](const model::RouteConfiguration& routes) {
    return absl::InvalidArgumentError(routes.virtual_hosts[0].name + ": no such regex");
  };
  EXPECT_EQ(ErrorOf(Routes(OneMatch("safe_regex { regex: \"(\" }"), options)),
            "routes r: v: no such regex");
}

constexpr char kRouter[] = R"(http_filters { name: "router" typed_config {
  [type.googleapis.com/envoy.extensions.filters.http.router.v3.Router] {} } } )";

std::string Http(const std::string& more) {
  return R"(filters { name: "hcm" typed_config { [type.googleapis.com/envoy.extensions.filters.)"
         R"(network.http_connection_manager.v3.HttpConnectionManager] { stat_prefix: "s" )" +
         more + " } } }";
}
std::string Tcp(const std::string& more) {
  return R"(filters { name: "tcp" typed_config { [type.googleapis.com/envoy.extensions.filters.)"
         R"(network.tcp_proxy.v3.TcpProxy] { stat_prefix: "t" )" +
         more + " } } }";
}
const std::string kAt =
    R"(name: "l" address { socket_address { address: "10.0.0.1" port_value: 80 } } )";
const std::string kInspect = R"(listener_filters { name: "hi" typed_config { type_url:
  "type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector" } } )";
const std::string kRds = R"(rds { route_config_name: "r" config_source { ads {} } } )";
const std::string kSelect = R"(filter_chain_match { application_protocols: "http/1.1"
  application_protocols: "h2c" transport_protocol: "raw_buffer" } )";

TEST(Listener, HttpByRds) {
  const auto listener = As<model::Listener>(Listener(
      kAt + "filter_chains { " +
      Http(kRds + kRouter + "codec_type: HTTP2 max_request_headers_kb { value: 8 }") + " }"));
  EXPECT_EQ(listener->address->ToString(), "10.0.0.1:80");
  ASSERT_TRUE(listener->http);
  EXPECT_EQ(listener->http->rds_name, "r");
  EXPECT_EQ(listener->http->codec, model::HttpFilterChain::Codec::kHttp2);
  EXPECT_EQ(listener->http->max_request_headers_kb, 8u);
  EXPECT_FALSE(listener->tcp);
}

TEST(Listener, HttpBesideTcpInEveryOrder) {
  const std::string http = kSelect + Http(kRds + kRouter);
  const std::string tcp = Tcp("cluster: \"c\"");
  for (const std::string& chains :
       {"filter_chains { " + http + " } filter_chains { " + tcp + " }",
        "filter_chains { " + tcp + " } filter_chains { " + http + " }",
        "filter_chains { " + http + " } default_filter_chain { " + tcp + " }"}) {
    const auto listener = As<model::Listener>(Listener(kAt + kInspect + chains));
    ASSERT_TRUE(listener->http && listener->tcp) << chains;
    EXPECT_EQ(listener->tcp->clusters[0].cluster, "c");
  }
}

TEST(Listener, InlineRoutesAreCheckedToo) {
  DecodeOptions options;
  options.check_routes = [](const model::RouteConfiguration&) {
    return absl::InvalidArgumentError("bad regex");
  };
  const std::string text = kAt + "filter_chains { " +
                           Http("route_config { virtual_hosts { name: \"v\" domains: \"*\" } } " +
                                std::string(kRouter)) +
                           " }";
  EXPECT_EQ(As<model::Listener>(Listener(text))->http->inline_routes->virtual_hosts.size(), 1u);
  EXPECT_EQ(ErrorOf(Listener(text, options)),
            "listener l: filter_chains[0]: filters[0] hcm: route_config: bad regex");
}

TEST(Listener, Refusals) {
  const std::string at = "listener l: filter_chains[0]: filters[0] hcm: ";
  const auto chain = [](const std::string& text) { return kAt + "filter_chains { " + text + " }"; };
  const std::pair<std::string, std::string> kCases[] = {
      {"name: \"l\"", "listener l: address: missing"},
      {kAt, "listener l: filter_chains: empty"},
      {chain(Http(kRds)), at + "http_filters: the router is missing"},
      {chain(Http(kRds + kRouter + kRouter)),
       at + "http_filters[1] router: the router is there twice"},
      {chain(Http(kRds + "http_filters { name: \"jwt\" typed_config { type_url: \"t/a.Jwt\" } } " +
                  kRouter)),
       at + "http_filters[0] jwt: t/a.Jwt is not supported"},
      {chain(Http(kRouter)), at + "rds: missing, and route_config too"},
      {chain(Http(kRds + kRouter + "access_log {}")), at + "access_log is not supported"},
      {chain(Http(kRds + kRouter + "codec_type: HTTP3")),
       at + "codec_type: HTTP3 is not supported"},
      {chain(Http("rds { route_config_name: \"r\" config_source { api_config_source {} } } " +
                  std::string(kRouter))),
       at + "rds.config_source: api_config_source is not supported"},
      {chain(Tcp("tunneling_config {} cluster: \"c\"")),
       "listener l: filter_chains[0]: filters[0] tcp: tunneling_config is not supported"},
      {chain("filters { name: \"rl\" typed_config { type_url: \"t/a.RateLimit\" } }"),
       "listener l: filter_chains[0]: filters[0] rl: t/a.RateLimit is not supported"},
      {chain("filter_chain_match { server_names: \"a\" } " + Tcp("cluster: \"c\"")),
       "listener l: filter_chains[0]: filter_chain_match: server_names is not supported"},
      {chain(kSelect + Http(kRds + kRouter)),
       "listener l: filter_chains[0]: filter_chain_match: application_protocols: nothing finds "
       "them out without listener filter http_inspector"},
      {chain(Http(kRds + kRouter)) + " filter_chains { " + Tcp("cluster: \"c\"") + " }",
       "listener l: filter_chains[1]: no connection reaches it"},
      {chain("transport_socket { name: \"tls\" typed_config { type_url: \"t/a.Tls\" } }"),
       "listener l: filter_chains[0]: transport_socket tls is not supported"},
      {kAt + "listener_filters { name: \"pp\" typed_config { type_url: \"t/a.ProxyProtocol\" } }",
       "listener l: listener_filters[0] pp: t/a.ProxyProtocol is not supported"},
      {kAt + "udp_listener_config {}", "listener l: udp_listener_config is not supported"},
  };
  for (const auto& [text, error] : kCases) EXPECT_EQ(ErrorOf(Listener(text)), error) << text;
}

TEST(Mesh, Workload) {
  const auto decoded =
      Address(R"(workload { uid: "c//Pod/shop/web-1" name: "web-1" namespace: "shop"
    addresses: "\012\000\000\001" tunnel_protocol: HBONE service_account: "web" status: UNHEALTHY
    services { key: "shop/web" value { ports { service_port: 80 target_port: 8080 } } }
    authorization_policies: "shop/p" network_mode: HOST_NETWORK locality { zone: "z" } })");
  const auto workload = As<model::Workload>(decoded);
  EXPECT_EQ(decoded->name, "c//Pod/shop/web-1");
  EXPECT_EQ(workload->Identity(), "spiffe://cluster.local/ns/shop/sa/web");
  EXPECT_EQ(workload->addresses[0].ToString(), "10.0.0.1");
  EXPECT_TRUE(workload->hbone && workload->host_network && !workload->healthy);
  EXPECT_EQ(workload->services.at("shop/web")[0].target_port, 8080);
  EXPECT_EQ(workload->locality.zone, "z");
}

TEST(Mesh, Service) {
  const auto decoded = Address(R"(service { name: "web" namespace: "shop" hostname: "web.shop"
    addresses { address: "\012\000\000\001" length: 32 }
    ports { service_port: 80 target_port: 8080 app_protocol: HTTP11 } subject_alt_names: "s" })");
  const auto service = As<model::Service>(decoded);
  EXPECT_EQ(decoded->name, "shop/web.shop");
  EXPECT_EQ(service->ports[0].app, model::Service::Port::App::kHttp1);
}

TEST(Mesh, Refusals) {
  const std::pair<std::string, std::string> kAddresses[] = {
      {"", "address: neither a workload nor a service"},
      {"workload {}", "workload \"\": uid: missing"},
      {"workload { uid: \"u\" namespace: \"a/b\" }", "workload u: namespace: must not contain /"},
      {"workload { uid: \"u\" namespace: \"n\" addresses: \"abc\" }",
       "workload u: addresses[0]: an address of 3 bytes"},
      {"workload { uid: \"u\" namespace: \"n\" waypoint {} }",
       "workload u: waypoint is not supported"},
      {"workload { uid: \"u\" namespace: \"n\" services { key: \"k\" value { ports { service_port: "
       "70000 } } } }",
       "workload u: services[k]: ports[0]: port 70000"},
      {"service { namespace: \"n\" hostname: \"h\" addresses { address: \"abcd\" length: 8 } }",
       "service n/h: addresses[0]: a range of addresses is not supported"},
  };
  for (const auto& [text, error] : kAddresses) EXPECT_EQ(ErrorOf(Address(text)), error) << text;
  EXPECT_EQ(ErrorOf(DecodeResource(kAddressType, Bytes<istio::workload::Address>(
                                                     "workload { uid: \"u\" namespace: \"n\" }") +
                                                     std::string())),
            "OK");
}

TEST(Mesh, AnApplicationTunnelIsRefusedByItsNumber) {
  istio::workload::Address address;
  address.mutable_workload()->set_uid("u");
  address.mutable_workload()->set_namespace_("n");
  auto* workload = address.mutable_workload();
  workload->GetReflection()->MutableUnknownFields(workload)->AddLengthDelimited(23, "x");
  EXPECT_EQ(ErrorOf(DecodeResource(kAddressType, address.SerializeAsString())),
            "workload u: field number 23 is not supported");
}

TEST(Authorization, StructureAndRefusals) {
  const auto policy =
      As<model::Authorization>(Policy(R"(name: "p" namespace: "shop" scope: NAMESPACE
    action: DENY groups { rules { matches { principals { prefix: "td/" }
      not_namespaces { presence {} } source_ips { address: "\012\000\000\000" length: 8 }
      service_accounts { namespace: "a" serviceAccount: "b" } destination_ports: 80 } } })"));
  EXPECT_EQ(policy->Key(), "shop/p");
  EXPECT_EQ(policy->action, model::Authorization::Action::kDeny);
  ASSERT_EQ(policy->groups.size(), 1u);
  const model::Authorization::Match& match = policy->groups[0][0][0];
  EXPECT_EQ(match.principals[0].kind, model::Authorization::Text::Kind::kPrefix);
  EXPECT_EQ(match.not_namespaces[0].kind, model::Authorization::Text::Kind::kPresence);
  EXPECT_EQ(match.source_ips[0].length, 8u);
  EXPECT_EQ(match.service_accounts[0].name, "b");
  const std::string in = "authorization s/p: groups[0].rules[0].matches[0]: ";
  const auto with = [](const std::string& text) {
    return "name: \"p\" namespace: \"s\" groups { rules { matches { " + text + " } } }";
  };
  EXPECT_EQ(ErrorOf(Policy(with("principals {}"))), in + "principals[0]: no pattern");
  EXPECT_EQ(ErrorOf(Policy(with("source_ips { address: \"abcd\" length: 33 }"))),
            in + "source_ips[0]: length 33");
  EXPECT_EQ(ErrorOf(Policy(with("destination_ports: 65536"))),
            in + "destination_ports[0]: more than 65535");
  EXPECT_EQ(ErrorOf(Policy("namespace: \"s\"")), "authorization s/: name: missing");
}

TEST(Authorization, AConditionOfANewerApiRefusesThePolicy) {
  istio::security::Authorization policy;
  policy.set_name("p");
  policy.set_namespace_("s");
  auto* match = policy.add_groups()->add_rules()->add_matches();
  match->GetReflection()->MutableUnknownFields(match)->AddVarint(77, 1);
  EXPECT_EQ(ErrorOf(DecodeResource(kAuthorizationType, policy.SerializeAsString())),
            "authorization s/p: groups[0]: rules[0]: matches[0]: unknown field number 77");
}

TEST(Node, Types) {
  const auto local = DecodeResource(
      kLocalWorkloadType, Bytes<weft::node::v1::LocalWorkload>(
                              R"(uid: "u" id: 3 identity: "spiffe://td/ns/n/sa/a" addresses: "abcd"
                             resolvers: "\012\140\000\002" resolvers: "\012\140\000\003")"));
  EXPECT_EQ(As<model::LocalWorkload>(local)->id, 3u);
  ASSERT_EQ(As<model::LocalWorkload>(local)->resolvers.size(), 2u);
  EXPECT_EQ(As<model::LocalWorkload>(local)->resolvers[1].ToString(), "10.96.0.3");
  EXPECT_EQ(ErrorOf(DecodeResource(kCertificateType, Bytes<weft::node::v1::Certificate>(
                                                         R"(identity: "spiffe://td/ns/n/sa/a")"))),
            "certificate spiffe://td/ns/n/sa/a: chain: empty");
  const auto bundle = DecodeResource(
      kTrustBundleType, Bytes<weft::node::v1::TrustBundle>(R"(trust_domain: "td" roots: "der")"));
  EXPECT_EQ(As<model::TrustBundle>(bundle)->roots[0], "der");
}

TEST(Decode, GarbageAndUnknownTypes) {
  EXPECT_EQ(ErrorOf(DecodeResource("type.googleapis.com/x.Y", "")),
            "type type.googleapis.com/x.Y is not supported");
  EXPECT_EQ(ErrorOf(DecodeResource(kClusterType, "\xff\xff")),
            "the bytes do not parse as envoy.config.cluster.v3.Cluster");
  std::mt19937 random(1);
  for (std::string_view type : kTypeOrder) {
    for (int i = 0; i < 2000; ++i) {
      std::string bytes(random() % 64, '\0');
      for (char& c : bytes) c = static_cast<char>(random());
      const auto decoded = DecodeResource(type, bytes);  // any answer, no crash
      EXPECT_TRUE(!decoded.ok() || !decoded->name.empty());
    }
  }
}

TEST(Decode, TheNameIsReadEvenOfABadResource) {
  EXPECT_EQ(ResourceName(kClusterType, Bytes<envoy::config::cluster::v3::Cluster>(
                                           R"(name: "a" type: STRICT_DNS)")),
            "a");
  EXPECT_EQ(ResourceName(kClusterType, "\xff"), "");
}

TEST(CaMessages, RoundTrip) {
  const CertificateRequest request{"PEM", 3600, "spiffe://td/ns/n/sa/a"};
  const auto back = DecodeCertificateRequest(EncodeCertificateRequest(request));
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->csr_pem, "PEM");
  EXPECT_EQ(back->validity_seconds, 3600);
  EXPECT_EQ(back->impersonated_identity, "spiffe://td/ns/n/sa/a");
  const auto own = DecodeCertificateRequest(EncodeCertificateRequest({"PEM", 1, ""}));
  ASSERT_TRUE(own.ok());
  EXPECT_EQ(own->impersonated_identity, "");
  const auto chain = DecodeCertificateResponse(EncodeCertificateResponse({{"leaf", "root"}}));
  ASSERT_TRUE(chain.ok());
  EXPECT_EQ(chain->chain_pem, (std::vector<std::string>{"leaf", "root"}));
  EXPECT_FALSE(DecodeCertificateRequest("\xff").ok());
}

}  // namespace
}  // namespace weft::xds
