// SPDX-License-Identifier: Apache-2.0
// Kubernetes' label selectors, as policies use them. Plain values; no thread.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace weft::plane {

using Labels = std::map<std::string, std::string>;

// All of its parts must match; one without parts matches everything.
struct LabelSelector {
  enum class Operator : uint8_t { kIn, kNotIn, kExists, kDoesNotExist };
  struct Expression {
    std::string key;
    Operator op = Operator::kIn;
    std::vector<std::string> values;  // kIn and kNotIn: at least one; else none
    bool operator==(const Expression&) const = default;
  };
  Labels labels;
  std::vector<Expression> expressions;

  bool Matches(const Labels& of) const;
  bool operator==(const LabelSelector&) const = default;
};

// What the API server accepts as a label's key ("app.kubernetes.io/name") and value.
bool IsLabelKey(std::string_view key);
bool IsLabelValue(std::string_view value);

}  // namespace weft::plane
