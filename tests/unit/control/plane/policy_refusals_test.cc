// SPDX-License-Identifier: Apache-2.0
// NetworkPolicy, ProcessPolicy and AuthorizationPolicy: every refusal says file, line, field and
// cause.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/control/plane/manifests.h"

namespace weft::plane {
namespace {

using ::testing::ElementsAre;
using ::testing::StartsWith;

struct Refusal {
  const char* name;
  std::string text;
  // The one problem starts with this.
  const char* problem;
};
class PolicyRefusalTest : public ::testing::TestWithParam<Refusal> {};

TEST_P(PolicyRefusalTest, NamesFileLineAndField) {
  const LoadResult result = Load(GetParam().text);
  EXPECT_THAT(Texts(result.problems), ElementsAre(StartsWith(GetParam().problem)));
  EXPECT_TRUE(result.set.objects.empty());
}

const auto kNameOf = [](const auto& each) { return each.param.name; };

// From line 5 on: the fields of spec, indented by two.
std::string Of(const char* kind, const char* api, const std::string& spec) {
  return std::string("apiVersion: ") + api + "\nkind: " + kind +
         "\nmetadata: {name: x, namespace: demo}\nspec:\n" + spec;
}
std::string Net(const std::string& spec) {
  return Of("NetworkPolicy", "networking.k8s.io/v1", "  podSelector: {}\n" + spec);
}
std::string From(const std::string& peer) {
  return Net("  ingress:\n    - from:\n        - " + peer + "\n");
}
std::string Port(const std::string& port) {
  return Net("  ingress:\n    - ports:\n        - " + port + "\n");
}
std::string Proc(const std::string& rule) {
  return Of("ProcessPolicy", "weft.dev/v1", "  rules:\n    - " + rule + "\n");
}
std::string Auth(const std::string& spec) {
  return Of("AuthorizationPolicy", "security.istio.io/v1", spec);
}

INSTANTIATE_TEST_SUITE_P(
    Network, PolicyRefusalTest,
    ::testing::Values(
        Refusal{"NoSelector",
                Of("NetworkPolicy", "networking.k8s.io/v1", "  policyTypes: [Ingress]\n"),
                "f.yaml:5: spec.podSelector: missing"},
        Refusal{"OtherVersion",
                "apiVersion: extensions/v1beta1\nkind: NetworkPolicy\nmetadata: {name: x}\n",
                "f.yaml:1: apiVersion: \"extensions/v1beta1\" of NetworkPolicy is not accepted"},
        Refusal{"UnknownField", Net("  policyType: [Ingress]\n"),
                "f.yaml:6: spec.policyType: unknown field; known here: egress, ingress, "
                "podSelector, policyTypes"},
        Refusal{"UnknownType", Net("  policyTypes: [Inbound]\n"),
                "f.yaml:6: spec.policyTypes: expected Ingress or Egress, found \"Inbound\""},
        Refusal{"ToInIngress", Net("  ingress:\n    - to: []\n"),
                "f.yaml:7: spec.ingress[0].to: unknown field; known here: from, ports"},
        Refusal{"EmptyPeer", From("{}"),
                "f.yaml:8: spec.ingress[0].from[0].podSelector: one of podSelector, "
                "namespaceSelector and ipBlock is needed"},
        Refusal{"BlockAndSelector", From("{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}"),
                "f.yaml:8: spec.ingress[0].from[0].ipBlock: does not go with a selector"},
        Refusal{"NoCidr", From("{ipBlock: {except: []}}"),
                "f.yaml:8: spec.ingress[0].from[0].ipBlock.cidr: missing"},
        Refusal{"CidrWithoutLength", From("{ipBlock: {cidr: 10.0.0.1}}"),
                "f.yaml:8: spec.ingress[0].from[0].ipBlock.cidr: \"10.0.0.1\" is no CIDR block"},
        Refusal{"CidrTooLong", From("{ipBlock: {cidr: 10.0.0.0/33}}"),
                "f.yaml:8: spec.ingress[0].from[0].ipBlock.cidr: \"10.0.0.0/33\" is no CIDR block"},
        Refusal{"ExceptOutside", From("{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}"),
                "f.yaml:8: spec.ingress[0].from[0].ipBlock.except: \"11.0.0.0/16\" is not a part "
                "of 10.0.0.0/8"},
        Refusal{"ExceptTheSame", From("{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}"),
                "f.yaml:8: spec.ingress[0].from[0].ipBlock.except: \"10.0.0.0/8\" is not a part"},
        Refusal{"ExceptOtherFamily", From("{ipBlock: {cidr: \"::/0\", except: [10.0.0.0/8]}}"),
                "f.yaml:8: spec.ingress[0].from[0].ipBlock.except: \"10.0.0.0/8\" is not a part"},
        Refusal{"Operator", From("{podSelector: {matchExpressions: [{key: a, operator: Equals}]}}"),
                "f.yaml:8: spec.ingress[0].from[0].podSelector.matchExpressions[0].operator: "
                "expected In, NotIn, Exists or DoesNotExist, found \"Equals\""},
        Refusal{"InWithoutValues",
                From("{podSelector: {matchExpressions: [{key: a, operator: In}]}}"),
                "f.yaml:8: spec.ingress[0].from[0].podSelector.matchExpressions[0].values: In "
                "needs at least one"},
        Refusal{
            "ExistsWithValues",
            From("{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}"),
            "f.yaml:8: spec.ingress[0].from[0].podSelector.matchExpressions[0].values: does "
            "not go with Exists"},
        Refusal{"LabelKey", From("{podSelector: {matchLabels: {\"a b\": c}}}"),
                "f.yaml:8: spec.ingress[0].from[0].podSelector.matchLabels: \"a b=c\" is no label"},
        Refusal{"SelectorField", From("{podSelector: {matchLabel: {a: b}}}"),
                "f.yaml:8: spec.ingress[0].from[0].podSelector.matchLabel: unknown field"},
        Refusal{"Protocol", Port("{protocol: tcp}"),
                "f.yaml:8: spec.ingress[0].ports[0].protocol: expected TCP, UDP or SCTP, found"},
        Refusal{"PortNumber", Port("{port: 65536}"),
                "f.yaml:8: spec.ingress[0].ports[0].port: expected a port number or the name of"},
        Refusal{"PortText", Port("{port: \"80\"}"),
                "f.yaml:8: spec.ingress[0].ports[0].port: expected a port number or the name of"},
        Refusal{"PortName", Port("{port: not-a-port-name-at-all}"),
                "f.yaml:8: spec.ingress[0].ports[0].port: expected a port number or the name of"},
        Refusal{"EndAlone", Port("{endPort: 80}"),
                "f.yaml:8: spec.ingress[0].ports[0].endPort: needs port"},
        Refusal{"EndBefore", Port("{port: 80, endPort: 79}"),
                "f.yaml:8: spec.ingress[0].ports[0].endPort: less than port"},
        Refusal{"EndOfName", Port("{port: http, endPort: 81}"),
                "f.yaml:8: spec.ingress[0].ports[0].endPort: needs a port number, not a name"},
        Refusal{"PodPortProtocol",
                "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  containers:\n    - "
                "ports: [{name: a, containerPort: 1, protocol: ICMP}]\n",
                "f.yaml:6: spec.containers[].ports[].protocol: expected TCP, UDP or SCTP"},
        Refusal{"WorkloadPort",
                Of("Workload", "weft.dev/v1", "  addresses: [10.0.0.1]\n  ports: {a: 1/tcp}\n"),
                "f.yaml:6: spec.ports.a: expected a port number"}),
    kNameOf);

INSTANTIATE_TEST_SUITE_P(
    Process, PolicyRefusalTest,
    ::testing::Values(
        Refusal{"NoRules", Of("ProcessPolicy", "weft.dev/v1", "  mode: Monitor\n"),
                "f.yaml:5: spec.rules: missing or empty"},
        Refusal{
            "Mode",
            Of("ProcessPolicy", "weft.dev/v1", "  mode: Off\n  rules: [{name: a, action: Log}]\n"),
            "f.yaml:5: spec.mode: expected Enforce or Monitor, found \"Off\""},
        Refusal{"UnknownField", Proc("{name: a, action: Log, binary: /bin/sh}"),
                "f.yaml:6: spec.rules[0].binary: unknown field; known here: action, arguments, "
                "binaries, connect, name, notBinaries"},
        Refusal{"NoName", Proc("{action: Log}"), "f.yaml:6: spec.rules[0].name: missing"},
        Refusal{"NoAction", Proc("{name: a}"), "f.yaml:6: spec.rules[0].action: missing"},
        Refusal{"Action", Proc("{name: a, action: Block}"),
                "f.yaml:6: spec.rules[0].action: expected Log, Deny or Kill, found \"Block\""},
        Refusal{"Relative", Proc("{name: a, action: Log, binaries: [curl]}"),
                "f.yaml:6: spec.rules[0].binaries: \"curl\": expected an absolute path"},
        Refusal{"Star", Proc("{name: a, action: Log, notBinaries: [\"/usr/*/curl\"]}"),
                "f.yaml:6: spec.rules[0].notBinaries: \"/usr/*/curl\": '*' may be last only"},
        Refusal{"Argument", Proc("{name: a, action: Log, arguments: [\"\"]}"),
                "f.yaml:6: spec.rules[0].arguments: empty, or no argument"},
        Refusal{"DenyAtExec", Proc("{name: a, action: Deny, binaries: [/bin/sh]}"),
                "f.yaml:6: spec.rules[0].action: Deny needs connect"},
        Refusal{"KillEverything", Proc("{name: a, action: Kill}"),
                "f.yaml:6: spec.rules[0].action: Kill needs binaries"},
        Refusal{"TwoKindsOfTarget",
                Proc("{name: a, action: Deny, connect: {to: [{podSelector: {}, ipBlock: {cidr: "
                     "10.0.0.0/8}}]}}"),
                "f.yaml:6: spec.rules[0].connect.to[0].podSelector: exactly one of"},
        Refusal{"NoTarget", Proc("{name: a, action: Deny, connect: {to: [{}]}}"),
                "f.yaml:6: spec.rules[0].connect.to[0].podSelector: exactly one of"},
        Refusal{"Identity",
                Proc("{name: a, action: Deny, connect: {to: [{identities: [demo/web]}]}}"),
                "f.yaml:6: spec.rules[0].connect.to[0].identities: \"demo/web\": expected "
                "spiffe://"},
        Refusal{"SameName", Proc("{name: a, action: Log}\n    - {name: a, action: Log}"),
                "f.yaml:7: spec.rules[1].name: \"a\" is given twice"}),
    kNameOf);

INSTANTIATE_TEST_SUITE_P(
    Authorization, PolicyRefusalTest,
    ::testing::Values(
        Refusal{"Custom", Auth("  action: CUSTOM\n"),
                "f.yaml:5: spec.action: \"CUSTOM\" is not supported, only ALLOW, DENY and AUDIT"},
        Refusal{"RemoteIps",
                Auth("  rules: [{from: [{source: {remoteIpBlocks: [10.0.0.0/8]}}]}]\n"),
                "f.yaml:5: spec.rules[0].from[0].source.remoteIpBlocks: an L7 attribute"},
        Refusal{"NotRemoteIps",
                Auth("  rules: [{from: [{source: {notRemoteIpBlocks: [10.0.0.0/8]}}]}]\n"),
                "f.yaml:5: spec.rules[0].from[0].source.notRemoteIpBlocks: an L7 attribute"},
        Refusal{"Unknown", Auth("  rules: [{from: [{source: {principal: [a]}}]}]\n"),
                "f.yaml:5: spec.rules[0].from[0].source.principal: unknown field"}),
    kNameOf);

}  // namespace
}  // namespace weft::plane
