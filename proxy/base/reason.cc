// SPDX-License-Identifier: Apache-2.0
#include "proxy/base/reason.h"

#include <array>

namespace weft {
namespace {

struct ReasonText {
  std::string_view name;
  std::string_view meaning;
};

constexpr std::array<ReasonText, WEFT_R_MAX> kTexts = {{
#define X(name, text, meaning) {text, meaning},
    WEFT_REASONS(X)
#undef X
}};

}  // namespace

std::string_view ReasonName(Reason reason) {
  return reason < WEFT_R_MAX ? kTexts[reason].name : "unknown";
}

std::string_view ReasonMeaning(Reason reason) {
  return reason < WEFT_R_MAX ? kTexts[reason].meaning : "a reason of a newer version";
}

std::optional<Reason> ReasonFromName(std::string_view name) {
  for (size_t i = 0; i < kTexts.size(); ++i) {
    if (kTexts[i].name == name) return static_cast<Reason>(i);
  }
  return std::nullopt;
}

}  // namespace weft
