// SPDX-License-Identifier: Apache-2.0
// What an agent leaves at SIGTERM: everything with --keep-running-on-exit, nothing with
// --unload-on-exit; and what its successor makes of it.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "control/cli/bpf_objects.h"
#include "tests/mesh/kernel_links.h"
#include "tests/mesh/world.h"

namespace weft::mesh_test {

cli::MeshOptions WorldOptions() { return {.agent_exit = "--keep-running-on-exit"}; }

namespace {

using std::chrono::seconds;

class ExitTest : public MeshTest {
 protected:
  bool Healthy(const std::string& node) {
    return cli::WaitFor(seconds(30), [&] { return mesh().AskAgent(node, "/healthz").ok(); });
  }
  bool IsGone(pid_t pid) { return cli::ProcessStartTime(pid) == 0; }
  void StopAgent() {
    const cli::ProcessId agent = mesh().agent("node-a");
    mesh().topology().Stop(agent);
    ASSERT_TRUE(IsGone(agent.pid));
  }
  std::string Pins() { return mesh().options().dir + "/bpf/weft/" + mesh().Netns("node-a"); }
  // One program per hook.
  void ExpectOneLinkPerHook(const std::vector<KernelLink>& links) {
    std::set<std::string> hooks;
    for (const KernelLink& link : links) {
      EXPECT_TRUE(hooks.insert(link.hook).second) << "twice: " << link.hook;
    }
  }
  std::vector<std::string> LinesOf(const std::string& log) {
    std::vector<std::string> lines;
    std::ifstream in(mesh().topology().LogFile(log));
    std::string line;
    while (std::getline(in, line)) lines.push_back(line);
    return lines;
  }
};

TEST_F(ExitTest, KeepRunningLeavesTheNodeAsItIs) {
  ASSERT_TRUE(Healthy("node-a"));
  const std::vector<KernelLink> before = LinksOfNode(Pins());
  ASSERT_GE(before.size(), 4u);
  ExpectOneLinkPerHook(before);
  std::vector<pid_t> children;
  for (const char* program : {"weft-proxy", "weft-sockets", "weft-keyd"}) {
    children.push_back(PidOf("node-a", program));
    ASSERT_NE(children.back(), 0) << program;
  }
  // One direct connection that tells its number all the time; a second one would get another.
  auto connection = mesh().topology().Start(
      "direct-connection",
      {"redis-cli", "-h", "10.244.1.20", "-r", "-1", "-i", "0.02", "CLIENT", "ID"},
      mesh().Netns("client"));
  ASSERT_TRUE(connection.ok()) << connection.status();
  ASSERT_TRUE(cli::WaitFor(seconds(5), [&] { return LinesOf("direct-connection").size() > 3; }));

  ASSERT_NO_FATAL_FAILURE(StopAgent());
  const size_t lines = LinesOf("direct-connection").size();
  EXPECT_TRUE(
      cli::WaitFor(seconds(5), [&] { return LinesOf("direct-connection").size() > lines + 10; }));
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Redis("client", {"-h", "10.244.1.20", "ping"}), "PONG\n");
  EXPECT_NE(Redis("intruder", {"-h", "10.244.1.20", "ping"}).find("Operation not permitted"),
            std::string::npos);
  EXPECT_EQ(Redis("client", {"-h", "10.244.2.20", "ping"}), "PONG\n");
  EXPECT_EQ(Answered200("client", "http://10.96.0.10/without-agent/", 20), 20);
  for (const pid_t pid : children) EXPECT_FALSE(IsGone(pid)) << pid;

  ASSERT_TRUE(mesh().StartAgent("node-a").ok());
  ASSERT_TRUE(Healthy("node-a"));
  auto status = story().Agent("node-a", "/status");
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ((*status)["kernel_adopted"], true);
  EXPECT_EQ(PidOf("node-a", "weft-proxy"), children[0]);
  EXPECT_EQ(PidOf("node-a", "weft-sockets"), children[1]);
  EXPECT_EQ(PidOf("node-a", "weft-keyd"), children[2]);
  const std::vector<KernelLink> after = LinksOfNode(Pins());
  ExpectOneLinkPerHook(after);
  ASSERT_EQ(after.size(), before.size());
  for (size_t i = 0; i < after.size(); ++i) EXPECT_EQ(after[i].hook, before[i].hook);
  EXPECT_EQ(Answered200("client", "http://10.96.0.10/adopted/", 20), 20);
  EXPECT_NE(Redis("intruder", {"-h", "10.244.1.20", "ping"}).find("Operation not permitted"),
            std::string::npos);
  const std::vector<std::string> said = LinesOf("direct-connection");
  EXPECT_EQ(std::set<std::string>(said.begin(), said.end()).size(), 1u)
      << "the connection was lost";
  EXPECT_FALSE(IsGone(connection->pid));
  mesh().topology().Stop(*connection);
}

TEST_F(ExitTest, UnloadLeavesNothingOfTheNode) {
  // The flag is the present agent's, so it takes one more start.
  mesh().set_agent_exit("--unload-on-exit");
  ASSERT_NO_FATAL_FAILURE(StopAgent());
  ASSERT_TRUE(mesh().StartAgent("node-a").ok());
  ASSERT_TRUE(Healthy("node-a"));
  const std::vector<cli::BpfObject> pinned = cli::PinnedBelow(Pins());
  EXPECT_GE(pinned.size(), 10u);
  std::vector<pid_t> children;
  for (const char* program : {"weft-proxy", "weft-sockets", "weft-keyd"}) {
    children.push_back(PidOf("node-a", program));
    ASSERT_NE(children.back(), 0) << program;
  }
  ASSERT_NO_FATAL_FAILURE(StopAgent());
  for (const pid_t pid : children) EXPECT_TRUE(IsGone(pid)) << pid;
  EXPECT_TRUE(cli::PinnedBelow(Pins()).empty());
  for (const cli::BpfObject& object : pinned) {
    // The kernel frees them a moment after their last reference went.
    EXPECT_TRUE(cli::WaitFor(seconds(5), [&] { return !cli::StillExists(object); })) << object.pin;
  }
  std::error_code error;
  EXPECT_FALSE(std::filesystem::exists(cli::FindCgroup2() + "/weft/" + mesh().Netns("node-a")));
  for (const auto& item : std::filesystem::directory_iterator(mesh().RunDir("node-a"), error)) {
    const std::string name = item.path().filename();
    EXPECT_TRUE(name.find(".sock") == std::string::npos && name.find(".pid") == std::string::npos)
        << name;
  }
  // Pods of the node are outside the mesh again, and the next agent brings them back in.
  EXPECT_EQ(Redis("intruder", {"-h", "10.244.1.20", "ping"}), "PONG\n");
  ASSERT_TRUE(mesh().StartAgent("node-a").ok());
  ASSERT_TRUE(Healthy("node-a"));
  EXPECT_NE(Redis("intruder", {"-h", "10.244.1.20", "ping"}).find("Operation not permitted"),
            std::string::npos);
  EXPECT_TRUE(cli::WaitFor(
      seconds(10), [&] { return Answered200("client", "http://10.96.0.10/again/", 20) == 20; }));
}

}  // namespace
}  // namespace weft::mesh_test
