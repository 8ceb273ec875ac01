// SPDX-License-Identifier: Apache-2.0
#include "proxy/telemetry/prometheus.h"

#include <cinttypes>
#include <cstdio>
#include <map>
#include <string_view>

namespace weft::telemetry {
namespace {

struct Sum {
  bool http = false;
  uint64_t opened = 0, closed = 0, sent = 0, received = 0;
  uint64_t requests = 0, request_bytes = 0, response_bytes = 0, duration_us = 0;
  std::array<uint64_t, kDurationBoundsMs.size() + 1> duration{};
};
using Sums = std::map<std::string_view, Sum>;

void Head(std::string& out, const char* name, const char* type, const char* help) {
  out += "# HELP ";
  out += name;
  out += ' ';
  out += help;
  out += "\n# TYPE ";
  out += name;
  out += ' ';
  out += type;
  out += '\n';
}

void Line(std::string& out, std::string_view name, std::string_view labels, uint64_t value) {
  char number[32];
  int length = snprintf(number, sizeof number, "} %" PRIu64 "\n", value);
  out += name;
  out += '{';
  out += labels;
  out.append(number, static_cast<size_t>(length));
}

Sums Collect(std::span<const WorkerTelemetry* const> workers) {
  Sums sums;
  for (const WorkerTelemetry* worker : workers) {
    const Traffic& traffic = worker->traffic;
    for (size_t i = 0, n = traffic.size(); i < n; ++i) {
      const TrafficSeries& series = traffic[i];
      Sum& sum = sums[series.labels];
      sum.http |= series.http;
      sum.opened += series.opened.value();
      sum.closed += series.closed.value();
      sum.sent += series.sent_bytes.value();
      sum.received += series.received_bytes.value();
      sum.requests += series.requests.value();
      sum.request_bytes += series.request_bytes.value();
      sum.response_bytes += series.response_bytes.value();
      sum.duration_us += series.duration_us_sum.value();
      for (size_t b = 0; b < sum.duration.size(); ++b)
        sum.duration[b] += series.duration[b].value();
    }
  }
  return sums;
}

void Family(std::string& out, const Sums& sums, const char* name, const char* help, bool http,
            uint64_t Sum::* field) {
  Head(out, name, "counter", help);
  for (const auto& [labels, sum] : sums) {
    if (http ? sum.requests > 0 : sum.opened > 0) Line(out, name, labels, sum.*field);
  }
}

void Durations(std::string& out, const Sums& sums) {
  const char* name = "istio_request_duration_milliseconds";
  Head(out, name, "histogram", "time from the request's first byte to the response's last");
  std::string labels;
  for (const auto& [of_series, sum] : sums) {
    if (sum.requests == 0) continue;
    uint64_t cumulative = 0;
    for (size_t b = 0; b < sum.duration.size(); ++b) {
      cumulative += sum.duration[b];
      char bound[48];
      if (b < kDurationBoundsMs.size()) {
        snprintf(bound, sizeof bound, ",le=\"%g\"", kDurationBoundsMs[b]);
      } else {
        snprintf(bound, sizeof bound, ",le=\"+Inf\"");
      }
      labels.assign(of_series);
      labels += bound;
      Line(out, "istio_request_duration_milliseconds_bucket", labels, cumulative);
    }
    Line(out, "istio_request_duration_milliseconds_sum", of_series, sum.duration_us / 1000);
    Line(out, "istio_request_duration_milliseconds_count", of_series, cumulative);
  }
}

}  // namespace

void AppendMetric(std::string& out, const char* name, const char* type, const char* help,
                  uint64_t value) {
  Head(out, name, type, help);
  out += name;
  out += ' ';
  out += std::to_string(value);
  out += '\n';
}

std::string PrometheusText(std::span<const WorkerTelemetry* const> workers) {
  std::string out;
  auto total = [&](Counter counter) {
    uint64_t sum = 0;
    for (const WorkerTelemetry* worker : workers) sum += worker->counters[counter].value();
    return sum;
  };
#define X(name, text, gauge, help) \
  AppendMetric(out, text, gauge ? "gauge" : "counter", help, total(Counter::name));
  WEFT_COUNTERS(X)
#undef X
  Head(out, "weft_closes_total", "counter", "connections and streams ended, by reason");
  for (uint32_t reason = 0; reason < WEFT_R_MAX; ++reason) {
    uint64_t sum = 0;
    for (const WorkerTelemetry* worker : workers) sum += worker->counters.closes[reason].value();
    if (sum == 0) continue;
    std::string labels = "reason=\"";
    labels += ReasonName(static_cast<Reason>(reason));
    labels += '"';
    Line(out, "weft_closes_total", labels, sum);
  }
  Sums sums = Collect(workers);
  Family(out, sums, "istio_tcp_connections_opened_total", "TCP connections opened", false,
         &Sum::opened);
  Family(out, sums, "istio_tcp_connections_closed_total", "TCP connections closed", false,
         &Sum::closed);
  Family(out, sums, "istio_tcp_sent_bytes_total", "bytes sent to the source", false,
         &Sum::received);
  Family(out, sums, "istio_tcp_received_bytes_total", "bytes received from the source", false,
         &Sum::sent);
  Family(out, sums, "istio_requests_total", "HTTP requests", true, &Sum::requests);
  Family(out, sums, "istio_request_bytes_sum", "bytes of requests", true, &Sum::request_bytes);
  Family(out, sums, "istio_response_bytes_sum", "bytes of responses", true, &Sum::response_bytes);
  Durations(out, sums);
  return out;
}

}  // namespace weft::telemetry
