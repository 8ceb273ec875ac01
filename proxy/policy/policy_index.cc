// SPDX-License-Identifier: Apache-2.0
#include "proxy/policy/policy_index.h"

#include <utility>

namespace weft::policy {

PolicyIndex::PolicyIndex(std::shared_ptr<const model::Snapshot> snapshot)
    : snapshot_(std::move(snapshot)) {
  for (const auto& [key, policy] : snapshot_->authorizations) {
    switch (policy->scope) {
      case model::Authorization::Scope::kGlobal:
        global_.push_back(policy.get());
        break;
      case model::Authorization::Scope::kNamespace:
        by_namespace_[policy->namespace_name].push_back(policy.get());
        break;
      case model::Authorization::Scope::kWorkload:
        break;  // found by the names that the workload carries
    }
  }
}

Decision PolicyIndex::Decide(const Connection& connection) const {
  const model::Workload* workload = snapshot_->FindWorkload(connection.destination.ip);
  if (workload == nullptr) {
    return {.reason = WEFT_R_POLICY_DENIED, .policy = "unknown workload"};
  }
  Policies policies = global_;
  if (auto found = by_namespace_.find(workload->namespace_name); found != by_namespace_.end()) {
    policies.insert(policies.end(), found->second.begin(), found->second.end());
  }
  std::string_view unknown;
  for (const std::string& name : workload->authorization_policies) {
    auto found = snapshot_->authorizations.find(name);
    if (found == snapshot_->authorizations.end()) {
      unknown = name;
    } else {
      policies.push_back(found->second.get());
    }
  }
  model::L4Decision decision = model::Evaluate(policies, unknown,
                                               {.source_identity = connection.source_identity,
                                                .source_ip = connection.source_ip,
                                                .destination = connection.destination});
  if (decision.allowed) return {.policy = std::string(decision.policy)};
  return {.reason = decision.by_default ? WEFT_R_POLICY_DEFAULT_DENIED : WEFT_R_POLICY_DENIED,
          .policy = std::string(decision.policy)};
}

}  // namespace weft::policy
