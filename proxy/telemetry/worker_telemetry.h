// SPDX-License-Identifier: Apache-2.0
// All a worker reports, in one place. Thread: see the parts.
#pragma once
#include "proxy/telemetry/counters.h"
#include "proxy/telemetry/flow_log.h"
#include "proxy/telemetry/traffic.h"

namespace weft::telemetry {

struct WorkerTelemetry {
  Counters counters;
  Traffic traffic;
  FlowLog flows;
};

}  // namespace weft::telemetry
