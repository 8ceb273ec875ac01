// SPDX-License-Identifier: Apache-2.0
#include "control/plane/selectors.h"

#include <algorithm>

#include "control/plane/objects/parse.h"

namespace weft::plane {
namespace {

constexpr size_t kMaxLabelBytes = 63;  // of a key's name and of a value

bool IsAlphanumeric(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

// Letters, digits, '-', '_' and '.', the first and the last a letter or digit.
bool IsLabelWord(std::string_view word) {
  if (word.empty() || word.size() > kMaxLabelBytes) return false;
  if (!IsAlphanumeric(word.front()) || !IsAlphanumeric(word.back())) return false;
  return std::all_of(word.begin(), word.end(),
                     [](char c) { return IsAlphanumeric(c) || c == '-' || c == '_' || c == '.'; });
}

bool MatchesOne(const LabelSelector::Expression& expression, const Labels& of) {
  const auto found = of.find(expression.key);
  const bool exists = found != of.end();
  const auto is_listed = [&] {
    return std::find(expression.values.begin(), expression.values.end(), found->second) !=
           expression.values.end();
  };
  switch (expression.op) {
    case LabelSelector::Operator::kIn:
      return exists && is_listed();
    case LabelSelector::Operator::kNotIn:  // also what has no such label (Kubernetes)
      return !exists || !is_listed();
    case LabelSelector::Operator::kExists:
      return exists;
    case LabelSelector::Operator::kDoesNotExist:
      return !exists;
  }
  return false;
}

}  // namespace

bool LabelSelector::Matches(const Labels& of) const {
  for (const auto& [name, value] : labels) {
    const auto found = of.find(name);
    if (found == of.end() || found->second != value) return false;
  }
  return std::all_of(expressions.begin(), expressions.end(),
                     [&](const Expression& each) { return MatchesOne(each, of); });
}

bool IsLabelKey(std::string_view key) {
  const size_t slash = key.find('/');
  if (slash == std::string_view::npos) return IsLabelWord(key);
  return IsObjectName(key.substr(0, slash)) && IsLabelWord(key.substr(slash + 1));
}

bool IsLabelValue(std::string_view value) { return value.empty() || IsLabelWord(value); }

}  // namespace weft::plane
