// SPDX-License-Identifier: Apache-2.0
// Turns finished requests into metrics and flow records. Thread: the worker's.
#pragma once
#include "proxy/worker/http_services.h"
#include "proxy/worker/worker_state.h"

namespace weft::worker {

class RequestLog final {
 public:
  explicit RequestLog(WorkerState& state) : state_(state) {}
  // No allocation once the strings have grown.
  void Add(const RequestRecord& request);

 private:
  WorkerState& state_;
  telemetry::FlowRecord record_;
};

}  // namespace weft::worker
