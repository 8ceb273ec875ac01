// SPDX-License-Identifier: Apache-2.0
#include "proxy/upstream/outlier.h"

#include <algorithm>

namespace weft::upstream {
namespace {

// max_ejection_percent, but one may always go. Claims a place in `ejected` if it says yes.
bool ClaimEjection(ClusterRow& row, uint32_t max_percent, size_t hosts) {
  uint32_t ejected = row.ejected.load(std::memory_order_relaxed);
  do {
    const uint64_t percent = 100 * (uint64_t{ejected} + 1);
    if (ejected > 0 && percent > uint64_t{std::min(max_percent, 100u)} * hosts) return false;
  } while (!row.ejected.compare_exchange_weak(ejected, ejected + 1, std::memory_order_relaxed));
  return true;
}

int64_t EjectionMs(const model::OutlierDetection& config, uint32_t times) {
  const int64_t base = config.base_ejection_time.count();
  const int64_t longest =
      std::max(config.max_ejection_time.count(), config.base_ejection_time.count());
  if (base == 0 || times > longest / base) return longest;
  return base * times;
}

}  // namespace

bool ReportFailure(NodeTable& table, uint32_t cluster, uint32_t endpoint,
                   const model::OutlierDetection& config, size_t hosts, TimePoint now,
                   Random& random) {
  EndpointRow& row = table.endpoint(endpoint);
  const uint32_t failures = row.consecutive_5xx.fetch_add(1, std::memory_order_relaxed) + 1;
  if (config.consecutive_5xx == 0 || failures < config.consecutive_5xx || endpoint == 0)
    return false;
  row.consecutive_5xx.store(0, std::memory_order_relaxed);
  if (row.ejected_until_ns.load(std::memory_order_relaxed) != 0) return false;
  if (random.Below(100) >= config.enforcing_consecutive_5xx_percent) return false;
  ClusterRow& cluster_row = table.cluster(cluster);
  if (!ClaimEjection(cluster_row, config.max_ejection_percent, hosts)) return false;
  const uint32_t times = row.backoff.load(std::memory_order_relaxed) + 1;
  const int64_t duration_ms = EjectionMs(config, times);
  int64_t not_ejected = 0;
  if (!row.ejected_until_ns.compare_exchange_strong(
          not_ejected, ToNanoseconds(now) + duration_ms * 1'000'000, std::memory_order_relaxed)) {
    cluster_row.ejected.fetch_sub(1, std::memory_order_relaxed);  // another worker was first
    return false;
  }
  row.backoff.store(times, std::memory_order_relaxed);
  const uint64_t ejections = row.ejections.fetch_add(1, std::memory_order_relaxed) + 1;
  cluster_row.epoch.fetch_add(1, std::memory_order_release);
  table.AddEvent({.time_ns = ToNanoseconds(now),
                  .cluster = cluster_row.name,
                  .address = row.address,
                  .ejected = true,
                  .duration_ms = duration_ms,
                  .ejections = ejections});
  return true;
}

bool ClaimSweep(ClusterRow& row, const model::OutlierDetection& config, TimePoint now) {
  const int64_t now_ns = ToNanoseconds(now);
  const int64_t interval_ns = config.interval.count() * 1'000'000;
  int64_t last = row.last_sweep_ns.load(std::memory_order_relaxed);
  if (last != 0 && now_ns - last < interval_ns) return false;
  // The first call only starts the clock, or the first sweep would come before an interval has
  // passed.
  const bool claimed =
      row.last_sweep_ns.compare_exchange_strong(last, now_ns, std::memory_order_relaxed);
  return claimed && last != 0;
}

bool SweepEndpoint(NodeTable& table, uint32_t cluster, uint32_t endpoint, TimePoint now) {
  EndpointRow& row = table.endpoint(endpoint);
  int64_t until = row.ejected_until_ns.load(std::memory_order_relaxed);
  if (until == 0) {
    // It behaved for an interval: the next ejection is shorter again.
    const uint32_t times = row.backoff.load(std::memory_order_relaxed);
    if (times > 0) row.backoff.store(times - 1, std::memory_order_relaxed);
    return false;
  }
  if (until > ToNanoseconds(now)) return false;
  row.consecutive_5xx.store(0, std::memory_order_relaxed);
  if (!row.ejected_until_ns.compare_exchange_strong(until, 0, std::memory_order_relaxed))
    return false;
  ClusterRow& cluster_row = table.cluster(cluster);
  cluster_row.ejected.fetch_sub(1, std::memory_order_relaxed);
  cluster_row.epoch.fetch_add(1, std::memory_order_release);
  table.AddEvent({.time_ns = ToNanoseconds(now),
                  .cluster = cluster_row.name,
                  .address = row.address,
                  .ejected = false,
                  .ejections = row.ejections.load(std::memory_order_relaxed)});
  return true;
}

}  // namespace weft::upstream
