// SPDX-License-Identifier: Apache-2.0
#include "control/cli/command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "control/cli/process.h"

namespace weft::cli {
namespace {

const Command kCommand{"x", "", "", {"node", "json", "follow"}, nullptr};

absl::StatusOr<Options> Parse(std::vector<std::string> arguments) {
  std::vector<char*> argv;
  for (std::string& a : arguments) argv.push_back(a.data());
  return ParseOptions(kCommand, argv);
}

TEST(ParseOptions, TakesItsFlags) {
  auto options = Parse({"--node", "a", "-o", "json", "-f"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->node, "a");
  EXPECT_TRUE(options->json);
  EXPECT_TRUE(options->follow);
  EXPECT_EQ(Parse({"--node=b", "--json"})->node, "b");
  EXPECT_FALSE(Parse({"-o", "text"})->json);
}

TEST(ParseOptions, TakesAsManyWordsAsTheCommandHas) {
  const Command why{"why", "", "", {"json", "protocol"}, nullptr, 2};
  std::vector<std::string> arguments = {"a", "--json", "b", "--protocol", "udp"};
  std::vector<char*> argv;
  for (std::string& a : arguments) argv.push_back(a.data());
  auto options = ParseOptions(why, argv);
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_THAT(options->words, testing::ElementsAre("a", "b"));
  EXPECT_EQ(options->protocol, "udp");
  std::string third = "c";
  argv.push_back(third.data());
  EXPECT_FALSE(ParseOptions(why, argv).ok());
}

TEST(ParseOptions, RefusesTheOthersByName) {
  for (const auto& [arguments, says] :
       std::vector<std::pair<std::vector<std::string>, std::string>>{
           {{"--keep"}, "unknown argument --keep"},
           {{"node"}, "unknown argument node"},
           {{"--node"}, "--node needs a value"},
           {{"-o"}, "-o needs"},
           {{"-o", "yaml"}, "text or json, not yaml"}}) {
    auto options = Parse(arguments);
    ASSERT_FALSE(options.ok()) << says;
    EXPECT_THAT(std::string(options.status().message()), testing::HasSubstr(says));
  }
}

TEST(RunProgram, GivesOutputExitCodeAndTakesInput) {
  RunOptions options;
  options.input = "hello\n";
  auto result = cli::Run({"sh", "-c", "cat; echo bad >&2; exit 3"}, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->exit_code, 3);
  EXPECT_EQ(result->out, "hello\n");
  EXPECT_EQ(result->err, "bad\n");
}

TEST(RunProgram, EndsWhatDoesNotEnd) {
  RunOptions options;
  options.timeout = std::chrono::milliseconds(50);
  auto result = cli::Run({"sleep", "60"}, options);
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result->timed_out);
  EXPECT_EQ(result->exit_code, 128 + 9);
}

TEST(RunProgram, AProgramThatIsNotThereIsAnError) {
  auto result = cli::Run({"/no/such/program"});
  ASSERT_FALSE(result.ok());
  EXPECT_THAT(std::string(result.status().message()), testing::HasSubstr("/no/such/program"));
}

TEST(EndProcesses, LeavesAProcessThatOnlyHasTheSameNumber) {
  auto pid = Spawn({"sleep", "60"});
  ASSERT_TRUE(pid.ok()) << pid.status();
  const uint64_t start = ProcessStartTime(*pid);
  ASSERT_NE(start, 0u);
  EndProcesses({{*pid, start + 1}}, std::chrono::milliseconds(0));
  EXPECT_EQ(ProcessStartTime(*pid), start);
  EndProcesses({{*pid, start}}, std::chrono::seconds(2));
  EXPECT_EQ(ProcessStartTime(*pid), 0u);
}

}  // namespace
}  // namespace weft::cli
