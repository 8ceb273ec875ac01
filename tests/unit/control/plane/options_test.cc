// SPDX-License-Identifier: Apache-2.0
#include "control/plane/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "control/plane/annotations.h"

namespace weft::plane {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Options, DefaultsAndFlags) {
  const auto least = ParseOptions({"--manifests", "m/", "--state-dir=s"});
  ASSERT_TRUE(least.ok()) << least.status();
  EXPECT_EQ(least->manifests, "m");
  EXPECT_EQ(least->listen->ToString(), "0.0.0.0:15012");
  EXPECT_EQ(least->status->ToString(), "127.0.0.1:15014");
  EXPECT_FALSE(least->plaintext.has_value());
  EXPECT_EQ(least->cert_ttl, std::chrono::hours(1));
  const auto all =
      ParseOptions({"--manifests", "m", "--state-dir", "s", "--listen", "10.0.0.1:1", "--plaintext",
                    "127.0.0.1:2", "--status", "unix:/x", "--trust-domain", "td", "--cert-ttl",
                    "2m", "--server-names", "a.b,10.0.0.9"});
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(all->status_unix, "/x");
  EXPECT_FALSE(all->status.has_value());
  EXPECT_EQ(all->cert_ttl, std::chrono::minutes(2));
  EXPECT_THAT(all->server_names, ElementsAre("a.b", "10.0.0.9"));
}

TEST(Options, EachErrorNamesItsFlag) {
  struct Case {
    std::vector<std::string> arguments;
    const char* text;
  };
  const Case cases[] = {
      {{}, "--manifests: missing"},
      {{"--manifests", "m"}, "--state-dir: missing"},
      {{"--manifests"}, "--manifests: unknown flag, or its value is missing"},
      {{"--nonsense", "1"}, "--nonsense: unknown flag"},
      {{"m"}, "\"m\": only flags are expected"},
      {{"--listen", "15012"}, "--listen: \"15012\" is no ADDRESS:PORT"},
      {{"--plaintext", "10.0.0.1:15010"},
       "--plaintext: \"10.0.0.1:15010\" is not a loopback address"},
      {{"--plaintext", "0.0.0.0:15010"}, "is not a loopback address"},
      {{"--status", "[::]:1"}, "--status: \"[::]:1\" is not a loopback address"},
      {{"--status", "unix:"}, "--status: unix: needs a path"},
      {{"--trust-domain", "A/b"}, "--trust-domain: \"A/b\""},
      {{"--cert-ttl", "25h"}, "--cert-ttl: \"25h\" is no time from 5s to 24h"},
      {{"--cert-ttl", "4s"}, "--cert-ttl: \"4s\" is no time from 5s to 24h"},
      {{"--server-names", "a,,b"}, "--server-names: \"\" is neither"},
  };
  for (const Case& c : cases) {
    const auto parsed = ParseOptions(c.arguments);
    ASSERT_FALSE(parsed.ok()) << c.text;
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(c.text));
  }
}

TEST(Docs, TheAnnotationTableIsTheSourcesOwn) {
  std::ifstream file(std::filesystem::path(WEFT_SOURCE_DIR) / "docs/manifests.md");
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_THAT(text.str(), HasSubstr(AnnotationTable()))
      << "docs/manifests.md must contain what `weft-control --annotations` prints:\n"
      << AnnotationTable();
}

}  // namespace
}  // namespace weft::plane
