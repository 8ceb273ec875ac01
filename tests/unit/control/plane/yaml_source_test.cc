// SPDX-License-Identifier: Apache-2.0
#include "control/plane/yaml_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace weft::plane {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct Parsed {
  std::vector<Document> documents;
  Problems problems;
};
Parsed Parse(std::string_view text) {
  Parsed parsed;
  ParseYaml("f.yaml", text, &parsed.documents, &parsed.problems);
  return parsed;
}

TEST(YamlSource, EveryNodeKnowsItsPlace) {
  const Parsed parsed = Parse("# head\na: 1\nb:\n  - x\n  - {c: \"2\"}\n");
  ASSERT_EQ(parsed.documents.size(), 1u);
  ASSERT_THAT(parsed.problems, IsEmpty());
  const Yaml& root = *parsed.documents[0].root;
  EXPECT_EQ(root.Find("a")->line, 2);
  EXPECT_EQ(root.Find("a")->column, 4);
  const Yaml& second = root.Find("b")->items[1];
  EXPECT_EQ(second.line, 5);
  EXPECT_EQ(second.entries[0].column, 6);
  EXPECT_TRUE(second.Find("c")->quoted);
  EXPECT_FALSE(root.Find("a")->quoted);
}

TEST(YamlSource, LinesCountAcrossDocuments) {
  const Parsed parsed = Parse("---\na: 1\n---\n# nothing here\n---\n\nb: 2\n--- # comment\nc: 3\n");
  ASSERT_EQ(parsed.documents.size(), 3u);
  EXPECT_EQ(parsed.documents[0].root->Find("a")->line, 2);
  EXPECT_EQ(parsed.documents[1].root->Find("b")->line, 7);
  EXPECT_EQ(parsed.documents[2].root->Find("c")->line, 9);
}

TEST(YamlSource, OneWrongDocumentLeavesTheOthers) {
  const Parsed parsed = Parse("a: 1\n---\nb: [1, 2\nc: }\n---\nd: 4\n");
  ASSERT_EQ(parsed.documents.size(), 3u);
  EXPECT_TRUE(parsed.documents[0].root.has_value());
  EXPECT_FALSE(parsed.documents[1].root.has_value());
  EXPECT_EQ(parsed.documents[2].root->Find("d")->line, 6);
  ASSERT_EQ(parsed.problems.size(), 1u);
  EXPECT_THAT(parsed.problems[0].ToString(), HasSubstr("not valid YAML"));
  EXPECT_GE(parsed.problems[0].at.line, 3);
  EXPECT_LE(parsed.problems[0].at.line, 4);
}

TEST(YamlSource, DashesInsideTextDoNotSeparate) {
  const Parsed parsed = Parse("a: |\n  ---\n  x\nb: '---'\n---x: 1\n");
  ASSERT_EQ(parsed.documents.size(), 1u);
}

struct Refusal {
  const char* name;
  std::string text;
  const char* problem;
};
class YamlRefusal : public ::testing::TestWithParam<Refusal> {};

TEST_P(YamlRefusal, IsNamedWithItsLine) {
  const Parsed parsed = Parse(GetParam().text);
  ASSERT_EQ(parsed.problems.size(), 1u);
  EXPECT_THAT(parsed.problems[0].ToString(), HasSubstr(GetParam().problem));
  ASSERT_EQ(parsed.documents.size(), 1u);
  EXPECT_FALSE(parsed.documents[0].root.has_value());
}

std::string Nested(int depth) { return "a: " + std::string(depth, '[') + std::string(depth, ']'); }

INSTANTIATE_TEST_SUITE_P(
    All, YamlRefusal,
    ::testing::Values(
        Refusal{"Duplicate", "a: 1\nb: 2\na: 3\n",
                "f.yaml:3: not valid YAML: the field \"a\" is given twice"},
        Refusal{"Alias", "a: &x 1\nb: *x\n", "f.yaml:2: not valid YAML: aliases"},
        Refusal{"Tag", "a: !!python/object 1\n", "f.yaml:1: not valid YAML: the tag"},
        Refusal{"Tab", "a:\n\tb: 1\n", "f.yaml:2: not valid YAML"},
        Refusal{"Open", "a: \"no end\nb: 1\n", "not valid YAML: illegal EOF in scalar"},
        Refusal{"OpenSingle", "a: 'no end\n\n", "not valid YAML: illegal EOF in scalar"},
        Refusal{"OpenBeforeComment", "a: \"no end\n# b\n \n",
                "not valid YAML: illegal EOF in scalar"},
        Refusal{"OpenList", "a: [1, 2\n", "not valid YAML: end of sequence flow not found"},
        Refusal{"KeyIsMap", "? {a: 1}\n: 2\n", "f.yaml:1: not valid YAML: a field's name"},
        Refusal{"Deep", Nested(60), "nested too deeply"},
        Refusal{"VeryDeep", Nested(200'000), "f.yaml"},
        Refusal{"ZeroByte", std::string("a: 1\0b", 6), "f.yaml: not text"},
        Refusal{"Large", std::string(kMaxManifestBytes + 1, 'x'), "f.yaml: larger than 8 MiB"}),
    [](const auto& each) { return each.param.name; });

TEST(YamlSource, EmptyFilesDeclareNothing) {
  EXPECT_THAT(Parse("").documents, IsEmpty());
  EXPECT_THAT(Parse("# only a comment\n").documents, IsEmpty());
  EXPECT_THAT(Parse("---\n---\n").documents, IsEmpty());
}

}  // namespace
}  // namespace weft::plane
