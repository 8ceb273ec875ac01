// SPDX-License-Identifier: Apache-2.0
// Manifests -> resources: who of a service's endpoints gets a connection.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/control/plane/translated.h"

namespace weft::plane {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kTo[] = "      backendRefs: [{name: web, port: 80}]\n";
std::string WithSpec(const std::string& spec, const std::string& port_name = "tcp") {
  return "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: demo}\nspec:\n  "
         "clusterIP: 10.96.0.10\n  selector: {app: web}\n" +
         spec + "  ports:\n    - {name: " + port_name + ", port: 80, targetPort: 8080}\n---\n";
}

TEST(Translate, AffinityAndDistributionAreTheServices) {
  const auto service = [](const std::string& spec) {
    const Translated out = From(WithSpec(spec));
    EXPECT_THAT(Texts(out.problems), IsEmpty());
    return out.config.services.at(0);
  };
  EXPECT_EQ(service("").affinity_s, 0u);
  EXPECT_EQ(service("  sessionAffinity: None\n").affinity_s, 0u);
  EXPECT_EQ(service("  sessionAffinity: ClientIP\n").affinity_s, 10800u);
  EXPECT_EQ(service("  sessionAffinity: ClientIP\n  sessionAffinityConfig: {clientIP: "
                    "{timeoutSeconds: 60}}\n")
                .affinity_s,
            60u);
  EXPECT_FALSE(service("").prefers_same_zone);
  for (const char* zone : {"PreferClose", "PreferSameZone", "PreferSameNode"}) {
    const model::Service near = service(std::string("  trafficDistribution: ") + zone + "\n");
    EXPECT_TRUE(near.prefers_same_zone) << zone;
    EXPECT_EQ(near.prefers_same_node, std::string_view(zone) == "PreferSameNode");
  }
}

TEST(Translate, WhatOnlyTheKernelDoesIsAProblemWhereTheProxyBalances) {
  const std::string route = RouteYaml(std::string("    - name: a\n") + kTo);
  const Translated out =
      From(WithSpec("  sessionAffinity: ClientIP\n  trafficDistribution: PreferClose\n", "http") +
           route);
  EXPECT_THAT(Texts(out.problems),
              ElementsAre("f.yaml:10: sessionAffinity: has no effect on port 80, whose requests "
                          "the proxy balances one by one",
                          "f.yaml:10: trafficDistribution: has no effect on port 80, whose "
                          "requests the proxy balances one by one"));
}

TEST(Translate, WeightsAndZonesComeFromTheWorkloads) {
  const Translated out =
      From(ServiceYaml("web", "10.96.0.10") + WorkloadYaml("w1", "10.1.0.1", "web") +
           "apiVersion: weft.dev/v1\nkind: Workload\nmetadata: {name: w2, namespace: demo, labels: "
           "{app: web, topology.kubernetes.io/zone: z2}, annotations: {weft.dev/weight: \"9\"}}\n"
           "spec:\n  addresses: [10.1.0.2]\n  serviceAccount: web\n---\n");
  ASSERT_THAT(Texts(out.problems), IsEmpty());
  const auto& endpoints = out.config.endpoints.at(0).endpoints;
  ASSERT_THAT(endpoints, SizeIs(2));
  EXPECT_EQ(endpoints[0].weight, 1u);
  EXPECT_EQ(endpoints[1].weight, 9u);
  EXPECT_EQ(endpoints[1].locality.zone, "z2");
  EXPECT_EQ(ByName(out.config.workloads, "w2")->capacity, 9u);
  EXPECT_EQ(ByName(out.config.workloads, "w2")->locality.zone, "z2");
}

TEST(Translate, ZoneHintsSayWhoseClientsAnEndpointIsFor) {
  const Translated out =
      From(ServiceYaml("web", "10.96.0.10") +
           "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
           "metadata: {name: web-1, namespace: demo, labels: {kubernetes.io/service-name: "
           "web}}\naddressType: IPv4\nports: [{name: http, port: 9090}]\nendpoints:\n"
           "  - {addresses: [10.1.0.1], zone: a, hints: {forZones: [{name: b}]}}\n"
           "  - {addresses: [10.1.0.2], zone: a, hints: {forZones: [{name: b}, {name: a}]}}\n"
           "  - {addresses: [10.1.0.3], zone: a, hints: {forNodes: [{name: n}]}}\n");
  ASSERT_THAT(Texts(out.problems), IsEmpty());
  const auto& endpoints = out.config.endpoints.at(0).endpoints;
  ASSERT_THAT(endpoints, SizeIs(3));
  EXPECT_EQ(endpoints[0].locality.zone, "b");
  EXPECT_EQ(endpoints[1].locality.zone, "a");
  EXPECT_EQ(endpoints[2].locality.zone, "a");
}

}  // namespace
}  // namespace weft::plane
