// SPDX-License-Identifier: Apache-2.0
// The L4 authorization decision (semantics: Istio's, facts/mesh.md 4.4), pure. The proxy asks it
// for each tunnel stream and plaintext connection; the agent asks it for every (workload, identity,
// port) it compiles into the kernel's verdict map.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "xds/model/workload.h"

namespace weft::model {

struct L4Request {
  std::string_view source_identity;  // verified SPIFFE id; empty: plaintext, unknown
  std::optional<IpAddress> source_ip;
  SocketAddress destination;
};

struct L4Decision {
  bool allowed = true;
  bool by_default = true;  // no policy matched
  std::string policy;      // "namespace/name" of the one that decided; empty by default
};

// `policies`: those that apply to the destination workload (global, its namespace's, and the
// selector-based ones it names). `unknown_reference`: the workload names a policy that is not
// known: denied, whatever the others say (policy is that name). Any matching DENY denies; else with
// no ALLOW policy it is allowed; else a matching ALLOW is needed. dry_run policies do not count.
L4Decision Evaluate(const std::vector<const Authorization*>& policies,
                    std::string_view unknown_reference, const L4Request& request);
// True if `policies` contain an ALLOW policy that counts.
bool HasAllow(const std::vector<const Authorization*>& policies);

// SPIFFE id of the form spiffe://TD/ns/NS/sa/SA taken apart; nullopt if it has another form.
struct IdentityParts {
  std::string_view trust_domain, namespace_name, service_account;
};
std::optional<IdentityParts> ParseIdentity(std::string_view spiffe_id);

}  // namespace weft::model
