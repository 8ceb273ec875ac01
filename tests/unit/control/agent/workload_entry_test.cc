// SPDX-License-Identifier: Apache-2.0
// Workload entries as people write them: what is taken, and what the refusal says.
#include "control/agent/workload_entry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace weft::agent {
namespace {

constexpr const char* kGood =
    "name: web-1\nnamespace: demo\nserviceAccount: web\nnetns: /run/netns/web-1\n"
    "addresses: [10.244.1.11, fd00::11]\nlabels: {app: web}\n"
    "resolvers: [10.96.0.2, \"fd00::2\"]\n"
    "annotations: {weft.dev/splice: on}\n";

TEST(WorkloadEntry, ReadsEveryField) {
  auto entry = ParseWorkloadEntry(kGood, "a.yaml");
  ASSERT_TRUE(entry.ok()) << entry.status();
  EXPECT_EQ(entry->Key(), "demo/web-1");
  EXPECT_EQ(entry->Identity("cluster.local"), "spiffe://cluster.local/ns/demo/sa/web");
  EXPECT_EQ(entry->addresses.size(), 2u);
  ASSERT_EQ(entry->resolvers.size(), 2u);
  EXPECT_EQ(entry->resolvers[0], *IpAddress::Parse("10.96.0.2"));
  EXPECT_EQ(entry->labels.at("app"), "web");
  EXPECT_EQ(entry->splice, SpliceMode::kOn);
}

TEST(WorkloadEntry, JsonIsYaml) {
  auto entry = ParseWorkloadEntry(R"({"name":"a","netns":"/run/netns/a","addresses":["10.0.0.1"]})",
                                  "request");
  ASSERT_TRUE(entry.ok()) << entry.status();
  EXPECT_EQ(entry->Key(), "default/a");
  EXPECT_EQ(entry->splice, SpliceMode::kOff);
}

TEST(WorkloadEntry, TheSpliceHasThreeModes) {
  for (const SpliceMode mode : {SpliceMode::kOff, SpliceMode::kOn, SpliceMode::kAuto}) {
    const std::string text =
        "name: a\nnetns: /x\naddresses: [10.0.0.1]\nannotations: {weft.dev/splice: " +
        std::string(SpliceModeName(mode)) + "}\n";
    auto entry = ParseWorkloadEntry(text, "a.yaml");
    ASSERT_TRUE(entry.ok()) << entry.status();
    EXPECT_EQ(entry->splice, mode);
  }
}

TEST(WorkloadEntry, TheGuardIsOnUnlessToldOtherwise) {
  const std::string text = "name: a\nnetns: /run/netns/a\naddresses: [10.0.0.1]\n";
  for (const auto& [annotations, cooperative] :
       {std::pair{"", false},
        {"annotations: {weft.dev/guard: on}\n", false},
        {"annotations: {weft.dev/guard: cooperative}\n", true}}) {
    auto entry = ParseWorkloadEntry(text + annotations, "a.yaml");
    ASSERT_TRUE(entry.ok()) << entry.status();
    EXPECT_EQ(entry->cooperative, cooperative) << annotations;
  }
}

struct BadCase {
  const char* name;
  const char* text;
  const char* says;
};

class BadWorkloadEntry : public testing::TestWithParam<BadCase> {};

TEST_P(BadWorkloadEntry, IsRefusedWithTheReason) {
  auto entry = ParseWorkloadEntry(GetParam().text, "a.yaml");
  ASSERT_FALSE(entry.ok());
  EXPECT_THAT(std::string(entry.status().message()), testing::HasSubstr(GetParam().says));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadWorkloadEntry,
    testing::Values(
        BadCase{"NotYaml", "name: [unclosed\n", "a.yaml:"},
        BadCase{"NotAMap", "- a\n- b\n", "is a map"}, BadCase{"Empty", "", "is a map"},
        BadCase{"UnknownField", "name: a\nnetnss: /x\n", "a.yaml:2: unknown field netnss"},
        BadCase{"NoName", "netns: /x\naddresses: [10.0.0.1]\n", "name:"},
        BadCase{"PathInName", "name: ../a\nnetns: /x\naddresses: [10.0.0.1]\n", "name:"},
        BadCase{"NoNetns", "name: a\naddresses: [10.0.0.1]\n", "netns: an absolute path"},
        BadCase{"RelativeNetns", "name: a\nnetns: x\naddresses: [10.0.0.1]\n",
                "netns: an absolute"},
        BadCase{"NoAddress", "name: a\nnetns: /x\n", "addresses: at least one"},
        BadCase{"BadAddress", "name: a\nnetns: /x\naddresses: [10.0.0.256]\n", "10.0.0.256"},
        BadCase{"Loopback", "name: a\nnetns: /x\naddresses: [127.0.0.1]\n", "127.0.0.1"},
        BadCase{"BadResolver",
                "name: a\nnetns: /x\naddresses: [10.0.0.1]\nresolvers: [localhost]\n",
                "a.yaml:4: resolvers:"},
        BadCase{"ResolverOnLoopback",
                "name: a\nnetns: /x\naddresses: [10.0.0.1]\nresolvers: [127.0.0.53]\n",
                "127.0.0.53"},
        BadCase{"ItsOwnResolver",
                "name: a\nnetns: /x\naddresses: [10.0.0.1]\nresolvers: [10.0.0.1]\n",
                "is the workload itself"},
        BadCase{"TooManyResolvers",
                "name: a\nnetns: /x\naddresses: [10.0.0.1]\n"
                "resolvers: [10.1.0.1, 10.1.0.2, 10.1.0.3, 10.1.0.4]\n",
                "at most 3"},
        BadCase{"SpliceWord",
                "name: a\nnetns: /x\naddresses: [10.0.0.1]\nannotations: {weft.dev/splice: yes}\n",
                "on, off or auto"},
        BadCase{"GuardWord",
                "name: a\nnetns: /x\naddresses: [10.0.0.1]\nannotations: {weft.dev/guard: off}\n",
                "on or cooperative"},
        BadCase{"NestedLabel", "name: a\nnetns: /x\naddresses: [10.0.0.1]\nlabels: {a: {b: c}}\n",
                "a: a string is needed"}),
    [](const auto& each) { return each.param.name; });

TEST(WorkloadEntry, ANamespaceThatIsNotThereIsNamed) {
  auto entry = ParseWorkloadEntry(kGood, "a.yaml");
  ASSERT_TRUE(entry.ok());
  entry->netns = "/run/netns/weft-not-there";
  auto fd = OpenNetns(*entry);
  ASSERT_FALSE(fd.ok());
  EXPECT_THAT(std::string(fd.status().message()),
              testing::HasSubstr("demo/web-1: open /run/netns/weft-not-there"));
}

}  // namespace
}  // namespace weft::agent
