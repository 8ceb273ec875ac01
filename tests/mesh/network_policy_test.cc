// SPDX-License-Identifier: Apache-2.0
// NetworkPolicy where the kernel cannot see where a connection goes: behind an HTTP service,
// through a tunnel to the other node. The proxy asks for each stream, and again when policy
// changes, so that no pooled connection keeps a right that is gone.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/mesh/world.h"

namespace weft::mesh_test {
namespace {

using nlohmann::json;

// The client may reach web's first version, on both nodes, and nothing else.
constexpr const char* kOnlyFirstVersion = R"(apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: client-only-v1, namespace: demo}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress:
    - to: [{podSelector: {matchLabels: {app: web, version: v1}}}]
)";
constexpr const char* kFirstVersion = "http://10.96.0.11/";
constexpr const char* kCanaryVersion = "http://10.96.0.12/";  // web-3, on node-b only

class NetworkPolicyTest : public MeshTest {
 protected:
  // The status that all of n requests got; 0: they differ.
  int StatusOfAll(const std::string& url, int n) {
    auto answers = story().Fetch({.url = absl::StrCat(url, "[1-", n, "]")});
    if (!answers.ok()) return 0;
    const std::map<int, int> by_status = cli::CountByStatus(*answers);
    return by_status.size() == 1 ? by_status.begin()->first : 0;
  }
  json DenialByRule(const std::string& rule) {
    auto events = story().Events("node-a");
    if (!events.ok()) return nullptr;
    for (const json& event : *events) {
      const bool ours = event.value("rule", "").find(rule) != std::string::npos;
      if (ours && event.value("refused", false)) return event;
    }
    return nullptr;
  }
};

TEST_F(NetworkPolicyTest, EgressHoldsForStreamsOfTunnelsAndPooledConnections) {
  const std::string file = mesh().ManifestDir() + "/60-network-policy.yaml";
  ASSERT_EQ(StatusOfAll(kCanaryVersion, 4), 200);  // leaves a pooled connection behind
  ASSERT_EQ(StatusOfAll(kFirstVersion, 4), 200);
  ASSERT_TRUE(cli::WriteFile(file, kOnlyFirstVersion).ok());
  EXPECT_TRUE(cli::WaitFor(std::chrono::seconds(15), [&] {
    return StatusOfAll(kCanaryVersion, 4) == 403;
  })) << StatusOfAll(kCanaryVersion, 4);
  auto answers = story().Fetch({.url = kCanaryVersion});
  ASSERT_TRUE(answers.ok() && !answers->empty()) << answers.status();
  EXPECT_EQ((*answers)[0].reason, "policy_denied");
  EXPECT_EQ(StatusOfAll(kFirstVersion, 8), 200);
  json denial;
  EXPECT_TRUE(cli::WaitFor(std::chrono::seconds(5), [&] {
    denial = DenialByRule("demo/client-only-v1");
    return !denial.is_null();
  }));
  if (!denial.is_null()) {
    EXPECT_EQ(denial["source"].value("workload", ""), "demo/client") << denial;
    EXPECT_EQ(denial["destination"].value("address", ""), "10.244.2.13:8080") << denial;
  }
  ASSERT_TRUE(std::filesystem::remove(file));
  EXPECT_TRUE(cli::WaitFor(std::chrono::seconds(15),
                           [&] { return StatusOfAll(kCanaryVersion, 4) == 200; }));
}

}  // namespace
}  // namespace weft::mesh_test
