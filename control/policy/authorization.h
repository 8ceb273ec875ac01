// SPDX-License-Identifier: Apache-2.0
// Private to control/policy: the authorization layer of one workload, for the classes of this
// node's workloads (only they connect directly; others are judged by the proxy, which has their
// proven identity).
#pragma once
#include "control/policy/classes.h"

namespace weft::rules {

template <typename Visit>
void ForEachMatch(const Applicable& applicable, Visit visit) {
  for (const model::Authorization* policy : applicable.policies) {
    for (const auto& group : policy->groups) {
      for (const auto& rule : group) {
        for (const model::Authorization::Match& match : rule) visit(match);
      }
    }
  }
}

bool LooksAtDestinations(const Applicable& applicable);

// Adds its entries.
bpf::LayerState CompileAuthorization(const Subject& subject, const Applicable& applicable,
                                     const std::vector<Class>& classes, Numbers& rules,
                                     bpf::PolicyState* out);

}  // namespace weft::rules
