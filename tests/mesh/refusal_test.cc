// SPDX-License-Identifier: Apache-2.0
// What the agent refuses and says: bad starts, bad workloads. What worked goes on working, and an
// unfinished workload is closed.
#include <gmock/gmock.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "proxy/ipc/local_http.h"
#include "tests/mesh/world.h"

namespace weft::mesh_test {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;

class RefusalTest : public MeshTest {
 protected:
  std::string Agent() { return std::string(WEFT_BIN_DIR) + "/weft-agent"; }
  cli::RunResult Start(std::vector<std::string> argv) {
    cli::RunOptions options;
    options.netns = mesh().Netns("node-a");
    auto result = cli::Run(std::move(argv), options);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? *result : cli::RunResult{};
  }
  std::vector<std::string> Flags(const std::string& run_dir, const std::string& root) {
    return {Agent(),
            "--node",
            "node-a",
            "--run-dir",
            run_dir,
            "--control",
            "172.30.0.10:15012",
            "--control-root",
            root,
            "--join-token",
            mesh().TokenFile("node-a")};
  }
  ipc::LocalResponse Call(const std::string& method, const std::string& target,
                          const std::string& body = "") {
    auto response = ipc::HttpRequest(mesh().AgentSocket("node-a"), method, target, body);
    EXPECT_TRUE(response.ok()) << response.status();
    return response.ok() ? *response : ipc::LocalResponse{};
  }
  std::string Entry(const std::string& name, const std::string& netns, const std::string& address) {
    return absl::StrCat("name: ", name, "\nnamespace: demo\nserviceAccount: web\nnetns: ",
                        cli::Topology::NetnsPath(mesh().Netns(netns)), "\naddresses: [", address,
                        "]\n");
  }
  std::string RootPem() { return mesh().options().dir + "/control/root.pem"; }
};

TEST_F(RefusalTest, ASecondAgentInTheSameRunDirectory) {
  const cli::RunResult result = Start(Flags(mesh().RunDir("node-a"), RootPem()));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("another weft-agent uses " + mesh().RunDir("node-a")));
  EXPECT_TRUE(mesh().AskAgent("node-a", "/healthz").ok());
}

TEST_F(RefusalTest, ARootThatIsNotThere) {
  const cli::RunResult result = Start(Flags(mesh().options().dir + "/other", "/no/such/root.pem"));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("/no/such/root.pem"));
}

TEST_F(RefusalTest, NotRoot) {
  // As another user the binary may be out of reach; then there is nothing to see.
  std::vector<std::string> argv = {"setpriv", "--reuid", "65534", "--clear-groups"};
  if (!Start({"setpriv", "--reuid", "65534", "--clear-groups", "test", "-x", Agent()}).ok()) {
    GTEST_SKIP() << Agent() << " is not executable for other users";
  }
  for (std::string& flag : Flags("/tmp/weft-mt-not-root", RootPem())) argv.push_back(flag);
  const cli::RunResult result = Start(argv);
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("needs root"));
}

TEST_F(RefusalTest, ABrokenWorkloadFileIsNamedWithItsLineAndTheOthersStay) {
  const std::string file = mesh().options().dir + "/workloads-node-a/broken.yaml";
  ASSERT_TRUE(cli::WriteFile(file, "name: broken\nnetnss: /x\n").ok());
  std::string said;
  EXPECT_TRUE(cli::WaitFor(seconds(10), [&] {
    auto status = story().Agent("node-a", "/status");
    if (!status.ok()) return false;
    said = (*status)["workload_file_errors"].value(file, "");
    return !said.empty();
  }));
  EXPECT_THAT(said, HasSubstr("broken.yaml:2: unknown field netnss"));
  EXPECT_EQ(Answered200("client", "http://10.96.0.10/broken/", 5), 5);
  ASSERT_EQ(unlink(file.c_str()), 0);
  EXPECT_TRUE(
      cli::WaitFor(seconds(10), [&] { return mesh().AskAgent("node-a", "/healthz").ok(); }));
}

TEST_F(RefusalTest, WorkloadsThatAreNotWhatTheySay) {
  const auto wrong_address = Call("POST", "/workloads", Entry("x", "bare-client", "10.9.9.9"));
  EXPECT_EQ(wrong_address.status, 409);
  EXPECT_THAT(wrong_address.body, HasSubstr("has none of its addresses (it has 127.0.0.1"));
  EXPECT_EQ(Call("DELETE", "/workloads?name=demo/x").status, 200);

  const auto taken = Call("POST", "/workloads", Entry("y", "client", "10.244.1.10"));
  EXPECT_EQ(taken.status, 409);
  EXPECT_THAT(taken.body, HasSubstr("its network namespace is that of demo/client"));
  EXPECT_EQ(Call("DELETE", "/workloads?name=demo/y").status, 200);

  EXPECT_EQ(Call("POST", "/workloads", "name: [").status, 400);
  EXPECT_EQ(Call("DELETE", "/workloads?name=demo/nobody").status, 404);
  EXPECT_EQ(Call("GET", "/nothing").status, 404);
  EXPECT_EQ(Answered200("client", "http://10.96.0.10/still/", 5), 5);
}

// Enrolled, but unknown to the control plane: captured and refused, not let through in the clear.
TEST_F(RefusalTest, AWorkloadTheControlPlaneDoesNotKnowIsClosed) {
  const std::string before = Redis("bare-client", {"-h", "10.244.1.31", "ping"});
  ASSERT_EQ(before, "PONG\n");
  auto capture = CaptureFabric();
  ASSERT_NE(capture, nullptr);
  ASSERT_EQ(Call("POST", "/workloads", Entry("bare", "bare-client", "10.244.1.30")).status, 200);
  auto health = mesh().AskAgent("node-a", "/healthz");
  ASSERT_FALSE(health.ok());
  EXPECT_THAT(std::string(health.status().message()),
              HasSubstr("demo/bare: the control plane does not know its address"));
  const std::string answer = Redis("bare-client", {"-h", "10.244.2.20", "SET", "x", kCanary});
  EXPECT_THAT(answer, HasSubstr("Connection refused"));
  EXPECT_EQ(capture->counts().canary_packets, 0u);
  // Released, it is outside the mesh again.
  EXPECT_EQ(Call("DELETE", "/workloads?name=demo/bare").status, 200);
  EXPECT_EQ(Redis("bare-client", {"-h", "10.244.1.31", "ping"}), "PONG\n");
  EXPECT_TRUE(mesh().AskAgent("node-a", "/healthz").ok());
}

TEST_F(RefusalTest, TheSpliceSwitchWorksWhileRunning) {
  EXPECT_EQ(Call("POST", "/splice?on=maybe").status, 400);
  auto traffic = StartRedisTraffic(1);
  ASSERT_TRUE(traffic.ok()) << traffic.status();
  auto grows = [this](const char* name) {
    const uint64_t before = SpliceCount(name);
    return cli::WaitFor(seconds(60), [&] { return SpliceCount(name) > before + 100; });
  };
  EXPECT_TRUE(!SpliceIsOn() || grows("messages"));
  ASSERT_EQ(Call("POST", "/splice?on=false").status, 200);
  auto status = story().Agent("node-a", "/status");
  ASSERT_TRUE(status.ok());
  EXPECT_EQ((*status)["splice"]["on"], false);
  EXPECT_TRUE(!SpliceIsOn() || grows("switched_off"));
  const uint64_t before = SpliceCount("messages");
  EXPECT_TRUE(!SpliceIsOn() || grows("switched_off"));
  EXPECT_EQ(Redis("client", {"-h", "10.244.1.20", "ping"}), "PONG\n");
  EXPECT_EQ(SpliceCount("messages"), before);
  EXPECT_EQ(Call("POST", "/splice?on=true").status, 200);
  EXPECT_TRUE(!SpliceIsOn() || grows("messages"));
  EXPECT_NE(cli::ProcessStartTime(traffic->pid), 0u) << "an answer was wrong";
  mesh().topology().Stop(*traffic);
}

}  // namespace
}  // namespace weft::mesh_test
