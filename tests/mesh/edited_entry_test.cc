// SPDX-License-Identifier: Apache-2.0
// The entry of an enrolled workload is edited: it stays in the mesh all the while.
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/mesh/world.h"

namespace weft::mesh_test {
namespace {

using nlohmann::json;
using std::chrono::seconds;

class EditedEntryTest : public MeshTest {
 protected:
  std::string Entry(const std::string& splice, const std::string& address) {
    return absl::StrCat("name: intruder\nnamespace: demo\nserviceAccount: intruder\nnetns: ",
                        cli::Topology::NetnsPath(mesh().Netns("intruder")), "\naddresses: [",
                        address, "]\nannotations:\n  weft.dev/splice: \"", splice, "\"\n");
  }
  std::string File() { return mesh().options().dir + "/workloads-node-a/intruder.yaml"; }
  json Intruder() {
    auto status = story().Agent("node-a", "/status");
    if (!status.ok()) return json::object();
    for (const json& workload : (*status)["workloads"]) {
      if (workload.value("name", "") == "intruder") return workload;
    }
    return json::object();
  }
  std::vector<std::string> LinesOf(const std::string& log) {
    std::vector<std::string> lines;
    std::ifstream in(mesh().topology().LogFile(log));
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
  }
};

// redis-a refuses the intruder. One that tries without end never gets through, not even while its
// entry changes ten times.
TEST_F(EditedEntryTest, ThereIsNoMomentOutsideTheMesh) {
  const std::string before = SpliceIsOn() ? "on" : "off";
  const json enrolled = Intruder();
  ASSERT_EQ(enrolled.value("state", ""), "ready") << enrolled;
  auto attacker = mesh().topology().Start(
      "intruder-tries",
      {"bash", "-c",
       "while :; do if (exec 3<>/dev/tcp/10.244.1.20/6379) 2>/dev/null; then echo open; else echo "
       "refused; fi; done"},
      mesh().Netns("intruder"));
  ASSERT_TRUE(attacker.ok()) << attacker.status();
  const std::string address = "10.244.1.66";
  for (int i = 0; i < 10; ++i) {
    const std::string splice = i % 2 == 0 ? "off" : "on";
    const size_t tries = LinesOf("intruder-tries").size();
    ASSERT_TRUE(cli::WriteFile(File(), Entry(splice, address)).ok());
    EXPECT_TRUE(
        cli::WaitFor(seconds(10), [&] { return Intruder().value("splice", "") == splice; }));
    EXPECT_TRUE(
        cli::WaitFor(seconds(10), [&] { return LinesOf("intruder-tries").size() > tries + 5; }));
  }
  mesh().topology().Stop(*attacker);
  const std::vector<std::string> tries = LinesOf("intruder-tries");
  EXPECT_EQ(std::count(tries.begin(), tries.end(), "open"), 0) << "of " << tries.size();
  EXPECT_EQ(Intruder()["id"], enrolled["id"]);

  // An entry that cannot be: what was enrolled stays.
  ASSERT_TRUE(cli::WriteFile(File(), Entry(before, "10.9.9.9")).ok());
  EXPECT_TRUE(cli::WaitFor(seconds(10), [&] {
    auto status = story().Agent("node-a", "/status");
    return status.ok() && (*status)["workload_file_errors"].contains(File());
  }));
  EXPECT_EQ(Intruder()["address"], address);
  EXPECT_NE(Redis("intruder", {"-h", "10.244.1.20", "ping"}).find("Operation not permitted"),
            std::string::npos);
  ASSERT_TRUE(cli::WriteFile(File(), Entry(before, address)).ok());
  EXPECT_TRUE(
      cli::WaitFor(seconds(30), [&] { return mesh().AskAgent("node-a", "/healthz").ok(); }));
  EXPECT_EQ(Intruder().value("state", ""), "ready");
}

}  // namespace
}  // namespace weft::mesh_test
