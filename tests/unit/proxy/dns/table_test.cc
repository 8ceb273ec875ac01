// SPDX-License-Identifier: Apache-2.0
// Which names the mesh answers, and with what.
#include "proxy/dns/table.h"

#include <gmock/gmock.h>

namespace weft::dns {
namespace {

using testing::ElementsAre;
using testing::UnorderedElementsAre;

IpAddress Ip(const char* text) { return *IpAddress::Parse(text); }

struct World {
  model::Snapshot snapshot;
  void Service(const std::string& space, const std::string& host,
               std::vector<IpAddress> addresses) {
    auto service = std::make_shared<model::Service>();
    service->namespace_name = space;
    service->hostname = host;
    service->addresses = std::move(addresses);
    snapshot.services[service->Key()] = service;
  }
  void Workload(const std::string& uid, const std::string& service,
                std::vector<IpAddress> addresses, bool healthy = true) {
    auto workload = std::make_shared<model::Workload>();
    workload->uid = uid;
    workload->addresses = std::move(addresses);
    workload->healthy = healthy;
    workload->services[service] = {{80, 8080}};
    snapshot.workloads[uid] = workload;
  }
};

Query Ask(const std::string& name, uint16_t type = kTypeA) {
  Query query;
  query.name = name;
  query.type = type;
  query.class_number = kClassIn;
  return query;
}

class TableTest : public testing::Test {
 protected:
  TableTest() {
    world_.Service("demo", "web.demo.svc.cluster.local", {Ip("10.96.0.10"), Ip("fd00::10")});
    world_.Service("demo", "four.demo.svc.cluster.local", {Ip("10.96.0.11")});
    world_.Service("demo", "redis.demo.svc.cluster.local", {});
    world_.Service("demo", "empty.demo.svc.cluster.local", {});
    world_.Service("demo", "API.example.com.", {Ip("10.96.0.20")});
    world_.Service("zoo", "shared.example.com", {Ip("10.96.0.31")});
    world_.Service("art", "shared.example.com", {Ip("10.96.0.30")});
    world_.Service("demo", "any.demo.svc.cluster.local", {Ip("0.0.0.0")});
    world_.Workload("a", "demo/redis.demo.svc.cluster.local", {Ip("10.244.1.20"), Ip("fd00::20")});
    world_.Workload("b", "demo/redis.demo.svc.cluster.local", {Ip("10.244.2.20")});
    world_.Workload("c", "demo/redis.demo.svc.cluster.local", {Ip("10.244.2.21")}, false);
    world_.Workload("d", "demo/web.demo.svc.cluster.local", {Ip("10.244.2.12")});
    table_ = Table(world_.snapshot);
  }
  std::optional<Answer> Of(const Query& query, const char* space = "demo", uint32_t rotation = 0) {
    return Resolve(query, table_, space, rotation);
  }
  World world_;
  Table table_;
};

TEST_F(TableTest, AServiceHasItsAddresses) {
  EXPECT_THAT(Of(Ask("web.demo.svc.cluster.local"))->addresses, ElementsAre(Ip("10.96.0.10")));
  EXPECT_THAT(Of(Ask("web.demo.svc.cluster.local", kTypeAaaa))->addresses,
              ElementsAre(Ip("fd00::10")));
  EXPECT_EQ(Of(Ask("web.demo.svc.cluster.local"))->ttl_seconds, kServiceTtlSeconds);
  EXPECT_TRUE(Of(Ask("api.example.com")).has_value());
}

TEST_F(TableTest, AHeadlessOneThoseOfItsHealthyWorkloads) {
  const auto answer = Of(Ask("redis.demo.svc.cluster.local"));
  EXPECT_THAT(answer->addresses, UnorderedElementsAre(Ip("10.244.1.20"), Ip("10.244.2.20")));
  EXPECT_EQ(answer->ttl_seconds, kEndpointTtlSeconds);
  EXPECT_NE(Of(Ask("redis.demo.svc.cluster.local"), "demo", 1)->addresses, answer->addresses)
      << "in turn";
  EXPECT_THAT(Of(Ask("redis.demo.svc.cluster.local", kTypeAaaa))->addresses,
              ElementsAre(Ip("fd00::20")));
}

TEST_F(TableTest, NoAddressOfThatFamilyOrTypeIsAnEmptyAnswer) {
  for (uint16_t type : {kTypeAaaa, uint16_t{16}, uint16_t{65}, uint16_t{255}}) {
    const auto answer = Of(Ask("four.demo.svc.cluster.local", type));
    ASSERT_TRUE(answer.has_value()) << type;
    EXPECT_EQ(answer->rcode, kNoError);
    EXPECT_TRUE(answer->addresses.empty());
  }
}

TEST_F(TableTest, EverythingElseIsTheResolvers) {
  for (const char* name :
       {"", "web", "web.demo", "web.demo.svc.cluster.local.demo.svc.cluster.local",
        "x.web.demo.svc.cluster.local", "empty.demo.svc.cluster.local",
        "any.demo.svc.cluster.local", "10.0.96.10.in-addr.arpa", "www.example.com"}) {
    EXPECT_FALSE(Of(Ask(name)).has_value()) << name;
  }
  Query chaos = Ask("web.demo.svc.cluster.local");
  chaos.class_number = 3;
  EXPECT_FALSE(Of(chaos).has_value());
  Query update = Ask("web.demo.svc.cluster.local");
  update.flags = 5 << 11;
  EXPECT_FALSE(Of(update).has_value());
}

TEST_F(TableTest, OfOneHostnameInSeveralNamespacesTheOwnCounts) {
  EXPECT_THAT(Of(Ask("shared.example.com"), "zoo")->addresses, ElementsAre(Ip("10.96.0.31")));
  EXPECT_THAT(Of(Ask("shared.example.com"), "demo")->addresses, ElementsAre(Ip("10.96.0.30")));
}

TEST_F(TableTest, AnUnknownVersionOfEdnsIsRefused) {
  Query query = Ask("web.demo.svc.cluster.local");
  query.edns = true;
  query.edns_version = 1;
  EXPECT_EQ(Of(query)->rcode, kBadVers);
}

}  // namespace
}  // namespace weft::dns
