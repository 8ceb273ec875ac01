// SPDX-License-Identifier: Apache-2.0
// The upstreams as plain values for status and /clusters: what the snapshot has, with the counts of
// the node table. Any thread (it takes the table's row mutex for a moment per endpoint).
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "proxy/upstream/node_table.h"
#include "xds/model/snapshot.h"

namespace weft::upstream {

struct EndpointStatus {
  SocketAddress address;
  uint32_t weight = 1;
  uint32_t priority = 0;
  model::HealthStatus health = model::HealthStatus::kUnknown;
  uint64_t total = 0, success = 0, errors = 0, connect_failures = 0;
  uint32_t active = 0;
  uint32_t consecutive_5xx = 0;
  bool ejected = false;
  int64_t ejected_for_ms = 0;  // left, at `now`; may be below zero until the next sweep
  uint64_t ejections = 0;
};

struct ClusterStatus {
  std::string name;
  uint32_t max[kLimits] = {};  // limits, by upstream::Limit
  uint32_t in_use[kLimits] = {};
  uint64_t overflows[kLimits] = {};
  std::vector<EndpointStatus> endpoints;
};

// Sorted by name.
std::vector<ClusterStatus> Status(const NodeTable& table, const model::Snapshot& snapshot,
                                  TimePoint now);

}  // namespace weft::upstream
