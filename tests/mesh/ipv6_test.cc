// SPDX-License-Identifier: Apache-2.0
// The demo's world with IPv6 everywhere: pods, services, the fabric, weft-control.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "proxy/ipc/local_http.h"
#include "tests/mesh/world.h"

namespace weft::mesh_test {

cli::MeshOptions WorldOptions() { return {.ipv6 = true}; }

namespace {

using std::chrono::seconds;
using testing::HasSubstr;

constexpr const char* kRedisA = "10.244.1.20";
constexpr const char* kRedisB = "10.244.2.20";

class Ipv6Test : public MeshTest {};

TEST_F(Ipv6Test, HttpOnBothNodesOverTlsWithTheClientsAddress) {
  auto answers = story().Fetch({.url = Url("10.96.0.10", "/hello/[1-60]"),
                                .headers = {std::string("x-canary: ") + kCanary}});
  // curl takes [..] of the address for one of its globs only where it is no address.
  ASSERT_TRUE(answers.ok()) << answers.status();
  EXPECT_EQ(cli::CountByStatus(*answers)[200], 60);
  const auto by_pod = cli::CountByPod(*answers);
  for (const char* pod : {"web-1", "web-2", "web-3"}) {
    EXPECT_TRUE(by_pod.contains(pod)) << pod << ": " << cli::CountText(by_pod);
    const std::vector<std::string> lines = story().AccessLines(pod);
    ASSERT_FALSE(lines.empty()) << pod;
    for (const std::string& line : lines) {
      if (line.find("/hello/") == std::string::npos) continue;
      EXPECT_EQ(line.substr(0, line.find(' ')), Ip("10.244.1.10")) << pod << ": " << line;
    }
  }
  // Mutual TLS and nothing else between the nodes.
  const absl::Status wire = story().CheckWire();
  EXPECT_TRUE(wire.ok()) << wire.message();
}

TEST_F(Ipv6Test, RoutesByHeader) {
  auto answers =
      story().Fetch({.url = Url("10.96.0.10", "/routes/[1-10]"), .headers = {"x-version: canary"}});
  ASSERT_TRUE(answers.ok()) << answers.status();
  EXPECT_EQ(cli::CountByPod(*answers)["web-3"], 10);
}

TEST_F(Ipv6Test, RedisSameNodeAcrossAndByVip) {
  const std::string value(70000, 'v');
  for (const std::string& address : {Ip(kRedisA), Ip(kRedisB)}) {
    ASSERT_EQ(Redis("client", {"-h", address, "-x", "SET", "six"}, value), "OK\n") << address;
    EXPECT_EQ(Redis("client", {"-h", address, "GET", "six"}), value + "\n") << address;
  }
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(Redis("client", {"-h", Ip("10.96.0.20"), "ping"}), "PONG\n");
  }
}

// The application sees the client pod's address, also through a tunnel.
TEST_F(Ipv6Test, RedisSeesTheClientsAddress) {
  for (const std::string& address : {Ip(kRedisA), Ip(kRedisB), Ip("10.96.0.20")}) {
    EXPECT_THAT(Redis("client", {"-h", address, "CLIENT", "LIST"}),
                HasSubstr("addr=[" + Ip("10.244.1.10") + "]:"))
        << address;
  }
}

TEST_F(Ipv6Test, DirectWithAndWithoutTheSplice) {
  for (const bool on : {true, false}) {
    auto switched = ipc::HttpRequest(mesh().AgentSocket("node-a"), "POST",
                                     on ? "/splice?on=true" : "/splice?on=false");
    ASSERT_TRUE(switched.ok() && switched->status == 200);
    const uint64_t before = SpliceCount("messages");
    auto traffic = mesh().topology().Start(
        "redis-traffic-six",
        {"redis-benchmark", "-h", Ip(kRedisA), "-c", "4", "-t", "set,get", "-q", "-l"},
        mesh().Netns("client"));
    ASSERT_TRUE(traffic.ok()) << traffic.status();
    const char* counted = on ? "messages" : "switched_off";
    const uint64_t counted_before = SpliceCount(counted);
    EXPECT_TRUE(cli::WaitFor(seconds(20), [&] {
      return SpliceCount(counted) > counted_before + 2000;
    })) << counted;
    EXPECT_NE(cli::ProcessStartTime(traffic->pid), 0u) << "an answer was wrong";
    mesh().topology().Stop(*traffic);
    if (!on) {
      EXPECT_EQ(SpliceCount("messages"), before);
    }
  }
}

TEST_F(Ipv6Test, PolicyDeniesOnBothNodesAndTheEventNamesThePod) {
  EXPECT_THAT(Redis("intruder", {"-h", Ip(kRedisA), "ping"}), HasSubstr("Operation not permitted"));
  EXPECT_EQ(Redis("intruder", {"-h", Ip(kRedisB), "ping"}).find("PONG"), std::string::npos);
  auto answers = story().Fetch({.pod = "intruder", .url = Url("10.96.0.12")});
  ASSERT_TRUE(answers.ok()) << answers.status();
  EXPECT_NE((*answers)[0].status, 200);
  std::string seen;  // what was there instead, if it is not found
  EXPECT_TRUE(cli::WaitFor(seconds(5), [&] {
    auto events = story().Events("node-a");
    if (!events.ok()) return false;
    seen.clear();
    for (const auto& event : *events) {
      const std::string text = event.dump();
      if (text.find("intruder") == std::string::npos) continue;
      if (text.find(Ip(kRedisA)) != std::string::npos &&
          text.find("policy_default_denied") != std::string::npos) {
        return true;
      }
      seen += text + "\n";
    }
    return false;
  })) << seen;
}

TEST_F(Ipv6Test, PlaintextFromOutsideTheMeshIsRefused) {
  for (const char* address : {"10.244.1.11", "10.244.2.12"}) {
    auto answers = story().Fetch(
        {.pod = "bare-client", .url = "http://" + mesh().UrlAddress(address) + ":8080/"});
    ASSERT_TRUE(answers.ok()) << answers.status();
    EXPECT_NE((*answers)[0].status, 200) << address;
  }
  EXPECT_EQ(Redis("bare-client", {"-h", Ip(kRedisA), "ping"}).find("PONG"), std::string::npos);
}

}  // namespace
}  // namespace weft::mesh_test
