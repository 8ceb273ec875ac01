// SPDX-License-Identifier: Apache-2.0
// `weft why` over compiled policy: layers, rules, and the way.
#include "control/agent/why.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/unit/control/policy/compiled.h"

namespace weft::agent {
namespace {

using nlohmann::json;

class WhyTest : public testing::Test {
 protected:
  void SetUp() override {
    Add("client", "10.1.0.1", 1);
    Add("redis", "10.1.0.2", 2);
    Add("far", "10.2.0.1", 0);
  }
  void Add(const std::string& name, const char* address, uint32_t id) {
    auto workload = std::make_shared<model::Workload>();
    workload->uid = name;
    workload->name = name;
    workload->namespace_name = "demo";
    workload->service_account = name;
    workload->trust_domain = "td";
    workload->addresses = {*IpAddress::Parse(address)};
    workload->hbone = true;
    snapshot_.workloads[name] = workload;
    if (id == 0) return;
    pods_.push_back({.uid = name,
                     .id = id,
                     .generation = 1,
                     .netns_cookie = 100 + id,
                     .identity = workload->Identity(),
                     .addresses = workload->addresses,
                     .proxy_ready = true});
  }
  void AddService(const char* vip, bool http) {
    auto service = std::make_shared<model::Service>();
    service->name = "cache";
    service->hostname = "cache.demo";
    service->namespace_name = "demo";
    service->addresses = {*IpAddress::Parse(vip)};
    service->ports = {{80, 6379}};
    snapshot_.services[service->Key()] = service;
    for (const char* name : {"redis", "far"}) {
      auto workload = std::make_shared<model::Workload>(*snapshot_.workloads[name]);
      workload->services[service->Key()] = {{80, 6379}};
      snapshot_.workloads[name] = workload;
    }
    auto listener = std::make_shared<model::Listener>();
    listener->address = SocketAddress{*IpAddress::Parse(vip), 80};
    if (http) listener->http.emplace();
    snapshot_.listeners["l"] = listener;
  }
  absl::StatusOr<json> Ask(const WhyRequest& request) {
    snapshot_.Finish();
    state_ = CompileKernelState(snapshot_, pods_, place_, numbers_);
    const auto ask = [this](const bpf::PolicyQuestion& q) {
      bpf::PolicyAnswer out;
      for (uint32_t i = 0; i < WEFT_LAYERS; ++i) {
        const uint32_t subject = i == 0 ? q.source_subject : q.destination_subject;
        bpf::LayerAnswer& layer = out.layers[i];
        layer.asked = subject != 0 && (i != WEFT_LAYER_AUTHORIZATION || q.protocol == 1);
        if (!layer.asked) continue;
        layer.active = state_.policy.subjects.at(subject)[i].says != 0;
        const weft_answer answer =
            rules::AskCompiled(state_.policy, {q.source_subject, q.destination_subject, q.source,
                                               q.destination, q.port, q.protocol, 1u << i});
        layer.allowed = answer.allowed != 0;
        layer.by_default = answer.by_default != 0;
        layer.rule = answer.rule;
      }
      return out;
    };
    auto text = Why(request, {snapshot_, state_, numbers_, ask});
    if (!text.ok()) return text.status();
    return json::parse(*text);
  }
  model::NetworkPolicy& Policy(const std::string& name, const std::string& subject) {
    auto policy = std::make_shared<model::NetworkPolicy>();
    policy->name = name;
    policy->namespace_name = "demo";
    policy->subjects = {subject};
    snapshot_.network_policies[policy->Key()] = policy;
    return *policy;
  }

  model::Snapshot snapshot_;
  std::vector<LocalPod> pods_;
  KernelNumbers numbers_;
  NodePlace place_;
  KernelState state_;
};

TEST_F(WhyTest, WithoutPolicyItIsDirect) {
  const auto answer = Ask({"demo/client", "demo/redis", 6379});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ((*answer)["allowed"], true);
  EXPECT_EQ((*answer)["way"], "direct");
  EXPECT_EQ((*answer)["reason"], "direct");
  for (const json& layer : (*answer)["layers"]) {
    EXPECT_EQ(layer["asked_at"], "kernel");
    EXPECT_EQ(layer["active"], false);
  }
}

TEST_F(WhyTest, NamesTheRuleThatDecides) {
  model::NetworkPolicy& in = Policy("in", "redis");
  in.isolates_ingress = true;
  in.ingress = {{.index = 0,
                 .workloads = {"client"},
                 .ports = {{model::NetworkPolicy::Protocol::kTcp, 6379, 6379}}}};
  auto answer = Ask({"demo/client", "10.1.0.2", 6379});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ((*answer)["allowed"], true);
  EXPECT_EQ((*answer)["layers"][1]["rule"], "NetworkPolicy demo/in ingress[0]");
  answer = Ask({"demo/client", "demo/redis", 6380});
  EXPECT_EQ((*answer)["allowed"], false);
  EXPECT_EQ((*answer)["layers"][1]["by_default"], true);
  EXPECT_EQ((*answer)["layers"][1]["rule"], "NetworkPolicy demo/in ingress (no rule matches)");
  answer = Ask({"demo/client", "demo/redis", 6379, "udp"});
  EXPECT_EQ((*answer)["allowed"], false);
  EXPECT_EQ((*answer)["layers"][2]["asked_at"], "nowhere: TCP only");
}

TEST_F(WhyTest, RemoteSourcesAreAuthorizedByTheProxy) {
  auto policy = std::make_shared<model::Authorization>();
  policy->name = "deny-far";
  policy->namespace_name = "demo";
  policy->action = model::Authorization::Action::kDeny;
  policy->scope = model::Authorization::Scope::kGlobal;
  model::Authorization::Match match;
  match.service_accounts = {{"demo", "far"}};
  policy->groups = {{{match}}};
  snapshot_.authorizations[policy->Key()] = policy;
  const auto answer = Ask({"demo/far", "demo/redis", 6379});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ((*answer)["allowed"], false);
  EXPECT_EQ((*answer)["layers"][0]["asked_at"], "the source's node");
  EXPECT_EQ((*answer)["layers"][2]["asked_at"], "proxy");
  EXPECT_EQ((*answer)["layers"][2]["rule"], "demo/deny-far");
}

TEST_F(WhyTest, AServiceIsAnsweredEndpointByEndpoint) {
  AddService("10.96.0.1", /*http=*/false);
  Policy("out", "client").isolates_egress = true;
  snapshot_.network_policies.clear();
  auto answer = Ask({"demo/client", "demo/cache.demo", 80});
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_EQ((*answer)["endpoints"].size(), 2u);
  EXPECT_EQ((*answer)["endpoints"][0]["way"], "direct");
  EXPECT_EQ((*answer)["endpoints"][1]["way"], "proxy");  // on another node
  AddService("10.96.0.1", /*http=*/true);
  answer = Ask({"demo/client", "10.96.0.1", 80});
  EXPECT_EQ((*answer)["endpoints"][0]["way"], "proxy");
}

TEST_F(WhyTest, WhatNobodyKnowsIsAnError) {
  EXPECT_TRUE(absl::IsNotFound(Ask({"demo/nobody", "demo/redis", 1}).status()));
  EXPECT_TRUE(absl::IsNotFound(Ask({"demo/far", "192.0.2.1", 1}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Ask({"demo/client", "demo/redis", 1, "quic"}).status()));
}

}  // namespace
}  // namespace weft::agent
