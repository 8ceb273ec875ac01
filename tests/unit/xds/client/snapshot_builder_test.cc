// SPDX-License-Identifier: Apache-2.0
// The order of things, with the clock in hand: what warms, what lingers, what is published when.
#include "xds/client/snapshot_builder.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace weft::xds {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::IsEmpty;

class SnapshotBuilderTest : public testing::Test {
 protected:
  void SetUp() override { Make({}); }
  void Make(std::vector<std::string> required, std::vector<std::string> policies = {}) {
    snapshot_ = nullptr;
    builder_ = std::make_unique<SnapshotBuilder>(
        BuilderOptions{.required_types = std::move(required), .policy_types = std::move(policies)},
        [this](std::string_view type, std::set<std::string> names) {
          (type == kEndpointsType ? eds_ : rds_) = std::move(names);
        },
        [this](std::shared_ptr<const model::Snapshot> s) {
          ++published_;
          snapshot_ = std::move(s);
        });
  }
  template <typename Model>
  void Put(std::string_view type, const std::string& name, Model value) {
    Update update{.type_url = std::string(type)};
    update.changed.push_back(
        {.name = name, .resource = std::make_shared<const Model>(std::move(value))});
    builder_->Apply(update, now_);
  }
  void Remove(std::string_view type, const std::string& name) {
    builder_->Apply({.type_url = std::string(type), .removed = {name}}, now_);
  }
  void PutCluster(const std::string& name) {
    Put(kClusterType, name,
        model::Cluster{.name = name, .type = model::DiscoveryType::kEds, .eds_name = name});
  }
  void PutEndpoints(const std::string& name, size_t count = 1) {
    Put(kEndpointsType, name,
        model::Endpoints{.cluster = name, .endpoints = std::vector<model::Endpoint>(count)});
  }
  void PutListener(const std::string& name, const std::string& routes) {
    model::Listener listener{.name = name};
    listener.http.emplace().rds_name = routes;
    Put(kListenerType, name, std::move(listener));
  }
  void PutRoutes(const std::string& name, const std::string& cluster) {
    model::RouteConfiguration routes{.name = name};
    model::Route route;
    route.action = model::Forward{.clusters = {{.cluster = cluster, .weight = 1}}};
    routes.virtual_hosts.push_back({.name = "v", .domains = {"*"}, .routes = {route}});
    Put(kRouteType, name, std::move(routes));
  }
  std::string RouteTarget(const std::string& name) const {
    const auto& route = snapshot_->routes.at(name)->virtual_hosts[0].routes[0];
    return std::get<model::Forward>(route.action).clusters[0].cluster;
  }
  bool Has(const std::string& cluster) const {
    return snapshot_ && snapshot_->clusters.contains(cluster);
  }

  SnapshotBuilder::Clock::time_point now_{};
  std::set<std::string> eds_, rds_;
  int published_ = 0;
  std::shared_ptr<const model::Snapshot> snapshot_;
  std::unique_ptr<SnapshotBuilder> builder_;
};

TEST_F(SnapshotBuilderTest, AClusterWaitsForItsEndpoints) {
  PutCluster("a");
  EXPECT_FALSE(Has("a"));
  EXPECT_THAT(eds_, ElementsAre("a"));
  ASSERT_EQ(builder_->warming().size(), 1u);
  EXPECT_EQ(builder_->warming()[0].waits_for, "endpoints a");
  PutEndpoints("a");
  EXPECT_TRUE(Has("a"));
  EXPECT_EQ(snapshot_->endpoints.at("a")->endpoints.size(), 1u);
  EXPECT_THAT(builder_->warming(), IsEmpty());
}

TEST_F(SnapshotBuilderTest, ButNotForever) {
  PutCluster("a");
  ASSERT_TRUE(builder_->next_deadline());
  EXPECT_EQ(*builder_->next_deadline() - now_, milliseconds(15000));
  now_ = *builder_->next_deadline() - milliseconds(1);
  builder_->OnTimer(now_);
  EXPECT_FALSE(Has("a"));
  now_ += milliseconds(1);
  builder_->OnTimer(now_);
  EXPECT_TRUE(Has("a"));
  EXPECT_FALSE(builder_->next_deadline());
}

TEST_F(SnapshotBuilderTest, AnAnswerThatThereAreNoneEndsTheWait) {
  PutCluster("a");
  Remove(kEndpointsType, "a");
  EXPECT_TRUE(Has("a"));
  EXPECT_FALSE(snapshot_->endpoints.contains("a"));
}

TEST_F(SnapshotBuilderTest, AListenerWaitsForItsRoutesAndTheyForTheirClusters) {
  PutListener("l", "r");
  EXPECT_THAT(rds_, ElementsAre("r"));
  PutCluster("a");
  PutRoutes("r", "a");
  EXPECT_TRUE(snapshot_ == nullptr || !snapshot_->listeners.contains("l"));
  PutEndpoints("a");
  ASSERT_TRUE(snapshot_->listeners.contains("l"));
  EXPECT_TRUE(Has("a"));
  EXPECT_EQ(RouteTarget("r"), "a");
}

TEST_F(SnapshotBuilderTest, RoutesToAClusterThatNobodyAnnouncedAreNotHeldUp) {
  PutListener("l", "r");
  PutRoutes("r", "nowhere");
  ASSERT_TRUE(snapshot_);
  EXPECT_TRUE(snapshot_->listeners.contains("l"));
}

TEST_F(SnapshotBuilderTest, NewRoutesWaitWhileTheOldOnesServe) {
  PutCluster("a");
  PutEndpoints("a");
  PutListener("l", "r");
  PutRoutes("r", "a");
  PutCluster("b");
  PutRoutes("r", "b");
  EXPECT_EQ(RouteTarget("r"), "a");
  PutEndpoints("b");
  EXPECT_EQ(RouteTarget("r"), "b");
  EXPECT_TRUE(Has("b"));
}

TEST_F(SnapshotBuilderTest, ARemovedClusterStaysWhileRoutesNameIt) {
  PutCluster("a");
  PutEndpoints("a");
  PutListener("l", "r");
  PutRoutes("r", "a");
  Remove(kClusterType, "a");
  EXPECT_TRUE(Has("a"));
  EXPECT_TRUE(snapshot_->endpoints.contains("a"));
  PutRoutes("r", "other");
  EXPECT_FALSE(Has("a"));
  EXPECT_FALSE(snapshot_->endpoints.contains("a"));
}

TEST_F(SnapshotBuilderTest, ButNotLongerThanTheBound) {
  PutCluster("a");
  PutEndpoints("a");
  PutListener("l", "r");
  PutRoutes("r", "a");
  Remove(kClusterType, "a");
  now_ += milliseconds(15000);
  builder_->OnTimer(now_);
  EXPECT_FALSE(Has("a"));
}

TEST_F(SnapshotBuilderTest, EndpointsBeforeTheirClusterAreKeptOnlyIfAskedFor) {
  PutEndpoints("a", 3);
  PutCluster("a");
  EXPECT_FALSE(Has("a")) << "the client asks for them now, and they come again";
  PutEndpoints("a", 3);
  EXPECT_EQ(snapshot_->endpoints.at("a")->endpoints.size(), 3u);
}

TEST_F(SnapshotBuilderTest, NothingIsPublishedBeforeEveryRequiredTypeWasHeardOf) {
  Make({std::string(kAddressType), std::string(kAuthorizationType)});
  Put(kAddressType, "u", model::Workload{.uid = "u"});
  EXPECT_EQ(snapshot_, nullptr) << "without policies everything would be allowed";
  builder_->Apply({.type_url = std::string(kAuthorizationType)}, now_);
  ASSERT_NE(snapshot_, nullptr);
  EXPECT_TRUE(snapshot_->workloads.contains("u"));
}

TEST_F(SnapshotBuilderTest, PoliciesAreWaitedForWhereTheServerHasThem) {
  const std::vector<std::string> policies = {std::string(kNetworkPolicyType),
                                             std::string(kProcessPolicyType)};
  Make({std::string(kAddressType)}, policies);
  builder_->Apply({.type_url = std::string(kAddressType), .serves_policies = true}, now_);
  EXPECT_EQ(snapshot_, nullptr) << "without policies everything would be allowed";
  Update update{.type_url = std::string(kNetworkPolicyType), .serves_policies = true};
  update.changed.push_back({.name = "s/n",
                            .resource = std::make_shared<const model::NetworkPolicy>(
                                model::NetworkPolicy{.name = "n"})});
  builder_->Apply(update, now_);
  EXPECT_EQ(snapshot_, nullptr);
  Update process{.type_url = std::string(kProcessPolicyType), .serves_policies = true};
  process.changed.push_back({.name = "s/p",
                             .resource = std::make_shared<const model::ProcessPolicy>(
                                 model::ProcessPolicy{.name = "p"})});
  builder_->Apply(process, now_);
  ASSERT_NE(snapshot_, nullptr);
  EXPECT_TRUE(snapshot_->network_policies.contains("s/n"));
  EXPECT_TRUE(snapshot_->process_policies.contains("s/p"));
  Remove(kNetworkPolicyType, "s/n");
  Remove(kProcessPolicyType, "s/p");
  EXPECT_THAT(snapshot_->network_policies, IsEmpty());
  EXPECT_THAT(snapshot_->process_policies, IsEmpty());

  Make({std::string(kAddressType)}, policies);
  builder_->Apply({.type_url = std::string(kAddressType)}, now_);
  EXPECT_NE(snapshot_, nullptr) << "a server without them is not waited for";
}

TEST_F(SnapshotBuilderTest, UnchangedMeansUnpublishedAndTheSequenceGrows) {
  PutEndpoints("x");
  const int before = published_;
  builder_->OnTimer(now_);
  EXPECT_EQ(published_, before);
  Put(kTrustBundleType, "td", model::TrustBundle{.trust_domain = "td"});
  const uint64_t first = snapshot_->sequence;
  Put(kAddressType, "ns/h", model::Service{.namespace_name = "ns", .hostname = "h"});
  EXPECT_EQ(snapshot_->sequence, first + 1);
  Remove(kAddressType, "ns/h");
  EXPECT_THAT(snapshot_->services, IsEmpty());
  EXPECT_EQ(snapshot_->sequence, first + 2);
}

}  // namespace
}  // namespace weft::xds
