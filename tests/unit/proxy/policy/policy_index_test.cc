// SPDX-License-Identifier: Apache-2.0
// Which policies reach a workload: by scope and by name. What one policy means is tested in
// xds/model.
#include "proxy/policy/policy_index.h"

#include <gtest/gtest.h>

namespace weft::policy {
namespace {

using model::Authorization;

const char kAlice[] = "spiffe://cluster.local/ns/prod/sa/alice";

class PolicyIndexTest : public testing::Test {
 protected:
  void AddWorkload(std::string ip, std::string ns, std::vector<std::string> policies = {}) {
    auto workload = std::make_shared<model::Workload>();
    workload->uid = "c///" + ns + "/" + ip;
    workload->namespace_name = ns;
    workload->addresses = {*IpAddress::Parse(ip)};
    workload->authorization_policies = std::move(policies);
    snapshot_->workloads[workload->uid] = workload;
  }
  void AddPolicy(std::string ns, std::string name, Authorization::Scope scope,
                 Authorization::Action action, uint32_t port) {
    auto policy = std::make_shared<Authorization>();
    policy->name = name;
    policy->namespace_name = ns;
    policy->scope = scope;
    policy->action = action;
    Authorization::Match match;
    match.destination_ports = {port};
    policy->groups = {{{match}}};
    snapshot_->authorizations[policy->Key()] = policy;
  }
  Decision Decide(std::string destination, std::string_view identity = kAlice) {
    snapshot_->Finish();
    PolicyIndex index(snapshot_);
    return index.Decide({.source_identity = identity,
                         .source_ip = IpAddress::Parse("10.0.0.9"),
                         .destination = *SocketAddress::Parse(destination)});
  }
  std::shared_ptr<model::Snapshot> snapshot_ = std::make_shared<model::Snapshot>();
};

TEST_F(PolicyIndexTest, NoPolicyAllows) {
  AddWorkload("10.0.0.1", "prod");
  EXPECT_TRUE(Decide("10.0.0.1:80").allowed());
}

TEST_F(PolicyIndexTest, UnknownDestinationIsDenied) {
  EXPECT_EQ(Decide("10.0.0.1:80").reason, WEFT_R_POLICY_DENIED);
}

TEST_F(PolicyIndexTest, GlobalPolicyReachesEveryNamespace) {
  AddWorkload("10.0.0.1", "prod");
  AddPolicy("root", "no-22", Authorization::Scope::kGlobal, Authorization::Action::kDeny, 22);
  Decision decision = Decide("10.0.0.1:22");
  EXPECT_EQ(decision.reason, WEFT_R_POLICY_DENIED);
  EXPECT_EQ(decision.policy, "root/no-22");
  EXPECT_TRUE(Decide("10.0.0.1:80").allowed());
}

TEST_F(PolicyIndexTest, NamespacePolicyReachesItsNamespaceOnly) {
  AddWorkload("10.0.0.1", "prod");
  AddWorkload("10.0.0.2", "test");
  AddPolicy("prod", "no-22", Authorization::Scope::kNamespace, Authorization::Action::kDeny, 22);
  EXPECT_FALSE(Decide("10.0.0.1:22").allowed());
  EXPECT_TRUE(Decide("10.0.0.2:22").allowed());
}

TEST_F(PolicyIndexTest, SelectorPolicyReachesWhoNamesIt) {
  AddWorkload("10.0.0.1", "prod", {"prod/only-80"});
  AddWorkload("10.0.0.2", "prod");
  AddPolicy("prod", "only-80", Authorization::Scope::kWorkload, Authorization::Action::kAllow, 80);
  EXPECT_TRUE(Decide("10.0.0.1:80").allowed());
  EXPECT_EQ(Decide("10.0.0.1:22").reason, WEFT_R_POLICY_DEFAULT_DENIED);
  EXPECT_TRUE(Decide("10.0.0.2:22").allowed());
}

TEST_F(PolicyIndexTest, UnknownReferenceDeniesWhateverTheOthersSay) {
  AddWorkload("10.0.0.1", "prod", {"prod/only-80", "prod/missing"});
  AddPolicy("prod", "only-80", Authorization::Scope::kWorkload, Authorization::Action::kAllow, 80);
  Decision decision = Decide("10.0.0.1:80");
  EXPECT_EQ(decision.reason, WEFT_R_POLICY_DENIED);
  EXPECT_EQ(decision.policy, "prod/missing");
}

}  // namespace
}  // namespace weft::policy
