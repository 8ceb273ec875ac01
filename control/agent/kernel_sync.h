// SPDX-License-Identifier: Apache-2.0
// What the kernel's maps should hold, computed from the configuration and the enrolled workloads.
// Pure: no kernel, no clock. The agent applies the difference to what it applied before, so a small
// change is a few map updates. Thread: the agent's.
#pragma once
#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "bpf/abi.h"
#include "control/agent/kernel_services.h"
#include "control/agent/workload_entry.h"
#include "control/policy/compile.h"
#include "control/policy/numbers.h"
#include "proxy/base/address.h"
#include "xds/model/snapshot.h"

namespace weft::agent {

using rules::Numbers;

struct KernelNumbers {
  KernelNumbers() = default;
  KernelNumbers(const KernelNumbers&) = delete;
  KernelNumbers& operator=(const KernelNumbers&) = delete;

  Numbers identities;  // SPIFFE ids
  Numbers services;    // "namespace/hostname:port"
  Numbers rules;       // policies and their rules, as events and `weft why` print them
  rules::CompilerNumbers compiler{.rules = rules};
};

// An enrolled workload as the kernel needs it.
struct LocalPod {
  std::string uid;  // in the workload API; empty: not known there yet
  uint32_t id = 0;
  uint32_t generation = 0;
  uint64_t netns_cookie = 0;
  std::string identity;
  std::vector<IpAddress> addresses;
  SpliceMode splice = SpliceMode::kOff;
  bool proxy_ready = false;
  std::vector<IpAddress> resolvers;
  bool operator==(const LocalPod&) const = default;
};

struct KernelWorkload {
  uint32_t id = 0, generation = 0, identity = 0, flags = 0;
  std::vector<IpAddress> addresses, resolvers;
  bool operator==(const KernelWorkload&) const = default;
};
struct KernelPeer {
  uint64_t netns_cookie = 0;
  uint32_t workload = 0, identity = 0, flags = 0, workload_flags = 0;
  bool operator==(const KernelPeer&) const = default;
};
struct KernelState {
  std::map<uint64_t, KernelWorkload> workloads;  // by netns cookie
  std::map<IpAddress, KernelPeer> peers;
  std::map<uint32_t, KernelService> services;  // by number
  bpf::PolicyState policy;
  std::vector<std::string> problems;  // rules::Compiled::problems
};

// A service port is L7 exactly if its listener has an HTTP chain. Policy is control/policy's; a
// workload whose authorization it leaves to the proxy is never direct.
KernelState CompileKernelState(const model::Snapshot& snapshot, const std::vector<LocalPod>& pods,
                               const NodePlace& place, KernelNumbers& numbers);

// What has to be written and removed to get from `have` to `want`; policy is Kernel::ApplyPolicy's.
struct KernelChanges {
  std::vector<uint64_t> workloads;  // to set (new ones are attached by the enrolment)
  std::vector<IpAddress> set_peers, remove_peers;
  std::vector<uint32_t> set_services, remove_services;
  size_t count() const;
};
KernelChanges DiffKernelState(const KernelState& have, const KernelState& want);

}  // namespace weft::agent
