// SPDX-License-Identifier: Apache-2.0
// Istio's standard metrics (names and labels exactly, so that its dashboards and Kiali read them),
// one table per worker. The worker's thread adds series and counts; any thread may read at any
// time: a series, once published, only grows.
#pragma once
#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "proxy/telemetry/counters.h"
#include "xds/model/workload.h"

namespace weft::telemetry {

// Who is at one end. Views need to live only during the call that takes them.
struct Party {
  std::string_view workload;  // Istio's canonical workload name; empty: "unknown"
  std::string_view namespace_name;
  std::string_view principal;  // SPIFFE id; empty: "unknown"
  std::string_view app, version;
  bool operator==(const Party&) const = default;
};
Party PartyOf(const model::Workload& workload);
Party PartyOf(const model::LocalWorkload& workload);

struct TrafficLabels {
  bool reporter_is_source = true;
  Party source, destination;
  std::string_view service;  // destination_service: the host, empty: "unknown"
  std::string_view service_namespace;
  std::string_view protocol = "tcp";  // request_protocol: tcp, http, grpc
  int response_code = 0;              // 0: no HTTP
  std::string_view response_flags;    // empty: "-"
  bool mutual_tls = false;
  bool operator==(const TrafficLabels&) const = default;
};

// Upper bounds of istio_request_duration_milliseconds, as Istio has them.
inline constexpr std::array<double, 19> kDurationBoundsMs = {
    0.5,  1,    5,     10,    25,    50,     100,    250,     500,    1000,
    2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000};

struct TrafficSeries {
  std::string labels;  // ready-made: a="b",c="d"
  bool http = false;
  Cell opened, closed, sent_bytes, received_bytes;  // TCP
  Cell requests, request_bytes, response_bytes;     // HTTP
  Cell duration_us_sum;
  std::array<Cell, kDurationBoundsMs.size() + 1> duration;
};

class Traffic final {
 public:
  // Series a worker keeps; what comes later is counted under one series whose labels all say
  // "other". A client chooses its destinations, so without a bound it would choose our memory.
  static constexpr size_t kMaxSeries = 2048;

  Traffic();
  ~Traffic();

  // The worker's thread. Valid as long as the table. No allocation for labels seen before.
  TrafficSeries& Find(const TrafficLabels& labels);
  void CountRequest(const TrafficLabels& labels, double duration_ms, uint64_t request_bytes,
                    uint64_t response_bytes);

  // Any thread.
  size_t size() const { return size_.load(std::memory_order_acquire); }
  const TrafficSeries& operator[](size_t i) const { return *series_[i]; }

 private:
  // Most requests are like an earlier one: comparing its labels costs a tenth of writing the text
  // that names a series.
  struct Recent {
    TrafficSeries* series = nullptr;
    TrafficLabels labels;  // views into `text`
    std::string text;
  };
  static constexpr size_t kRecent = 64;

  TrafficSeries& Publish(std::string labels, bool http);
  TrafficSeries& FindByText(const TrafficLabels& labels);

  std::array<std::unique_ptr<TrafficSeries>, kMaxSeries + 1> series_;
  std::atomic<size_t> size_{0};
  std::unordered_map<std::string, TrafficSeries*> by_labels_;
  std::array<Recent, kRecent> recent_;
  std::string scratch_;
  TrafficSeries* other_ = nullptr;
};

}  // namespace weft::telemetry
