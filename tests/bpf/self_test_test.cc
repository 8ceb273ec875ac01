// SPDX-License-Identifier: Apache-2.0
// The self-test of the splice: it passes here, in time, leaves nothing, and a row that does not
// hold keeps the splice off.
#include "control/bpf/self_test.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>

#include "control/bpf/probe.h"
#include "tests/bpf/testbed.h"

namespace weft::bpf {
namespace {

std::string OwnBpffs() { return "/tmp/wkern-selftest-" + std::to_string(getpid()); }

SelfTestReport RunHere(std::function<void(Kernel&, std::string_view)> sabotage = {}) {
  SelfTestReport report =
      RunSelfTest({.bpffs_root = OwnBpffs(), .cgroup_root = "", .sabotage = std::move(sabotage)});
  rmdir(OwnBpffs().c_str());  // the folder that was mounted on
  return report;
}

std::string OwnCgroup() {
  return *FindCgroup2Root() + "/weft-self-test-" + std::to_string(getpid());
}

// Its own deadline is the bound; the time is printed (a second or two unless the machine is busy).
TEST(SelfTest, PassesOnThisKernelInTimeAndLeavesNothing) {
  const SelfTestReport report = RunHere();
  EXPECT_TRUE(report.ok()) << report.Summary();
  printf("self-test: %s\n", report.Summary().c_str());

  EXPECT_FALSE(std::filesystem::exists(OwnCgroup()));
  EXPECT_FALSE(IsBpffs(OwnBpffs()));
}

class SelfTestFailure : public testing::TestWithParam<const char*> {};

// The splice is taken away from the row, by the switch.
TEST_P(SelfTestFailure, ARowThatDoesNotHoldIsNamedAndKeepsTheSpliceOff) {
  const std::string broken = GetParam();
  const SelfTestReport report = RunHere([&](Kernel& kernel, std::string_view row) {
    if (row == broken) {
      EXPECT_TRUE(kernel.SetSplice(false).ok());
    }
  });
  ASSERT_FALSE(report.ok());
  ASSERT_FALSE(report.rows.empty()) << report.Summary();
  EXPECT_EQ(report.rows.back().name, broken);
  EXPECT_THAT(report.Summary(), testing::HasSubstr(broken + " does not hold"));

  Network network;
  Node node("selftest", [&](KernelConfig& config) { config.self_test = report; });
  EXPECT_FALSE(node.kernel().splice_is_on());
  const absl::Status on = node.kernel().SetSplice(true);
  EXPECT_EQ(on.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(on.message()), testing::HasSubstr(broken));
  for (int pod : {0, 1}) node.Enrol(network.pod(pod), WEFT_WL_PROXY_READY | WEFT_WL_SPLICE);
  const UniqueFd listener = Listener(network.pod(1), 8080);
  const UniqueFd client = TcpSocket(network.pod(0), AF_INET, Blocking::kNo);
  ASSERT_EQ(Connect(client, network.pod(1).At(8080)), 0);
  const UniqueFd server = Accept(listener, Blocking::kNo);
  ASSERT_TRUE(node.kernel().RunLateInsertion(network.pod(0).netns.get()).ok());
  ASSERT_TRUE(node.kernel().RunLateInsertion(network.pod(1).netns.get()).ok());
  SendAll(client, "by tcp");
  EXPECT_EQ(ReceiveSome(server, 6), "by tcp");
  EXPECT_EQ(node.kernel().GetSpliceStats().messages, 0u);
}

INSTANTIATE_TEST_SUITE_P(Rows, SelfTestFailure,
                         testing::Values("redirect", "readiness", "back_pressure", "switch",
                                         "half_close", "reset"),
                         [](const auto& each) { return std::string(each.param); });

TEST(SelfTest, AnAttemptThatCannotBeMadeIsNoSuccess) {
  const SelfTestReport report =
      RunSelfTest({.bpffs_root = "/proc/no-such-folder", .cgroup_root = "", .sabotage = {}});
  EXPECT_FALSE(report.ok());
  EXPECT_THAT(report.Summary(), testing::HasSubstr("could not be run"));
  EXPECT_FALSE(std::filesystem::exists(OwnCgroup()));
}

}  // namespace
}  // namespace weft::bpf
