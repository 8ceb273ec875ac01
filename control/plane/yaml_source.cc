// SPDX-License-Identifier: Apache-2.0
#include "control/plane/yaml_source.h"

#include <yaml-cpp/emitterstyle.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <sstream>

#include "absl/strings/str_cat.h"

namespace weft::plane {

std::string Origin::ToString() const { return line > 0 ? absl::StrCat(file, ":", line) : file; }

std::string Problem::ToString() const { return absl::StrCat(at.ToString(), ": ", text); }

const Yaml* Yaml::Find(std::string_view key) const {
  for (const YamlEntry& entry : entries) {
    if (entry.key == key) return &entry.value;
  }
  return nullptr;
}

namespace {

constexpr char kTextTag[] = "tag:yaml.org,2002:str";

// Builds the tree from yaml-cpp's events. What we refuse is thrown as yaml-cpp's own exception, so
// that one handler at the edge (ParseDocument) sees both.
class TreeBuilder final : public YAML::EventHandler {
 public:
  explicit TreeBuilder(int line_offset) : line_offset_(line_offset) {}
  Yaml Take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    throw YAML::ParserException(mark, "aliases (*name) are not supported in manifests");
  }
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override {
    Add(mark, Make(mark, Yaml::Kind::kNull));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                const std::string& value) override {
    if (tag != "?" && tag != "!" && !tag.empty() && tag != kTextTag) {
      throw YAML::ParserException(mark, "the tag " + tag + " is not supported in manifests");
    }
    Yaml node = Make(mark, Yaml::Kind::kScalar);
    node.scalar = value;
    node.quoted = tag != "?" && !tag.empty();
    Add(mark, std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    Open(mark, Yaml::Kind::kList);
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    Open(mark, Yaml::Kind::kMap);
  }
  void OnMapEnd() override { Close(); }

 private:
  struct Frame {
    Yaml node;
    YAML::Mark mark;
    std::optional<YamlEntry> key;  // of a map: read, its value not yet
  };

  Yaml Make(const YAML::Mark& mark, Yaml::Kind kind) {
    if (++nodes_ > kMaxManifestNodes) throw YAML::ParserException(mark, "too many values");
    Yaml node;
    node.kind = kind;
    node.line = mark.line + 1 + line_offset_;
    node.column = mark.column + 1;
    return node;
  }

  void Open(const YAML::Mark& mark, Yaml::Kind kind) {
    if (static_cast<int>(frames_.size()) >= kMaxManifestDepth) {
      throw YAML::ParserException(mark, "nested too deeply");
    }
    frames_.push_back({Make(mark, kind), mark, std::nullopt});
  }

  void Close() {
    Frame frame = std::move(frames_.back());
    frames_.pop_back();
    Add(frame.mark, std::move(frame.node));
  }

  void Add(const YAML::Mark& mark, Yaml node) {
    if (frames_.empty()) {
      root_ = std::move(node);
      return;
    }
    Frame& top = frames_.back();
    if (top.node.kind == Yaml::Kind::kList) {
      top.node.items.push_back(std::move(node));
    } else if (top.key.has_value()) {
      top.key->value = std::move(node);
      top.node.entries.push_back(*std::exchange(top.key, std::nullopt));
    } else {
      if (node.kind != Yaml::Kind::kScalar) {
        throw YAML::ParserException(mark, "a field's name must be plain text");
      }
      if (top.node.Find(node.scalar) != nullptr) {
        throw YAML::ParserException(mark, "the field \"" + node.scalar + "\" is given twice");
      }
      top.key = YamlEntry{std::move(node.scalar), node.line, node.column, {}};
    }
  }

  const int line_offset_;
  size_t nodes_ = 0;
  Yaml root_;
  std::vector<Frame> frames_;
};

bool IsBlank(std::string_view text) {
  // Comments and white space only: yaml-cpp reports such a document as absent.
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    const size_t first = line.find_first_not_of(" \t\r");
    if (first != std::string_view::npos && line[first] != '#') return false;
    at = end + 1;
  }
  return true;
}

void ParseDocument(const std::string& file, int first_line, std::string_view text,
                   std::vector<Document>* documents, Problems* problems) {
  if (IsBlank(text)) return;
  // yaml-cpp 0.7 takes a quoted text that is never closed for complete if a line end is the last
  // thing there is.
  text = text.substr(0, text.find_last_not_of(" \t\r\n") + 1);
  Document document{.file = file, .line = first_line};
  TreeBuilder builder(first_line - 1);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    if (!parser.HandleNextDocument(builder)) return;
    Yaml root = builder.Take();
    if (root.kind == Yaml::Kind::kNull) return;
    document.root = std::move(root);
  } catch (const YAML::Exception& error) {
    // yaml-cpp reports errors by exceptions only; they end here. Text that simply stops is reported
    // at its last line.
    Origin at{file, first_line, 0};
    if (!error.mark.is_null()) {
      at.line = error.mark.line + first_line;
      at.column = error.mark.column + 1;
    }
    problems->push_back({std::move(at), "not valid YAML: " + error.msg, ""});
  }
  documents->push_back(std::move(document));
}

// "---" alone or followed by white space, at the start of a line (YAML 1.2, 9.1.2).
bool IsSeparator(std::string_view line) {
  return line.starts_with("---") &&
         (line.size() == 3 || line[3] == ' ' || line[3] == '\t' || line[3] == '\r');
}

}  // namespace

void ParseYaml(const std::string& file, std::string_view text, std::vector<Document>* documents,
               Problems* problems) {
  const auto refuse = [&](std::string why) {
    problems->push_back({{file, 0, 0}, std::move(why), ""});
    documents->push_back({.file = file, .line = 1});
  };
  if (text.size() > kMaxManifestBytes) return refuse("larger than 8 MiB");
  if (text.find('\0') != std::string_view::npos) return refuse("not text: contains a zero byte");
  int line_number = 1;
  int document_line = 1;
  size_t document_begin = 0;
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    if (IsSeparator(line)) {
      ParseDocument(file, document_line, text.substr(document_begin, at - document_begin),
                    documents, problems);
      // What follows the dashes on their line belongs to the document.
      document_begin = at + 3;
      document_line = line_number;
    }
    at = end + 1;
    ++line_number;
  }
  ParseDocument(file, document_line, text.substr(document_begin), documents, problems);
}

}  // namespace weft::plane
