// SPDX-License-Identifier: Apache-2.0
// The Prometheus text format of what the workers counted. Any thread: reads only what may be read
// from any thread.
#pragma once
#include <span>
#include <string>

#include "proxy/telemetry/worker_telemetry.h"

namespace weft::telemetry {

// Sums over the workers. weft_* by name and by reason, then Istio's istio_*.
std::string PrometheusText(std::span<const WorkerTelemetry* const> workers);
// Appends one gauge or counter with its HELP and TYPE lines, for figures that are not a worker's.
void AppendMetric(std::string& out, const char* name, const char* type, const char* help,
                  uint64_t value);

}  // namespace weft::telemetry
