// SPDX-License-Identifier: Apache-2.0
// `weft demo --down` after the demo (and, worse, everything of it) was killed: at whatever moment,
// nothing is left and the next one starts. Needs root; the demo's own prefix.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "control/cli/mesh.h"
#include "proxy/ipc/local_http.h"

namespace weft::mesh_test {
namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;

const cli::MeshOptions kDemo;  // where the demo is

class DemoDownTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(geteuid(), 0u) << "needs root";
    // Somebody's kept demo is not ours to remove.
    ASSERT_FALSE(fs::exists(kDemo.dir + "/journal")) << "a demo is there; weft demo --down";
  }
  void TearDown() override {
    if (HasFailure()) Down();
  }
  cli::ProcessId StartDemo() {
    cli::SpawnOptions options;
    options.log_file = log_;
    auto pid = cli::Spawn({weft_, "demo", "--json", "--manifests", WEFT_MANIFESTS}, options);
    EXPECT_TRUE(pid.ok()) << pid.status();
    if (!pid.ok()) return {};
    return {*pid, cli::ProcessStartTime(*pid)};
  }
  std::string Journal() {
    auto text = cli::ReadFile(kDemo.dir + "/journal");
    return text.ok() ? *text : "";
  }
  // Lets a demo get as far as `moment` and kills it.
  template <typename Moment>
  void KillDemoAt(Moment moment) {
    const cli::ProcessId demo = StartDemo();
    ASSERT_TRUE(cli::WaitFor(seconds(60), [&] {
      return moment() || cli::ProcessStartTime(demo.pid) != demo.start_time;
    }));
    ASSERT_EQ(cli::ProcessStartTime(demo.pid), demo.start_time) << *cli::ReadFile(log_);
    ASSERT_EQ(kill(demo.pid, SIGKILL), 0);
    ASSERT_TRUE(cli::WaitFor(seconds(5), [&] { return cli::ProcessStartTime(demo.pid) == 0; }));
  }
  cli::RunResult Down() {
    cli::RunOptions options;
    options.timeout = seconds(60);
    auto result = cli::Run({weft_, "demo", "--down"}, options);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? *result : cli::RunResult{};
  }
  void ExpectDownLeavesNothing() {
    const cli::RunResult down = Down();
    EXPECT_EQ(down.exit_code, 0) << down.out << down.err;
    EXPECT_NE(down.out.find("Nothing is left behind"), std::string::npos) << down.out;
    for (const std::string& left : cli::Topology::Leftovers(kDemo.prefix, kDemo.dir)) {
      ADD_FAILURE() << "left behind: " << left;
    }
    // Not only what the program itself looks for.
    for (const auto& item : fs::directory_iterator("/proc")) {
      std::ifstream in(item.path() / "cmdline");
      const std::string line(std::istreambuf_iterator<char>(in), {});
      EXPECT_EQ(line.find("weft-demo"), std::string::npos)
          << item.path() << ": " << line.substr(0, 200);
    }
  }
  bool Ready(const std::string& node) {
    auto answer =
        ipc::HttpRequest("/run/weft/" + kDemo.prefix + node + "/agent.sock", "GET", "/healthz");
    return answer.ok() && answer->status == 200;
  }
  // Processes of the journal, and weft's own children.
  void KillEverything() {
    std::ifstream in(kDemo.dir + "/journal");
    std::string kind;
    for (std::string line; std::getline(in, line);) {
      if (line.starts_with("process ")) kill(atoi(line.c_str() + 8), SIGKILL);
    }
  }

  const std::string weft_ = std::string(WEFT_BIN_DIR) + "/weft";
  const std::string log_ =
      (fs::temp_directory_path() / ("weft-demo-down-" + std::to_string(getpid()))).string();
  ~DemoDownTest() override { unlink(log_.c_str()); }
};

TEST_F(DemoDownTest, KilledWhileItBuildsTheNetwork) {
  ASSERT_NO_FATAL_FAILURE(
      KillDemoAt([&] { return Journal().find("node-b") != std::string::npos; }));
  ExpectDownLeavesNothing();
}

TEST_F(DemoDownTest, KilledWhileItStartsPrograms) {
  ASSERT_NO_FATAL_FAILURE(
      KillDemoAt([&] { return Journal().find("agent-node-a") != std::string::npos; }));
  ExpectDownLeavesNothing();
}

TEST_F(DemoDownTest, KilledInTheMiddleOfTheStory) {
  ASSERT_NO_FATAL_FAILURE(KillDemoAt([&] { return Ready("node-a") && Ready("node-b"); }));
  ExpectDownLeavesNothing();
}

// As if the machine's memory had run out: the agents cannot clean up behind themselves.
TEST_F(DemoDownTest, KilledWithEverythingItStarted) {
  ASSERT_NO_FATAL_FAILURE(KillDemoAt([&] { return Ready("node-a") && Ready("node-b"); }));
  KillEverything();
  ExpectDownLeavesNothing();
}

// Between making its directory and the journal's first line, and while --down removes the last.
TEST_F(DemoDownTest, KilledBeforeTheJournalAndAfterIt) {
  ASSERT_TRUE(fs::create_directories(kDemo.dir + "/logs"));
  ExpectDownLeavesNothing();
  ASSERT_TRUE(fs::create_directories(kDemo.dir + "/apps/web-1"));
  {
    std::ofstream(kDemo.dir + "/journal");
  }  // made, nothing written yet
  ExpectDownLeavesNothing();
}

TEST_F(DemoDownTest, TheNextDemoStarts) {
  ASSERT_NO_FATAL_FAILURE(KillDemoAt([&] { return Ready("node-a") && Ready("node-b"); }));
  // Told what to do instead of making a mess.
  auto again = cli::Run({weft_, "demo", "--json", "--manifests", WEFT_MANIFESTS});
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->exit_code, 1);
  EXPECT_NE(again->err.find("Remove it with: weft demo --down"), std::string::npos) << again->err;
  ExpectDownLeavesNothing();
  ASSERT_NO_FATAL_FAILURE(KillDemoAt([&] { return Ready("node-a") && Ready("node-b"); }));
  ExpectDownLeavesNothing();
}

}  // namespace
}  // namespace weft::mesh_test
