// SPDX-License-Identifier: Apache-2.0
// `weft why`: what the kernel would answer to a connection, layer by layer, with the rule that
// decides, and which way it would go. By the kernel's own headers (bpf/policy.h over the kernel's
// maps, bpf/verdict.h over what was written). Pure but for the lookups it is given. Thread: the
// agent's.
#pragma once
#include <functional>
#include <string>

#include "control/agent/kernel_sync.h"
#include "proxy/base/status.h"

namespace weft::agent {

struct WhyRequest {
  std::string source, destination;  // "namespace/name" of a workload or service, or an address
  uint16_t port = 0;
  std::string protocol = "tcp";  // tcp, udp, sctp, icmp
};

struct WhySources {
  const model::Snapshot& snapshot;
  const KernelState& written;
  const KernelNumbers& numbers;
  std::function<bpf::PolicyAnswer(const bpf::PolicyQuestion&)> ask;
};

// One JSON object (docs/cli.md). InvalidArgument for a bad request; NotFound if nobody has that
// name, or if neither end is a workload of this node.
absl::StatusOr<std::string> Why(const WhyRequest& request, const WhySources& sources);

}  // namespace weft::agent
