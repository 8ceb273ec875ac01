// SPDX-License-Identifier: Apache-2.0
// Outlier detection as Envoy does it: so many 5xx in a row eject an endpoint for base time x number
// of ejections; a sweep lets it return. Works on the node table only, so a verdict of one worker
// holds for all at once. Any thread; the time is a parameter.
#pragma once
#include "proxy/upstream/node_table.h"
#include "proxy/upstream/random.h"
#include "xds/model/cluster.h"

namespace weft::upstream {

// A 5xx, a timeout, a reset or a failed connect. True if this one ejected the endpoint. `hosts`: of
// the cluster, for max_ejection_percent; at least one may always be ejected. `random` decides
// enforcing_consecutive_5xx_percent.
bool ReportFailure(NodeTable& table, uint32_t cluster, uint32_t endpoint,
                   const model::OutlierDetection& config, size_t hosts, TimePoint now,
                   Random& random);
// Anything else: the row of failures is broken.
inline void ReportSuccess(EndpointRow& row) {
  // Mostly zero already: do not dirty a line that all workers read.
  if (row.consecutive_5xx.load(std::memory_order_relaxed) != 0) {
    row.consecutive_5xx.store(0, std::memory_order_relaxed);
  }
}
// True if the caller is the one to sweep this cluster now: one worker per interval.
bool ClaimSweep(ClusterRow& row, const model::OutlierDetection& config, TimePoint now);
// For one endpoint, in a claimed sweep. True if it returned.
bool SweepEndpoint(NodeTable& table, uint32_t cluster, uint32_t endpoint, TimePoint now);

}  // namespace weft::upstream
