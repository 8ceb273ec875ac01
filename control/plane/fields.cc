// SPDX-License-Identifier: Apache-2.0
#include "control/plane/fields.h"

#include <algorithm>
#include <charconv>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proxy/base/status.h"

namespace weft::plane {
namespace {

const char* KindName(Yaml::Kind kind) {
  switch (kind) {
    case Yaml::Kind::kNull:
      return "nothing";
    case Yaml::Kind::kScalar:
      return "a single value";
    case Yaml::Kind::kList:
      return "a list";
    case Yaml::Kind::kMap:
      return "a map";
  }
  return "";
}

}  // namespace

Fields::Fields(const Yaml& map, const std::string& file, std::string path, Problems* problems)
    : map_(map), file_(file), path_(std::move(path)), problems_(problems) {
  if (map.kind != Yaml::Kind::kMap && map.kind != Yaml::Kind::kNull) {
    AddProblem(map, absl::StrCat(path_.empty() ? "the document" : path_, ": expected a map, found ",
                                 KindName(map.kind)));
  }
}

void Fields::AddProblem(const Yaml& at, std::string text) {
  problems_->push_back({OriginOf(at), std::move(text), ""});
}

void Fields::AddProblem(std::string text) { AddProblem(map_, std::move(text)); }

std::string Fields::PathOf(std::string_view name) const {
  return path_.empty() ? std::string(name) : path_ + "." + std::string(name);
}

std::string Fields::PathOf(std::string_view name, size_t index) const {
  return PathOf(name) + "[" + std::to_string(index) + "]";
}

const Yaml* Fields::Find(std::string_view name) {
  known_.emplace_back(name);
  const Yaml* node = map_.Find(name);
  return node == nullptr || node->kind == Yaml::Kind::kNull ? nullptr : node;
}

const Yaml* Fields::Require(std::string_view name) {
  const Yaml* node = Find(name);
  if (node == nullptr) AddProblem(absl::StrCat(PathOf(name), ": missing"));
  return node;
}

std::string Fields::Text(std::string_view name) {
  const Yaml* node = Find(name);
  if (node == nullptr) return "";
  if (node->kind != Yaml::Kind::kScalar) {
    AddProblem(*node, absl::StrCat(PathOf(name), ": expected text, found ", KindName(node->kind)));
    return "";
  }
  return node->scalar;
}

std::string Fields::RequiredText(std::string_view name) {
  const Yaml* node = Find(name);
  if (node == nullptr || (node->kind == Yaml::Kind::kScalar && node->scalar.empty())) {
    AddProblem(absl::StrCat(PathOf(name), ": missing"));
    return "";
  }
  return Text(name);
}

std::optional<int64_t> Fields::Integer(std::string_view name, int64_t min, int64_t max) {
  const Yaml* node = Find(name);
  if (node == nullptr) return std::nullopt;
  if (node->kind == Yaml::Kind::kScalar && !node->quoted) {
    if (const auto value = ParseInteger(node->scalar, min, max); value.has_value()) return value;
  }
  const std::string found = node->kind == Yaml::Kind::kScalar
                                ? absl::StrCat("\"", node->scalar, "\"")
                                : KindName(node->kind);
  AddProblem(*node, absl::StrCat(PathOf(name), ": expected a number from ", min, " to ", max,
                                 ", found ", found));
  return std::nullopt;
}

std::optional<bool> Fields::Boolean(std::string_view name) {
  const Yaml* node = Find(name);
  if (node == nullptr) return std::nullopt;
  if (node->kind == Yaml::Kind::kScalar && !node->quoted) {
    if (node->scalar == "true") return true;
    if (node->scalar == "false") return false;
  }
  AddProblem(*node, absl::StrCat(PathOf(name), ": expected true or false"));
  return std::nullopt;
}

std::vector<const Yaml*> Fields::List(std::string_view name) {
  std::vector<const Yaml*> items;
  const Yaml* node = Find(name);
  if (node == nullptr) return items;
  if (node->kind != Yaml::Kind::kList) {
    AddProblem(*node,
               absl::StrCat(PathOf(name), ": expected a list, found ", KindName(node->kind)));
    return items;
  }
  for (const Yaml& item : node->items) items.push_back(&item);
  return items;
}

std::vector<LocatedText> Fields::Texts(std::string_view name) {
  std::vector<LocatedText> texts;
  const std::vector<const Yaml*> items = List(name);
  for (size_t i = 0; i < items.size(); ++i) {
    if (items[i]->kind != Yaml::Kind::kScalar) {
      AddProblem(*items[i], absl::StrCat(PathOf(name, i), ": expected text, found ",
                                         KindName(items[i]->kind)));
      continue;
    }
    texts.push_back({items[i]->scalar, OriginOf(*items[i])});
  }
  return texts;
}

std::map<std::string, LocatedText> Fields::TextMap(std::string_view name) {
  std::map<std::string, LocatedText> texts;
  const Yaml* node = Find(name);
  if (node == nullptr) return texts;
  if (node->kind != Yaml::Kind::kMap) {
    AddProblem(*node, absl::StrCat(PathOf(name), ": expected a map, found ", KindName(node->kind)));
    return texts;
  }
  for (const YamlEntry& entry : node->entries) {
    if (entry.value.kind != Yaml::Kind::kScalar) {
      AddProblem(entry.value, absl::StrCat(PathOf(name), ".", entry.key, ": expected text, found ",
                                           KindName(entry.value.kind)));
      continue;
    }
    texts[entry.key] = {entry.value.scalar, {file_, entry.line, entry.column}};
  }
  return texts;
}

void Fields::Ignore(std::initializer_list<std::string_view> names) {
  known_.insert(known_.end(), names.begin(), names.end());
}

void Fields::Refuse(std::initializer_list<std::string_view> names, std::string_view why) {
  for (const std::string_view name : names) {
    for (const YamlEntry& entry : map_.entries) {
      if (entry.key != name) continue;
      problems_->push_back(
          {{file_, entry.line, entry.column}, absl::StrCat(PathOf(name), ": ", AbslView(why)), ""});
    }
    known_.emplace_back(name);
  }
}

void Fields::Done() {
  for (const YamlEntry& entry : map_.entries) {
    if (std::find(known_.begin(), known_.end(), entry.key) != known_.end()) continue;
    std::vector<std::string> names = known_;
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    constexpr size_t kMaxNamesShown = 16;
    const bool all = names.size() <= kMaxNamesShown;
    if (!all) names.resize(kMaxNamesShown);
    problems_->push_back({{file_, entry.line, entry.column},
                          absl::StrCat(PathOf(entry.key), ": unknown field; known here: ",
                                       absl::StrJoin(names, ", "), all ? "" : ", ..."),
                          ""});
  }
}

std::optional<int64_t> ParseInteger(std::string_view text, int64_t min, int64_t max) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  if (value < min || value > max) return std::nullopt;
  return value;
}

std::optional<int64_t> ParseDurationMs(std::string_view text) {
  // Gateway API (GEP-2257): up to four parts of at most five digits and a unit.
  constexpr int kMaxParts = 4;
  int64_t total = 0;
  int parts = 0;
  while (!text.empty()) {
    const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
    if (digits == 0 || digits > 5 || ++parts > kMaxParts) return std::nullopt;
    const auto value = ParseInteger(text.substr(0, digits), 0, 99999);
    text.remove_prefix(digits);
    int64_t unit = 0;
    if (text.starts_with("ms")) {
      unit = 1;
      text.remove_prefix(2);
    } else if (!text.empty()) {
      unit = text[0] == 's' ? 1000 : text[0] == 'm' ? 60'000 : text[0] == 'h' ? 3'600'000 : 0;
      text.remove_prefix(1);
    }
    if (unit == 0 || !value.has_value()) return std::nullopt;
    total += *value * unit;
  }
  return parts == 0 ? std::nullopt : std::optional(total);
}

}  // namespace weft::plane
