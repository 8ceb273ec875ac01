// SPDX-License-Identifier: Apache-2.0
// Private to control/policy: ranges of ports, each allowed by a rule.
#pragma once
#include "control/policy/compile.h"

namespace weft::rules {

struct NamedRange {
  uint16_t first = 0, last = 0;  // inclusive
  uint32_t rule = 0;
};
// Disjoint ranges, ascending; where several cover a port, the first of them names it.
std::vector<NamedRange> Partition(const std::vector<NamedRange>& ranges);

}  // namespace weft::rules
