// SPDX-License-Identifier: Apache-2.0
// The protocol's state machine with responses and requests as protobuf: what a server may do right
// and wrong.
#include "xds/client/ads_state.h"

#include "envoy/config/cluster/v3/cluster.pb.h"
#include "envoy/config/endpoint/v3/endpoint.pb.h"
#include "envoy/service/discovery/v3/discovery.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "xds/wire/authorization.pb.h"
#include "xds/wire/policy.pb.h"

namespace weft::xds {
namespace {

namespace ds = envoy::service::discovery::v3;
using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::IsEmpty;

google::protobuf::Any ClusterAny(const std::string& name, bool good = true) {
  envoy::config::cluster::v3::Cluster proto;
  proto.set_name(name);
  proto.set_type(good ? envoy::config::cluster::v3::Cluster::EDS
                      : envoy::config::cluster::v3::Cluster::STRICT_DNS);
  if (good) proto.mutable_eds_cluster_config()->mutable_eds_config()->mutable_ads();
  google::protobuf::Any out;
  out.PackFrom(proto);
  return out;
}
google::protobuf::Any EndpointsAny(const std::string& name) {
  envoy::config::endpoint::v3::ClusterLoadAssignment proto;
  proto.set_cluster_name(name);
  google::protobuf::Any out;
  out.PackFrom(proto);
  return out;
}

class AdsStateTest : public testing::Test {
 protected:
  void Make(Variant variant, std::vector<std::string> types = {std::string(kClusterType)}) {
    ClientOptions options;
    options.variant = variant;
    options.node_id = "n";
    options.wildcard_types = std::move(types);
    options.policy_types = policy_types_;
    state_ =
        std::make_unique<AdsState>(options, [this](const Update& u) { updates_.push_back(u); });
    state_->OnConnected();
  }
  template <typename Request>
  std::vector<Request> Take() {
    std::vector<Request> out;
    for (const std::string& bytes : state_->TakeRequests(now_)) {
      EXPECT_TRUE(out.emplace_back().ParseFromString(bytes));
    }
    return out;
  }
  std::vector<ds::DiscoveryRequest> TakeFull() { return Take<ds::DiscoveryRequest>(); }
  std::vector<ds::DeltaDiscoveryRequest> TakeDelta() { return Take<ds::DeltaDiscoveryRequest>(); }

  void Full(const std::string& nonce, std::vector<google::protobuf::Any> resources,
            std::string_view type = kClusterType) {
    ds::DiscoveryResponse response;
    response.set_nonce(nonce);
    response.set_version_info("v" + nonce);
    response.set_type_url(std::string(type));
    for (auto& any : resources) *response.add_resources() = any;
    ASSERT_TRUE(state_->OnMessage(response.SerializeAsString(), now_).ok());
  }
  void Delta(const std::string& nonce,
             std::vector<std::pair<std::string, google::protobuf::Any>> resources,
             std::vector<std::string> removed = {}, std::string_view type = kClusterType) {
    ds::DeltaDiscoveryResponse response;
    response.set_nonce(nonce);
    response.set_system_version_info("v" + nonce);
    response.set_type_url(std::string(type));
    for (auto& [name, any] : resources) {
      auto* to = response.add_resources();
      to->set_name(name);
      to->set_version("v" + nonce);
      *to->mutable_resource() = any;
    }
    for (auto& name : removed) response.add_removed_resources(name);
    ASSERT_TRUE(state_->OnMessage(response.SerializeAsString(), now_).ok());
  }
  std::vector<std::string> Changed() const {
    std::vector<std::string> out;
    for (const auto& changed : updates_.back().changed) out.push_back(changed.name);
    return out;
  }

  // An empty answer of a server that calls itself `identifier`.
  void AnswerAs(const std::string& identifier, std::string_view type = kClusterType) {
    ds::DeltaDiscoveryResponse response;
    response.set_nonce("1");
    response.set_type_url(std::string(type));
    response.mutable_control_plane()->set_identifier(identifier);
    ASSERT_TRUE(state_->OnMessage(response.SerializeAsString(), now_).ok());
  }
  std::vector<std::string> DeltaTypes() {
    std::vector<std::string> out;
    for (const auto& request : TakeDelta()) out.push_back(request.type_url());
    return out;
  }

  std::vector<std::string> policy_types_;
  AdsState::Clock::time_point now_{};
  std::vector<Update> updates_;
  std::unique_ptr<AdsState> state_;
};

TEST_F(AdsStateTest, TheFirstRequestAloneCarriesTheNode) {
  Make(Variant::kDelta, {std::string(kListenerType), std::string(kClusterType)});
  const auto requests = TakeDelta();
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(requests[0].type_url(), kClusterType) << "clusters first";
  EXPECT_EQ(requests[0].node().id(), "n");
  EXPECT_FALSE(requests[1].has_node());
  EXPECT_THAT(requests[0].resource_names_subscribe(), ElementsAre("*"));
  EXPECT_THAT(TakeDelta(), IsEmpty());
}

google::protobuf::Any UnreadablePolicy(const std::string& name, int scope) {
  istio::security::Authorization proto;
  proto.set_name(name);
  proto.set_namespace_("shop");
  proto.set_scope(static_cast<istio::security::Scope>(scope));
  proto.set_action(static_cast<istio::security::Action>(7));  // of a later version
  google::protobuf::Any out;
  out.PackFrom(proto);
  out.set_type_url(std::string(kAuthorizationType));
  return out;
}

const model::Authorization& PolicyOf(const Update::Changed& changed) {
  return *std::get<std::shared_ptr<const model::Authorization>>(changed.resource);
}

bool Denies(const model::Authorization& policy) {
  return !model::Evaluate({&policy}, "", {.source_identity = "spiffe://td/ns/a/sa/b"}).allowed;
}

// What it forbids is not known, so everything is forbidden where it would have held.
TEST_F(AdsStateTest, APolicyThatCannotBeReadDenies) {
  Make(Variant::kDelta, {std::string(kAuthorizationType)});
  TakeDelta();
  google::protobuf::Any garbage;
  garbage.set_type_url(std::string(kAuthorizationType));
  garbage.set_value("\xff\xff");
  Delta("1",
        {{"shop/everywhere", UnreadablePolicy("everywhere", istio::security::GLOBAL)},
         {"shop/selected", UnreadablePolicy("selected", istio::security::WORKLOAD_SELECTOR)},
         {"shop/garbage", garbage}},
        {}, kAuthorizationType);
  ASSERT_EQ(updates_.back().changed.size(), 3u);
  using Scope = model::Authorization::Scope;
  std::map<std::string, Scope> scopes;
  for (const Update::Changed& changed : updates_.back().changed) {
    EXPECT_TRUE(Denies(PolicyOf(changed))) << changed.name;
    EXPECT_EQ(PolicyOf(changed).Key(), changed.name);
    scopes[changed.name] = PolicyOf(changed).scope;
  }
  EXPECT_EQ(scopes["shop/everywhere"], Scope::kGlobal);
  EXPECT_EQ(scopes["shop/selected"], Scope::kWorkload);
  EXPECT_EQ(scopes["shop/garbage"], Scope::kNamespace);
  EXPECT_TRUE(TakeDelta().at(0).has_error_detail());

  // It is nothing that we hold, but it goes when the server takes it away.
  state_->OnDisconnected("test");
  state_->OnConnected();
  EXPECT_TRUE(TakeDelta().at(0).initial_resource_versions().empty());
  Delta("2", {}, {"shop/garbage"}, kAuthorizationType);
  EXPECT_THAT(updates_.back().removed, ElementsAre("shop/garbage"));
}

TEST_F(AdsStateTest, APolicyThatCannotBeReadLeavesTheLastGoodOne) {
  Make(Variant::kStateOfTheWorld, {std::string(kAuthorizationType)});
  TakeFull();
  istio::security::Authorization good;
  good.set_name("p");
  good.set_namespace_("shop");
  google::protobuf::Any any;
  any.PackFrom(good);
  any.set_type_url(std::string(kAuthorizationType));
  Full("1", {any}, kAuthorizationType);
  ASSERT_EQ(updates_.back().changed.size(), 1u);
  Full("2", {UnreadablePolicy("p", istio::security::NAMESPACE)}, kAuthorizationType);
  EXPECT_THAT(updates_.back().changed, IsEmpty());
  EXPECT_THAT(updates_.back().removed, IsEmpty());
}

TEST_F(AdsStateTest, FullStateAckRefusalAndWhatIsMissing) {
  Make(Variant::kStateOfTheWorld);
  ASSERT_EQ(TakeFull().size(), 1u);
  Full("1", {ClusterAny("a"), ClusterAny("b")});
  auto requests = TakeFull();
  ASSERT_EQ(requests.size(), 1u);
  EXPECT_EQ(requests[0].response_nonce(), "1");
  EXPECT_EQ(requests[0].version_info(), "v1");
  EXPECT_FALSE(requests[0].has_error_detail());
  EXPECT_THAT(Changed(), ElementsAre("a", "b"));

  Full("2", {ClusterAny("a", false), ClusterAny("c")});
  requests = TakeFull();
  ASSERT_EQ(requests.size(), 1u);
  EXPECT_EQ(requests[0].response_nonce(), "2");
  EXPECT_EQ(requests[0].version_info(), "v1") << "the last one accepted as a whole";
  EXPECT_EQ(requests[0].error_detail().message(), "cluster a: type: STRICT_DNS is not supported");
  EXPECT_THAT(Changed(), ElementsAre("c"));
  EXPECT_THAT(updates_.back().removed, ElementsAre("b")) << "a is there, only bad";
  EXPECT_EQ(state_->status().types[0].resources, 2u);
}

TEST_F(AdsStateTest, NothingIsTakenAwayIfAResourceDoesNotTellItsName) {
  Make(Variant::kStateOfTheWorld);
  TakeFull();
  Full("1", {ClusterAny("a")});
  google::protobuf::Any garbage;
  garbage.set_type_url(std::string(kClusterType));
  garbage.set_value("\xff");
  Full("2", {garbage});
  EXPECT_THAT(updates_.back().removed, IsEmpty());
  EXPECT_TRUE(TakeFull().back().has_error_detail());
}

TEST_F(AdsStateTest, UnchangedResourcesAreNoNews) {
  Make(Variant::kStateOfTheWorld);
  TakeFull();
  Full("1", {ClusterAny("a")});
  Full("2", {ClusterAny("a"), ClusterAny("b")});
  EXPECT_THAT(Changed(), ElementsAre("b"));
}

TEST_F(AdsStateTest, DuplicateNamesAreRefused) {
  Make(Variant::kDelta);
  TakeDelta();
  Delta("1", {{"a", ClusterAny("a")}, {"b", ClusterAny("b")}, {"a", ClusterAny("a")}});
  const auto requests = TakeDelta();
  ASSERT_EQ(requests.size(), 1u);
  EXPECT_EQ(requests[0].error_detail().message(), "a: is there twice in one response");
  EXPECT_THAT(Changed(), ElementsAre("b"));
}

TEST_F(AdsStateTest, AServerThatContradictsItselfIsRefused) {
  Make(Variant::kDelta);
  TakeDelta();
  Delta("1", {{"a", ClusterAny("b")}});
  EXPECT_EQ(TakeDelta()[0].error_detail().message(), "a: calls itself \"b\"");
  Delta("2", {{"a", ClusterAny("a")}}, {"a"});
  now_ += milliseconds(5000);
  EXPECT_EQ(TakeDelta()[0].error_detail().message(), "a: is there and removed in one response");
  EXPECT_THAT(updates_.back().changed, IsEmpty());
}

TEST_F(AdsStateTest, DeltaAnswersAndNameChangesAreSeparateRequests) {
  Make(Variant::kDelta);
  TakeDelta();
  state_->SetNames(kEndpointsType, {"a", "b"});
  auto requests = TakeDelta();
  ASSERT_EQ(requests.size(), 1u);
  EXPECT_THAT(requests[0].resource_names_subscribe(), ElementsAre("a", "b"));
  Delta("1", {{"a", EndpointsAny("a")}}, {"b"}, kEndpointsType);
  EXPECT_THAT(updates_.back().removed, ElementsAre("b")) << "asked for, and not there";
  state_->SetNames(kEndpointsType, {"b", "c"});
  requests = TakeDelta();
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(requests[0].response_nonce(), "1");
  EXPECT_EQ(requests[1].response_nonce(), "");
  EXPECT_THAT(requests[1].resource_names_subscribe(), ElementsAre("c"));
  EXPECT_THAT(requests[1].resource_names_unsubscribe(), ElementsAre("a"));
}

TEST_F(AdsStateTest, ANameDroppedAndWantedAgainIsAskedForAgain) {
  Make(Variant::kDelta);
  state_->SetNames(kEndpointsType, {"a"});
  TakeDelta();
  Delta("1", {{"a", EndpointsAny("a")}}, {}, kEndpointsType);
  TakeDelta();
  state_->SetNames(kEndpointsType, {});
  state_->SetNames(kEndpointsType, {"a"});
  auto requests = TakeDelta();
  ASSERT_EQ(requests.size(), 1u);
  EXPECT_THAT(requests[0].resource_names_subscribe(), ElementsAre("a"));

  Make(Variant::kStateOfTheWorld);
  state_->SetNames(kEndpointsType, {"a", "b"});
  TakeFull();
  state_->SetNames(kEndpointsType, {"b"});
  state_->SetNames(kEndpointsType, {"a", "b"});
  const auto full = TakeFull();
  ASSERT_EQ(full.size(), 2u);
  EXPECT_THAT(full[0].resource_names(), ElementsAre("b"));
  EXPECT_THAT(full[1].resource_names(), ElementsAre("a", "b"));
}

TEST_F(AdsStateTest, WithoutANameNothingIsAskedForUntilThereIsOne) {
  Make(Variant::kStateOfTheWorld, {});
  state_->SetNames(kEndpointsType, {});
  EXPECT_THAT(TakeFull(), IsEmpty()) << "an empty list would ask for everything";
  state_->SetNames(kEndpointsType, {"a"});
  EXPECT_EQ(TakeFull().size(), 1u);
  state_->SetNames(kEndpointsType, {});
  const auto requests = TakeFull();
  ASSERT_EQ(requests.size(), 1u);
  EXPECT_THAT(requests[0].resource_names(), IsEmpty()) << "after a name, empty means none";
}

TEST_F(AdsStateTest, WhatNobodyAskedForIsIgnored) {
  Make(Variant::kDelta);
  TakeDelta();
  Delta("1", {{"a", EndpointsAny("a")}}, {}, kEndpointsType);
  EXPECT_THAT(updates_, IsEmpty());
  EXPECT_THAT(TakeDelta(), IsEmpty());
  state_->SetNames(kEndpointsType, {"b"});
  TakeDelta();
  Delta("2", {{"a", EndpointsAny("a")}}, {"c"}, kEndpointsType);
  EXPECT_THAT(updates_.back().changed, IsEmpty());
  EXPECT_THAT(updates_.back().removed, IsEmpty());
}

TEST_F(AdsStateTest, ReconnectSaysWhatIsHeldAndNeverWhatWasRefused) {
  Make(Variant::kDelta);
  TakeDelta();
  Delta("1", {{"a", ClusterAny("a")}, {"bad", ClusterAny("bad", false)}});
  Delta("2", {{"a", ClusterAny("a", false)}});
  state_->OnDisconnected("gone");
  EXPECT_THAT(TakeDelta(), IsEmpty());
  state_->OnConnected();
  const auto requests = TakeDelta();
  ASSERT_EQ(requests.size(), 1u);
  EXPECT_EQ(requests[0].response_nonce(), "") << "nonces die with the stream";
  EXPECT_EQ(requests[0].node().id(), "n");
  ASSERT_EQ(requests[0].initial_resource_versions().size(), 1u);
  EXPECT_EQ(requests[0].initial_resource_versions().at("a"), "v1") << "the good one";
}

TEST_F(AdsStateTest, RefusalsInARowAreSentSlowerAndSlower) {
  Make(Variant::kStateOfTheWorld);
  TakeFull();
  Full("1", {ClusterAny("a", false)});
  EXPECT_EQ(TakeFull().size(), 1u) << "the first at once";
  milliseconds last(0);
  for (int i = 2; i < 12; ++i) {
    Full(std::to_string(i), {ClusterAny("a", false)});
    EXPECT_THAT(TakeFull(), IsEmpty());
    ASSERT_TRUE(state_->next_deadline());
    const auto wait = std::chrono::duration_cast<milliseconds>(*state_->next_deadline() - now_);
    EXPECT_GE(wait, last);
    EXPECT_LE(wait, milliseconds(2000));
    last = wait;
    now_ = *state_->next_deadline();
    EXPECT_EQ(TakeFull().size(), 1u);
    EXPECT_FALSE(state_->next_deadline());
  }
  EXPECT_EQ(last, milliseconds(2000));
  Full("20", {ClusterAny("a")});
  EXPECT_EQ(TakeFull().size(), 1u) << "an ACK never waits";
}

TEST_F(AdsStateTest, PoliciesAreAskedOnlyOfAServerThatSaysItHasThem) {
  policy_types_ = {std::string(kNetworkPolicyType), std::string(kProcessPolicyType)};
  Make(Variant::kDelta);
  EXPECT_THAT(DeltaTypes(), ElementsAre(kClusterType));
  AnswerAs("{\"Component\":\"istiod\"}");
  EXPECT_FALSE(updates_.back().serves_policies);
  EXPECT_THAT(DeltaTypes(), ElementsAre(kClusterType));  // the ACK
  AnswerAs(std::string(kPolicyServer));
  EXPECT_TRUE(updates_.back().serves_policies);
  EXPECT_THAT(DeltaTypes(), ElementsAre(kClusterType, kNetworkPolicyType, kProcessPolicyType));
  AnswerAs(std::string(kPolicyServer), kNetworkPolicyType);
  EXPECT_EQ(updates_.back().type_url, kNetworkPolicyType);
  // The next stream may be another server's.
  state_->OnDisconnected("gone");
  state_->OnConnected();
  EXPECT_THAT(DeltaTypes(), ElementsAre(kClusterType));
}

TEST_F(AdsStateTest, ANetworkPolicyThatCannotBeReadCutsItsSubjectsOff) {
  policy_types_ = {std::string(kNetworkPolicyType)};
  Make(Variant::kDelta);
  TakeDelta();
  AnswerAs(std::string(kPolicyServer));
  TakeDelta();
  weft::policy::v1::NetworkPolicy bad;
  bad.set_name("p");
  bad.set_namespace_("s");
  bad.add_subjects("b");
  bad.add_subjects("a");  // not in order
  google::protobuf::Any any;
  any.PackFrom(bad);
  Delta("2", {{"s/p", any}}, {}, kNetworkPolicyType);
  ASSERT_THAT(Changed(), ElementsAre("s/p"));
  const auto& deny =
      *std::get<std::shared_ptr<const model::NetworkPolicy>>(updates_.back().changed[0].resource);
  EXPECT_THAT(deny.subjects, ElementsAre("a", "b"));
  EXPECT_TRUE(deny.isolates_ingress && deny.isolates_egress);
  EXPECT_TRUE(deny.ingress.empty() && deny.egress.empty());
  EXPECT_NE(TakeDelta().at(0).error_detail().message().find("subjects"), std::string::npos);
}

TEST_F(AdsStateTest, GarbageEndsTheStream) {
  for (Variant variant : {Variant::kDelta, Variant::kStateOfTheWorld}) {
    Make(variant);
    EXPECT_FALSE(state_->OnMessage("\xff\xff", now_).ok());
  }
}

}  // namespace
}  // namespace weft::xds
