// SPDX-License-Identifier: Apache-2.0
// docs/troubleshooting.md says what the sources say: every reason of bpf/reasons.h, by name,
// meaning and number, and every feature of `weft check` (control/bpf/probe_features.cc) with its
// consequence and remedy. Thread: the test's.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "bpf/reasons.h"

namespace {

std::string ReadSource(const std::string& path) {
  std::ifstream in(std::string(WEFT_SOURCE_DIR) + "/" + path);
  EXPECT_TRUE(in.good()) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string Trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(' ');
  return begin == std::string::npos ? ""
                                    : text.substr(begin, text.find_last_not_of(' ') + 1 - begin);
}

// The cells of the rows of the table under `heading`, without its head.
std::vector<std::vector<std::string>> TableUnder(const std::string& text,
                                                 const std::string& heading) {
  std::vector<std::vector<std::string>> rows;
  size_t at = text.find(heading);
  EXPECT_NE(at, std::string::npos) << heading;
  for (at = text.find("\n|", at); at != std::string::npos && text[at + 1] == '|';
       at = text.find('\n', at + 1)) {
    const std::string line = text.substr(at + 2, text.find('\n', at + 1) - at - 2);
    std::vector<std::string> cells;
    for (size_t from = 0, bar; (bar = line.find('|', from)) != std::string::npos; from = bar + 1) {
      cells.push_back(Trimmed(line.substr(from, bar - from)));
    }
    rows.push_back(std::move(cells));
  }
  if (rows.size() >= 2) rows.erase(rows.begin(), rows.begin() + 2);  // titles and dashes
  return rows;
}

// The string literals of one call, and where it ends.
std::vector<std::string> LiteralsOfCall(const std::string& text, size_t open, size_t* end) {
  std::vector<std::string> literals;
  int depth = 0;
  for (size_t i = open; i < text.size(); ++i) {
    if (text[i] == '"') {
      const size_t close = text.find('"', i + 1);
      literals.push_back(text.substr(i + 1, close - i - 1));
      i = close;
    } else if (text[i] == '(') {
      ++depth;
    } else if (text[i] == ')' && --depth == 0) {
      *end = i;
      return literals;
    }
  }
  *end = text.size();
  return literals;
}

TEST(Troubleshooting, ExplainsEveryReason) {
  struct Entry {
    const char* name;
    const char* meaning;
  };
  const Entry reasons[] = {
#define X(name, text, meaning) {text, meaning},
      WEFT_REASONS(X)
#undef X
  };
  const auto rows = TableUnder(ReadSource("docs/troubleshooting.md"), "## All reasons");
  ASSERT_EQ(rows.size(), std::size(reasons)) << "bpf/reasons.h and the table differ in length";
  for (size_t i = 0; i < rows.size(); ++i) {
    SCOPED_TRACE(reasons[i].name);
    ASSERT_EQ(rows[i].size(), 3u);
    EXPECT_EQ(rows[i][0], std::string("`") + reasons[i].name + "`");
    EXPECT_EQ(rows[i][1], reasons[i].meaning);
    EXPECT_FALSE(rows[i][2].empty()) << "what to do?";
  }
}

TEST(Troubleshooting, ExplainsEveryFeature) {
  const std::string document = ReadSource("docs/troubleshooting.md");
  const std::string source = ReadSource("control/bpf/probe_features.cc");
  constexpr std::string_view kCall = "push_back(Make(";
  size_t features = 0;
  for (size_t at = source.find(kCall); at != std::string::npos; at = source.find(kCall, at)) {
    const std::vector<std::string> text = LiteralsOfCall(source, at + kCall.size() - 1, &at);
    ASSERT_GE(text.size(), 3u);
    SCOPED_TRACE(text[0]);
    const size_t section = document.find("\n### " + text[0] + " (");
    ASSERT_NE(section, std::string::npos) << "has no section";
    const std::string body =
        document.substr(section + 1, document.find("\n###", section + 1) - section);
    EXPECT_NE(body.find(text[text.size() - 2]), std::string::npos) << "consequence";
    EXPECT_NE(body.find(text.back()), std::string::npos) << "remedy";
    ++features;
  }
  // No section is of a feature that is gone.
  size_t sections = 0;
  for (const char* kind : {" (required)\n", " (optional)\n"}) {
    for (size_t at = 0; (at = document.find(kind, at)) != std::string::npos; ++at) ++sections;
  }
  EXPECT_GT(features, 10u) << "the source has changed its shape: this test must learn to read it";
  EXPECT_EQ(sections, features);
}

}  // namespace
