// SPDX-License-Identifier: Apache-2.0
// Which authorization policies apply to a workload, and what they say about one connection. Fails
// closed: a workload that is not known, or that names a policy that is not known, lets nobody in.
// Thread: the worker's. Built once per snapshot; owns a reference to it, so everything it points to
// stays valid.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "proxy/base/reason.h"
#include "xds/model/snapshot.h"

namespace weft::policy {

struct Connection {
  std::string_view source_identity;  // verified SPIFFE id; empty: plaintext
  std::optional<IpAddress> source_ip;
  SocketAddress destination;
};

struct Decision {
  Reason reason = WEFT_R_NONE;  // NONE: allowed; POLICY_DENIED or POLICY_DEFAULT_DENIED: refused
  std::string policy;  // "namespace/name" of the policy that decided; empty if it was a default
  bool allowed() const { return reason == WEFT_R_NONE; }
};

class PolicyIndex final {
 public:
  explicit PolicyIndex(std::shared_ptr<const model::Snapshot> snapshot);

  // May `connection` reach the workload that has its destination address? Policies: those of the
  // root namespace, those of the workload's namespace, and the selector-based ones that the
  // workload API lists for it.
  Decision Decide(const Connection& connection) const;

 private:
  using Policies = std::vector<const model::Authorization*>;

  std::shared_ptr<const model::Snapshot> snapshot_;
  Policies global_;
  std::unordered_map<std::string_view, Policies> by_namespace_;  // keys point into the snapshot
};

}  // namespace weft::policy
