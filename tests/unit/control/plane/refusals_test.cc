// SPDX-License-Identifier: Apache-2.0
// Every refusal says file, line, field and cause. A table: what is written, what is said about it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/control/plane/manifests.h"

namespace weft::plane {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

struct Refusal {
  const char* name;
  std::string text;
  // The one problem starts with this.
  const char* problem;
};
class RefusalTest : public ::testing::TestWithParam<Refusal> {};

TEST_P(RefusalTest, NamesFileLineAndField) {
  const LoadResult result = Load(GetParam().text);
  EXPECT_THAT(Texts(result.problems), ElementsAre(StartsWith(GetParam().problem)));
}

const auto kNameOf = [](const auto& each) { return each.param.name; };

std::string Meta(const char* kind, const char* api, const std::string& rest) {
  return std::string("apiVersion: ") + api + "\nkind: " + kind +
         "\nmetadata: {name: x, namespace: demo}\n" + rest;
}
std::string Service(const std::string& rest) { return Meta("Service", "v1", rest); }
std::string Policy(const std::string& rest) {
  return Meta("AuthorizationPolicy", "security.istio.io/v1", rest);
}
std::string Annotated(const std::string& annotation) {
  return "apiVersion: v1\nkind: Service\nmetadata:\n  name: x\n  annotations:\n    " + annotation +
         "\nspec: {}\n";
}

INSTANTIATE_TEST_SUITE_P(
    Documents, RefusalTest,
    ::testing::Values(
        Refusal{"UnknownKind", "\nkind: Deployment\napiVersion: apps/v1\n",
                "f.yaml:2: kind: \"Deployment\" (apps/v1) is not accepted; accepted are Namespace "
                "(v1), ServiceAccount (v1), Pod "
                "(v1), Service (v1), EndpointSlice (discovery.k8s.io/v1), Workload (weft.dev/v1), "
                "HTTPRoute "
                "(gateway.networking.k8s.io/v1), AuthorizationPolicy (security.istio.io/v1), "
                "PeerAuthentication "
                "(security.istio.io/v1), NetworkPolicy (networking.k8s.io/v1), ProcessPolicy "
                "(weft.dev/v1), WorkloadList (weft.dev/v1), List (v1)"},
        Refusal{"OtherVersion", Meta("HTTPRoute", "gateway.networking.k8s.io/v1beta1", ""),
                "f.yaml:1: apiVersion: \"gateway.networking.k8s.io/v1beta1\" of HTTPRoute is not "
                "accepted, only "
                "gateway.networking.k8s.io/v1"},
        Refusal{"NoKind", "apiVersion: v1\n", "f.yaml:1: kind: missing"},
        Refusal{"NoName", "apiVersion: v1\nkind: Namespace\nmetadata: {}\n",
                "f.yaml:3: metadata.name: missing"},
        Refusal{"NoMetadata", "apiVersion: v1\nkind: Namespace\n", "f.yaml:1: metadata: missing"},
        Refusal{"BadName", "apiVersion: v1\nkind: Namespace\nmetadata: {name: \"a|b\"}\n",
                "f.yaml:3: \"a|b\" is no object name"},
        Refusal{"UnknownField", Service("spec: {}\nextra: 1\n"),
                "f.yaml:5: extra: unknown field; known here: apiVersion, kind"},
        Refusal{"UnknownMeta",
                "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: x\n  lable: {}\n",
                "f.yaml:5: metadata.lable: unknown field; known here: annotations,"},
        Refusal{"NotAMap", "- a\n- b\n", "f.yaml:1: the document: expected a map, found a list"},
        Refusal{"NamespacedNamespace",
                "apiVersion: v1\nkind: Namespace\nmetadata: {name: x, namespace: y}\n",
                "f.yaml:3: metadata.namespace: objects of this kind have none"},
        Refusal{"Twice", Service("spec: {}\n---\n") + Service("spec: {}\n"),
                "f.yaml:6: Service demo/x: already declared at f.yaml:1"}),
    kNameOf);

INSTANTIATE_TEST_SUITE_P(
    Workloads, RefusalTest,
    ::testing::Values(
        Refusal{"PodField", Meta("Pod", "v1", "spec:\n  nodename: a\n"),
                "f.yaml:5: spec.nodename: unknown field"},
        Refusal{"PodAddress", Meta("Pod", "v1", "status: {podIP: 10.0.0}\n"),
                "f.yaml:4: status.podIP: \"10.0.0\" is no IP address"},
        Refusal{"PodContainerPort",
                Meta("Pod", "v1", "spec:\n  containers:\n    - ports: [{containerPort: 99999}]\n"),
                "f.yaml:6: spec.containers[].ports[].containerPort: expected a number from 1 to "
                "65535, found \"99999\""},
        Refusal{"NoAddresses", Meta("Workload", "weft.dev/v1", "spec: {}\n"),
                "f.yaml:4: spec.addresses: missing or empty"},
        Refusal{"BadNode",
                Meta("Workload", "weft.dev/v1", "spec: {addresses: [10.0.0.1], node: \"a b\"}\n"),
                "f.yaml:4: spec.node: \"a b\" is no object name"},
        Refusal{
            "BadAccount",
            Meta("Workload", "weft.dev/v1", "spec: {addresses: [10.0.0.1], serviceAccount: a/b}\n"),
            "f.yaml:4: spec.serviceAccount: \"a/b\" is no object name"},
        Refusal{"RelativeNetns",
                Meta("Workload", "weft.dev/v1", "spec: {addresses: [10.0.0.1], netns: x}\n"),
                "f.yaml:4: spec.netns: expected an absolute path"},
        Refusal{"ListItem",
                "apiVersion: weft.dev/v1\nkind: WorkloadList\nitems:\n  - {name: a, addresses: "
                "[10.0.0.1]}\n"
                "  - {name: b, address: 10.0.0.2, addresses: [10.0.0.2]}\n",
                "f.yaml:5: items[1].address: unknown field; known here: addresses, annotations, "
                "labels"},
        Refusal{"SameAddress",
                WorkloadYaml("a", "10.0.0.1", "x") + WorkloadYaml("b", "10.0.0.1", "x"),
                "f.yaml:8: address 10.0.0.1 belongs to Workload demo/a (f.yaml:1) already"},
        Refusal{"MeshSwitch",
                "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: x\n  labels: {weft.dev/mesh: "
                "maybe}\n",
                "f.yaml:5: weft.dev/mesh: expected on, off, found \"maybe\""},
        Refusal{"UnknownSwitch",
                "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: x\n  labels: {weft.dev/mash: "
                "\"on\"}\n",
                "f.yaml:5: weft.dev/mash: unknown annotation; known here: weft.dev/mesh"}),
    kNameOf);

INSTANTIATE_TEST_SUITE_P(
    Services, RefusalTest,
    ::testing::Values(
        Refusal{
            "PortText", Service("spec:\n  ports:\n    - {port: eighty}\n"),
            "f.yaml:6: spec.ports[0].port: expected a number from 1 to 65535, found \"eighty\""},
        Refusal{"NoPort", Service("spec:\n  ports:\n    - {name: a}\n"),
                "f.yaml:6: spec.ports[0].port: missing"},
        Refusal{"PortTwice",
                Service("spec:\n  ports:\n    - {name: a, port: 1}\n    - {name: b, port: 1}\n"),
                "f.yaml:7: spec.ports[1].port: 1 is given twice"},
        Refusal{"TargetPort", Service("spec:\n  ports:\n    - {port: 80, targetPort: 0}\n"),
                "f.yaml:6: spec.ports[0].targetPort: expected a port number or the name"},
        Refusal{"Protocol", Service("spec:\n  ports:\n    - {port: 80, protocol: SCTP}\n"),
                "f.yaml:6: spec.ports[0].protocol: expected TCP or UDP, found \"SCTP\""},
        Refusal{"External", Service("spec:\n  type: ExternalName\n"),
                "f.yaml:5: spec.type: \"ExternalName\" is not supported"},
        Refusal{"Affinity", Service("spec: {sessionAffinity: Cookie}\n"),
                "f.yaml:4: spec.sessionAffinity: expected ClientIP or None, found \"Cookie\""},
        Refusal{"AffinityTime",
                Service("spec:\n  sessionAffinity: ClientIP\n  sessionAffinityConfig: {clientIP: "
                        "{timeoutSeconds: 86401}}\n"),
                "f.yaml:6: spec.sessionAffinityConfig.clientIP.timeoutSeconds: expected a number "
                "from 1 to 86400"},
        Refusal{"AffinityTimeOfNone",
                Service("spec:\n  sessionAffinityConfig: {clientIP: {timeoutSeconds: 5}}\n"),
                "f.yaml:5: spec.sessionAffinityConfig: needs sessionAffinity: ClientIP"},
        Refusal{"Distribution", Service("spec: {trafficDistribution: PreferFar}\n"),
                "f.yaml:4: spec.trafficDistribution: expected PreferSameNode, PreferSameZone or "
                "PreferClose, found \"PreferFar\""},
        Refusal{"Vip", Service("spec: {clusterIP: ten}\n"),
                "f.yaml:4: spec.clusterIP: \"ten\" is no IP address"},
        Refusal{"SameVip", ServiceYaml("a", "10.96.0.1") + ServiceYaml("b", "10.96.0.1"),
                "f.yaml:12: address 10.96.0.1 belongs to Service demo/a (f.yaml:1) already"},
        Refusal{"LongName", "apiVersion: v1\nkind: Service\nmetadata: {name: a.b}\nspec: {}\n",
                "f.yaml:1: metadata.name: a Service's name is at most 63 characters"},
        Refusal{"SliceOfNobody",
                Meta("EndpointSlice", "discovery.k8s.io/v1", "addressType: IPv4\n"),
                "f.yaml:1: metadata.labels: kubernetes.io/service-name is missing"},
        Refusal{"HttpOnTcpPort",
                "apiVersion: v1\nkind: Service\nmetadata:\n  name: x\n  annotations: "
                "{weft.dev/protocol: http}\nspec:\n  ports:\n"
                "    - {name: tcp-x, port: 80}\n",
                "f.yaml:8: port 80 (tcp-x) declares TCP, but weft.dev/protocol says http"}),
    kNameOf);

INSTANTIATE_TEST_SUITE_P(
    Annotations, RefusalTest,
    ::testing::Values(
        Refusal{"Unknown", Annotated("weft.dev/max-conections: \"1\""),
                "f.yaml:6: weft.dev/max-conections: unknown annotation; of a Service are known "
                "weft.dev/: protocol, lb-policy"},
        Refusal{"NotANumber", Annotated("weft.dev/max-connections: many"),
                "f.yaml:6: weft.dev/max-connections: expected a number from 1 to 4294967295, found "
                "\"many\""},
        Refusal{"Percent", Annotated("weft.dev/outlier-max-ejection-percent: \"101\""),
                "f.yaml:6: weft.dev/outlier-max-ejection-percent: expected a number from 0 to 100, "
                "found \"101\""},
        Refusal{"Duration", Annotated("weft.dev/timeout: 10"),
                "f.yaml:6: weft.dev/timeout: expected a duration such as 500ms, 10s or 1m30s, "
                "found \"10\""},
        Refusal{"ZeroConnect", Annotated("weft.dev/connect-timeout: 0s"),
                "f.yaml:6: weft.dev/connect-timeout: expected a duration such as 500ms, 10s or "
                "1m30s, above zero"},
        Refusal{"Policy", Annotated("weft.dev/lb-policy: ring"),
                "f.yaml:6: weft.dev/lb-policy: expected round_robin, least_request, random or "
                "maglev, found \"ring\""},
        Refusal{"WorkloadWeight",
                "apiVersion: v1\nkind: Pod\nmetadata: {name: x, annotations: {weft.dev/weight: "
                "\"0\"}}\nspec: {}\n",
                "f.yaml:3: weft.dev/weight: expected a number from 1 to 1000, found \"0\""},
        Refusal{"RetryOn", Annotated("weft.dev/retry-on: 5xx,sometimes"),
                "f.yaml:6: weft.dev/retry-on: expected a comma-separated list of 5xx, "
                "gateway-error, connect-failure, reset, "
                "refused-stream, retriable-4xx, and status codes"},
        Refusal{"AttemptsAlone", Annotated("weft.dev/retry-attempts: \"3\""),
                "f.yaml:6: weft.dev/retry-attempts: has no effect without weft.dev/retry-on"},
        Refusal{"HttpOnTcp", Annotated("{weft.dev/protocol: tcp, weft.dev/timeout: 1s}"),
                "f.yaml:6: weft.dev/timeout: needs HTTP, but weft.dev/protocol is tcp"}),
    kNameOf);

std::string Route(const std::string& rules) {
  return ServiceYaml("web", "10.96.0.1") + RouteYaml(rules);
}
constexpr char kBackend[] = "      backendRefs: [{name: web, port: 80}]\n";

INSTANTIATE_TEST_SUITE_P(
    Routes, RefusalTest,
    ::testing::Values(
        // The route's rules start at line 18 of these files.
        Refusal{"Weight", Route("    - backendRefs: [{name: web, port: 80, weight: ninety}]\n"),
                "f.yaml:18: spec.rules[0].backendRefs[0].weight: expected a number from 0 to "
                "1000000, found \"ninety\""},
        Refusal{"NoBackend", Route("    - matches: [{method: GET}]\n"),
                "f.yaml:18: spec.rules[0].backendRefs: missing, and there is no RequestRedirect"},
        Refusal{"ZeroWeights", Route("    - backendRefs: [{name: web, port: 80, weight: 0}]\n"),
                "f.yaml:18: spec.rules[0].backendRefs: the weights must add up to more than zero"},
        Refusal{"Regex",
                Route(std::string(
                          "    - matches: [{path: {type: RegularExpression, value: \"/(\"}}]\n") +
                      kBackend),
                "f.yaml:18: spec.rules[0].matches[0].path.value: not a regular expression (RE2): "
                "missing )"},
        Refusal{
            "PathType",
            Route(std::string("    - matches: [{path: {type: Prefix, value: /}}]\n") + kBackend),
            "f.yaml:18: spec.rules[0].matches[0].path.type: expected Exact, PathPrefix or "
            "RegularExpression, found \"Prefix\""},
        Refusal{"RelativePath",
                Route(std::string("    - matches: [{path: {value: x}}]\n") + kBackend),
                "f.yaml:18: spec.rules[0].matches[0].path.value: \"x\" does not start with /"},
        Refusal{"Method", Route(std::string("    - matches: [{method: get}]\n") + kBackend),
                "f.yaml:18: spec.rules[0].matches[0].method: \"get\" is no HTTP method"},
        Refusal{"HeaderName",
                Route(std::string("    - matches: [{headers: [{name: \"a b\", value: c}]}]\n") +
                      kBackend),
                "f.yaml:18: spec.rules[0].matches[0].headers[0].name: \"a b\" is no header name"},
        Refusal{"HeaderValue",
                Route(std::string("    - filters: [{type: RequestHeaderModifier, "
                                  "requestHeaderModifier: {set: [{name: a, value: "
                                  "\"x\\r\\ny: z\"}]}}]\n") +
                      kBackend),
                "f.yaml:18: spec.rules[0].filters[0].requestHeaderModifier.set[0].value: contains "
                "control characters"},
        Refusal{"Filter",
                Route(std::string("    - filters: [{type: RequestMirror, requestMirror: {}}]\n") +
                      kBackend),
                "f.yaml:18: spec.rules[0].filters[0].type: \"RequestMirror\" is not supported; "
                "supported are"},
        Refusal{
            "RewriteNeedsPrefix",
            Route(std::string("    - matches: [{path: {type: Exact, value: /a}}]\n      filters: "
                              "[{type: URLRewrite, urlRewrite: "
                              "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]\n") +
                  kBackend),
            "f.yaml:18: spec.rules[0].filters: ReplacePrefixMatch needs PathPrefix matches"},
        Refusal{
            "RedirectAndBackend",
            Route(
                std::string(
                    "    - filters: [{type: RequestRedirect, requestRedirect: {hostname: x}}]\n") +
                kBackend),
            "f.yaml:18: spec.rules[0].filters: RequestRedirect goes neither with backendRefs"},
        Refusal{"Timeout", Route(std::string("    - timeouts: {request: 1 second}\n") + kBackend),
                "f.yaml:18: spec.rules[0].timeouts.request: \"1 second\" is no duration"},
        Refusal{
            "TimeoutOrder",
            Route(std::string("    - timeouts: {request: 1s, backendRequest: 2s}\n") + kBackend),
            "f.yaml:18: spec.rules[0].timeouts.backendRequest: longer than timeouts.request"},
        Refusal{"RetryCode", Route(std::string("    - retry: {codes: [200]}\n") + kBackend),
                "f.yaml:18: spec.rules[0].retry.codes: \"200\": expected a status code from 400 to "
                "599"},
        Refusal{"OtherNamespace",
                Route("    - backendRefs: [{name: web, namespace: other, port: 80}]\n"),
                "f.yaml:18: spec.rules[0].backendRefs[0].namespace: \"other\": a backend in "
                "another namespace needs a ReferenceGrant"},
        Refusal{"UnknownBackend", Route("    - backendRefs: [{name: nobody, port: 80}]\n"),
                "f.yaml:18: backendRefs: there is no Service demo/nobody"},
        Refusal{"UnknownPort", Route("    - backendRefs: [{name: web, port: 81}]\n"),
                "f.yaml:18: backendRefs: Service web has no port 81"},
        Refusal{"UnknownParent",
                RouteYaml(std::string("    - name: a\n") +
                          "      filters: [{type: RequestRedirect, requestRedirect: {}}]\n"),
                "f.yaml:5: parentRefs: there is no Service demo/web"},
        Refusal{"ParentIsTcp",
                ServiceYaml("web", "10.96.0.1", "", "tcp-x") +
                    RouteYaml(std::string("    - name: a\n") + kBackend),
                "f.yaml:16: parentRefs: port 80 of Service web is declared TCP"},
        Refusal{"ParentIsGateway",
                "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: "
                "x}\nspec:\n  parentRefs: [{name: gw}]\n"
                "  rules: [{backendRefs: [{name: web, port: 80}]}]\n",
                "f.yaml:5: spec.parentRefs[0].kind: \"Gateway\" is not supported, only Service"},
        Refusal{"Hostnames",
                "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: "
                "x}\nspec:\n  parentRefs: [{kind: Service, "
                "name: gw}]\n  hostnames: [a]\n  rules: [{backendRefs: [{name: web, port: 80}]}]\n",
                "f.yaml:6: spec.hostnames: has no meaning for a route attached to a Service"}),
    kNameOf);

INSTANTIATE_TEST_SUITE_P(
    Policies, RefusalTest,
    ::testing::Values(
        Refusal{"When", Policy("spec:\n  rules:\n    - when: [{key: source.ip}]\n"),
                "f.yaml:6: spec.rules[0].when[0].values: values or notValues are needed"},
        Refusal{
            "WhenL7",
            Policy("spec:\n  rules:\n    - when: [{key: \"request.headers[a]\", values: [b]}]\n"),
            "f.yaml:6: spec.rules[0].when[0].key: \"request.headers[a]\" is not supported"},
        Refusal{"WhenPort",
                Policy("spec:\n  rules:\n    - when: [{key: destination.port, values: [web]}]\n"),
                "f.yaml:6: spec.rules[0].when[0].values: \"web\" is no port number"},
        Refusal{
            "Methods",
            Policy(
                "spec:\n  rules:\n    - to:\n        - operation:\n            methods: [GET]\n"),
            "f.yaml:8: spec.rules[0].to[0].operation.methods: an L7 attribute"},
        Refusal{
            "Paths",
            Policy("spec:\n  rules:\n    - to: [{operation: {ports: [\"80\"], notPaths: [/a]}}]\n"),
            "f.yaml:6: spec.rules[0].to[0].operation.notPaths: an L7 attribute"},
        Refusal{"RequestPrincipals",
                Policy("spec:\n  rules:\n    - from: [{source: {requestPrincipals: [\"*\"]}}]\n"),
                "f.yaml:6: spec.rules[0].from[0].source.requestPrincipals: an L7 attribute"},
        Refusal{"Custom", Policy("spec:\n  action: CUSTOM\n"),
                "f.yaml:5: spec.action: \"CUSTOM\" is not supported, only ALLOW, DENY and AUDIT"},
        Refusal{
            "Scheme",
            Policy("spec:\n  rules:\n    - from: [{source: {principals: [\"spiffe://a/b\"]}}]\n"),
            "f.yaml:6: spec.rules[0].from[0].source.principals: \"spiffe://a/b\": principals are "
            "written without spiffe://"},
        Refusal{"Star",
                Policy("spec:\n  rules:\n    - from: [{source: {namespaces: [\"a*b\"]}}]\n"),
                "f.yaml:6: spec.rules[0].from[0].source.namespaces: \"a*b\": '*' may be first or "
                "last only"},
        Refusal{"Block",
                Policy("spec:\n  rules:\n    - from: [{source: {ipBlocks: [10.0.0.0/33]}}]\n"),
                "f.yaml:6: spec.rules[0].from[0].source.ipBlocks: \"10.0.0.0/33\" is no address or "
                "CIDR block"},
        Refusal{"Port", Policy("spec:\n  rules:\n    - to: [{operation: {ports: [http]}}]\n"),
                "f.yaml:6: spec.rules[0].to[0].operation.ports: \"http\" is no port number"},
        Refusal{"EmptySource", Policy("spec:\n  rules:\n    - from: [{source: {}}]\n"),
                "f.yaml:6: spec.rules[0].from[0].source: names nothing, so it would match nothing"},
        Refusal{"EmptyFrom", Policy("spec:\n  rules:\n    - from: []\n"),
                "f.yaml:6: spec.rules[0].from: empty"},
        Refusal{"Selector", Policy("spec: {selector: {matchExpressions: []}}\n"),
                "f.yaml:4: spec.selector.matchExpressions: unknown field"},
        Refusal{"Target", Policy("spec:\n  targetRefs: []\n"),
                "f.yaml:5: spec.targetRefs: not supported yet; use selector"},
        Refusal{
            "PeerMode",
            Meta("PeerAuthentication", "security.istio.io/v1", "spec: {mtls: {mode: DISABLE}}\n"),
            "f.yaml:4: spec.mtls.mode: \"DISABLE\" is not supported, only STRICT and PERMISSIVE"}),
    kNameOf);

TEST(Refusals, AllProblemsOfAnObjectAreListed) {
  const LoadResult result =
      Load(Service("spec:\n  foo: 1\n  ports:\n    - {port: 0}\n    - {port: 80, bar: 2}\n"));
  EXPECT_THAT(Texts(result.problems),
              ElementsAre(StartsWith("f.yaml:5: spec.foo: unknown field"),
                          StartsWith("f.yaml:7: spec.ports[0].port: expected"),
                          StartsWith("f.yaml:8: spec.ports[1].bar: unknown field")));
  EXPECT_EQ(result.problems[0].object, "Service demo/x");
  EXPECT_TRUE(result.set.objects.empty());
}

}  // namespace
}  // namespace weft::plane
