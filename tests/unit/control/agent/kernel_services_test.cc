// SPDX-License-Identifier: Apache-2.0
// Which endpoints of a service the kernel shall give to clients of this node.
#include "control/agent/kernel_services.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace weft::agent {
namespace {

using model::HealthStatus;
using testing::ElementsAre;
using testing::IsEmpty;

IpAddress Ip(const std::string& text) { return *IpAddress::Parse(text); }

class KernelServicesTest : public testing::Test {
 protected:
  void SetUp() override { AddService({"10.96.0.10"}); }

  void AddService(const std::vector<std::string>& vips) {
    for (const std::string& vip : vips) {
      service_.addresses.push_back(Ip(vip));
      auto listener = std::make_shared<model::Listener>();
      listener->address = SocketAddress{Ip(vip), 80};
      listener->tcp = model::TcpFilterChain{.clusters = {{.cluster = "c", .weight = 1}}};
      snapshot_.listeners["l" + vip] = listener;
    }
  }
  void AddWorkload(const std::string& node, const std::vector<std::string>& addresses,
                   const std::string& zone = "") {
    auto workload = std::make_shared<model::Workload>();
    workload->uid = addresses[0];
    workload->node = node;
    workload->locality.zone = zone;
    for (const std::string& address : addresses) workload->addresses.push_back(Ip(address));
    workload->services["demo/web"] = {{80, 8080}};
    snapshot_.workloads[workload->uid] = workload;
  }
  void AddEndpoint(const std::string& address, model::Endpoint endpoint = {}) {
    endpoint.address = {Ip(address), 8080};
    endpoints_.push_back(endpoint);
  }
  KernelService Compile(const NodePlace& place = {.node = "n1", .zone = "a"}) {
    return CompileAll(place).at(numbers_.Of("demo/web:80"));
  }
  std::map<uint32_t, KernelService> CompileAll(const NodePlace& place = {"n1", "a"}) {
    service_.hostname = "web";
    service_.namespace_name = "demo";
    service_.ports = {{80, 8080}};
    snapshot_.services["demo/web"] = std::make_shared<model::Service>(service_);
    if (has_eds_) {
      cluster_.type = model::DiscoveryType::kEds;
      cluster_.eds_name = "e";
      snapshot_.clusters["c"] = std::make_shared<model::Cluster>(cluster_);
      snapshot_.endpoints["e"] =
          std::make_shared<model::Endpoints>(model::Endpoints{"e", endpoints_});
    }
    snapshot_.Finish();
    return CompileServices(snapshot_, place, on_this_node_, numbers_);
  }
  // Who gets new connections.
  std::vector<std::string> InRing(const KernelService& service) {
    std::vector<std::string> out;
    for (const auto& b : service.backends) {
      if (b.in_ring) out.push_back(b.address.ip.ToString());
    }
    return out;
  }

  model::Snapshot snapshot_;
  model::Service service_;
  model::Cluster cluster_;
  std::vector<model::Endpoint> endpoints_;
  std::set<IpAddress> on_this_node_;
  bool has_eds_ = true;
  rules::Numbers numbers_;
};

TEST_F(KernelServicesTest, WeightsAndThePolicyComeFromTheCluster) {
  AddEndpoint("10.1.0.1", {.weight = 3});
  AddEndpoint("10.1.0.2");
  EXPECT_FALSE(Compile().maglev);
  cluster_.lb = model::LbPolicy::kMaglev;
  const KernelService service = Compile();
  EXPECT_TRUE(service.maglev);
  EXPECT_THAT(service.backends, ElementsAre(bpf::ServiceBackend({Ip("10.1.0.1"), 8080}, 3),
                                            bpf::ServiceBackend({Ip("10.1.0.2"), 8080}, 1)));
}

TEST_F(KernelServicesTest, WithoutAClusterTheWorkloadApiSaysWho) {
  has_eds_ = false;
  AddWorkload("n2", {"10.1.0.9"});
  EXPECT_THAT(InRing(Compile()), ElementsAre("10.1.0.9"));
}

TEST_F(KernelServicesTest, AClusterWithoutEndpointsHasNone) {
  AddWorkload("n2", {"10.1.0.9"});  // behind the service by its labels; EDS knows better
  EXPECT_THAT(Compile().backends, IsEmpty());
}

TEST_F(KernelServicesTest, DrainingAndUnhealthyEndpointsGetNothingNotEvenByAffinity) {
  service_.affinity_s = 60;
  AddEndpoint("10.1.0.1", {.health = HealthStatus::kDraining});
  AddEndpoint("10.1.0.2", {.health = HealthStatus::kUnhealthy});
  AddEndpoint("10.1.0.3", {.health = HealthStatus::kHealthy});
  EXPECT_EQ(Compile().backends.size(), 1u);
  EXPECT_THAT(InRing(Compile()), ElementsAre("10.1.0.3"));
  endpoints_.pop_back();
  EXPECT_THAT(Compile().backends, IsEmpty());
}

TEST_F(KernelServicesTest, LaterPrioritiesAndTheDegradedOnlyWhereNobodyBetterIs) {
  AddEndpoint("10.1.0.1", {.health = HealthStatus::kDegraded});
  AddEndpoint("10.1.0.2", {.priority = 1});
  EXPECT_THAT(InRing(Compile()), ElementsAre("10.1.0.1"));
  AddEndpoint("10.1.0.3");
  EXPECT_THAT(InRing(Compile()), ElementsAre("10.1.0.3"));
  endpoints_ = {};
  AddEndpoint("10.1.0.2", {.priority = 1});
  EXPECT_THAT(InRing(Compile()), ElementsAre("10.1.0.2"));
}

TEST_F(KernelServicesTest, WithoutAPreferenceDistanceIsNothing) {
  AddWorkload("n1", {"10.1.0.1"});
  AddEndpoint("10.1.0.1");
  AddEndpoint("10.1.0.2", {.locality = {.zone = "a"}});
  AddEndpoint("10.1.0.3", {.locality = {.zone = "b"}});
  EXPECT_EQ(InRing(Compile()).size(), 3u);
}

TEST_F(KernelServicesTest, PrefersTheNodeThenTheZoneThenAnybody) {
  service_.prefers_same_node = service_.prefers_same_zone = true;
  AddWorkload("n1", {"10.1.0.1"});
  AddEndpoint("10.1.0.1", {.locality = {.zone = "a"}});
  AddEndpoint("10.1.0.2", {.locality = {.zone = "a"}});
  AddEndpoint("10.1.0.3", {.locality = {.zone = "b"}});
  EXPECT_THAT(InRing(Compile()), ElementsAre("10.1.0.1"));
  EXPECT_EQ(Compile().backends.size(), 1u) << "without affinity others need no memory";
  endpoints_[0].health = HealthStatus::kUnhealthy;
  EXPECT_THAT(InRing(Compile()), ElementsAre("10.1.0.2"));
  endpoints_[1].health = HealthStatus::kUnhealthy;
  EXPECT_THAT(InRing(Compile()), ElementsAre("10.1.0.3"));
  endpoints_[0].health = HealthStatus::kHealthy;
  EXPECT_THAT(InRing(Compile()), ElementsAre("10.1.0.1")) << "and back";
}

TEST_F(KernelServicesTest, PrefersTheZoneWithTheNodeInIt) {
  service_.prefers_same_zone = true;
  AddWorkload("n1", {"10.1.0.1"});  // no zone of its own: this node's
  AddEndpoint("10.1.0.1");
  AddEndpoint("10.1.0.2", {.locality = {.zone = "a"}});
  AddEndpoint("10.1.0.3", {.locality = {.zone = "b"}});
  EXPECT_THAT(InRing(Compile()), ElementsAre("10.1.0.1", "10.1.0.2"));
}

TEST_F(KernelServicesTest, AnEnrolledPodIsOnThisNodeWhateverTheWorkloadApiSays) {
  service_.prefers_same_node = true;
  AddEndpoint("10.1.0.1");
  AddEndpoint("10.1.0.2");
  on_this_node_ = {Ip("10.1.0.2")};
  EXPECT_THAT(InRing(Compile()), ElementsAre("10.1.0.2"));
}

TEST_F(KernelServicesTest, TheNodesZoneIsThatOfItsWorkloads) {
  service_.prefers_same_zone = true;
  AddWorkload("n1", {"10.1.0.9"}, "b");
  AddEndpoint("10.1.0.2", {.locality = {.zone = "a"}});
  AddEndpoint("10.1.0.3", {.locality = {.zone = "b"}});
  EXPECT_THAT(InRing(Compile({.node = "n1"})), ElementsAre("10.1.0.3"));
  EXPECT_THAT(InRing(Compile({.node = "n1", .zone = "a"})), ElementsAre("10.1.0.2"));
  EXPECT_EQ(InRing(Compile({.node = "n2"})).size(), 2u) << "unknown: no preference";
}

TEST_F(KernelServicesTest, AffinityKeepsTheLessPreferredForThoseWhoHaveThem) {
  service_.prefers_same_node = true;
  service_.affinity_s = 60;
  AddEndpoint("10.1.0.1");
  AddEndpoint("10.1.0.2");
  on_this_node_ = {Ip("10.1.0.2")};
  const KernelService service = Compile();
  EXPECT_EQ(service.affinity_s, 60u);
  EXPECT_THAT(InRing(service), ElementsAre("10.1.0.2"));
  EXPECT_EQ(service.backends.size(), 2u);
}

TEST_F(KernelServicesTest, EachFamilyOfVipsHasEndpointsOfItsFamily) {
  AddService({"fd96::10"});
  AddWorkload("n2", {"10.1.0.1", "fd01::1"});
  AddEndpoint("10.1.0.1", {.weight = 4});
  const auto all = CompileAll();
  ASSERT_EQ(all.size(), 2u);
  const KernelService& v4 = all.at(numbers_.Of("demo/web:80"));
  const KernelService& v6 = all.at(numbers_.Of("demo/web:80/ipv6"));
  EXPECT_THAT(v4.vips, ElementsAre(SocketAddress{Ip("10.96.0.10"), 80}));
  EXPECT_THAT(v6.vips, ElementsAre(SocketAddress{Ip("fd96::10"), 80}));
  EXPECT_THAT(v4.backends, ElementsAre(bpf::ServiceBackend({Ip("10.1.0.1"), 8080}, 4)));
  EXPECT_THAT(v6.backends, ElementsAre(bpf::ServiceBackend({Ip("fd01::1"), 8080}, 4)));
}

TEST_F(KernelServicesTest, AFamilyWithoutEndpointsOfItsOwnHasThoseOfTheOther) {
  AddService({"fd96::10"});
  AddEndpoint("10.1.0.1");
  EXPECT_THAT(InRing(CompileAll().at(numbers_.Of("demo/web:80/ipv6"))), ElementsAre("10.1.0.1"));
}

TEST_F(KernelServicesTest, SharesOfSeveralClustersAreTheProxys) {
  auto listener = std::make_shared<model::Listener>(*snapshot_.listeners["l10.96.0.10"]);
  listener->tcp->clusters.push_back({.cluster = "other", .weight = 1});
  snapshot_.listeners["l10.96.0.10"] = listener;
  EXPECT_EQ(Compile().flags, WEFT_SVC_L7);
}

TEST_F(KernelServicesTest, WhatCanBeReachedIsOfAllClustersAndTheWorkloads) {
  const auto add_cluster = [&](const std::string& name, const char* address,
                               model::HealthStatus health = model::HealthStatus::kHealthy) {
    auto cluster = std::make_shared<model::Cluster>();
    cluster->name = name;
    cluster->type = model::DiscoveryType::kEds;
    cluster->eds_name = "eds-" + name;
    snapshot_.clusters[name] = cluster;
    model::Endpoint endpoint;
    endpoint.address = {Ip(address), 8080};
    endpoint.health = health;
    snapshot_.endpoints[cluster->eds_name] =
        std::make_shared<model::Endpoints>(model::Endpoints{cluster->eds_name, {endpoint}});
  };
  add_cluster("second", "192.0.2.1");
  add_cluster("canary", "192.0.2.2", model::HealthStatus::kDraining);
  add_cluster("named", "192.0.2.3");
  add_cluster("unused", "192.0.2.4");
  AddWorkload("n2", {"10.1.0.9"});
  AddEndpoint("10.1.0.1");
  auto listener = std::make_shared<model::Listener>(*snapshot_.listeners["l10.96.0.10"]);
  listener->tcp->clusters.push_back({.cluster = "second", .weight = 1});
  listener->http.emplace();
  const auto routes_to = [](const std::string& cluster) {
    model::Forward forward;
    forward.clusters = {{.cluster = cluster, .weight = 1}};
    model::Route route;
    route.action = forward;
    model::RouteConfiguration routes;
    routes.virtual_hosts.emplace_back().routes = {route};
    return std::make_shared<const model::RouteConfiguration>(routes);
  };
  listener->http->inline_routes = routes_to("canary");
  snapshot_.listeners["l10.96.0.10"] = listener;
  const auto reached = [&] {
    CompileAll();
    std::vector<std::string> out;
    const Reachable all = ReachableEndpoints(snapshot_);
    for (const SocketAddress& address : all.at({"demo/web", 80})) {
      EXPECT_EQ(address.port, 8080);
      out.push_back(address.ip.ToString());
    }
    return out;
  };
  EXPECT_THAT(reached(),
              testing::UnorderedElementsAre("10.1.0.1", "10.1.0.9", "192.0.2.1", "192.0.2.2"));
  listener = std::make_shared<model::Listener>(*listener);
  listener->http->inline_routes = nullptr;
  listener->http->rds_name = "r";
  snapshot_.routes["r"] = routes_to("named");
  snapshot_.listeners["l10.96.0.10"] = listener;
  EXPECT_THAT(reached(),
              testing::UnorderedElementsAre("10.1.0.1", "10.1.0.9", "192.0.2.1", "192.0.2.3"));
}

}  // namespace
}  // namespace weft::agent
