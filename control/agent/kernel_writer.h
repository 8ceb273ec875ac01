// SPDX-License-Identifier: Apache-2.0
// Brings the kernel's maps to a desired state with as few updates as possible, in an order that
// never opens a gap: policy, then workloads, then peers, then services; removals last,
// then services for which there was no room before. Remembers
// what it wrote. Thread: the agent's.
#pragma once
#include <set>
#include <string>

#include "control/agent/kernel_sync.h"
#include "control/bpf/loader.h"
#include "proxy/base/status.h"

namespace weft::agent {

class KernelWriter final {
 public:
  explicit KernelWriter(bpf::Kernel& kernel) : kernel_(kernel) {}

  // The first call also removes what an earlier agent left in adopted maps. What failed is tried
  // again by the next call; the error names the first failure.
  absl::Status Apply(const KernelState& want);
  // The workload was attached with these values by somebody else (enrolment), or detached.
  void NoteWorkload(uint64_t netns_cookie, const KernelWorkload& workload);
  void ForgetWorkload(uint64_t netns_cookie);
  const KernelState& written() const { return have_; }
  uint64_t updates() const { return updates_; }
  // Workloads whose policy changed since the last call: their connections must be asked again.
  std::set<uint32_t> TakeChanged();
  // Workloads that deny everything because a map of policy is full.
  const std::set<uint32_t>& closed() const { return closed_; }
  // Services that keep their endpoints of before because a kernel map is full.
  const std::set<uint32_t>& kept() const { return kept_; }
  size_t written_policy_entries() const { return policy_entries_; }

 private:
  void RemoveStrangers(const KernelState& want, absl::Status* first);
  void WritePolicy(const KernelState& want, absl::Status* first);
  void WritePeers(const KernelState& want, const KernelChanges& changes, absl::Status* first);
  void WriteServices(const KernelState& want, const KernelChanges& changes, absl::Status* first);
  absl::Status WriteService(uint32_t id, const KernelService& service);
  bool Note(const absl::Status& status, absl::Status* first);

  bpf::Kernel& kernel_;
  KernelState have_;
  std::set<uint32_t> changed_, closed_, kept_;
  size_t policy_entries_ = 0;
  bool started_ = false;
  uint64_t updates_ = 0;
};

bpf::WorkloadConfig ToConfig(const KernelWorkload& workload);

}  // namespace weft::agent
