// SPDX-License-Identifier: Apache-2.0
#include "proxy/upstream/status.h"

#include <algorithm>

#include "proxy/upstream/retry_budget.h"

namespace weft::upstream {
namespace {

EndpointStatus StatusOf(NodeTable& table, std::optional<uint32_t> cluster,
                        const model::Endpoint& endpoint, TimePoint now) {
  EndpointStatus out;
  out.address = endpoint.address;
  out.weight = endpoint.weight;
  out.priority = endpoint.priority;
  out.health = endpoint.health;
  if (!cluster) return out;
  const std::optional<uint32_t> row = table.FindEndpoint(*cluster, endpoint.address);
  if (!row) return out;
  for (const WorkerCell& cell : table.cells(*row)) {
    out.total += cell.total.load(std::memory_order_relaxed);
    out.success += cell.success.load(std::memory_order_relaxed);
    out.errors += cell.errors.load(std::memory_order_relaxed);
    out.connect_failures += cell.connect_failures.load(std::memory_order_relaxed);
    out.active += cell.active.load(std::memory_order_relaxed);
  }
  const EndpointRow& r = table.endpoint(*row);
  out.consecutive_5xx = r.consecutive_5xx.load(std::memory_order_relaxed);
  out.ejections = r.ejections.load(std::memory_order_relaxed);
  const int64_t until = r.ejected_until_ns.load(std::memory_order_relaxed);
  out.ejected = until != 0;
  if (out.ejected) out.ejected_for_ms = (until - ToNanoseconds(now)) / 1'000'000;
  return out;
}

}  // namespace

std::vector<ClusterStatus> Status(const NodeTable& const_table, const model::Snapshot& snapshot,
                                  TimePoint now) {
  auto& table =
      const_cast<NodeTable&>(const_table);  // rows are atomics: reading them changes nothing
  std::vector<ClusterStatus> all;
  all.reserve(snapshot.clusters.size());
  for (const auto& [name, cluster] : snapshot.clusters) {
    ClusterStatus& out = all.emplace_back();
    out.name = name;
    const std::optional<uint32_t> row = table.FindCluster(name);
    if (row) {
      for (size_t i = 0; i < kLimits; ++i) {
        out.in_use[i] = table.cluster(*row).in_use[i].load(std::memory_order_relaxed);
        out.overflows[i] = table.cluster(*row).overflows[i].load(std::memory_order_relaxed);
      }
    }
    const model::CircuitBreaker& breaker = cluster->breaker;
    out.max[static_cast<size_t>(Limit::kConnections)] = breaker.max_connections;
    out.max[static_cast<size_t>(Limit::kPending)] = breaker.max_pending_requests;
    out.max[static_cast<size_t>(Limit::kRequests)] = breaker.max_requests;
    out.max[static_cast<size_t>(Limit::kRetries)] =
        RetryLimit(breaker, out.in_use[static_cast<size_t>(Limit::kRequests)],
                   out.in_use[static_cast<size_t>(Limit::kPending)]);
    const std::vector<model::Endpoint>* endpoints = &cluster->endpoints;
    if (cluster->type == model::DiscoveryType::kEds) {
      auto it = snapshot.endpoints.find(cluster->eds_name.empty() ? name : cluster->eds_name);
      if (it == snapshot.endpoints.end()) continue;
      endpoints = &it->second->endpoints;
    }
    for (const model::Endpoint& endpoint : *endpoints) {
      out.endpoints.push_back(StatusOf(table, row, endpoint, now));
    }
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return all;
}

}  // namespace weft::upstream
