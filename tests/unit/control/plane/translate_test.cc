// SPDX-License-Identifier: Apache-2.0
// Manifests -> resources: what each field becomes, and the demo's own folder as a whole.
#include "control/plane/translate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "control/plane/manifest_folder.h"
#include "control/plane/publisher.h"
#include "tests/unit/control/plane/manifests.h"
#include "tests/unit/control/plane/translated.h"
#include "xds/decode/decode.h"

namespace weft::plane {
namespace {

using model::Milliseconds;
using model::PathMatch;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// Service web with a canary, two pods, and routes with these rules.
Configuration Routed(const std::string& rules, const std::string& annotations = "") {
  Translated out = From(ServiceYaml("web", "10.96.0.10", annotations) +
                        ServiceYaml("canary", "10.96.0.11") + RouteYaml(rules));
  EXPECT_THAT(Texts(out.problems), IsEmpty());
  return out.config;
}
const std::vector<model::Route>& RoutesOf(const Configuration& config) {
  return config.routes.at(0).virtual_hosts.at(0).routes;
}
const model::Forward& ForwardOf(const model::Route& route) {
  return std::get<model::Forward>(route.action);
}

constexpr char kTo[] = "      backendRefs: [{name: web, port: 80}]\n";

TEST(Translate, APlainServiceIsCarriedAsTcp) {
  const Translated out =
      From(ServiceYaml("web", "10.96.0.10") + WorkloadYaml("w1", "10.1.0.1", "web") +
           WorkloadYaml("w2", "10.1.0.2", "web") + WorkloadYaml("other", "10.1.0.3", "other") +
           WorkloadYaml("late", "10.1.0.4", "web", "  ready: false\n"));
  ASSERT_THAT(Texts(out.problems), IsEmpty());
  ASSERT_THAT(out.config.listeners, SizeIs(1));
  const model::Listener& listener = out.config.listeners[0];
  EXPECT_EQ(listener.name, kWeb);
  EXPECT_EQ(listener.address->ToString(), "10.96.0.10:80");
  EXPECT_FALSE(listener.bind_to_port);
  EXPECT_FALSE(listener.http.has_value());
  ASSERT_TRUE(listener.tcp.has_value());
  EXPECT_EQ(listener.tcp->clusters[0].cluster, kWeb);
  EXPECT_THAT(out.config.routes, IsEmpty());
  ASSERT_THAT(out.config.clusters, SizeIs(1));
  EXPECT_EQ(out.config.clusters[0].type, model::DiscoveryType::kEds);
  EXPECT_EQ(out.config.clusters[0].eds_name, kWeb);
  EXPECT_FALSE(out.config.clusters[0].outlier.has_value());
  EXPECT_THAT(AddressesOf(out.config, kWeb), ElementsAre("10.1.0.1:8080", "10.1.0.2:8080"));
}

std::vector<std::string> MarkedOf(const Configuration& config) {
  std::vector<std::string> out;
  for (const model::Endpoints& each : config.endpoints) {
    for (const model::Endpoint& endpoint : each.endpoints) {
      if (endpoint.in_mesh) out.push_back(endpoint.address.ToString());
    }
  }
  return out;
}

// Whoever has this endpoint but not yet its workload must not send plaintext there.
TEST(Translate, EndpointsOfTheMeshAreMarked) {
  const std::string pods =
      WorkloadYaml("in", "10.1.0.1", "web") +
      "apiVersion: weft.dev/v1\nkind: Workload\nmetadata: {name: out, namespace: demo, labels: "
      "{app: web}, annotations: {weft.dev/mesh: \"off\"}}\nspec:\n  addresses: [10.1.0.2]\n"
      "  serviceAccount: web\n---\n";
  const Translated selected = From(ServiceYaml("web", "10.96.0.10") + pods);
  ASSERT_THAT(Texts(selected.problems), IsEmpty());
  EXPECT_THAT(AddressesOf(selected.config, kWeb), ElementsAre("10.1.0.1:8080", "10.1.0.2:8080"));
  EXPECT_THAT(MarkedOf(selected.config), ElementsAre("10.1.0.1:8080"));
  const Translated sliced =
      From(ServiceYaml("web", "10.96.0.10") + pods +
           "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-1, "
           "namespace: demo, labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\n"
           "ports: [{name: http, port: 8080}]\nendpoints:\n  - addresses: [10.1.0.1]\n"
           "  - addresses: [10.1.0.2]\n  - addresses: [192.0.2.1]\n---\n");
  ASSERT_THAT(Texts(sliced.problems), IsEmpty());
  EXPECT_THAT(AddressesOf(sliced.config, kWeb), SizeIs(3));
  EXPECT_THAT(MarkedOf(sliced.config), ElementsAre("10.1.0.1:8080"));
}

struct L7Case {
  const char* name;
  const char* port_name;
  const char* annotation;  // of the Service; empty: none
  bool route;
  bool http, tcp;
};
class L7Test : public ::testing::TestWithParam<L7Case> {};

TEST_P(L7Test, IsL7ExactlyWhereItIsAskedFor) {
  const L7Case& c = GetParam();
  const std::string annotation =
      *c.annotation ? Annotations(std::string("    ") + c.annotation + "\n") : "";
  std::string text = ServiceYaml("web", "10.96.0.10", annotation, c.port_name);
  if (c.route) text += RouteYaml(std::string("    - name: a\n") + kTo);
  const Translated out = From(text);
  ASSERT_THAT(Texts(out.problems), IsEmpty());
  EXPECT_EQ(out.config.listeners[0].http.has_value(), c.http);
  EXPECT_EQ(out.config.listeners[0].tcp.has_value(), c.tcp);
  EXPECT_THAT(out.config.routes, SizeIs(c.http ? 1 : 0));
  if (c.http) {
    EXPECT_EQ(out.config.listeners[0].http->rds_name, kWeb);
    EXPECT_EQ(out.config.routes[0].name, kWeb);
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, L7Test,
    ::testing::Values(
        L7Case{"Nothing", "http", "", false, false, true},
        L7Case{"Route", "http", "", true, true, false},
        L7Case{"RouteOnUndeclared", "web", "", true, true, true},
        L7Case{"ProtocolHttp", "web", "weft.dev/protocol: http", false, true, false},
        L7Case{"ProtocolTcp", "web", "weft.dev/protocol: tcp", false, false, true},
        L7Case{"Breaker", "http", "weft.dev/max-requests: \"5\"", false, true, false},
        L7Case{"BreakerOnUndeclared", "web", "weft.dev/max-connections: \"5\"", false, true, true},
        L7Case{"MaglevIsOfConnections", "web", "weft.dev/lb-policy: maglev", false, false, true},
        L7Case{"BreakerOnTcpPort", "tcp-x", "weft.dev/max-connections: \"5\"", false, false, true}),
    [](const auto& each) { return each.param.name; });

TEST(Translate, AnnotationsBecomeClusterSettings) {
  const Translated out =
      From(ServiceYaml("web", "10.96.0.10",
                       Annotations("    weft.dev/max-connections: \"11\"\n"
                                   "    weft.dev/max-pending-requests: \"12\"\n"
                                   "    weft.dev/max-requests: \"13\"\n"
                                   "    weft.dev/max-retries: \"14\"\n"
                                   "    weft.dev/retry-budget-percent: \"25\"\n"
                                   "    weft.dev/outlier-consecutive-5xx: \"3\"\n"
                                   "    weft.dev/outlier-base-ejection: 400s\n"
                                   "    weft.dev/outlier-interval: 250ms\n"
                                   "    weft.dev/outlier-max-ejection-percent: \"60\"\n"
                                   "    weft.dev/lb-policy: least_request\n"
                                   "    weft.dev/connect-timeout: 750ms\n")));
  ASSERT_THAT(Texts(out.problems), IsEmpty());
  const model::Cluster& cluster = out.config.clusters.at(0);
  EXPECT_EQ(cluster.breaker.max_connections, 11u);
  EXPECT_EQ(cluster.breaker.max_pending_requests, 12u);
  EXPECT_EQ(cluster.breaker.max_requests, 13u);
  EXPECT_EQ(cluster.breaker.max_retries, 14u);
  ASSERT_TRUE(cluster.breaker.budget.has_value());
  EXPECT_EQ(cluster.breaker.budget->percent, 25.0);
  ASSERT_TRUE(cluster.outlier.has_value());
  EXPECT_EQ(cluster.outlier->consecutive_5xx, 3u);
  EXPECT_EQ(cluster.outlier->base_ejection_time, Milliseconds(400'000));
  EXPECT_EQ(cluster.outlier->max_ejection_time, Milliseconds(400'000));
  EXPECT_EQ(cluster.outlier->interval, Milliseconds(250));
  EXPECT_EQ(cluster.outlier->max_ejection_percent, 60u);
  EXPECT_EQ(cluster.lb, model::LbPolicy::kLeastRequest);
  EXPECT_EQ(cluster.connect_timeout, Milliseconds(750));
}

TEST(Translate, WithoutARouteEverythingGoesToTheServiceWithItsAnnotations) {
  const Translated out = From(ServiceYaml("web", "10.96.0.10",
                                          Annotations("    weft.dev/retry-on: \"5xx, reset,409\"\n"
                                                      "    weft.dev/retry-attempts: \"3\"\n"
                                                      "    weft.dev/per-try-timeout: 2s\n"
                                                      "    weft.dev/timeout: 1m30s\n")));
  const auto& routes = RoutesOf(out.config);
  ASSERT_THAT(routes, SizeIs(1));
  EXPECT_EQ(routes[0].path, PathMatch{});
  const model::Forward& forward = ForwardOf(routes[0]);
  EXPECT_EQ(forward.clusters[0].cluster, kWeb);
  EXPECT_EQ(forward.timeout, Milliseconds(90'000));
  ASSERT_TRUE(forward.retry.has_value());
  EXPECT_EQ(forward.retry->retry_on,
            model::kRetry5xx | model::kRetryReset | model::kRetryRetriableStatusCodes);
  EXPECT_THAT(forward.retry->status_codes, ElementsAre(409u));
  EXPECT_EQ(forward.retry->num_retries, 3u);
  EXPECT_EQ(forward.retry->per_try_timeout, Milliseconds(2000));
  EXPECT_TRUE(forward.retry->avoid_previous_hosts);
}

TEST(Translate, ARuleReplacesTheServicesRetriesAndTimeouts) {
  const Configuration config =
      Routed(std::string("    - timeouts: {request: 3s, backendRequest: 1s}\n      retry: {codes: "
                         "[500, 503], attempts: 4, backoff: 40ms}\n") +
                 kTo + "    - matches: [{path: {value: /plain}}]\n" + kTo,
             Annotations("    weft.dev/retry-on: 5xx\n    weft.dev/timeout: 9s\n"));
  const auto& routes = RoutesOf(config);
  ASSERT_THAT(routes, SizeIs(2));
  const model::Forward& plain = ForwardOf(routes[0]);  // the longer prefix comes first
  EXPECT_EQ(plain.timeout, Milliseconds(9000));
  EXPECT_EQ(plain.retry->retry_on, model::kRetry5xx);
  EXPECT_EQ(plain.retry->num_retries, 2u);
  const model::Forward& own = ForwardOf(routes[1]);
  EXPECT_EQ(own.timeout, Milliseconds(3000));
  EXPECT_EQ(own.retry->retry_on, model::kRetryConnectFailure | model::kRetryRefusedStream |
                                     model::kRetryReset | model::kRetryRetriableStatusCodes);
  EXPECT_THAT(own.retry->status_codes, ElementsAre(500u, 503u));
  EXPECT_EQ(own.retry->num_retries, 4u);
  EXPECT_EQ(own.retry->base_interval, Milliseconds(40));
  EXPECT_EQ(own.retry->max_interval, Milliseconds(400));
  EXPECT_EQ(own.retry->per_try_timeout, Milliseconds(1000));
}

TEST(Translate, WeightsHeadersAndMatches) {
  const Configuration config = Routed(
      "    - matches:\n"
      "        - path: {type: Exact, value: /a}\n"
      "          method: POST\n"
      "          headers: [{name: X-Version, value: canary}, {name: Host, type: RegularExpression, "
      "value: \"w.*\"}]\n"
      "          queryParams: [{name: q, value: \"1\"}]\n"
      "      filters:\n"
      "        - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: A, value: b}], "
      "remove: [C]}}\n"
      "        - {type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: d, value: "
      "e}]}}\n"
      "      backendRefs:\n"
      "        - {name: web, port: 80, weight: 90}\n"
      "        - {name: canary, port: 80, weight: 10, filters: [{type: RequestHeaderModifier, "
      "requestHeaderModifier: {set: [{name: "
      "f, value: g}]}}]}\n"
      "        - {name: canary, port: 80, weight: 0}\n");
  const auto& routes = RoutesOf(config);
  ASSERT_THAT(routes, SizeIs(1));
  const model::Route& route = routes[0];
  EXPECT_EQ(route.path, (PathMatch{.kind = PathMatch::Kind::kExact, .value = "/a"}));
  ASSERT_THAT(route.headers, SizeIs(3));
  EXPECT_EQ(route.headers[0].name, "x-version");
  EXPECT_EQ(route.headers[1].name, ":authority");
  EXPECT_EQ(route.headers[1].value->kind, model::StringMatch::Kind::kRegex);
  EXPECT_EQ(route.headers[2].name, ":method");
  EXPECT_EQ(route.headers[2].value->value, "POST");
  ASSERT_THAT(route.query, SizeIs(1));
  EXPECT_THAT(
      route.request_headers,
      ElementsAre(model::HeaderChange{model::HeaderChange::Action::kRemove, "c", ""},
                  model::HeaderChange{model::HeaderChange::Action::kOverwriteOrAdd, "a", "b"}));
  EXPECT_THAT(route.response_headers, ElementsAre(model::HeaderChange{
                                          model::HeaderChange::Action::kAppendOrAdd, "d", "e"}));
  const model::Forward& forward = ForwardOf(route);
  ASSERT_THAT(forward.clusters, SizeIs(2));
  EXPECT_EQ(forward.clusters[0].weight, 90u);
  EXPECT_EQ(forward.clusters[1].cluster, "outbound|80||canary.demo.svc.cluster.local");
  EXPECT_THAT(forward.clusters[1].request_headers, SizeIs(1));
  EXPECT_FALSE(forward.retry.has_value());
  EXPECT_EQ(forward.timeout, Milliseconds(0));
}

TEST(Translate, OrderIsGatewayApis) {
  const Configuration config = Routed(
      std::string("    - name: default\n") + kTo +
      "    - {name: short, matches: [{path: {value: /a}}], backendRefs: [{name: web, port: 80}]}\n"
      "    - {name: long, matches: [{path: {value: /a/b/}}], backendRefs: [{name: web, port: "
      "80}]}\n"
      "    - {name: exact, matches: [{path: {type: Exact, value: /}}], backendRefs: [{name: web, "
      "port: 80}]}\n"
      "    - {name: method, matches: [{path: {value: /a}, method: GET}], backendRefs: [{name: web, "
      "port: 80}]}\n"
      "    - {name: header, matches: [{headers: [{name: x, value: y}]}], backendRefs: [{name: web, "
      "port: 80}]}\n"
      "    - {name: query, matches: [{queryParams: [{name: x, value: y}]}], backendRefs: [{name: "
      "web, port: 80}]}\n"
      "    - {name: regex, matches: [{path: {type: RegularExpression, value: \"/[0-9]+\"}}], "
      "backendRefs: [{name: web, port: 80}]}\n");
  std::vector<std::string> names;
  for (const model::Route& route : RoutesOf(config)) names.push_back(route.name);
  EXPECT_THAT(names, ElementsAre("demo/web/exact", "demo/web/regex", "demo/web/long",
                                 "demo/web/method", "demo/web/short", "demo/web/header",
                                 "demo/web/query", "demo/web/default"));
  EXPECT_EQ(RoutesOf(config)[2].path,
            (PathMatch{.kind = PathMatch::Kind::kSeparatedPrefix, .value = "/a/b"}));
}

struct RewriteCase {
  const char* name;
  const char* match;
  const char* rewrite;
  std::vector<std::string> expected;  // "kind value -> rewrite"
};
class RewriteTest : public ::testing::TestWithParam<RewriteCase> {};

std::string Describe(const model::Route& route) {
  static const char* const kKinds[] = {"prefix", "exact", "regex", "separated"};
  const model::Forward& forward = ForwardOf(route);
  return std::string(kKinds[static_cast<int>(route.path.kind)]) + " " + route.path.value + " -> " +
         forward.prefix_rewrite.value_or("none") +
         (forward.host_rewrite ? " host " + *forward.host_rewrite : "");
}

TEST_P(RewriteTest, KeepsSlashesRight) {
  const Configuration config = Routed(
      std::string("    - matches: [{path: ") + GetParam().match +
      "}]\n      filters: [{type: URLRewrite, urlRewrite: " + GetParam().rewrite + "}]\n" + kTo);
  std::vector<std::string> described;
  for (const model::Route& route : RoutesOf(config)) described.push_back(Describe(route));
  EXPECT_EQ(described, GetParam().expected);
}

INSTANTIATE_TEST_SUITE_P(
    All, RewriteTest,
    ::testing::Values(RewriteCase{"Segments",
                                  "{value: /foo}",
                                  "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /bar/}}",
                                  {"separated /foo -> /bar"}},
                      RewriteCase{"ToRoot",
                                  "{value: /foo}",
                                  "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}",
                                  {"exact /foo -> /", "prefix /foo/ -> /"}},
                      RewriteCase{"ToNothing",
                                  "{value: /foo}",
                                  "{path: {type: ReplacePrefixMatch, replacePrefixMatch: \"\"}}",
                                  {"exact /foo -> /", "prefix /foo/ -> /"}},
                      RewriteCase{"FromRoot",
                                  "{value: /}",
                                  "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}}",
                                  {"prefix / -> /x/"}},
                      RewriteCase{"Whole",
                                  "{type: Exact, value: /foo}",
                                  "{path: {type: ReplaceFullPath, replaceFullPath: /y}}",
                                  {"exact /foo -> /y"}},
                      RewriteCase{"Host",
                                  "{value: /foo}",
                                  "{hostname: other.example}",
                                  {"separated /foo -> none host other.example"}}),
    [](const auto& each) { return each.param.name; });

TEST(Translate, Redirects) {
  const Configuration config = Routed(
      "    - matches: [{path: {value: /old}}]\n"
      "      filters: [{type: RequestRedirect, requestRedirect: {scheme: https, hostname: "
      "h.example, port: 8443, statusCode: 301, "
      "path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]\n"
      "    - matches: [{path: {value: /x}}]\n"
      "      filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, "
      "replaceFullPath: /y}}}]\n");
  const auto& routes = RoutesOf(config);
  ASSERT_THAT(routes, SizeIs(2));
  const auto& first = std::get<model::Redirect>(routes[0].action);
  EXPECT_EQ(first.status, 301);
  EXPECT_EQ(first.scheme, "https");
  EXPECT_EQ(first.host, "h.example");
  EXPECT_EQ(first.port, 8443);
  EXPECT_EQ(first.prefix_rewrite, "/new");
  const auto& second = std::get<model::Redirect>(routes[1].action);
  EXPECT_EQ(second.status, 302);
  EXPECT_EQ(second.path, "/y");
}

TEST(Translate, SlicesReplaceTheSelector) {
  const Translated out = From(
      ServiceYaml("web", "10.96.0.10") + WorkloadYaml("w1", "10.1.0.1", "web") +
      WorkloadYaml("w2", "10.1.0.2", "other") +
      "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
      "metadata: {name: web-1, namespace: demo, labels: {kubernetes.io/service-name: "
      "web}}\naddressType: IPv4\n"
      "ports: [{name: http, port: 9090}, {name: other, port: 1}]\n"
      "endpoints:\n"
      "  - {addresses: [10.1.0.2], zone: z1, nodeName: n}\n"
      "  - {addresses: [10.1.0.8], conditions: {ready: false, serving: true, terminating: true}}\n"
      "  - {addresses: [10.1.0.9], conditions: {ready: false}}\n");
  ASSERT_THAT(Texts(out.problems), IsEmpty());
  EXPECT_THAT(AddressesOf(out.config, kWeb),
              ElementsAre("10.1.0.2:9090", "10.1.0.8:9090 draining"));
  EXPECT_EQ(out.config.endpoints[0].endpoints[0].locality.zone, "z1");
  const model::Workload* w2 = ByName(out.config.workloads, "w2");
  ASSERT_NE(w2, nullptr);
  ASSERT_EQ(w2->services.count("demo/web.demo.svc.cluster.local"), 1u);
  EXPECT_EQ(w2->services.at("demo/web.demo.svc.cluster.local")[0].target_port, 9090);
  EXPECT_THAT(ByName(out.config.workloads, "w1")->services, IsEmpty());
}

TEST(Translate, NamedTargetPortsComeFromThePods) {
  const std::string service =
      "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: demo}\nspec:\n  clusterIP: "
      "10.96.0.10\n"
      "  selector: {app: web}\n  ports: [{name: http, port: 80, targetPort: www}]\n---\n";
  const Translated without = From(service + WorkloadYaml("w1", "10.1.0.1", "web"));
  EXPECT_THAT(Texts(without.problems),
              ElementsAre("f.yaml:7: targetPort: no selected pod has a port named \"www\", so this "
                          "port has no endpoints"));
  const Translated with =
      From(service + WorkloadYaml("w1", "10.1.0.1", "web", "  ports: {www: 8081}\n"));
  EXPECT_THAT(Texts(with.problems), IsEmpty());
  EXPECT_THAT(AddressesOf(with.config, kWeb), ElementsAre("10.1.0.1:8081"));
}

TEST(Translate, FamiliesAndHeadlessServices) {
  const Translated out = From(
      "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: demo}\nspec:\n  clusterIPs: "
      "[\"fd00::10\", 10.96.0.10]\n"
      "  selector: {app: web}\n  ports: [{port: 80}, {port: 53, protocol: UDP}]\n---\n"
      "apiVersion: v1\nkind: Service\nmetadata: {name: bare, namespace: demo}\nspec:\n  clusterIP: "
      "None\n"
      "  selector: {app: web}\n  ports: [{port: 80}]\n---\n" +
      WorkloadYaml("w1", "10.1.0.1, \"fd00::1\"", "web"));
  ASSERT_THAT(Texts(out.problems), IsEmpty());
  ASSERT_THAT(out.config.listeners, SizeIs(2));
  EXPECT_EQ(out.config.listeners[0].name, kWeb);
  EXPECT_EQ(out.config.listeners[0].address->ToString(), "[fd00::10]:80");
  EXPECT_EQ(out.config.listeners[1].name, std::string(kWeb) + "|10.96.0.10");
  EXPECT_THAT(AddressesOf(out.config, kWeb), ElementsAre("[fd00::1]:80"));
  EXPECT_THAT(AddressesOf(out.config, "outbound|80||bare.demo.svc.cluster.local"),
              ElementsAre("10.1.0.1:80"));
  EXPECT_THAT(out.config.services, SizeIs(2));
}

TEST(Translate, Workloads) {
  const Translated out = From(
      "apiVersion: v1\nkind: Namespace\nmetadata: {name: demo, labels: {weft.dev/mesh: "
      "\"off\"}}\n---\n" +
      ServiceYaml("web", "10.96.0.10") + WorkloadYaml("w1", "10.1.0.1", "web", "  node: n1\n") +
      "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: other, labels: {app: x, version: "
      "v2}}\n"
      "spec: {nodeName: n2}\nstatus: {podIP: 10.1.0.2}\n---\n"
      "apiVersion: v1\nkind: Pod\nmetadata: {name: host, namespace: other}\n"
      "spec: {hostNetwork: true}\nstatus: {podIP: 10.1.0.2}\n---\n"
      "apiVersion: v1\nkind: Pod\nmetadata: {name: done, namespace: other}\nstatus: {podIP: "
      "10.1.0.2, phase: Succeeded}\n---\n"
      "apiVersion: v1\nkind: Pod\nmetadata: {name: pending, namespace: other}\n");
  ASSERT_THAT(Texts(out.problems), IsEmpty());
  ASSERT_THAT(out.config.workloads, SizeIs(3));
  const model::Workload* w1 = ByName(out.config.workloads, "w1");
  EXPECT_EQ(w1->uid, "Kubernetes/weft.dev/Workload/demo/w1");
  EXPECT_FALSE(w1->hbone);
  EXPECT_EQ(w1->node, "n1");
  EXPECT_EQ(w1->services.at("demo/web.demo.svc.cluster.local"),
            (std::vector<model::Workload::ServicePort>{{80, 8080}}));
  const model::Workload* p = ByName(out.config.workloads, "p");
  EXPECT_EQ(p->uid, "Kubernetes//Pod/other/p");
  EXPECT_EQ(p->Identity(), "spiffe://cluster.local/ns/other/sa/default");
  EXPECT_TRUE(p->hbone);
  EXPECT_EQ(p->canonical_name, "x");
  EXPECT_EQ(p->canonical_revision, "v2");
  const model::Workload* host = ByName(out.config.workloads, "host");
  EXPECT_FALSE(host->hbone);
  EXPECT_TRUE(host->host_network);
}

model::L4Decision Ask(const Configuration& config, const std::string& workload,
                      const std::string& source, uint16_t port) {
  const model::Workload* target = ByName(config.workloads, workload);
  std::vector<const model::Authorization*> policies;
  for (const model::Authorization& policy : config.authorizations) {
    const bool named = std::count(target->authorization_policies.begin(),
                                  target->authorization_policies.end(), policy.Key()) > 0;
    const bool holds = policy.scope == model::Authorization::Scope::kGlobal ||
                       (policy.scope == model::Authorization::Scope::kNamespace &&
                        policy.namespace_name == target->namespace_name) ||
                       (policy.scope == model::Authorization::Scope::kWorkload && named);
    if (holds) policies.push_back(&policy);
  }
  return model::Evaluate(policies, "",
                         {.source_identity = source,
                          .source_ip = IpAddress::Parse("10.1.0.9"),
                          .destination = {target->addresses[0], port}});
}

constexpr char kClient[] = "spiffe://cluster.local/ns/demo/sa/client";

std::string PolicyYaml(const std::string& name, const std::string& space, const std::string& spec) {
  return "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: " + name +
         ", namespace: " + space + "}\nspec:\n" + spec + "---\n";
}

TEST(Translate, PoliciesDecideAsWritten) {
  const std::string workloads =
      WorkloadYaml("a", "10.1.0.1", "a") + WorkloadYaml("b", "10.1.0.2", "b");
  struct Case {
    std::string policies;
    const char* source;
    uint16_t port;
    bool a, b;
  };
  const Case cases[] = {
      {"", kClient, 80, true, true},
      {PolicyYaml("p", "demo", "  {}\n"), kClient, 80, false, false},         // allow nothing
      {PolicyYaml("p", "demo", "  rules: [{}]\n"), kClient, 80, true, true},  // allow all
      {PolicyYaml("p", "demo", "  rules: [{}]\n"), "", 80, true, true},
      {PolicyYaml("p", "other", "  {}\n"), kClient, 80, true, true},  // another namespace's
      {PolicyYaml("p", "istio-system", "  {}\n"), kClient, 80, false, false},  // the mesh's
      {PolicyYaml("p", "demo", "  selector: {matchLabels: {app: a}}\n"), kClient, 80, false, true},
      {PolicyYaml("p", "istio-system", "  selector: {matchLabels: {app: a}}\n"), kClient, 80, false,
       true},
      {PolicyYaml("p", "demo",
                  "  action: DENY\n  rules: [{to: [{operation: {ports: [\"80\"]}}]}]\n"),
       kClient, 80, false, false},
      {PolicyYaml("p", "demo",
                  "  action: DENY\n  rules: [{to: [{operation: {ports: [\"80\"]}}]}]\n"),
       kClient, 81, true, true},
      {PolicyYaml(
           "p", "demo",
           "  rules: [{from: [{source: {principals: [cluster.local/ns/demo/sa/client]}}]}]\n"),
       kClient, 80, true, true},
      {PolicyYaml(
           "p", "demo",
           "  rules: [{from: [{source: {principals: [cluster.local/ns/demo/sa/client]}}]}]\n"),
       "", 80, false, false},
      {PolicyYaml("p", "demo", "  rules: [{from: [{source: {principals: [\"*/sa/client\"]}}]}]\n"),
       kClient, 80, true, true},
      {PolicyYaml("p", "demo", "  rules: [{from: [{source: {notPrincipals: [\"*\"]}}]}]\n"),
       kClient, 80, false, false},
      {PolicyYaml("p", "demo", "  rules: [{from: [{source: {serviceAccounts: [client]}}]}]\n"),
       kClient, 80, true, true},
      {PolicyYaml("p", "demo",
                  "  rules: [{from: [{source: {serviceAccounts: [other/client]}}]}]\n"),
       kClient, 80, false, false},
      {PolicyYaml(
           "p", "demo",
           "  rules: [{from: [{source: {namespaces: [\"de*\"], notIpBlocks: [10.1.0.0/16]}}]}]\n"),
       kClient, 80, false, false},
      {PolicyYaml("p", "demo",
                  "  rules: [{from: [{source: {ipBlocks: [10.1.0.0/16]}}], to: [{operation: "
                  "{ports: [\"80\"]}}]}]\n"),
       kClient, 80, true, true},
      {PolicyYaml("p", "demo",
                  "  rules: [{from: [{source: {ipBlocks: [10.1.0.0/16]}}], to: [{operation: "
                  "{ports: [\"80\"]}}]}]\n"),
       kClient, 81, false, false},
      // Conditions: each must hold; one of its values, none of its notValues.
      {PolicyYaml("p", "demo",
                  "  rules: [{when: [{key: source.namespace, values: [demo, x]}, {key: "
                  "destination.port, values: [\"80\"]}]}]\n"),
       kClient, 80, true, true},
      {PolicyYaml("p", "demo",
                  "  rules: [{when: [{key: source.namespace, values: [demo, x]}, {key: "
                  "destination.port, values: [\"80\"]}]}]\n"),
       kClient, 81, false, false},
      {PolicyYaml("p", "demo",
                  "  rules: [{when: [{key: source.principal, values: [\"*\"], notValues: "
                  "[\"*/sa/client\"]}]}]\n"),
       kClient, 80, false, false},
      {PolicyYaml("p", "demo",
                  "  rules: [{from: [{source: {namespaces: [demo]}}], when: [{key: destination.ip, "
                  "notValues: [10.1.0.2/32]}]}]\n"),
       kClient, 80, true, false},
      {PolicyYaml("p", "demo",
                  "  rules: [{when: [{key: source.serviceAccount, values: "
                  "[client]}]}]\n"),
       kClient, 80, true, true},
      {PolicyYaml("p", "demo", "  rules: [{when: [{key: source.ip, values: [192.0.2.0/24]}]}]\n"),
       kClient, 80, false, false},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.policies + c.source + ":" + std::to_string(c.port));
    const Translated out = From(workloads + c.policies);
    ASSERT_THAT(Texts(out.problems), IsEmpty());
    EXPECT_EQ(Ask(out.config, "a", c.source, c.port).allowed, c.a);
    EXPECT_EQ(Ask(out.config, "b", c.source, c.port).allowed, c.b);
  }
}

TEST(Translate, StrictDeniesPlaintextAndTheNarrowestCounts) {
  const auto peer = [](const std::string& name, const std::string& space, const std::string& mode,
                       const std::string& app) {
    return "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: " + name +
           ", namespace: " + space + "}\nspec:\n  mtls: {mode: " + mode + "}\n" +
           (app.empty() ? "" : "  selector: {matchLabels: {app: " + app + "}}\n") + "---\n";
  };
  const std::string workloads =
      WorkloadYaml("a", "10.1.0.1", "a") + WorkloadYaml("b", "10.1.0.2", "b");
  const auto verdicts = [&](const std::string& text) {
    const Translated out = From(workloads + text);
    EXPECT_THAT(Texts(out.problems), IsEmpty());
    EXPECT_TRUE(Ask(out.config, "a", kClient, 80).allowed);
    return std::pair(Ask(out.config, "a", "", 80).allowed, Ask(out.config, "b", "", 80).allowed);
  };
  EXPECT_EQ(verdicts(""), std::pair(true, true));
  EXPECT_EQ(verdicts(peer("m", "istio-system", "STRICT", "")), std::pair(false, false));
  EXPECT_EQ(verdicts(peer("m", "istio-system", "STRICT", "") + peer("n", "demo", "PERMISSIVE", "")),
            std::pair(true, true));
  EXPECT_EQ(verdicts(peer("n", "demo", "PERMISSIVE", "") + peer("w", "demo", "STRICT", "b")),
            std::pair(true, false));
  EXPECT_EQ(verdicts(peer("n", "other", "STRICT", "")), std::pair(true, true));
}

std::string DemoFolder() {
  return std::filesystem::path(WEFT_SOURCE_DIR) / "deploy/demo/manifests";
}

TEST(Demo, ItsManifestsGiveWhatItsReadmeSays) {
  ManifestFolder folder(DemoFolder());
  const auto files = folder.Read({});
  ASSERT_TRUE(files.ok());
  LoadResult loaded = LoadManifests(*files, {});
  Problems problems = loaded.problems;
  const Configuration config = Translate(loaded.set, {}, &problems);
  EXPECT_THAT(Texts(problems), IsEmpty());
  EXPECT_THAT(config.workloads, SizeIs(7));
  EXPECT_THAT(AddressesOf(config, "outbound|80||web-all.demo.svc.cluster.local"),
              ElementsAre("10.244.1.11:8080", "10.244.2.12:8080", "10.244.2.13:8080"));
  EXPECT_THAT(AddressesOf(config, "outbound|80||web-canary.demo.svc.cluster.local"),
              ElementsAre("10.244.2.13:8080"));
  const model::Listener* redis =
      ByName(config.listeners, "outbound|6379||redis.demo.svc.cluster.local");
  ASSERT_NE(redis, nullptr);
  EXPECT_FALSE(redis->http.has_value());
  EXPECT_EQ(redis->address->ToString(), "10.96.0.20:6379");
  EXPECT_TRUE(Ask(config, "redis-a", kClient, 6379).allowed);
  EXPECT_FALSE(Ask(config, "redis-a", "spiffe://cluster.local/ns/demo/sa/intruder", 6379).allowed);
}

// Everything weft-control sends must be something that the other end accepts, unchanged.
TEST(Demo, EveryResourceDecodesToItself) {
  ManifestFolder folder(DemoFolder());
  const auto files = folder.Read({});
  ASSERT_TRUE(files.ok());
  const LoadResult loaded = LoadManifests(*files, {});
  Problems problems;
  const Configuration config = Translate(loaded.set, {}, &problems);
  size_t decoded_count = 0;
  for (const xds::Encoded& encoded : EncodeAll(config)) {
    const auto decoded = xds::DecodeResource(encoded.type_url, encoded.bytes);
    ASSERT_TRUE(decoded.ok()) << encoded.name << ": " << decoded.status();
    EXPECT_EQ(decoded->name, encoded.name);
    ++decoded_count;
    if (const auto* route =
            std::get_if<std::shared_ptr<const model::RouteConfiguration>>(&decoded->resource)) {
      EXPECT_EQ(**route, *ByName(config.routes, encoded.name));
    } else if (const auto* listener =
                   std::get_if<std::shared_ptr<const model::Listener>>(&decoded->resource)) {
      EXPECT_EQ(**listener, *ByName(config.listeners, encoded.name));
    } else if (const auto* cluster =
                   std::get_if<std::shared_ptr<const model::Cluster>>(&decoded->resource)) {
      EXPECT_EQ(**cluster, *ByName(config.clusters, encoded.name));
    } else if (const auto* workload =
                   std::get_if<std::shared_ptr<const model::Workload>>(&decoded->resource)) {
      EXPECT_EQ(**workload, *ByName(config.workloads, (*workload)->name));
    } else if (const auto* service =
                   std::get_if<std::shared_ptr<const model::Service>>(&decoded->resource)) {
      EXPECT_EQ(**service, *ByName(config.services, (*service)->name));
    } else if (const auto* policy =
                   std::get_if<std::shared_ptr<const model::Authorization>>(&decoded->resource)) {
      EXPECT_EQ(**policy, *ByName(config.authorizations, (*policy)->name));
    }
  }
  // 5 listeners, clusters, endpoints and services; 4 routes; 7 workloads; 2 policies.
  EXPECT_EQ(decoded_count, 33u);
}

// The same, for every field a manifest can set: what the table tests above use.
TEST(Translate, EveryFeatureSurvivesTheWire) {
  const Translated out = From(
      ServiceYaml(
          "web", "10.96.0.10",
          Annotations(
              "    weft.dev/retry-on: "
              "\"5xx,gateway-error,connect-failure,reset,refused-stream,retriable-4xx,409\"\n"
              "    weft.dev/per-try-timeout: 2s\n    weft.dev/retry-budget-percent: \"25\"\n"
              "    weft.dev/outlier-interval: 250ms\n    weft.dev/lb-policy: random\n"),
          "web") +
      ServiceYaml("grpc", "10.96.0.12", Annotations("    weft.dev/per-try-timeout: 2s\n"),
                  "grpc-x") +
      RouteYaml(
          "    - name: all\n"
          "      matches:\n"
          "        - {path: {type: RegularExpression, value: \"/a.*\"}, method: PUT, headers: "
          "[{name: h, type: RegularExpression, "
          "value: \"x|y\"}], queryParams: [{name: q, type: RegularExpression, value: \".\"}]}\n"
          "        - {path: {type: Exact, value: /b}}\n"
          "      filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, "
          "value: b}], add: [{name: c, value: "
          "d}], remove: [e]}}, {type: URLRewrite, urlRewrite: {hostname: h.example}}]\n"
          "      retry: {codes: [503], attempts: 2, backoff: 100ms}\n"
          "      timeouts: {request: 5s, backendRequest: 1s}\n"
          "      backendRefs: [{name: web, port: 80, weight: 3}, {name: grpc, port: 80, weight: 1, "
          "filters: [{type: "
          "ResponseHeaderModifier, responseHeaderModifier: {set: [{name: a, value: b}]}}]}]\n"
          "    - name: prefix\n"
          "      matches: [{path: {value: /c}}]\n"
          "      filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, "
          "replacePrefixMatch: /}}}]\n"
          "      timeouts: {backendRequest: 1s}\n" +
          std::string(kTo) +
          "    - name: redirect\n"
          "      matches: [{path: {value: /d}}]\n"
          "      filters: [{type: RequestRedirect, requestRedirect: {scheme: https, hostname: "
          "h.example, port: 8443, statusCode: 308, "
          "path: {type: ReplaceFullPath, replaceFullPath: /z}}}]\n") +
      PolicyYaml("p", "demo",
                 "  action: DENY\n  rules:\n    - {}\n    - from: [{source: {principals: [\"*\"], "
                 "notPrincipals: [\"a*\"], namespaces: "
                 "[\"*b\"], notNamespaces: [c], ipBlocks: [10.0.0.0/8, \"fd00::/8\"], notIpBlocks: "
                 "[10.1.1.1], serviceAccounts: [d/e], "
                 "notServiceAccounts: [f]}}]\n      to: [{operation: {ports: [\"1\"], notPorts: "
                 "[\"2\"]}}]\n"));
  ASSERT_THAT(Texts(out.problems), IsEmpty());
  for (const xds::Encoded& encoded : EncodeAll(out.config)) {
    const auto decoded = xds::DecodeResource(encoded.type_url, encoded.bytes);
    ASSERT_TRUE(decoded.ok()) << encoded.name << ": " << decoded.status();
    if (const auto* route =
            std::get_if<std::shared_ptr<const model::RouteConfiguration>>(&decoded->resource)) {
      const auto& want = ByName(out.config.routes, encoded.name)->virtual_hosts[0].routes;
      const auto& got = (*route)->virtual_hosts[0].routes;
      ASSERT_EQ(got.size(), want.size());
      for (size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i], want[i]) << want[i].name;
      EXPECT_EQ(**route, *ByName(out.config.routes, encoded.name));
    } else if (const auto* listener =
                   std::get_if<std::shared_ptr<const model::Listener>>(&decoded->resource)) {
      EXPECT_EQ(**listener, *ByName(out.config.listeners, encoded.name));
    } else if (const auto* cluster =
                   std::get_if<std::shared_ptr<const model::Cluster>>(&decoded->resource)) {
      EXPECT_EQ(**cluster, *ByName(out.config.clusters, encoded.name));
    } else if (const auto* policy =
                   std::get_if<std::shared_ptr<const model::Authorization>>(&decoded->resource)) {
      EXPECT_EQ(**policy, *ByName(out.config.authorizations, (*policy)->name));
    }
  }
}

TEST(Translate, TheSameManifestsGiveTheSameBytes) {
  const std::string text = ServiceYaml("web", "10.96.0.10") +
                           WorkloadYaml("w1", "10.1.0.1", "web") +
                           WorkloadYaml("w2", "10.1.0.2", "web");
  const std::string moved = "# a comment\n\n" + WorkloadYaml("w2", "10.1.0.2", "web") +
                            WorkloadYaml("w1", "10.1.0.1", "web") +
                            ServiceYaml("web", "10.96.0.10");
  const auto a = EncodeAll(From(text).config);
  const auto b = EncodeAll(From(moved).config);
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].name, b[i].name);
    EXPECT_EQ(a[i].bytes, b[i].bytes) << a[i].name;
  }
}

}  // namespace
}  // namespace weft::plane
