// SPDX-License-Identifier: Apache-2.0
// What single manifests of NetworkPolicy, ProcessPolicy and AuthorizationPolicy AUDIT become, how
// little one changed pod sends again, and how long it takes. Random ones:
// network_policy_oracle_test.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "control/plane/publisher.h"
#include "control/plane/translate.h"
#include "tests/unit/control/plane/manifests.h"
#include "xds/decode/decode.h"
#include "xds/model/authorization.h"

namespace weft::plane {
namespace {

using model::NetworkPolicy;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

Configuration From(const std::string& text) {
  const LoadResult loaded = Load(text);
  EXPECT_THAT(Texts(loaded.problems), IsEmpty());
  Problems problems;
  return Translate(loaded.set, {}, &problems);
}

std::string PodYaml(const std::string& name, const std::string& address, const std::string& app,
                    const std::string& ports = "", const std::string& space = "demo") {
  return "apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + ", namespace: " + space +
         ", labels: {app: " + app + "}}\nspec:\n  serviceAccountName: " + app +
         "\n  containers: [{name: c, ports: [" + ports + "]}]\nstatus: {podIP: " + address +
         "}\n---\n";
}
std::string PolicyYaml(const std::string& spec, const std::string& name = "p") {
  return "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: " + name +
         ", namespace: demo}\nspec:\n" + spec + "---\n";
}
std::string ProcessYaml(const std::string& rules) {
  return "apiVersion: weft.dev/v1\nkind: ProcessPolicy\nmetadata: {name: p, namespace: "
         "demo}\nspec:\n  selector: {matchLabels: {app: web}}\n  rules:\n" +
         rules + "---\n";
}
std::string Uid(const std::string& name, const std::string& space = "demo") {
  return "Kubernetes//Pod/" + space + "/" + name;
}

const char kHttp8080[] = "{name: http, containerPort: 8080}";
const char kHttp9090[] = "{name: http, containerPort: 9090}";
NetworkPolicy::Port Tcp(uint16_t first, uint16_t last) {
  return {NetworkPolicy::Protocol::kTcp, first, last};
}

TEST(NetworkPolicy, DefaultsOfPolicyTypes) {
  struct Case {
    const char* spec;
    bool ingress, egress;
  };
  const Case cases[] = {
      {"  podSelector: {}\n", true, false},
      {"  podSelector: {}\n  egress: []\n", true, false},  // no rule: as the API server defaults
      {"  podSelector: {}\n  egress: [{}]\n", true, true},
      {"  podSelector: {}\n  ingress: [{}]\n", true, false},
      {"  podSelector: {}\n  policyTypes: [Egress]\n  ingress: [{}]\n", false, true},
      {"  podSelector: {}\n  policyTypes: [Ingress]\n  egress: [{}]\n", true, false},
  };
  for (const Case& each : cases) {
    const auto config = From(PodYaml("a", "10.0.0.1", "web") + PolicyYaml(each.spec));
    ASSERT_THAT(config.network_policies, SizeIs(1));
    const NetworkPolicy& policy = config.network_policies[0];
    EXPECT_EQ(policy.isolates_ingress, each.ingress) << each.spec;
    EXPECT_EQ(policy.isolates_egress, each.egress) << each.spec;
    // Rules of a direction that is not isolated are not sent.
    EXPECT_TRUE(policy.isolates_ingress || policy.ingress.empty()) << each.spec;
    EXPECT_TRUE(policy.isolates_egress || policy.egress.empty()) << each.spec;
  }
}

TEST(NetworkPolicy, RulesKeepTheirPlaceAndWhatMatchesNobodyIsLeftOut) {
  const auto config = From(PodYaml("a", "10.0.0.1", "web") + PodYaml("b", "10.0.0.2", "db") +
                           PolicyYaml(R"(  podSelector: {matchLabels: {app: db}}
  ingress:
    - from: [{podSelector: {matchLabels: {app: none}}}]
    - from: [{podSelector: {matchLabels: {app: web}}}]
      ports: [{port: 5432}, {protocol: UDP, port: 100, endPort: 200}]
    - {}
)"));
  ASSERT_THAT(config.network_policies, SizeIs(1));
  const NetworkPolicy& policy = config.network_policies[0];
  EXPECT_EQ(policy.Key(), "demo/p");
  EXPECT_THAT(policy.subjects, ElementsAre(Uid("b")));
  ASSERT_THAT(policy.ingress, SizeIs(2));
  EXPECT_EQ(policy.ingress[0].index, 1u);
  EXPECT_THAT(policy.ingress[0].workloads, ElementsAre(Uid("a")));
  EXPECT_THAT(
      policy.ingress[0].ports,
      ElementsAre(Tcp(5432, 5432), NetworkPolicy::Port{NetworkPolicy::Protocol::kUdp, 100, 200}));
  EXPECT_EQ(policy.ingress[1].index, 2u);
  EXPECT_TRUE(policy.ingress[1].any_peer && policy.ingress[1].any_port);
}

TEST(NetworkPolicy, NamespacesHaveTheirAutomaticLabelAndNobodyCanForgeIt) {
  const auto config = From(
      "apiVersion: v1\nkind: Namespace\nmetadata: {name: evil, labels: "
      "{kubernetes.io/metadata.name: good}}\n---\n" +
      PodYaml("a", "10.0.0.1", "web") + PodYaml("g", "10.0.0.2", "web", "", "good") +
      PodYaml("e", "10.0.0.3", "web", "", "evil") + PolicyYaml(R"(  podSelector: {}
  ingress:
    - from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: good}}}]
)"));
  EXPECT_THAT(config.network_policies[0].ingress[0].workloads, ElementsAre(Uid("g", "good")));
}

TEST(NetworkPolicy, APortNameIsResolvedAtEachDestination) {
  const auto config =
      From(PodYaml("a", "10.0.0.1", "web") + PodYaml("b", "10.0.0.2", "db", kHttp8080) +
           PodYaml("c", "10.0.0.3", "db", kHttp9090) + PodYaml("d", "10.0.0.4", "db") +
           PolicyYaml(R"(  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress:
    - to: [{podSelector: {matchLabels: {app: db}}}]
      ports: [{port: http}, {port: 53}]
)"));
  std::map<std::string, NetworkPolicy::Rule> rules;
  for (const NetworkPolicy& each : config.network_policies) {
    EXPECT_THAT(each.subjects, ElementsAre(Uid("a")));
    EXPECT_TRUE(each.isolates_egress && !each.isolates_ingress);
    ASSERT_THAT(each.egress, SizeIs(1));
    rules[each.Key()] = each.egress[0];
  }
  ASSERT_THAT(rules, SizeIs(3));
  EXPECT_THAT(rules["demo/p"].workloads, ElementsAre(Uid("b"), Uid("c"), Uid("d")));
  EXPECT_THAT(rules["demo/p"].ports, ElementsAre(Tcp(53, 53)));
  EXPECT_THAT(rules["demo/p~to:8080"].workloads, ElementsAre(Uid("b")));
  EXPECT_THAT(rules["demo/p~to:8080"].ports, ElementsAre(Tcp(8080, 8080)));
  EXPECT_THAT(rules["demo/p~to:9090"].workloads, ElementsAre(Uid("c")));
  EXPECT_THAT(rules["demo/p~to:9090"].ports, ElementsAre(Tcp(9090, 9090)));
}

TEST(NetworkPolicy, APortNameOfIngressSplitsThePolicy) {
  const auto config =
      From(PodYaml("a", "10.0.0.1", "web", kHttp8080) + PodYaml("b", "10.0.0.2", "web", kHttp9090) +
           PodYaml("c", "10.0.0.3", "web") +
           PolicyYaml("  podSelector: {}\n  ingress: [{ports: [{port: http}]}]\n"));
  ASSERT_THAT(config.network_policies, SizeIs(3));
  std::map<std::string, std::vector<std::string>> subjects;
  for (const auto& each : config.network_policies) subjects[each.Key()] = each.subjects;
  EXPECT_THAT(subjects["demo/p~http=8080"], ElementsAre(Uid("a")));
  EXPECT_THAT(subjects["demo/p~http=9090"], ElementsAre(Uid("b")));
  EXPECT_THAT(subjects["demo/p~http=none"], ElementsAre(Uid("c")));
  for (const auto& each : config.network_policies) {
    EXPECT_TRUE(each.isolates_ingress);
    EXPECT_THAT(each.ingress, SizeIs(each.subjects[0] == Uid("c") ? 0 : 1));
  }
}

TEST(NetworkPolicy, WorkloadsOutsideKubernetesNameTheirPortsToo) {
  const auto config =
      From(WorkloadYaml("a", "10.0.0.1", "web", "  ports: {dns: 53/UDP, http: 80}\n") +
           PolicyYaml("  podSelector: {}\n  ingress: [{ports: [{port: dns, "
                      "protocol: UDP}, {port: http}]}]\n"));
  ASSERT_THAT(config.network_policies, SizeIs(1));
  EXPECT_EQ(config.network_policies[0].name, "p~dns=53udp,http=80");
  EXPECT_THAT(config.network_policies[0].ingress[0].ports,
              ElementsAre(Tcp(80, 80), NetworkPolicy::Port{NetworkPolicy::Protocol::kUdp, 53, 53}));
}

TEST(ProcessPolicy, OnlyThisBinaryMayReachThatService) {
  const auto config = From(PodYaml("a", "10.0.0.1", "web") + PodYaml("b", "10.0.0.2", "db") +
                           ProcessYaml(R"(    - name: only-the-client
      notBinaries: [/usr/bin/psql]
      connect:
        to: [{podSelector: {matchLabels: {app: db}}}]
        ports: [{port: 5432}]
      action: Deny
    - {name: no-shell, binaries: [/bin/sh, "/usr/bin/nc*"], arguments: [-e], action: Kill}
)"));
  ASSERT_THAT(config.process_policies, SizeIs(1));
  const model::ProcessPolicy& policy = config.process_policies[0];
  EXPECT_THAT(policy.subjects, ElementsAre(Uid("a")));
  EXPECT_TRUE(policy.enforce);
  ASSERT_THAT(policy.rules, SizeIs(2));
  EXPECT_THAT(policy.rules[0].not_binaries, ElementsAre("/usr/bin/psql"));
  EXPECT_THAT(policy.rules[0].destinations, ElementsAre(Uid("b")));
  EXPECT_THAT(policy.rules[0].ports, ElementsAre(Tcp(5432, 5432)));
  EXPECT_TRUE(policy.rules[0].connects);
  EXPECT_EQ(policy.rules[0].action, model::ProcessPolicy::Action::kDeny);
  EXPECT_THAT(policy.rules[1].binaries, ElementsAre("/bin/sh", "/usr/bin/nc*"));
  EXPECT_THAT(policy.rules[1].arguments, ElementsAre("-e"));
  EXPECT_FALSE(policy.rules[1].connects);
}

TEST(ProcessPolicy, WhatResolvesToNothingNeverBecomesAny) {
  const std::string pods = PodYaml("a", "10.0.0.1", "web");
  // No such pod, no such port: an empty list would mean every destination.
  for (const char* connect :
       {"{to: [{podSelector: {matchLabels: {app: none}}}]}", "{ports: [{port: none}]}",
        "{to: [{namespaceSelector: {matchLabels: {a: b}}}], ports: [{port: 80}]}"}) {
    const auto config = From(pods + ProcessYaml("    - {name: r, connect: " + std::string(connect) +
                                                ", action: Deny}\n"));
    ASSERT_THAT(config.process_policies, SizeIs(1));
    EXPECT_THAT(config.process_policies[0].rules, IsEmpty()) << connect;
  }
  const auto config = From(pods + ProcessYaml(R"(    - name: r
      connect: {to: [{podSelector: {matchLabels: {app: none}}}, {ipBlock: {cidr: 192.0.2.0/24}}]}
      action: Deny
    - {name: any, connect: {}, action: Log}
)"));
  ASSERT_THAT(config.process_policies[0].rules, SizeIs(2));
  EXPECT_THAT(config.process_policies[0].rules[0].destinations, IsEmpty());
  EXPECT_THAT(config.process_policies[0].rules[0].blocks, SizeIs(1));
  const auto& any = config.process_policies[0].rules[1];
  EXPECT_TRUE(any.connects && any.destinations.empty() && any.ports.empty());
}

TEST(ProcessPolicy, IdentitiesAndNamedPorts) {
  const auto config =
      From(PodYaml("a", "10.0.0.1", "web") + PodYaml("b", "10.0.0.2", "db", kHttp9090) +
           PodYaml("c", "10.0.0.3", "cache", kHttp8080) + ProcessYaml(R"(    - name: r
      connect:
        to: [{identities: ["spiffe://cluster.local/ns/demo/sa/db"]}]
        ports: [{port: http}, {port: 1}]
      action: Log
)"));
  const auto& rules = config.process_policies[0].rules;
  ASSERT_THAT(rules, SizeIs(2));
  EXPECT_THAT(rules[0].identities, ElementsAre("spiffe://cluster.local/ns/demo/sa/db"));
  EXPECT_THAT(rules[0].ports, ElementsAre(Tcp(1, 1)));
  EXPECT_EQ(rules[1].name, "r~to:9090");
  EXPECT_THAT(rules[1].destinations, ElementsAre(Uid("b")));
  EXPECT_THAT(rules[1].ports, ElementsAre(Tcp(9090, 9090)));
}

TEST(AuthorizationPolicy, AuditChangesNoDecisionAndIsSent) {
  const auto config =
      From(PodYaml("a", "10.0.0.1", "web") +
           "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, "
           "namespace: demo}\nspec:\n  action: AUDIT\n  rules: [{from: [{source: {namespaces: "
           "[other]}}]}]\n");
  ASSERT_THAT(config.authorizations, SizeIs(1));
  EXPECT_TRUE(config.authorizations[0].dry_run);
  ASSERT_THAT(config.authorizations[0].groups, SizeIs(1));
  const auto decision = model::Evaluate(
      {&config.authorizations[0]}, "", {.source_identity = "spiffe://cluster.local/ns/other/sa/x"});
  EXPECT_TRUE(decision.allowed && decision.by_default);
}

// ---- One change, little news ----

// 1000 pods of 50 apps; policy i lets app i+1 call app i, by numbers and by name.
std::string BigMesh(const std::string& changed_app = "") {
  std::string text;
  for (int i = 0; i < 1000; ++i) {
    std::string app = "app" + std::to_string(i % 50);
    if (i == 777 && !changed_app.empty()) app = changed_app;
    text += PodYaml("pod" + std::to_string(i),
                    "10.1." + std::to_string(i / 250) + "." + std::to_string(i % 250 + 1), app,
                    kHttp8080);
  }
  for (int i = 0; i < 100; ++i) {
    text += PolicyYaml("  podSelector: {matchLabels: {app: app" + std::to_string(i % 50) +
                           "}}\n  policyTypes: [Ingress, Egress]\n  ingress:\n    - from: "
                           "[{podSelector: {matchExpressions: [{key: app, operator: In, values: "
                           "[app" +
                           std::to_string((i + 1) % 50) +
                           "]}]}}]\n      ports: [{port: http}]\n  egress:\n    - to: [{ipBlock: "
                           "{cidr: 10.0.0.0/8, except: [10.9.0.0/16]}}]\n      ports: [{port: "
                           "443}]\n",
                       "n" + std::to_string(i));
  }
  return text;
}

TEST(NetworkPolicy, OneChangedPodSendsOnlyThePoliciesThatSelectOrNameIt) {
  const auto before = From(BigMesh()), after = From(BigMesh("app3"));  // pod777 was of app27
  std::map<std::string, NetworkPolicy> old;
  for (const auto& each : before.network_policies) old[each.Key()] = each;
  std::vector<std::string> changed;
  for (const auto& each : after.network_policies) {
    if (!old.contains(each.Key()) || old[each.Key()] != each) changed.push_back(each.Key());
    old.erase(each.Key());
  }
  EXPECT_THAT(old, IsEmpty());
  // It left app27 (selected by 27 and 77, named by 26 and 76) and came to app3.
  EXPECT_THAT(changed,
              UnorderedElementsAre("demo/n27~http=8080", "demo/n77~http=8080", "demo/n26~http=8080",
                                   "demo/n76~http=8080", "demo/n3~http=8080", "demo/n53~http=8080",
                                   "demo/n2~http=8080", "demo/n52~http=8080"));
}

TEST(NetworkPolicy, AThousandPodsAndAHundredPoliciesTakeMilliseconds) {
  const LoadResult loaded = Load(BigMesh());
  ASSERT_THAT(Texts(loaded.problems), IsEmpty());
  double best = 1e9;
  size_t policies = 0;
  for (int i = 0; i < 5; ++i) {
    const auto start = std::chrono::steady_clock::now();
    Configuration config;
    TranslatePodPolicies(loaded.set, {}, &config);
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    best = std::min(best, took.count());
    policies = config.network_policies.size();
  }
  EXPECT_EQ(policies, 100u);
  printf("1000 pods x 100 policies: %.1f ms (best of 5)\n", best);
  EXPECT_LT(best, 1000) << "even by a sanitizer on a busy machine";
}

TEST(Publisher, EveryPolicySurvivesTheWire) {
  const auto config = From(BigMesh() + ProcessYaml("    - {name: r, connect: {}, action: Log}\n") +
                           PodYaml("w", "10.2.0.1", "web"));
  size_t network = 0, process = 0;
  for (const xds::Encoded& each : EncodeAll(config)) {
    const auto decoded = xds::DecodeResource(each.type_url, each.bytes);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(decoded->name, each.name);
    network += each.type_url == xds::kNetworkPolicyType;
    process += each.type_url == xds::kProcessPolicyType;
  }
  EXPECT_EQ(network, 100u);
  EXPECT_EQ(process, 1u);
}

}  // namespace
}  // namespace weft::plane
