// SPDX-License-Identifier: Apache-2.0
#include "control/agent/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace weft::agent {
namespace {

absl::StatusOr<Options> Parse(std::vector<std::string> arguments) {
  std::vector<char*> argv;
  for (std::string& a : arguments) argv.push_back(a.data());
  return ParseOptions(argv);
}

TEST(AgentOptions, DefaultsFollowFromTheNode) {
  auto options = Parse(
      {"--node", "n1", "--control=10.0.0.1:15012", "--control-root", "r.pem", "--join-token", "t"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->run_dir, "/run/weft/n1");
  EXPECT_EQ(options->instance(), "n1");
  EXPECT_EQ(options->Path("agent.sock"), "/run/weft/n1/agent.sock");
  EXPECT_EQ(options->zone, "");
  EXPECT_EQ(options->service_memory_mib, 16u);
}

TEST(AgentOptions, TheRunDirNamesTheInstance) {
  auto options = Parse(
      {"--node", "n1", "--run-dir", "/run/weft/weft-demo-n1/", "--xds-plaintext", "127.0.0.1:1"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->instance(), "weft-demo-n1");
}

TEST(AgentOptions, RefusalsNameTheFlag) {
  for (const auto& [arguments, says] :
       std::vector<std::pair<std::vector<std::string>, std::string>>{
           {{}, "--node"},
           {{"--node", "n"}, "--control"},
           {{"--node"}, "--node: needs a value"},
           {{"--nod", "n"}, "unknown argument --nod"},
           {{"n"}, "unknown argument n"},
           {{"--node", "n", "--proxy-uid", "0"}, "--proxy-uid: a number above 0"},
           {{"--node", "n", "--proxy-uid", "12x"}, "--proxy-uid"},
           {{"--node", "n", "--proxy-workers", "65", "--xds-plaintext", "x"}, "at most 64"},
           {{"--node", "n", "--service-memory", "4097"}, "--service-memory: at most 4096"},
           {{"--node", "n", "--xds-plaintext", "15010"}, "--xds-plaintext: \"15010\" is no"},
           {{"--node", "n", "--xds-plaintext", "10.0.0.1:15010"},
            "--xds-plaintext: \"10.0.0.1:15010\" is not a loopback address"},
           {{"--node", "n", "--xds-plaintext", "0.0.0.0:15010"}, "is not a loopback address"},
           {{"--node", "n", "--xds-plaintext", "[fd00::1]:15010"}, "is not a loopback address"},
           {{"--node", "n", "--xds-plaintext", "localhost:15010"}, "is no ADDRESS:PORT"}}) {
    auto options = Parse(arguments);
    ASSERT_FALSE(options.ok()) << says;
    EXPECT_THAT(std::string(options.status().message()), testing::HasSubstr(says));
  }
}

}  // namespace
}  // namespace weft::agent
