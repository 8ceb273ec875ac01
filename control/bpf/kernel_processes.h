// SPDX-License-Identifier: Apache-2.0
// Private to control/bpf: the kernel's maps of processes. Compiled process policy is written as a
// whole under a new generation, which comes into force with an epoch of policy (kernel_policy.h),
// so that a destination's class and the rules about it never disagree; the generation of before is
// removed after a grace period. Thread: the agent's.
#pragma once
#include <memory>
#include <optional>
#include <unordered_map>

#include "control/bpf/kernel_maps.h"
#include "control/bpf/policy_state.h"
#include "control/bpf/process_state.h"
#include "control/bpf/programs.h"

namespace weft::bpf {

class KernelProcesses final {
 public:
  // Removes what an earlier agent left unfinished.
  static absl::StatusOr<std::unique_ptr<KernelProcesses>> Create(const PinPaths& paths,
                                                                 uint64_t epoch);

  // Writes a generation that counts from `epoch` on, if `want` is not what is in force. What has no
  // room closes its workload; if there is none to say even that, all rules stay as they are.
  void Write(const ProcessState& want, uint64_t epoch, PolicyReport* report);
  // The epoch has come, and nobody reads what was before.
  absl::Status RemoveOld();
  bool has_old() const { return old_ != 0; }

  // Events of one workload per second on average, and at once. 0: no limit.
  absl::Status SetRate(uint32_t per_second, uint32_t at_once);
  // Arguments that an earlier agent's bits mean.
  std::vector<std::string> Arguments() const;

  absl::Status StartCounting(uint32_t workload);
  // And forgets its programs.
  absl::Status StopCounting(uint32_t workload);
  std::vector<Activity> Activities() const;
  std::optional<Binary> BinaryOf(uint32_t number);
  // A process of that pid runs that program.
  bool KnowsPid(uint32_t pid, uint32_t binary) const;

 private:
  KernelProcesses() = default;
  absl::Status WriteArguments(const std::vector<std::string>& arguments);
  absl::Status RemoveGeneration(const std::function<bool(uint32_t)>& unwanted);
  // Not `all_watched`: a workload with rules would be without; the generation must not be named.
  absl::Status WriteGeneration(const ProcessState& want, uint32_t generation, PolicyReport* report,
                               bool* all_watched);

  UniqueFd rules_, watches_, programs_, arguments_, generation_, config_, activity_, binaries_,
      processes_;
  uint32_t in_force_ = 0, old_ = 0;
  int version_ = 0;                   // of weft_proc_gen, in force
  std::optional<ProcessState> have_;  // nothing: an earlier agent's
  bool failed_ = false;               // something had no room: try again with the next change
  std::unordered_map<uint32_t, Binary> numbered_;  // also what is gone from the map
};

}  // namespace weft::bpf
