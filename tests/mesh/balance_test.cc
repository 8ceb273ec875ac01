// SPDX-License-Identifier: Apache-2.0
// What a Service's manifest says of balancing reaches the kernel of the client's node: two redis
// pods, one on each node, behind a VIP of the test's own.
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/mesh/world.h"

namespace weft::mesh_test {
namespace {

using std::chrono::seconds;

constexpr const char* kVip = "10.96.0.77";

class BalanceTest : public MeshTest {
 protected:
  void SetUp() override {
    MeshTest::SetUp();
    a_ = RunId("10.244.1.20");
    b_ = RunId("10.244.2.20");
    ASSERT_FALSE(a_.empty() || b_.empty() || a_ == b_);
  }
  void TearDown() override {
    for (const char* file : {"/50-near.yaml", "/51-slice.yaml"}) {
      std::remove((mesh().ManifestDir() + file).c_str());
    }
  }
  // Which redis answers at the address; empty: none.
  std::string RunId(const std::string& address) {
    const std::string info = Redis("client", {"-h", address, "INFO", "server"});
    const size_t at = info.find("run_id:");
    return at == std::string::npos ? "" : info.substr(at + 7, 40);
  }
  void Write(const std::string& spec) {
    const absl::Status written = cli::WriteFile(
        mesh().ManifestDir() + "/50-near.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: near, namespace: demo}\nspec:\n"
        "  clusterIP: 10.96.0.77\n  selector: {app: redis}\n" +
            spec + "  ports: [{name: tcp-redis, port: 6379}]\n");
    ASSERT_TRUE(written.ok()) << written;
  }
  // Whom 24 connects get: of two at random, one stays unseen once in eight million.
  std::set<std::string> Seen() {
    std::set<std::string> seen;
    for (int i = 0; i < 24; ++i) seen.insert(RunId(kVip));
    return seen;
  }
  bool Becomes(const std::set<std::string>& want) {
    return cli::WaitFor(seconds(30), [&] { return Seen() == want; });
  }

  // How often node-a changed the kernel's maps.
  int Updates() {
    auto status = story().Agent("node-a", "/status");
    return status.ok() ? status->value("kernel_updates", 0) : 0;
  }

  std::string a_, b_;
};

TEST_F(BalanceTest, NearAffineAndDrainingEndpoints) {
  Write("");
  EXPECT_TRUE(Becomes({a_, b_})) << "both without a preference";
  Write("  trafficDistribution: PreferSameNode\n");
  EXPECT_TRUE(Becomes({a_})) << "that of the client's node";
  // It begins to end: the other one, on another node, takes over.
  ASSERT_TRUE(
      cli::WriteFile(
          mesh().ManifestDir() + "/51-slice.yaml",
          "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: near-1, "
          "namespace: demo, labels: {kubernetes.io/service-name: near}}\naddressType: IPv4\n"
          "ports: [{name: tcp-redis, port: 6379}]\nendpoints:\n"
          "  - {addresses: [10.244.1.20], conditions: {ready: false, serving: true, "
          "terminating: true}}\n  - {addresses: [10.244.2.20]}\n")
          .ok());
  EXPECT_TRUE(Becomes({b_})) << "fails over";
  // Affinity: it stays with the one that it has when the other one is back.
  Write("  sessionAffinity: ClientIP\n");
  EXPECT_TRUE(Becomes({b_}));
  const int before = Updates();
  ASSERT_EQ(std::remove((mesh().ManifestDir() + "/51-slice.yaml").c_str()), 0);
  // Once the node knows it.
  EXPECT_TRUE(cli::WaitFor(seconds(30), [&] { return Updates() > before; }));
  EXPECT_EQ(Seen(), std::set<std::string>{b_});
}

}  // namespace
}  // namespace weft::mesh_test
