// SPDX-License-Identifier: Apache-2.0
#include "proxy/worker/worker_state.h"

#include <utility>

namespace weft::worker {
namespace {

// The destination as Istio's labels name it, and the source. Unknown ends stay "unknown".
telemetry::TrafficLabels LabelsOf(const model::Snapshot& snapshot,
                                  const telemetry::FlowRecord& record, bool reporter_is_source) {
  telemetry::TrafficLabels labels{.reporter_is_source = reporter_is_source,
                                  .mutual_tls = record.mutual_tls};
  if (const model::Workload* source = snapshot.FindWorkload(record.source.ip)) {
    labels.source = telemetry::PartyOf(*source);
  }
  const IpAddress& destination =
      record.upstream.port != 0 ? record.upstream.ip : record.destination.ip;
  if (const model::Workload* workload = snapshot.FindWorkload(destination)) {
    labels.destination = telemetry::PartyOf(*workload);
  }
  labels.source.principal = record.source_identity;
  labels.destination.principal = record.destination_identity;
  return labels;
}

}  // namespace

void WorkerState::Adopt(std::shared_ptr<const model::Snapshot> next) {
  std::shared_ptr<const model::Snapshot> before = std::exchange(snapshot, std::move(next));
  policies = policy::PolicyIndex(snapshot);
  listeners = ListenerMatch(*snapshot);
  local_by_ip.clear();
  for (const auto& [uid, workload] : snapshot->local_workloads) {
    for (const IpAddress& ip : workload->addresses) local_by_ip[ip] = workload;
  }
  certs.Adopt(*snapshot);
  permits.Retain(snapshot->local_workloads);
  if (http != nullptr) http->Adopt(snapshot);
  bool judged_anew = before->authorizations != snapshot->authorizations ||
                     before->workloads != snapshot->workloads ||
                     before->local_workloads != snapshot->local_workloads;
  if (judged_anew) connections.Recheck();
}

IpAddress WorkerState::AddressOf(const model::LocalWorkload& workload, const IpAddress& like) {
  for (const IpAddress& ip : workload.addresses) {
    if (ip.is_v4() == like.is_v4()) return ip;
  }
  return {};
}

void WorkerState::Record(telemetry::FlowRecord record,
                         std::chrono::steady_clock::time_point started) {
  using std::chrono::duration_cast;
  using std::chrono::microseconds;
  record.duration_us =
      duration_cast<microseconds>(std::chrono::steady_clock::now() - started).count();
  record.time_us =
      duration_cast<microseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  telemetry.counters.Closed(record.reason);
  telemetry.counters[telemetry::Counter::kSentBytes].Add(record.sent_bytes);
  telemetry.counters[telemetry::Counter::kReceivedBytes].Add(record.received_bytes);
  bool tcp = record.kind != telemetry::FlowKind::kOutboundHttp &&
             record.kind != telemetry::FlowKind::kRequest;
  bool carried = record.reason == WEFT_R_CLOSED || record.sent_bytes + record.received_bytes > 0;
  if (tcp && carried) {
    bool outbound = record.kind == telemetry::FlowKind::kOutboundTcp;
    telemetry::TrafficSeries& series =
        telemetry.traffic.Find(LabelsOf(*snapshot, record, outbound));
    series.opened.Add();
    series.closed.Add();
    series.sent_bytes.Add(record.sent_bytes);
    series.received_bytes.Add(record.received_bytes);
  }
  telemetry.flows.Add(record);
}

}  // namespace weft::worker
