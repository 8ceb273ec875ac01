// SPDX-License-Identifier: Apache-2.0
#include "xds/model/snapshot.h"

#include "gtest/gtest.h"

namespace weft::model {
namespace {

std::shared_ptr<Workload> Pod(std::string uid, std::string_view ip) {
  auto out = std::make_shared<Workload>();
  out->uid = std::move(uid);
  out->addresses = {*IpAddress::Parse(ip)};
  return out;
}

TEST(Workload, IdentityFollowsIstio) {
  Workload w{.namespace_name = "shop", .service_account = "web", .trust_domain = "td"};
  EXPECT_EQ(w.Identity(), "spiffe://td/ns/shop/sa/web");
  w.service_account.clear();
  EXPECT_EQ(w.Identity(), "spiffe://td/ns/shop/sa/default");
}

TEST(Snapshot, FindsWorkloadsByAddressButNotThoseOnTheHostNetwork) {
  Snapshot s;
  s.workloads["a"] = Pod("a", "10.0.0.1");
  auto host = Pod("h", "10.0.0.2");
  host->host_network = true;
  s.workloads["h"] = host;
  s.Finish();
  ASSERT_NE(s.FindWorkload(*IpAddress::Parse("10.0.0.1")), nullptr);
  EXPECT_EQ(s.FindWorkload(*IpAddress::Parse("::ffff:10.0.0.1"))->uid, "a");
  EXPECT_EQ(s.FindWorkload(*IpAddress::Parse("10.0.0.2")), nullptr);
  EXPECT_EQ(s.FindWorkload(*IpAddress::Parse("10.0.0.3")), nullptr);
}

TEST(Snapshot, KnowsTheAddressesOfMarkedEndpoints) {
  Snapshot s;
  auto assignment = std::make_shared<Endpoints>();
  assignment->endpoints = {{.address = *SocketAddress::Parse("10.0.0.1:80"), .in_mesh = true},
                           {.address = *SocketAddress::Parse("10.0.0.2:80")}};
  s.endpoints["web"] = assignment;
  auto cluster = std::make_shared<Cluster>();
  cluster->endpoints = {{.address = *SocketAddress::Parse("10.0.0.3:80"), .in_mesh = true}};
  s.clusters["static"] = cluster;
  s.Finish();
  EXPECT_TRUE(s.IsMarked(*IpAddress::Parse("10.0.0.1")));
  EXPECT_FALSE(s.IsMarked(*IpAddress::Parse("10.0.0.2")));
  EXPECT_TRUE(s.IsMarked(*IpAddress::Parse("10.0.0.3")));
}

TEST(Snapshot, TwoClaimantsOfAnAddressAreSettledTheSameWayWhateverTheOrder) {
  for (bool forward : {true, false}) {
    Snapshot s;
    for (const char* uid : {forward ? "a" : "b", forward ? "b" : "a"}) {
      s.workloads[uid] = Pod(uid, "10.0.0.1");
    }
    s.Finish();
    EXPECT_EQ(s.FindWorkload(*IpAddress::Parse("10.0.0.1"))->uid, "a");
  }
}

}  // namespace
}  // namespace weft::model
