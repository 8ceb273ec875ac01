// SPDX-License-Identifier: Apache-2.0
// Whoever is told to run `weft SOMETHING` can: every subcommand that a message or a document names
// in backquotes is one that control/cli/main.cc has. Not docs/design: plans. Thread: the test's.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

std::string Read(const fs::path& path) {
  std::ifstream in(path);
  EXPECT_TRUE(in.good()) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<fs::path> FilesOf(const fs::path& folder) {
  std::vector<fs::path> out;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string kind = entry.path().extension();
    const bool text = kind == ".cc" || kind == ".h" || kind == ".c" || kind == ".md";
    const bool plan = entry.path().parent_path().filename() == "design";
    if (entry.is_regular_file() && text && !plan) out.push_back(entry.path());
  }
  return out;
}

TEST(Commands, EveryCommandThatIsNamedExists) {
  const fs::path root(WEFT_SOURCE_DIR);
  const std::string main = Read(root / "control/cli/main.cc");
  const std::regex usage("usage: weft ([a-z]+) ");
  std::set<std::string> commands;
  for (std::sregex_iterator at(main.begin(), main.end(), usage), end; at != end; ++at) {
    commands.insert((*at)[1]);
  }
  ASSERT_GE(commands.size(), 4u)
      << "main.cc has changed its shape: this test must learn to read it";
  const std::regex named("`weft ([a-z]+)");
  size_t found = 0;
  for (const char* folder : {"bpf", "control", "deploy", "docs", "proxy", "xds"}) {
    for (const fs::path& path : FilesOf(root / folder)) {
      const std::string text = Read(path);
      for (std::sregex_iterator at(text.begin(), text.end(), named), end; at != end; ++at) {
        EXPECT_TRUE(commands.contains((*at)[1])) << path << ": " << (*at)[0];
        ++found;
      }
    }
  }
  EXPECT_GT(found, 10u);
}

}  // namespace
