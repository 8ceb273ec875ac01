// SPDX-License-Identifier: Apache-2.0
// Decode(Encode(x)) == x, for values that use every field, and for generated ones.
#include <random>

#include "gtest/gtest.h"
#include "proxy/base/status.h"
#include "xds/decode/decode.h"
#include "xds/server/encode.h"

namespace weft::xds {
namespace {

template <typename Model>
void ExpectRoundTrip(const Model& in) {
  const Encoded encoded = Encode(in);
  const auto decoded = DecodeResource(encoded.type_url, encoded.bytes);
  ASSERT_TRUE(decoded.ok()) << StdView(decoded.status().message());
  EXPECT_EQ(decoded->name, encoded.name);
  ASSERT_TRUE(std::holds_alternative<std::shared_ptr<const Model>>(decoded->resource));
  EXPECT_TRUE(*std::get<std::shared_ptr<const Model>>(decoded->resource) == in) << encoded.name;
  EXPECT_EQ(Encode(in).bytes, encoded.bytes) << "equal values, equal bytes";
}

IpAddress Ip(std::string_view text) { return *IpAddress::Parse(text); }

model::RouteConfiguration FullRoutes() {
  using Action = model::HeaderChange::Action;
  using Kind = model::StringMatch::Kind;
  const std::vector<model::HeaderChange> changes = {{Action::kRemove, "x-gone", ""},
                                                    {Action::kAppendOrAdd, "x-a", "50%"},
                                                    {Action::kAddIfAbsent, "x-b", ""},
                                                    {Action::kOverwriteOrAdd, "x-c", "c"},
                                                    {Action::kOverwrite, "x-d", "d"}};
  model::Route forward{.name = "f", .path = {model::PathMatch::Kind::kExact, "/a", false}};
  forward.headers = {{.name = ":method", .value = model::StringMatch{Kind::kExact, "GET", true}},
                     {.name = "x-r", .range = model::HeaderMatch::Range{-5, 5}, .invert = true},
                     {.name = "x-p", .present = false, .treat_missing_as_empty = true},
                     {.name = "x-e", .value = model::StringMatch{Kind::kRegex, "a+"}}};
  forward.query = {{"q", model::StringMatch{Kind::kSuffix, "s"}}, {"p", std::nullopt}};
  forward.grpc_only = true;
  forward.request_headers = forward.response_headers = changes;
  forward.action =
      model::Forward{.clusters = {{"a", 90, changes, {}}, {"b", 0, {}, changes}},
                     .prefix_rewrite = "/x",
                     .host_rewrite = "h",
                     .timeout = model::Milliseconds(0),
                     .idle_timeout = model::Milliseconds(7),
                     .retry = model::RetryPolicy{.retry_on = 127,
                                                 .num_retries = 0,
                                                 .per_try_timeout = model::Milliseconds(3),
                                                 .base_interval = model::Milliseconds(1),
                                                 .max_interval = model::Milliseconds(2),
                                                 .status_codes = {429, 503},
                                                 .avoid_previous_hosts = true,
                                                 .host_selection_attempts = 4},
                     .retry_buffer_bytes = 1};
  model::Route redirect{.path = {model::PathMatch::Kind::kSeparatedPrefix, "/b"}};
  redirect.action = model::Redirect{.status = 307,
                                    .scheme = "https",
                                    .host = "h",
                                    .prefix_rewrite = "/y",
                                    .port = 1,
                                    .strip_query = true};
  model::Route direct{.path = {model::PathMatch::Kind::kRegex, "/c.*"}};
  direct.action = model::DirectResponse{503, std::string(5000, '\xff')};
  model::RouteConfiguration out{.name = "r", .request_headers = changes};
  out.virtual_hosts.push_back({.name = "v",
                               .domains = {"*.example", "a:80"},
                               .routes = {forward, redirect, direct},
                               .response_headers = changes});
  return out;
}

TEST(RoundTrip, Routes) { ExpectRoundTrip(FullRoutes()); }

TEST(RoundTrip, Listeners) {
  model::Listener listener{.name = "l", .address = SocketAddress{Ip("fd00::1"), 0}};
  listener.bind_to_port = false;
  listener.use_original_dst = true;
  ExpectRoundTrip(listener);
  listener.http.emplace();
  listener.http->stat_prefix = "s";
  listener.http->rds_name = "r";
  listener.http->codec = model::HttpFilterChain::Codec::kHttp1;
  listener.http->stream_idle_timeout = model::Milliseconds(0);
  listener.http->request_timeout = model::Milliseconds(9);
  listener.http->max_request_headers_kb = 1;
  ExpectRoundTrip(listener);
  listener.tcp.emplace();
  listener.tcp->clusters = {{"a", 1, {}, {}}, {"b", 3, {}, {}}};
  listener.tcp->idle_timeout = model::Milliseconds(0);
  listener.tcp->max_connect_attempts = 3;
  ExpectRoundTrip(listener);
  listener.http.reset();
  listener.tcp->clusters.pop_back();
  listener.address.reset();
  ExpectRoundTrip(listener);
}

TEST(RoundTrip, AListenerWithItsRoutesInline) {
  model::Listener in{.name = "l", .address = SocketAddress{Ip("10.0.0.1"), 80}};
  in.http.emplace().inline_routes = std::make_shared<model::RouteConfiguration>(FullRoutes());
  const auto decoded = DecodeResource(kListenerType, Encode(in).bytes);
  ASSERT_TRUE(decoded.ok()) << StdView(decoded.status().message());
  const auto& out = *std::get<std::shared_ptr<const model::Listener>>(decoded->resource);
  EXPECT_TRUE(*out.http->inline_routes == *in.http->inline_routes);
}

TEST(RoundTrip, Clusters) {
  model::Cluster cluster{.name = "c", .type = model::DiscoveryType::kEds, .eds_name = "other"};
  cluster.lb = model::LbPolicy::kLeastRequest;
  cluster.least_request_choices = 5;
  cluster.connect_timeout = model::Milliseconds(1);
  cluster.http = model::HttpVersion::kHttp2;
  cluster.breaker = {1, 2, 3, 4, model::CircuitBreaker::Budget{50, 0}};
  cluster.outlier = model::OutlierDetection{
      0, 50, model::Milliseconds(1), model::Milliseconds(2), model::Milliseconds(3), 100};
  cluster.panic_threshold_percent = 0;
  cluster.tls = model::UpstreamTls{"sni", "roots"};
  cluster.max_requests_per_connection = 8;
  ExpectRoundTrip(cluster);
  cluster.http = model::HttpVersion::kSameAsDownstream;
  ExpectRoundTrip(cluster);
  model::Cluster plain{.name = "p"};
  plain.endpoints = {{.address = {Ip("10.0.0.1"), 1}}, {.address = {Ip("10.0.0.2"), 2}}};
  plain.lb = model::LbPolicy::kRandom;
  ExpectRoundTrip(plain);
  plain.lb = model::LbPolicy::kMaglev;
  ExpectRoundTrip(plain);
  ExpectRoundTrip(model::Cluster{.name = "o",
                                 .type = model::DiscoveryType::kOriginalDst,
                                 .lb = model::LbPolicy::kOriginalDst});
}

TEST(RoundTrip, Endpoints) {
  std::mt19937 random(3);
  const auto below = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
  for (int i = 0; i < 200; ++i) {
    model::Endpoints in{.cluster = "c"};
    for (uint32_t n = below(8); n > 0; --n) {
      in.endpoints.push_back(
          {.address = {Ip(below(2) == 0 ? "10.0.0.1" : "fd00::1"),
                       static_cast<uint16_t>(1 + below(65535))},
           .weight = 1 + below(1000),
           .health = static_cast<model::HealthStatus>(below(5)),
           .locality = {below(2) == 0 ? "r1" : "r2", below(2) == 0 ? "z1" : "z2", ""},
           .priority = below(3),
           .hostname = below(2) == 0 ? "h" : "",
           .in_mesh = below(2) == 0});
    }
    ExpectRoundTrip(in);
  }
}

TEST(RoundTrip, MeshTypes) {
  ExpectRoundTrip(model::Workload{.uid = "u",
                                  .name = "n",
                                  .namespace_name = "ns",
                                  .service_account = "sa",
                                  .trust_domain = "td",
                                  .node = "node",
                                  .cluster_id = "c",
                                  .network = "net",
                                  .canonical_name = "cn",
                                  .canonical_revision = "cr",
                                  .workload_name = "wn",
                                  .addresses = {Ip("10.0.0.1"), Ip("fd00::1")},
                                  .hbone = true,
                                  .healthy = false,
                                  .host_network = true,
                                  .locality = {"r", "z", "s"},
                                  .capacity = 7,
                                  .authorization_policies = {"ns/p"},
                                  .services = {{"ns/a", {{80, 8080}}}, {"ns/b", {}}}});
  ExpectRoundTrip(model::Service{.name = "n",
                                 .namespace_name = "ns",
                                 .hostname = "h",
                                 .addresses = {Ip("10.0.0.1")},
                                 .ports = {{80, 8080, model::Service::Port::App::kGrpc}},
                                 .subject_alt_names = {"s"},
                                 .prefers_same_node = true,
                                 .prefers_same_zone = true,
                                 .affinity_s = 10800});
  ExpectRoundTrip(model::Service{
      .name = "n", .namespace_name = "ns", .hostname = "h", .prefers_same_zone = true});
  ExpectRoundTrip(model::LocalWorkload{.uid = "u",
                                       .id = 1,
                                       .generation = 2,
                                       .identity = "spiffe://td/ns/a/sa/b",
                                       .addresses = {Ip("10.0.0.1")},
                                       .namespace_name = "a",
                                       .name = "n",
                                       .tenant = "node"});
  ExpectRoundTrip(model::Certificate{.identity = "spiffe://td/ns/a/sa/b",
                                     .key_id = 3,
                                     .chain = {std::string("\0\xff", 2), "b"},
                                     .not_before = 5,
                                     .not_after = 6});
  ExpectRoundTrip(model::TrustBundle{.trust_domain = "td", .roots = {"a", "b"}});
}

TEST(RoundTrip, Authorizations) {
  using Kind = model::Authorization::Text::Kind;
  model::Authorization::Match match;
  match.namespaces = {{Kind::kExact, "a"}};
  match.not_namespaces = {{Kind::kPrefix, "b"}, {Kind::kSuffix, "c"}};
  match.principals = {{Kind::kPresence, ""}};
  match.not_principals = {{Kind::kExact, ""}};
  match.service_accounts = {{"a", "b"}};
  match.not_service_accounts = {{"c", "d"}};
  match.source_ips = {{Ip("10.0.0.0"), 8}};
  match.not_source_ips = {{Ip("fd00::"), 64}};
  match.destination_ips = {{Ip("0.0.0.0"), 0}};
  match.not_destination_ips = {{Ip("::"), 0}};
  match.destination_ports = {1, 65535};
  match.not_destination_ports = {0};
  for (auto scope : {model::Authorization::Scope::kGlobal, model::Authorization::Scope::kNamespace,
                     model::Authorization::Scope::kWorkload}) {
    model::Authorization policy{.scope = scope,
                                .action = model::Authorization::Action::kDeny,
                                .dry_run = true,
                                .name = "p",
                                .namespace_name = "ns",
                                .groups = {{}, {{}, {match, {}}}, {{match}}}};
    ExpectRoundTrip(policy);
  }
}

}  // namespace
}  // namespace weft::xds
