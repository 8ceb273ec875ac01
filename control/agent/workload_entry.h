// SPDX-License-Identifier: Apache-2.0
// A workload outside Kubernetes, as written down by people (YAML; JSON is YAML), and the check that
// its network namespace is what it says. No thread of its own; InspectNetns uses a short-lived one,
// because setns() moves a whole thread.
#pragma once
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/base/address.h"
#include "proxy/base/status.h"

namespace weft::agent {

// Annotation weft.dev/splice: auto splices programs that were seen to be safe.
enum class SpliceMode : uint8_t { kOff, kOn, kAuto };
std::string_view SpliceModeName(SpliceMode mode);

struct WorkloadEntry {
  std::string name, namespace_name, service_account;
  std::string netns;  // path, e.g. /run/netns/client
  std::vector<IpAddress> addresses;
  // Those of its resolv.conf: DNS to port 53 of them is answered by the mesh or forwarded. Empty:
  // DNS is left alone.
  std::vector<IpAddress> resolvers;
  std::map<std::string, std::string> labels, annotations;
  // Annotation weft.dev/guard: cooperative (default on). Accepted where it cannot be guarded: it is
  // in the mesh as long as it wants to be.
  bool cooperative = false;
  SpliceMode splice = SpliceMode::kOff;

  std::string Key() const { return namespace_name + "/" + name; }
  std::string Identity(std::string_view trust_domain) const;
  bool operator==(const WorkloadEntry&) const = default;
};

// `source` starts the error ("/etc/weft/workloads/a.yaml:3: ..."). Unknown fields are errors.
absl::StatusOr<WorkloadEntry> ParseWorkloadEntry(const std::string& text,
                                                 const std::string& source);

// Opens the namespace. FailedPrecondition if its lo is down or it owns none of the addresses. The
// caller owns the descriptor.
absl::StatusOr<int> OpenNetns(const WorkloadEntry& entry);

}  // namespace weft::agent
