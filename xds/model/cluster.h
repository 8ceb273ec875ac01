// SPDX-License-Identifier: Apache-2.0
// Clusters and endpoints as the proxy uses them: validated by xds/decode, immutable afterwards.
// Names follow Envoy's v3 API, defaults too (facts: mesh.md 4.8). No thread: plain values shared by
// shared_ptr<const>.
#pragma once
#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "proxy/base/address.h"

namespace weft::model {

using Milliseconds = std::chrono::milliseconds;

enum class HealthStatus : uint8_t { kUnknown, kHealthy, kUnhealthy, kDraining, kDegraded };

struct Locality {
  std::string region, zone, sub_zone;
  auto operator<=>(const Locality&) const = default;
};

struct Endpoint {
  SocketAddress address;
  uint32_t weight = 1;
  HealthStatus health = HealthStatus::kUnknown;
  Locality locality;
  uint32_t priority = 0;
  std::string hostname;
  // A workload of the mesh: reached by a tunnel or not at all.
  bool in_mesh = false;
  bool operator==(const Endpoint&) const = default;
};

// EDS: ClusterLoadAssignment.
struct Endpoints {
  std::string cluster;  // the EDS service name
  std::vector<Endpoint> endpoints;
  bool operator==(const Endpoints&) const = default;
};

struct CircuitBreaker {  // of the default priority
  uint32_t max_connections = 1024;
  uint32_t max_pending_requests = 1024;
  uint32_t max_requests = 1024;
  uint32_t max_retries = 3;
  // Retry budget: if set, replaces max_retries.
  struct Budget {
    double percent = 20.0;
    uint32_t min_concurrency = 3;
    bool operator==(const Budget&) const = default;
  };
  std::optional<Budget> budget;
  bool operator==(const CircuitBreaker&) const = default;
};

struct OutlierDetection {
  uint32_t consecutive_5xx = 5;  // 0: off
  uint32_t enforcing_consecutive_5xx_percent = 100;
  Milliseconds interval{10000};  // how often ejected endpoints are looked at for return
  Milliseconds base_ejection_time{30000};
  Milliseconds max_ejection_time{300000};
  uint32_t max_ejection_percent = 10;  // at least one endpoint may always be ejected
  bool operator==(const OutlierDetection&) const = default;
};

// kMaglev: the client's address chooses, in the kernel (bpf/balance.h). The proxy, which has
// nothing to hash, takes it for kRandom, as Envoy does without a hash policy.
enum class LbPolicy : uint8_t { kRoundRobin, kLeastRequest, kRandom, kMaglev, kOriginalDst };
enum class HttpVersion : uint8_t { kHttp1, kHttp2, kSameAsDownstream };
enum class DiscoveryType : uint8_t { kStatic, kEds, kOriginalDst };

struct UpstreamTls {  // plain TLS to something outside the mesh; HBONE is not configured here
  std::string sni;    // never empty: also the name that the certificate must have, unlike in Envoy
  std::string validation_context;  // SDS name or empty: no verification is not offered
  bool operator==(const UpstreamTls&) const = default;
};

struct Cluster {
  std::string name;
  DiscoveryType type = DiscoveryType::kStatic;
  std::string eds_name;             // EDS: service name, defaults to name
  std::vector<Endpoint> endpoints;  // static clusters
  LbPolicy lb = LbPolicy::kRoundRobin;
  uint32_t least_request_choices = 2;
  Milliseconds connect_timeout{5000};
  HttpVersion http = HttpVersion::kHttp1;
  CircuitBreaker breaker;
  std::optional<OutlierDetection> outlier;
  uint32_t panic_threshold_percent = 50;
  std::optional<UpstreamTls> tls;
  uint32_t max_requests_per_connection = 0;  // 0: no limit
  bool operator==(const Cluster&) const = default;
};

}  // namespace weft::model
