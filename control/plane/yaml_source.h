// SPDX-License-Identifier: Apache-2.0
// Manifest text -> YAML documents in which every node knows its file, line and column. yaml-cpp
// stays behind this header: its exceptions, its acceptance of duplicate keys and its aliases end
// here. Stateless. Not here: what the documents mean (objects/).
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "control/plane/problem.h"

namespace weft::plane {

// A manifest of more bytes, nodes or levels than this is refused: a person wrote it by mistake.
inline constexpr size_t kMaxManifestBytes = 8 * 1024 * 1024;
inline constexpr size_t kMaxManifestNodes = 500'000;
inline constexpr int kMaxManifestDepth = 40;

struct YamlEntry;
struct Yaml {
  enum class Kind { kNull, kScalar, kList, kMap };
  Kind kind = Kind::kNull;
  std::string scalar;
  bool quoted = false;  // a quoted scalar is text whatever it looks like
  int line = 0;
  int column = 0;
  std::vector<Yaml> items;         // kList
  std::vector<YamlEntry> entries;  // kMap, in the order of the file, keys unique

  const Yaml* Find(std::string_view key) const;
};
struct YamlEntry {
  std::string key;
  int line = 0;
  int column = 0;
  Yaml value;
};

struct Document {
  std::string file;
  int line = 0;  // its first line
  // None: the document could not be parsed (the problem says why), so nothing is known about what
  // it declares.
  std::optional<Yaml> root;
};

// Appends the documents of one file; empty ones are left out. Each document is parsed on its own,
// so a syntax error in one leaves the others usable.
void ParseYaml(const std::string& file, std::string_view text, std::vector<Document>* documents,
               Problems* problems);

}  // namespace weft::plane
