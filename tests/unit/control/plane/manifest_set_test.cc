// SPDX-License-Identifier: Apache-2.0
// Nothing that worked is lost: what stays when documents become wrong.
#include "control/plane/manifest_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/control/plane/manifests.h"

namespace weft::plane {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

std::string PortOf(const ManifestSet& set, const std::string& name) {
  const Service* service = set.FindService("demo", name);
  return service == nullptr ? "none" : service->addresses[0].ToString();
}

TEST(ManifestSet, AWrongObjectKeepsItsLastGoodStateAndTheOthersApply) {
  const LoadResult first = Load(ServiceYaml("a", "10.0.0.1") + ServiceYaml("b", "10.0.0.2"));
  ASSERT_THAT(first.problems, IsEmpty());
  const LoadResult second =
      Load(ServiceYaml("a", "10.0.0.x") + ServiceYaml("b", "10.0.0.3"), first.set);
  EXPECT_THAT(Texts(second.problems),
              ElementsAre(StartsWith("f.yaml:7: spec.clusterIP: \"10.0.0.x\"")));
  EXPECT_EQ(PortOf(second.set, "a"), "10.0.0.1");
  EXPECT_EQ(PortOf(second.set, "b"), "10.0.0.3");
  EXPECT_TRUE(second.set.objects.at({ObjectKind::kService, "demo", "a"}).stale);
  // And once more, still wrong; then right again.
  const LoadResult third = Load(ServiceYaml("a", "10.0.0.x"), second.set);
  EXPECT_EQ(PortOf(third.set, "a"), "10.0.0.1");
  EXPECT_EQ(PortOf(third.set, "b"), "none");
  const LoadResult fourth = Load(ServiceYaml("a", "10.0.0.4"), third.set);
  EXPECT_EQ(PortOf(fourth.set, "a"), "10.0.0.4");
  EXPECT_FALSE(fourth.set.objects.at({ObjectKind::kService, "demo", "a"}).stale);
}

TEST(ManifestSet, BrokenSyntaxKeepsAllObjectsOfTheFile) {
  const std::string a = ServiceYaml("a", "10.0.0.1");
  const std::string b = ServiceYaml("b", "10.0.0.2");
  const std::string c = ServiceYaml("c", "10.0.0.3");
  const LoadResult first = LoadManifests({{"1.yaml", a + b}, {"2.yaml", c}}, {});
  ASSERT_EQ(first.set.objects.size(), 3u);
  // Half of it, as a crashed editor leaves it; and c deleted on purpose in the other file.
  const LoadResult second = LoadManifests(
      {{"1.yaml", a + b.substr(0, b.size() / 2) + " [\n"}, {"2.yaml", ""}}, first.set);
  ASSERT_EQ(second.problems.size(), 1u);
  EXPECT_EQ(second.problems[0].at.file, "1.yaml");
  EXPECT_GT(second.problems[0].at.line, 10);
  EXPECT_EQ(PortOf(second.set, "a"), "10.0.0.1");
  EXPECT_EQ(PortOf(second.set, "b"), "10.0.0.2");
  EXPECT_EQ(PortOf(second.set, "c"), "none");
}

TEST(ManifestSet, EveryPrefixOfAFileLosesNothingThatItStillNames) {
  // Cut anywhere, a file either still declares an object, declares it wrongly (it stays), or does
  // not mention it any more. What must never happen is that a cut changes an object into something
  // else.
  const std::string whole =
      ServiceYaml("a", "10.0.0.1") + RouteYaml("    - backendRefs: [{name: a, port: 80}]\n");
  const LoadResult good = Load(ServiceYaml("web", "10.0.0.9") + whole);
  ASSERT_THAT(Texts(good.problems), IsEmpty());
  for (size_t cut = 0; cut < whole.size(); ++cut) {
    const LoadResult result = Load(ServiceYaml("web", "10.0.0.9") + whole.substr(0, cut), good.set);
    EXPECT_EQ(PortOf(result.set, "web"), "10.0.0.9") << cut;
  }
}

TEST(ManifestSet, AnUnreadableFileKeepsItsObjects) {
  const LoadResult first = LoadManifests({{"1.yaml", ServiceYaml("a", "10.0.0.1")}}, {});
  const LoadResult second =
      LoadManifests({{.name = "1.yaml", .error = "open: Permission denied"}}, first.set);
  EXPECT_THAT(Texts(second.problems), ElementsAre("1.yaml: open: Permission denied"));
  EXPECT_EQ(PortOf(second.set, "a"), "10.0.0.1");
}

TEST(ManifestSet, ARemovedFileRemovesItsObjects) {
  const LoadResult first = LoadManifests({{"1.yaml", ServiceYaml("a", "10.0.0.1")}}, {});
  const LoadResult second = LoadManifests({}, first.set);
  EXPECT_THAT(second.set.objects, IsEmpty());
  EXPECT_THAT(second.problems, IsEmpty());
}

TEST(ManifestSet, AnAddressStaysWithWhoHadIt) {
  const LoadResult first = LoadManifests({{"2.yaml", WorkloadYaml("web", "10.0.0.1", "web")}}, {});
  // A new object in a file that sorts first, with the address of another.
  const LoadResult second = LoadManifests({{"1.yaml", WorkloadYaml("thief", "10.0.0.1", "thief")},
                                           {"2.yaml", WorkloadYaml("web", "10.0.0.1", "web")}},
                                          first.set);
  EXPECT_THAT(
      Texts(second.problems),
      ElementsAre("1.yaml:1: address 10.0.0.1 belongs to Workload demo/web (2.yaml:1) already"));
  EXPECT_EQ(second.set.objects.size(), 1u);
  EXPECT_NE(second.set.Find<Workload>(ObjectKind::kWorkload, "demo", "web"), nullptr);
}

TEST(ManifestSet, ARouteWhoseServiceGoesStays) {
  const std::string route = RouteYaml("    - backendRefs: [{name: a, port: 80}]\n");
  const LoadResult first =
      Load(ServiceYaml("web", "10.0.0.9") + ServiceYaml("a", "10.0.0.1") + route);
  ASSERT_THAT(Texts(first.problems), IsEmpty());
  const LoadResult second = Load(ServiceYaml("web", "10.0.0.9") + route, first.set);
  EXPECT_THAT(Texts(second.problems), ElementsAre(HasSubstr("there is no Service demo/a")));
  EXPECT_NE(second.set.Find<HttpRoute>(ObjectKind::kHttpRoute, "demo", "web"), nullptr);
}

TEST(ManifestSet, ANewRouteToAnUnknownServiceKeepsTheOldOne) {
  const LoadResult first =
      Load(ServiceYaml("web", "10.0.0.9") +
           RouteYaml("    - backendRefs: [{name: web, port: 80, weight: 7}]\n"));
  const LoadResult second = Load(
      ServiceYaml("web", "10.0.0.9") + RouteYaml("    - backendRefs: [{name: nobody, port: 80}]\n"),
      first.set);
  EXPECT_THAT(Texts(second.problems), ElementsAre(HasSubstr("there is no Service demo/nobody")));
  const auto* route = second.set.Find<HttpRoute>(ObjectKind::kHttpRoute, "demo", "web");
  ASSERT_NE(route, nullptr);
  EXPECT_EQ(route->rules[0].backends[0].weight, 7u);
}

TEST(ManifestSet, ListsAndPodsAreObjectsLikeOthers) {
  const LoadResult result = Load(
      "apiVersion: v1\nkind: List\nitems:\n"
      "- apiVersion: v1\n  kind: Pod\n  metadata: {name: p, namespace: demo, uid: x, labels: {app: "
      "web}}\n"
      "  spec: {nodeName: n1, serviceAccountName: web, containers: [{name: c, ports: [{name: http, "
      "containerPort: 8080}]}]}\n"
      "  status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: \"fd00::1\"}], phase: Running,"
      " conditions: [{type: Ready, status: \"False\"}]}\n");
  ASSERT_THAT(Texts(result.problems), IsEmpty());
  const auto* pod = result.set.Find<Workload>(ObjectKind::kPod, "demo", "p");
  ASSERT_NE(pod, nullptr);
  EXPECT_EQ(pod->addresses.size(), 2u);
  EXPECT_EQ(pod->node, "n1");
  EXPECT_EQ(pod->service_account, "web");
  EXPECT_FALSE(pod->ready);
  EXPECT_EQ(pod->named_ports.at("http"), 8080);
}

}  // namespace
}  // namespace weft::plane
