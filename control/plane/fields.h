// SPDX-License-Identifier: Apache-2.0
// Reads the fields of one YAML map strictly: every field is asked for by name, and those that
// nobody asked for are problems. Reading never stops at the first problem; whoever parses an object
// checks afterwards whether any was added.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "control/plane/problem.h"
#include "control/plane/yaml_source.h"

namespace weft::plane {

// The text, and where it stands.
struct LocatedText {
  std::string value;
  Origin at;
};

class Fields final {
 public:
  // `path`: how problems call the map, e.g. "spec.rules[0]"; empty for the top. A node that is no
  // map is one problem; null is an empty map. `map`, `file` and `problems` must outlive this.
  Fields(const Yaml& map, const std::string& file, std::string path, Problems* problems);
  Fields(const Fields&) = delete;
  Fields& operator=(const Fields&) = delete;

  // The field's node; nullptr if absent or null. Any of these calls makes the name known.
  const Yaml* Find(std::string_view name);
  const Yaml* Require(std::string_view name);

  // Scalars. Absent: empty / nullopt. Wrong type: a problem, and the same.
  std::string Text(std::string_view name);
  std::string RequiredText(std::string_view name);
  std::optional<int64_t> Integer(std::string_view name, int64_t min, int64_t max);
  std::optional<bool> Boolean(std::string_view name);
  // The items of a list; empty if absent.
  std::vector<const Yaml*> List(std::string_view name);
  std::vector<LocatedText> Texts(std::string_view name);
  std::map<std::string, LocatedText> TextMap(std::string_view name);

  // Known, of no effect on the mesh.
  void Ignore(std::initializer_list<std::string_view> names);
  // Known to the API, not to Weft: a problem if present that says `why`.
  void Refuse(std::initializer_list<std::string_view> names, std::string_view why);
  // Call last: every field that was not asked for becomes a problem that names it.
  void Done();

  void AddProblem(const Yaml& at, std::string text);
  // A problem at the map itself: what is missing.
  void AddProblem(std::string text);
  // "spec.rules[0].name".
  std::string PathOf(std::string_view name) const;
  std::string PathOf(std::string_view name, size_t index) const;
  Origin OriginOf(const Yaml& node) const { return {file_, node.line, node.column}; }
  Origin origin() const { return OriginOf(map_); }
  const std::string& file() const { return file_; }
  Problems* problems() const { return problems_; }

 private:
  const Yaml& map_;
  const std::string& file_;
  const std::string path_;
  Problems* const problems_;
  std::vector<std::string> known_;
};

// "10s", "1m30s", "500ms" (Gateway API's durations); nullopt for anything else.
std::optional<int64_t> ParseDurationMs(std::string_view text);
// The whole text as a decimal number in [min, max].
std::optional<int64_t> ParseInteger(std::string_view text, int64_t min, int64_t max);

}  // namespace weft::plane
