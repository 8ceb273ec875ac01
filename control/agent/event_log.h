// SPDX-License-Identifier: Apache-2.0
// Flow events of the kernel, given names and kept as JSON lines: the last kMaxKept of them, and
// whoever follows. Thread: the agent's.
#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "bpf/abi.h"
#include "control/agent/kernel_sync.h"
#include "control/bpf/process_state.h"
#include "proxy/ipc/local_http.h"
#include "xds/model/snapshot.h"

namespace weft::agent {

// Where names come from. The pointers may be null: numbers and addresses are shown then.
struct EventNames {
  const KernelNumbers* numbers = nullptr;
  const model::Snapshot* snapshot = nullptr;
  std::function<std::string(uint32_t workload_id)> local_workload;  // "namespace/name"
  std::function<std::optional<bpf::Binary>(uint32_t number)> binary;
};

// One JSON object without a newline: time, kind, reason, meaning, refused, verdict, source,
// destination, and where known picked, rule, process, pid, binary, maker, sent_bytes,
// received_bytes. `wall_minus_monotonic_ns` turns the event's clock into a date.
std::string FormatEvent(const weft_event& event, const EventNames& names,
                        int64_t wall_minus_monotonic_ns);
// The same of exec() and the end of a process: kind, pod, pid, uid, binary, arguments, parents, ...
std::string FormatProcessEvent(const weft_process_event& event, const EventNames& names,
                               int64_t wall_minus_monotonic_ns);
int64_t WallMinusMonotonicNs();

class EventLog final {
 public:
  static constexpr size_t kMaxKept = 4096;  // about 2 MiB of text

  void Add(std::string line);
  // Sends what is kept and, if `follow`, goes on until the reader leaves.
  void Serve(ipc::Responder responder, bool follow);
  uint64_t total() const { return total_; }

 private:
  std::deque<std::string> lines_;
  std::vector<ipc::Responder> followers_;
  uint64_t total_ = 0;
};

}  // namespace weft::agent
