// SPDX-License-Identifier: Apache-2.0
// What the agent wants in the kernel's maps, from configuration and enrolled workloads alone.
#include "control/agent/kernel_sync.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace weft::agent {
namespace {

constexpr const char* kClient = "spiffe://cluster.local/ns/demo/sa/client";
constexpr const char* kIntruder = "spiffe://cluster.local/ns/demo/sa/intruder";

IpAddress Ip(const char* text) { return *IpAddress::Parse(text); }

class KernelSyncTest : public testing::Test {
 protected:
  void AddWorkload(const std::string& name, const std::string& account, const char* address,
                   std::vector<std::string> policies = {}) {
    model::Workload w;
    w.uid = "Kubernetes//Pod/demo/" + name;
    w.name = name;
    w.namespace_name = "demo";
    w.service_account = account;
    w.trust_domain = "cluster.local";
    w.addresses = {Ip(address)};
    w.hbone = true;
    w.authorization_policies = std::move(policies);
    workloads_[name] = w;
  }

  void Enrol(const std::string& name, uint32_t id) {
    LocalPod pod;
    pod.uid = "Kubernetes//Pod/demo/" + name;
    pod.id = id;
    pod.generation = 7;
    pod.netns_cookie = 1000 + id;
    pod.identity = "spiffe://cluster.local/ns/demo/sa/" + workloads_[name].service_account;
    pod.addresses = workloads_[name].addresses;
    pods_.push_back(pod);
  }

  void AddPolicy(const std::string& name, model::Authorization::Action action,
                 model::Authorization::Match match,
                 model::Authorization::Scope scope = model::Authorization::Scope::kWorkload) {
    auto policy = std::make_shared<model::Authorization>();
    policy->name = name;
    policy->namespace_name = "demo";
    policy->action = action;
    policy->scope = scope;
    policy->groups = {{{std::move(match)}}};
    snapshot_.authorizations[policy->Key()] = policy;
  }

  static model::Authorization::Match From(const std::string& account, uint32_t port = 0) {
    model::Authorization::Match match;
    match.service_accounts = {{"demo", account}};
    if (port != 0) match.destination_ports = {port};
    return match;
  }

  KernelState Compile() {
    for (const auto& [name, workload] : workloads_) {
      snapshot_.workloads[workload.uid] = std::make_shared<model::Workload>(workload);
    }
    snapshot_.Finish();
    return CompileKernelState(snapshot_, pods_, place_, numbers_);
  }

  // Authorization of a connection of the workload at `source`.
  bpf::PolicySays SaysOf(const KernelState& state, uint32_t workload, const char* source,
                         uint16_t port) {
    const uint32_t number = state.policy.classes.at(Ip(source));
    for (const uint8_t length : {uint8_t{16}, uint8_t{0}}) {
      auto found = state.policy.entries.find({workload, number, length == 0 ? uint16_t{0} : port,
                                              length, WEFT_PROTOCOL_TCP, WEFT_LAYER_AUTHORIZATION});
      if (found != state.policy.entries.end()) return found->second;
    }
    return {};
  }
  static uint32_t DefaultOf(const KernelState& state, uint32_t workload) {
    return state.policy.subjects.at(workload)[WEFT_LAYER_AUTHORIZATION].says;
  }

  std::map<std::string, model::Workload> workloads_;
  model::Snapshot snapshot_;
  std::vector<LocalPod> pods_;
  KernelNumbers numbers_;
  NodePlace place_;
};

TEST_F(KernelSyncTest, NumbersAreDenseStableAndNeverZero) {
  Numbers numbers;
  EXPECT_EQ(numbers.Of("a"), 1u);
  EXPECT_EQ(numbers.Of("b"), 2u);
  EXPECT_EQ(numbers.Of("a"), 1u);
  EXPECT_EQ(numbers.NameOf(2), "b");
  EXPECT_EQ(numbers.NameOf(0), "");
  EXPECT_EQ(numbers.NameOf(3), "");
}

TEST_F(KernelSyncTest, PeersOfBothNodesOneWithItsNamespace) {
  AddWorkload("client", "client", "10.244.1.10");
  AddWorkload("web-2", "web", "10.244.2.12");
  Enrol("client", 1);
  const KernelState state = Compile();
  ASSERT_EQ(state.peers.size(), 2u);
  EXPECT_EQ(state.peers.at(Ip("10.244.1.10")).netns_cookie, 1001u);
  EXPECT_EQ(state.peers.at(Ip("10.244.1.10")).workload, 1u);
  const KernelPeer& remote = state.peers.at(Ip("10.244.2.12"));
  EXPECT_EQ(remote.netns_cookie, 0u);
  EXPECT_EQ(remote.flags, WEFT_PEER_HBONE);
  EXPECT_EQ(numbers_.identities.NameOf(remote.identity), "spiffe://cluster.local/ns/demo/sa/web");
}

TEST_F(KernelSyncTest, ResolversComeWithTheirWorkloadAndAChangeIsWritten) {
  AddWorkload("client", "client", "10.244.1.10");
  Enrol("client", 1);
  const KernelState without = Compile();
  pods_[0].resolvers = {Ip("10.96.0.2")};
  const KernelState with = Compile();
  EXPECT_EQ(with.workloads.at(1001).resolvers, pods_[0].resolvers);
  EXPECT_EQ(DiffKernelState(without, with).workloads, std::vector<uint64_t>{1001});
}

TEST_F(KernelSyncTest, AHostNetworkWorkloadIsNotIndexedByTheNodesAddress) {
  AddWorkload("agent", "agent", "172.30.0.1");
  workloads_["agent"].host_network = true;
  EXPECT_TRUE(Compile().peers.empty());
}

TEST_F(KernelSyncTest, WithoutPoliciesNothingIsDenied) {
  AddWorkload("redis", "redis", "10.244.1.20");
  Enrol("redis", 1);
  const KernelState state = Compile();
  EXPECT_TRUE(state.policy.entries.empty());
  EXPECT_EQ(state.policy.subjects.at(1), bpf::SubjectState{});
}

TEST_F(KernelSyncTest, AnAllowPolicyDeniesTheOthersAndNamesItself) {
  AddWorkload("client", "client", "10.244.1.10");
  AddWorkload("intruder", "intruder", "10.244.1.66");
  AddWorkload("redis", "redis", "10.244.1.20", {"demo/redis-only-client"});
  AddPolicy("redis-only-client", model::Authorization::Action::kAllow, From("client", 6379));
  Enrol("client", 1);
  Enrol("intruder", 2);
  Enrol("redis", 3);
  const KernelState state = Compile();
  EXPECT_EQ(DefaultOf(state, 3), WEFT_SAYS_DENY);
  EXPECT_EQ(DefaultOf(state, 1), 0u);
  const bpf::PolicySays allowed = SaysOf(state, 3, "10.244.1.10", 6379);
  EXPECT_EQ(allowed.says, WEFT_SAYS_ALLOW);
  EXPECT_EQ(numbers_.rules.NameOf(allowed.rule), "demo/redis-only-client");
  EXPECT_EQ(SaysOf(state, 3, "10.244.1.10", 6380).says, 0u);
  EXPECT_EQ(SaysOf(state, 3, "10.244.1.66", 6379).says, 0u);
  const uint32_t why = state.policy.subjects.at(3)[WEFT_LAYER_AUTHORIZATION].rule;
  EXPECT_THAT(std::string(numbers_.rules.NameOf(why)),
              testing::HasSubstr("demo/redis-only-client"));
}

TEST_F(KernelSyncTest, DenyBeatsAllow) {
  AddWorkload("client", "client", "10.244.1.10");
  AddWorkload("redis", "redis", "10.244.1.20", {"demo/allow", "demo/deny"});
  AddPolicy("allow", model::Authorization::Action::kAllow, From("client"));
  AddPolicy("deny", model::Authorization::Action::kDeny, From("client", 6379));
  Enrol("client", 1);
  Enrol("redis", 2);
  const KernelState state = Compile();
  const bpf::PolicySays denied = SaysOf(state, 2, "10.244.1.10", 6379);
  EXPECT_EQ(denied.says, WEFT_SAYS_DENY);
  EXPECT_EQ(numbers_.rules.NameOf(denied.rule), "demo/deny");
  EXPECT_EQ(SaysOf(state, 2, "10.244.1.10", 1).says, WEFT_SAYS_ALLOW);
}

TEST_F(KernelSyncTest, ANamespacePolicyOfAnotherNamespaceDoesNotApply) {
  AddWorkload("redis", "redis", "10.244.1.20");
  AddPolicy("deny", model::Authorization::Action::kDeny, From("redis"),
            model::Authorization::Scope::kNamespace);
  Enrol("redis", 1);
  EXPECT_FALSE(Compile().policy.entries.empty());
  auto moved = std::make_shared<model::Authorization>(*snapshot_.authorizations.at("demo/deny"));
  moved->namespace_name = "other";
  snapshot_.authorizations.clear();
  snapshot_.authorizations[moved->Key()] = moved;
  EXPECT_TRUE(Compile().policy.entries.empty());
}

TEST_F(KernelSyncTest, AnUnknownPolicyDeniesEverybody) {
  AddWorkload("redis", "redis", "10.244.1.20", {"demo/not-there"});
  Enrol("redis", 2);
  const KernelState state = Compile();
  EXPECT_EQ(DefaultOf(state, 2), WEFT_SAYS_DENY);
  EXPECT_TRUE(state.policy.entries.empty());
}

TEST_F(KernelSyncTest, OnlyDestinationAddressesOfSeveralAreLeftToTheProxy) {
  AddWorkload("client", "client", "10.244.1.10");
  AddWorkload("redis", "redis", "10.244.1.20", {"demo/by-address"});
  model::Authorization::Match match;
  match.source_ips = {{Ip("10.244.1.0"), 28}};
  match.destination_ips = {{Ip("10.244.1.20"), 32}};
  AddPolicy("by-address", model::Authorization::Action::kAllow, match);
  Enrol("client", 1);
  Enrol("redis", 2);
  KernelState state = Compile();
  EXPECT_EQ(state.workloads.at(1002).flags & WEFT_WL_L7_INBOUND, 0u);
  EXPECT_EQ(SaysOf(state, 2, "10.244.1.10", 80).says, WEFT_SAYS_ALLOW);
  EXPECT_EQ(SaysOf(state, 2, "10.244.1.20", 80).says, 0u);  // not within the /28
  pods_[1].addresses.push_back(Ip("fd00::20"));
  state = Compile();
  EXPECT_NE(state.workloads.at(1002).flags & WEFT_WL_L7_INBOUND, 0u);
  EXPECT_EQ(DefaultOf(state, 2), 0u);
}

TEST_F(KernelSyncTest, AWorkloadThatTheControlPlaneDoesNotKnowIsClosed) {
  AddWorkload("redis", "redis", "10.244.1.20");
  Enrol("redis", 1);
  pods_[0].uid = "";
  const KernelState state = Compile();
  for (const bpf::LayerState& layer : state.policy.subjects.at(1)) {
    EXPECT_EQ(layer.says, WEFT_SAYS_DENY);
  }
}

TEST_F(KernelSyncTest, AServiceIsL7ExactlyIfItsListenerHasAnHttpChain) {
  AddWorkload("web", "web", "10.244.2.12");
  workloads_["web"].services["demo/web"] = {{80, 8080}};
  workloads_["web"].services["demo/redis"] = {{6379, 6379}};
  for (const auto& [name, vip, port] :
       {std::tuple("web", "10.96.0.10", 80), {"redis", "10.96.0.20", 6379}}) {
    auto service = std::make_shared<model::Service>();
    service->name = service->hostname = name;
    service->namespace_name = "demo";
    service->addresses = {Ip(vip)};
    service->ports = {{uint16_t(port), uint16_t(port == 80 ? 8080 : port)}};
    snapshot_.services[service->Key()] = service;
    auto listener = std::make_shared<model::Listener>();
    listener->name = std::string("outbound|") + name;
    listener->address = SocketAddress{Ip(vip), uint16_t(port)};
    if (port == 80) listener->http.emplace();
    if (port != 80) listener->tcp.emplace();
    snapshot_.listeners[listener->name] = listener;
  }
  const KernelState state = Compile();
  const KernelService& web = state.services.at(numbers_.services.Of("demo/web:80"));
  EXPECT_EQ(web.flags, WEFT_SVC_L7);
  EXPECT_THAT(web.vips, testing::ElementsAre(SocketAddress{Ip("10.96.0.10"), 80}));
  EXPECT_THAT(web.backends, testing::ElementsAre(SocketAddress{Ip("10.244.2.12"), 8080}));
  EXPECT_EQ(state.services.at(numbers_.services.Of("demo/redis:6379")).flags, 0u);
}

TEST_F(KernelSyncTest, UnhealthyWorkloadsAreNoBackends) {
  AddWorkload("web", "web", "10.244.2.12");
  workloads_["web"].services["demo/web"] = {{80, 8080}};
  workloads_["web"].healthy = false;
  auto service = std::make_shared<model::Service>();
  service->hostname = "web";
  service->namespace_name = "demo";
  service->addresses = {Ip("10.96.0.10")};
  service->ports = {{80, 8080}};
  snapshot_.services[service->Key()] = service;
  EXPECT_TRUE(Compile().services.at(1).backends.empty());
}

TEST_F(KernelSyncTest, ASmallChangeIsAFewUpdates) {
  for (int i = 0; i < 200; ++i) {
    AddWorkload("w" + std::to_string(i), "w", ("10.1.0." + std::to_string(i)).c_str());
  }
  const KernelState before = Compile();
  EXPECT_EQ(DiffKernelState(before, before).count(), 0u);
  AddWorkload("one-more", "w", "10.2.0.1");
  const KernelState after = Compile();
  const KernelChanges changes = DiffKernelState(before, after);
  EXPECT_EQ(changes.count(), 1u);
  EXPECT_THAT(changes.set_peers, testing::ElementsAre(Ip("10.2.0.1")));
  EXPECT_THAT(DiffKernelState(after, before).remove_peers, testing::ElementsAre(Ip("10.2.0.1")));
}

TEST_F(KernelSyncTest, FlagsOfALocalWorkloadAreCopiedToItsPeer) {
  AddWorkload("redis", "redis", "10.244.1.20");
  Enrol("redis", 1);
  pods_[0].splice = SpliceMode::kAuto;
  EXPECT_EQ(Compile().workloads.at(1001).flags, WEFT_WL_SPLICE | WEFT_WL_SPLICE_AUTO);
  pods_[0].splice = SpliceMode::kOn;
  pods_[0].proxy_ready = true;
  const KernelState state = Compile();
  EXPECT_EQ(state.workloads.at(1001).flags, WEFT_WL_SPLICE | WEFT_WL_PROXY_READY);
  EXPECT_EQ(state.peers.at(Ip("10.244.1.20")).workload_flags, WEFT_WL_SPLICE | WEFT_WL_PROXY_READY);
}

}  // namespace
}  // namespace weft::agent
