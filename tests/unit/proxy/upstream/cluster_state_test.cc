// SPDX-License-Identifier: Apache-2.0
#include "proxy/upstream/cluster_state.h"

#include <gtest/gtest.h>

#include <map>

#include "proxy/upstream/cluster_map.h"
#include "proxy/upstream/status.h"

namespace weft::upstream {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

SocketAddress Address(uint16_t port) { return {*IpAddress::Parse("10.0.0.1"), port}; }

struct Fixture : testing::Test {
  std::unique_ptr<NodeTable> table =
      std::move(*NodeTable::Create({.workers = 2, .clusters = 8, .endpoints = 64}));
  Random random{7};
  TimePoint now{seconds(1000)};
  model::Cluster config;
  Fixture() { config.name = "c"; }

  void AddEndpoint(uint16_t port, uint32_t weight = 1, uint32_t priority = 0,
                   model::HealthStatus health = model::HealthStatus::kUnknown) {
    model::Endpoint e;
    e.address = Address(port);
    e.weight = weight;
    e.priority = priority;
    e.health = health;
    config.endpoints.push_back(e);
  }
  ClusterRef Make(uint32_t worker = 0) {
    return ClusterRef(
        new ClusterState(*table, worker, std::make_shared<model::Cluster>(config), nullptr));
  }
  std::map<uint16_t, int> Spread(const ClusterRef& cluster, int picks) {
    std::map<uint16_t, int> counts;
    for (int i = 0; i < picks; ++i) {
      HostRef host = cluster->Pick(random);
      if (host) ++counts[host->address().port];
    }
    return counts;
  }
  void Fail(const ClusterRef& cluster, uint16_t port, int times) {
    for (const HostRef& host : cluster->hosts()) {
      for (int i = 0; host->address().port == port && i < times; ++i) {
        cluster->Report(*host, Outcome::kServerError, now, random);
      }
    }
  }
};

using ClusterStateTest = Fixture;

TEST_F(ClusterStateTest, RoundRobinTakesTurns) {
  for (uint16_t port : {1, 2, 3}) AddEndpoint(port);
  EXPECT_EQ(Spread(Make(), 30), (std::map<uint16_t, int>{{1, 10}, {2, 10}, {3, 10}}));
}

TEST_F(ClusterStateTest, WeightedRoundRobinIsExact) {
  AddEndpoint(1, 7);
  AddEndpoint(2, 2);
  AddEndpoint(3, 1);
  EXPECT_EQ(Spread(Make(), 100), (std::map<uint16_t, int>{{1, 70}, {2, 20}, {3, 10}}));
}

TEST_F(ClusterStateTest, RandomFollowsWeights) {
  config.lb = model::LbPolicy::kRandom;
  AddEndpoint(1, 9);
  AddEndpoint(2, 1);
  auto counts = Spread(Make(), 10000);
  EXPECT_NEAR(counts[1], 9000, 150);
}

TEST_F(ClusterStateTest, LeastRequestPrefersTheIdleOneNodeWide) {
  config.lb = model::LbPolicy::kLeastRequest;
  AddEndpoint(1);
  AddEndpoint(2);
  ClusterRef mine = Make(0), theirs = Make(1);
  for (int i = 0; i < 5; ++i) theirs->hosts()[0]->Begin();  // load by another worker
  EXPECT_EQ(mine->hosts()[0]->active(), 5u);
  auto counts = Spread(mine, 4000);
  EXPECT_NEAR(counts[2], 3000, 200);  // endpoint 1 only if both choices fall on it
  for (int i = 0; i < 5; ++i) theirs->hosts()[0]->End();
  EXPECT_NEAR(Spread(mine, 4000)[1], 2000, 200);
}

TEST_F(ClusterStateTest, LeastRequestSharesByWeightWhenIdle) {
  config.lb = model::LbPolicy::kLeastRequest;
  AddEndpoint(1, 3);
  AddEndpoint(2, 1);
  EXPECT_NEAR(Spread(Make(), 8000)[1], 6000, 200);
}

TEST_F(ClusterStateTest, UnhealthyAndDrainingGetNothing) {
  AddEndpoint(1);
  AddEndpoint(2, 1, 0, model::HealthStatus::kUnhealthy);
  AddEndpoint(3);
  AddEndpoint(4, 1, 0, model::HealthStatus::kDraining);
  EXPECT_EQ(Spread(Make(), 10), (std::map<uint16_t, int>{{1, 5}, {3, 5}}));
}

TEST_F(ClusterStateTest, PanicUsesAllBelowTheThreshold) {
  AddEndpoint(1);
  for (uint16_t port : {2, 3}) AddEndpoint(port, 1, 0, model::HealthStatus::kUnhealthy);
  EXPECT_EQ(Spread(Make(), 9).size(), 3u);
  config.panic_threshold_percent = 0;
  EXPECT_EQ(Spread(Make(), 9), (std::map<uint16_t, int>{{1, 9}}));
}

TEST_F(ClusterStateTest, NoHealthyUpstreamWithoutPanic) {
  config.panic_threshold_percent = 0;
  AddEndpoint(1, 1, 0, model::HealthStatus::kUnhealthy);
  EXPECT_FALSE(Make()->Pick(random));
  config.endpoints.clear();
  config.panic_threshold_percent = 50;
  EXPECT_FALSE(Make()->Pick(random));
}

TEST_F(ClusterStateTest, TheNextPriorityTakesOver) {
  AddEndpoint(1, 1, 0, model::HealthStatus::kUnhealthy);
  AddEndpoint(2, 1, 1);
  AddEndpoint(3, 1, 2);
  EXPECT_EQ(Spread(Make(), 5), (std::map<uint16_t, int>{{2, 5}}));
}

TEST_F(ClusterStateTest, DegradedOnlyWithoutHealthy) {
  AddEndpoint(1, 1, 0, model::HealthStatus::kDegraded);
  AddEndpoint(2);
  EXPECT_EQ(Spread(Make(), 4), (std::map<uint16_t, int>{{2, 4}}));
  config.endpoints.pop_back();
  EXPECT_EQ(Spread(Make(), 4), (std::map<uint16_t, int>{{1, 4}}));
}

TEST_F(ClusterStateTest, ARetryAvoidsTriedHostsButRatherRepeatsThanFails) {
  AddEndpoint(1);
  AddEndpoint(2);
  ClusterRef cluster = Make();
  for (int i = 0; i < 20; ++i) {
    const HostRef tried[] = {cluster->hosts()[0]};
    EXPECT_EQ(cluster->Pick(random, tried, 5)->address().port, 2);
    const HostRef both[] = {cluster->hosts()[0], cluster->hosts()[1]};
    EXPECT_TRUE(cluster->Pick(random, both, 5));
  }
}

TEST_F(ClusterStateTest, EjectionIsSeenByAllWorkersAndEndsAtASweep) {
  config.outlier.emplace();
  for (uint16_t port : {1, 2, 3}) AddEndpoint(port);
  ClusterRef a = Make(0), b = Make(1);
  a->Sweep(now);
  Fail(a, 1, 3);
  Fail(b, 1, 1);
  EXPECT_EQ(Spread(b, 30).size(), 3u);
  Fail(a, 1, 1);  // the fifth in a row, over both workers
  EXPECT_EQ(Spread(a, 30).size(), 2u);
  EXPECT_EQ(Spread(b, 30).count(1), 0u);
  now += seconds(29);
  b->Sweep(now);
  EXPECT_EQ(Spread(a, 30).count(1), 0u);
  now += seconds(2);
  b->Sweep(now);  // the interval has not passed since the last sweep
  EXPECT_EQ(Spread(a, 30).count(1), 0u);
  now += seconds(8);
  a->Sweep(now);
  EXPECT_EQ(Spread(b, 30)[1], 10);
  const auto events = table->Events();
  ASSERT_EQ(events.size(), 2u);
  EXPECT_TRUE(events[0].ejected);
  EXPECT_EQ(events[0].duration_ms, 30000);
  EXPECT_EQ(events[0].address, Address(1));
  EXPECT_FALSE(events[1].ejected);
}

TEST_F(ClusterStateTest, RepeatedEjectionsGrowToTheMaximumAndShrinkAgain) {
  config.outlier.emplace();
  config.outlier->consecutive_5xx = 1;
  config.outlier->max_ejection_time = milliseconds(70000);
  AddEndpoint(1);
  AddEndpoint(2);
  ClusterRef c = Make();
  c->Sweep(now);
  for (int64_t expected : {30000, 60000, 70000, 70000}) {
    Fail(c, 1, 1);
    EXPECT_EQ(table->Events().back().duration_ms, expected);
    now += milliseconds(expected);
    c->Sweep(now);
    ASSERT_FALSE(c->hosts()[0]->ejected());
  }
  for (int i = 0; i < 4; ++i) c->Sweep(now += seconds(10));
  Fail(c, 1, 1);
  EXPECT_EQ(table->Events().back().duration_ms, 30000);
}

TEST_F(ClusterStateTest, MaxEjectionPercentAllowsAtLeastOne) {
  config.outlier.emplace();
  for (uint16_t port : {1, 2, 3, 4}) AddEndpoint(port);
  ClusterRef c = Make();
  for (uint16_t port : {1, 2, 3, 4}) Fail(c, port, 5);
  EXPECT_EQ(c->row().ejected.load(), 1u);
  config.outlier->max_ejection_percent = 50;
  config.name = "d";
  ClusterRef d = Make();
  for (uint16_t port : {1, 2, 3, 4}) Fail(d, port, 5);
  EXPECT_EQ(d->row().ejected.load(), 2u);
}

TEST_F(ClusterStateTest, ASuccessBreaksTheRow) {
  config.outlier.emplace();
  AddEndpoint(1);
  AddEndpoint(2);
  ClusterRef c = Make();
  for (int i = 0; i < 10; ++i) {
    Fail(c, 1, 4);
    c->Report(*c->hosts()[0], Outcome::kSuccess, now, random);
  }
  EXPECT_TRUE(table->Events().empty());
}

TEST_F(ClusterStateTest, RetryBudgetFollowsTheLoad) {
  config.breaker.max_retries = 1;
  ClusterRef plain = Make();
  EXPECT_TRUE(plain->TryAdmit(Limit::kRetries));
  EXPECT_FALSE(plain->TryAdmit(Limit::kRetries));
  plain->Release(Limit::kRetries);
  config.name = "d";
  config.breaker.budget.emplace();  // 20 %, at least 3
  ClusterRef c = Make();
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(c->TryAdmit(Limit::kRetries));
  EXPECT_FALSE(c->TryAdmit(Limit::kRetries));
  for (int i = 0; i < 15; ++i) c->AdmitAlways(Limit::kRequests);
  for (int i = 0; i < 5; ++i) c->AdmitAlways(Limit::kPending);
  EXPECT_TRUE(c->TryAdmit(Limit::kRetries));
  EXPECT_FALSE(c->TryAdmit(Limit::kRetries));
}

TEST_F(ClusterStateTest, EndpointsThatStayKeepTheirStateAcrossSnapshots) {
  auto cluster = std::make_shared<model::Cluster>();
  cluster->name = "c";
  cluster->type = model::DiscoveryType::kEds;
  cluster->eds_name = "e";
  cluster->outlier.emplace();
  AddEndpoint(1);
  AddEndpoint(2);
  AddEndpoint(3);
  auto eds = std::make_shared<model::Endpoints>();
  eds->endpoints = config.endpoints;
  auto snapshot = std::make_shared<model::Snapshot>();
  snapshot->clusters["c"] = cluster;
  snapshot->endpoints["e"] = eds;
  ClusterMap map(*table, 0);
  map.Adopt(snapshot);
  ClusterRef c = map.Find("c");
  ASSERT_TRUE(c);
  EXPECT_FALSE(map.Find("other"));
  Fail(c, 1, 5);
  HostRef leaving = c->hosts()[1];
  leaving->Begin();
  auto next = std::make_shared<model::Snapshot>(*snapshot);
  auto eds2 = std::make_shared<model::Endpoints>();
  eds2->endpoints = {config.endpoints[0], config.endpoints[2]};
  next->endpoints["e"] = eds2;
  map.Adopt(next);
  EXPECT_EQ(map.Find("c"), c);
  ASSERT_EQ(c->hosts().size(), 2u);
  EXPECT_TRUE(c->hosts()[0]->ejected());
  EXPECT_TRUE(leaving->removed());
  leaving->End();
  const auto status = Status(*table, *next, now);
  ASSERT_EQ(status.size(), 1u);
  ASSERT_EQ(status[0].endpoints.size(), 2u);
  EXPECT_TRUE(status[0].endpoints[0].ejected);
  EXPECT_EQ(status[0].endpoints[0].errors, 5u);
  EXPECT_EQ(status[0].endpoints[0].ejected_for_ms, 30000);
  map.Adopt(std::make_shared<model::Snapshot>());
  EXPECT_FALSE(map.Find("c"));
}

TEST_F(ClusterStateTest, OriginalDestinationIsItsOwnEndpoint) {
  config.type = model::DiscoveryType::kOriginalDst;
  ClusterRef c = Make();
  const SocketAddress where = Address(99);
  HostRef a = c->Pick(random, {}, 0, &where), b = c->Pick(random, {}, 0, &where);
  ASSERT_TRUE(a);
  EXPECT_EQ(a, b);
  EXPECT_EQ(a->address(), where);
  EXPECT_FALSE(c->Pick(random));
  for (uint16_t port = 1; port < 5000; ++port) {
    const SocketAddress other = Address(port);
    c->Pick(random, {}, 0, &other);
  }
  EXPECT_LE(c->hosts().size(), 1024u);
  EXPECT_EQ(c->Pick(random, {}, 0, &where), a);
}

}  // namespace
}  // namespace weft::upstream
