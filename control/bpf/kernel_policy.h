// SPDX-License-Identifier: Apache-2.0
// Private to control/bpf: writes compiled policy so that no decision ever sees a half of it. A
// change of any size is written into the versions that are not in force, then takes effect by one
// store (the epoch), then a grace period passes, then what is no longer there is removed; only
// after it may memory of removed entries be used again. Thread: the agent's. Owns the mapping of
// the epoch and the program that writes versions.
#pragma once
#include <map>
#include <memory>

#include "control/bpf/kernel_maps.h"
#include "control/bpf/kernel_processes.h"
#include "control/bpf/policy_state.h"
#include "control/bpf/programs.h"

namespace weft::bpf {

class KernelPolicy final {
 public:
  // Reads what an earlier agent left: what is in force stays in force, what it had not finished is
  // void.
  static absl::StatusOr<std::unique_ptr<KernelPolicy>> Create(const PinPaths& paths,
                                                              const MapSizes& sizes);
  ~KernelPolicy();
  KernelPolicy(const KernelPolicy&) = delete;
  KernelPolicy& operator=(const KernelPolicy&) = delete;

  PolicyReport Apply(const PolicyState& want);
  // The workload has gone: whoever gets its id has no policy, so may do nothing, until the next
  // Apply.
  absl::Status ForgetSubject(uint32_t subject);
  PolicyAnswer Ask(const PolicyQuestion& question) const;
  uint32_t highest_class() const;
  uint64_t touched() const { return touched_; }
  KernelProcesses& processes() { return *processes_; }

  // In force. Grows with each change.
  uint64_t epoch() const;

 private:
  template <typename Value>
  struct Slot {
    Value value;
    int version = 0;  // the one in force
  };
  template <typename Key, typename Value>
  using Mirror = std::map<Key, Slot<Value>>;
  struct Batch;

  KernelPolicy() = default;
  absl::Status Open(const PinPaths& paths, const MapSizes& sizes);
  absl::Status LoadMirrors();
  template <typename Value>
  int VersionInForce(const UniqueFd& map, const void* key, Value* value, bool* unfinished) const;
  absl::Status Change(weft_change change);
  absl::Status Void(weft_change change, int version);

  void WriteBatch(const PolicyState& want, PolicyReport* report, bool* removed);
  void WriteEntries(const PolicyState& want, Batch& batch);
  void WriteClasses(const PolicyState& want, Batch& batch);
  void WriteBlocks(const PolicyState& want, Batch& batch);
  void WriteSubjects(const PolicyState& want, Batch& batch);
  void Commit(Batch& batch);
  void RemoveOld(Batch& batch);

  static absl::Status Grace();

  UniqueFd entries_fd_, subjects_fd_, classes_fd_, blocks_fd_, epoch_fd_;
  ObjectPtr object_;
  int program_fd_ = -1;
  uint64_t* epoch_page_ = nullptr;
  bool needs_grace_ = false;  // something was removed since the last one
  uint64_t touched_ = 0;
  Mirror<PolicyKey, PolicySays> entries_;
  Mirror<uint32_t, SubjectState> subjects_;
  Mirror<IpAddress, uint32_t> classes_;
  Mirror<PolicyBlock, uint32_t> blocks_;
  std::unique_ptr<KernelProcesses> processes_;
};

}  // namespace weft::bpf
