// SPDX-License-Identifier: Apache-2.0
#include "proxy/worker/request_log.h"

namespace weft::worker {
namespace {

// "outbound|80||web.shop.svc.cluster.local" -> the host; other names stay.
std::string_view ServiceOf(std::string_view cluster) {
  size_t bar = cluster.rfind('|');
  return bar == std::string_view::npos ? cluster : cluster.substr(bar + 1);
}

}  // namespace

void RequestLog::Add(const RequestRecord& request) {
  using std::chrono::duration_cast;
  using std::chrono::microseconds;
  telemetry::TrafficLabels labels{.service = ServiceOf(request.cluster),
                                  .protocol = "http",
                                  .response_code = request.status,
                                  .mutual_tls = !request.upstream_identity.empty()};
  if (request.reason != WEFT_R_NONE) labels.response_flags = ReasonName(request.reason);
  if (const model::Workload* source = state_.snapshot->FindWorkload(request.client.ip)) {
    labels.source = telemetry::PartyOf(*source);
  }
  if (request.upstream.port != 0) {
    if (const model::Workload* upstream = state_.snapshot->FindWorkload(request.upstream.ip)) {
      labels.destination = telemetry::PartyOf(*upstream);
    }
  }
  labels.source.principal = request.client_identity;
  labels.destination.principal = request.upstream_identity;
  double duration_ms = static_cast<double>(request.duration.count()) / 1e6;
  state_.telemetry.traffic.CountRequest(labels, duration_ms, request.request_bytes,
                                        request.response_bytes);

  record_.kind = telemetry::FlowKind::kRequest;
  record_.source = request.client;
  record_.upstream = request.upstream;
  record_.source_identity.assign(request.client_identity);
  record_.destination_identity.assign(request.upstream_identity);
  record_.policy.assign(request.policy);
  record_.sent_bytes = request.request_bytes;
  record_.received_bytes = request.response_bytes;
  record_.duration_us = request.duration.count() / 1000;
  record_.time_us =
      duration_cast<microseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  record_.reason = request.reason;
  record_.mutual_tls = !request.upstream_identity.empty();
  record_.request.assign(request.method).append(" ").append(request.authority).append(request.path);
  record_.status = request.status;
  state_.telemetry.flows.Add(record_);
}

}  // namespace weft::worker
