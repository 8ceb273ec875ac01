// SPDX-License-Identifier: Apache-2.0
// How many retries a cluster may have in flight: max_retries, or with a budget a share of the
// requests active and pending, but never fewer than min_concurrency. Pure.
#pragma once
#include <algorithm>
#include <cstdint>

#include "xds/model/cluster.h"

namespace weft::upstream {

inline uint32_t RetryLimit(const model::CircuitBreaker& breaker, uint32_t active,
                           uint32_t pending) {
  if (!breaker.budget) return breaker.max_retries;
  const double share = (static_cast<double>(active) + pending) * breaker.budget->percent / 100.0;
  return std::max(static_cast<uint32_t>(share), breaker.budget->min_concurrency);
}

}  // namespace weft::upstream
