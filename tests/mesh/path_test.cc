// SPDX-License-Identifier: Apache-2.0
// The whole path with real programs: by VIP, over TLS, by policy, with the data checked. The demo's
// steps are tests here too.
#include <nlohmann/json.hpp>
#include <random>

#include "tests/mesh/world.h"

namespace weft::mesh_test {

cli::MeshOptions WorldOptions() { return {.splice = SpliceIsOn()}; }

namespace {

class PathTest : public MeshTest {};

void Holds(const absl::Status& status) { EXPECT_TRUE(status.ok()) << status.message(); }

// In the order of the file, on one world.
TEST_F(PathTest, HttpByVipOverTlsWithTheClientsAddress) { Holds(cli::StepWire(story())); }
TEST_F(PathTest, IdentitiesFromBothEnds) { Holds(cli::StepIdentities(story())); }
TEST_F(PathTest, RoutesByHeaderAndWeight) { Holds(cli::StepRoutes(story())); }
TEST_F(PathTest, AFailingReplicaIsRetriedEjectedAndReturns) {
  Holds(cli::StepFailingReplica(story()));
}
TEST_F(PathTest, TheBreakerOpensAndSaysSo) { Holds(cli::StepBreaker(story())); }
TEST_F(PathTest, RedisSameNodeAndAcross) { Holds(cli::StepRedis(story())); }
TEST_F(PathTest, PolicyDeniesSameNodeAndAcross) { Holds(cli::StepPolicy(story())); }
TEST_F(PathTest, ConfigurationChangesAndMistakes) { Holds(cli::StepConfiguration(story())); }

// The wire check must be able to fail: on a path without TLS, between two places outside the mesh,
// the same capture finds the canary.
TEST_F(PathTest, TheWireCheckFailsOnAPathWithoutTls) {
  auto server = mesh().topology().Start("plain-redis",
                                        {"redis-server", "--bind", "172.30.0.2", "--port", "6390",
                                         "--protected-mode", "no", "--save", "", "--dir", "/tmp"},
                                        mesh().Netns("node-b"));
  ASSERT_TRUE(server.ok()) << server.status();
  auto capture = CaptureFabric();
  ASSERT_NE(capture, nullptr);
  ASSERT_TRUE(cli::WaitFor(std::chrono::seconds(10), [&] {
    return Redis("bare-client", {"-h", "172.30.0.2", "-p", "6390", "SET", "x", kCanary}) == "OK\n";
  }));
  cli::WaitFor(std::chrono::seconds(5), [&] { return capture->counts().canary_packets > 0; });
  const cli::CaptureCounts counts = capture->counts();
  EXPECT_GT(counts.canary_packets, 0u);
  EXPECT_GT(counts.clear_bytes, 0u);
  cli::Story plain(mesh(), *capture, kCanary, /*quiet=*/true);
  EXPECT_FALSE(plain.CheckWire().ok());
  mesh().topology().Stop(*server);
}

// An unknown source has no identity, which no ALLOW policy names.
TEST_F(PathTest, PlaintextFromOutsideTheMeshIsRefused) {
  for (const char* address : {"10.244.1.11", "10.244.2.12"}) {
    auto answers =
        story().Fetch({.pod = "bare-client", .url = absl::StrCat("http://", address, ":8080/")});
    ASSERT_TRUE(answers.ok()) << answers.status();
    EXPECT_NE((*answers)[0].status, 200) << address;
  }
  EXPECT_EQ(Redis("bare-client", {"-h", "10.244.1.20", "ping"}).find("PONG"), std::string::npos);
}

TEST_F(PathTest, RedisDataOfManySizesIsTheSame) {
  std::mt19937 random(7);
  for (const char* address : {"10.244.1.20", "10.244.2.20"}) {
    for (size_t bytes : {1u, 100u, 4096u, 65537u, 4u << 20}) {
      std::string value(bytes, ' ');
      for (char& c : value) c = static_cast<char>('a' + random() % 26);
      ASSERT_EQ(Redis("client", {"-h", address, "-x", "SET", "sizes"}, value), "OK\n") << address;
      EXPECT_EQ(Redis("client", {"-h", address, "GET", "sizes"}), value + "\n")
          << address << ", " << bytes << " bytes";
    }
  }
}

// redis-benchmark ends at an answer that is an error. It runs until enough messages were spliced:
// its clients enter late, as one socket of its process blocks.
TEST_F(PathTest, TheSpliceCarriesBytesExactlyIfItIsOn) {
  const uint64_t before = SpliceCount("messages");
  if (SpliceIsOn()) {
    auto traffic = StartRedisTraffic(4);
    ASSERT_TRUE(traffic.ok()) << traffic.status();
    EXPECT_TRUE(cli::WaitFor(std::chrono::seconds(60),
                             [&] { return SpliceCount("messages") > before + 20000; }));
    EXPECT_NE(cli::ProcessStartTime(traffic->pid), 0u) << "an answer was wrong";
    mesh().topology().Stop(*traffic);
  } else {
    auto result = mesh().In(
        "client",
        {"redis-benchmark", "-h", "10.244.1.20", "-c", "4", "-n", "20000", "-t", "set,get", "-q"},
        std::chrono::seconds(60));
    ASSERT_TRUE(result.ok() && result->ok()) << result->err;
    EXPECT_EQ(SpliceCount("messages"), before);
  }
}

}  // namespace
}  // namespace weft::mesh_test
