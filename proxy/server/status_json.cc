// SPDX-License-Identifier: Apache-2.0
#include "proxy/server/status_json.h"

#include <algorithm>
#include <set>

namespace weft::server {
namespace {

using nlohmann::json;

int64_t Seconds(std::chrono::system_clock::time_point t) {
  return std::chrono::duration_cast<std::chrono::seconds>(t.time_since_epoch()).count();
}

const char* const kLimitNames[upstream::kLimits] = {"connections", "pending", "requests",
                                                    "retries"};
// Envoy's names for the same.
const char* const kEnvoyLimits[upstream::kLimits] = {"max_connections", "max_pending_requests",
                                                     "max_requests", "max_retries"};

const char* HealthName(model::HealthStatus health) {
  switch (health) {
    case model::HealthStatus::kUnknown:
      return "unknown";
    case model::HealthStatus::kHealthy:
      return "healthy";
    case model::HealthStatus::kUnhealthy:
      return "unhealthy";
    case model::HealthStatus::kDraining:
      return "draining";
    case model::HealthStatus::kDegraded:
      return "degraded";
  }
  return "unknown";
}

json FlowJson(const telemetry::FlowRecord& flow, uint32_t worker) {
  json out{{"sequence", flow.sequence},
           {"worker", worker},
           {"time_us", flow.time_us},
           {"kind", telemetry::FlowKindName(flow.kind)},
           {"source", flow.source.ToString()},
           {"destination", flow.destination.ToString()},
           {"source_identity", flow.source_identity},
           {"destination_identity", flow.destination_identity},
           {"workload", flow.workload},
           {"sent_bytes", flow.sent_bytes},
           {"received_bytes", flow.received_bytes},
           {"duration_us", flow.duration_us},
           {"reason", std::string(ReasonName(flow.reason))},
           {"mutual_tls", flow.mutual_tls}};
  if (flow.upstream.port != 0) out["upstream"] = flow.upstream.ToString();
  if (!flow.policy.empty()) out["policy"] = flow.policy;
  if (flow.kind == telemetry::FlowKind::kRequest) {
    out["request"] = flow.request;
    out["status"] = flow.status;
  }
  return out;
}

json EndpointJson(const upstream::EndpointStatus& endpoint) {
  return {{"address", endpoint.address.ToString()},
          {"weight", endpoint.weight},
          {"priority", endpoint.priority},
          {"health", HealthName(endpoint.health)},
          {"total", endpoint.total},
          {"success", endpoint.success},
          {"errors", endpoint.errors},
          {"connect_failures", endpoint.connect_failures},
          {"active", endpoint.active},
          {"consecutive_5xx", endpoint.consecutive_5xx},
          {"ejected", endpoint.ejected},
          {"ejected_for_ms", endpoint.ejected_for_ms},
          {"ejections", endpoint.ejections}};
}

}  // namespace

json XdsJson(const xds::ClientStatus& status, const std::vector<xds::Warming>& warming) {
  json out{{"connected", status.connected},   {"since", Seconds(status.since)},
           {"last_error", status.last_error}, {"connects", status.connects},
           {"types", json::array()},          {"warming", json::array()}};
  for (const xds::TypeStatus& type : status.types) {
    out["types"].push_back({{"type_url", type.type_url},
                            {"resources", type.resources},
                            {"version", type.version},
                            {"last_update", Seconds(type.last_update)},
                            {"updates", type.updates},
                            {"nacks", type.nacks},
                            {"last_nack", type.last_nack},
                            {"last_nack_at", Seconds(type.last_nack_at)}});
  }
  for (const xds::Warming& item : warming) {
    out["warming"].push_back(
        {{"type_url", item.type_url}, {"name", item.name}, {"waits_for", item.waits_for}});
  }
  return out;
}

json WorkersJson(const std::vector<worker::WorkerStatus>& workers) {
  json out = json::array();
  for (const worker::WorkerStatus& worker : workers) {
    out.push_back(
        {{"index", worker.index}, {"snapshot", worker.snapshot}, {"in_flight", worker.in_flight}});
  }
  return out;
}

json ListeningJson(const std::vector<worker::WorkerStatus>& workers) {
  std::set<std::pair<std::string, std::string>> all;  // the workers share them
  for (const worker::WorkerStatus& worker : workers) {
    for (const auto& listening : worker.listening)
      all.emplace(listening.name, listening.address.ToString());
  }
  json out = json::array();
  for (const auto& [name, address] : all) out.push_back({{"name", name}, {"address", address}});
  return out;
}

json TunnelsJson(const std::vector<worker::WorkerStatus>& workers) {
  json out = json::array();
  for (const worker::WorkerStatus& worker : workers) {
    for (const tunnel::TunnelPool::Info& tunnel : worker.tunnels) {
      out.push_back({{"worker", worker.index},
                     {"source", tunnel.key.source.ToString()},
                     {"source_identity", tunnel.key.source_identity},
                     {"destination", tunnel.key.destination.ToString()},
                     {"destination_identity", tunnel.key.destination_identity},
                     {"streams", tunnel.streams},
                     {"draining", tunnel.draining}});
    }
  }
  return out;
}

json FlowsJson(const std::vector<worker::WorkerStatus>& workers) {
  std::vector<std::pair<const telemetry::FlowRecord*, uint32_t>> all;
  for (const worker::WorkerStatus& worker : workers) {
    for (const telemetry::FlowRecord& flow : worker.flows) all.emplace_back(&flow, worker.index);
  }
  std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
    return a.first->time_us < b.first->time_us;
  });
  json out = json::array();
  for (const auto& [flow, worker] : all) out.push_back(FlowJson(*flow, worker));
  return out;
}

json WorkloadsJson(const model::Snapshot& snapshot,
                   const std::vector<worker::WorkerStatus>& workers) {
  json out = json::array();
  for (const auto& [uid, workload] : snapshot.local_workloads) {
    auto listens = [&uid = uid](const worker::WorkerStatus& worker) {
      return std::any_of(worker.listening.begin(), worker.listening.end(),
                         [&uid](const auto& listening) { return listening.name == uid; });
    };
    json addresses = json::array();
    for (const IpAddress& ip : workload->addresses) addresses.push_back(ip.ToString());
    out.push_back(
        {{"uid", uid},
         {"id", workload->id},
         {"generation", workload->generation},
         {"identity", workload->identity},
         {"namespace", workload->namespace_name},
         {"name", workload->name},
         {"addresses", addresses},
         {"certificate", snapshot.certificates.contains(workload->identity)},
         {"listening", !workers.empty() && std::all_of(workers.begin(), workers.end(), listens)}});
  }
  return out;
}

json CertificatesJson(const model::Snapshot& snapshot) {
  json out = json::array();
  for (const auto& [identity, certificate] : snapshot.certificates) {
    out.push_back({{"identity", identity},
                   {"key_id", certificate->key_id},
                   {"not_before", certificate->not_before},
                   {"not_after", certificate->not_after}});
  }
  return out;
}

json ClustersJson(const std::vector<upstream::ClusterStatus>& clusters) {
  json out = json::array();
  for (const upstream::ClusterStatus& cluster : clusters) {
    json limits = json::object();
    for (size_t i = 0; i < upstream::kLimits; ++i) {
      limits[kLimitNames[i]] = {{"max", cluster.max[i]},
                                {"in_use", cluster.in_use[i]},
                                {"overflows", cluster.overflows[i]}};
    }
    json endpoints = json::array();
    for (const upstream::EndpointStatus& endpoint : cluster.endpoints)
      endpoints.push_back(EndpointJson(endpoint));
    out.push_back({{"name", cluster.name}, {"limits", limits}, {"endpoints", endpoints}});
  }
  return out;
}

std::string ClustersText(const std::vector<upstream::ClusterStatus>& clusters) {
  std::string out;
  for (const upstream::ClusterStatus& cluster : clusters) {
    for (size_t i = 0; i < upstream::kLimits; ++i) {
      out += cluster.name + "::default_priority::" + kEnvoyLimits[i] +
             "::" + std::to_string(cluster.max[i]) + "\n";
    }
    for (const upstream::EndpointStatus& endpoint : cluster.endpoints) {
      std::string head = cluster.name + "::" + endpoint.address.ToString() + "::";
      auto line = [&](const char* name, const std::string& value) {
        out += head + name + "::" + value + "\n";
      };
      line("rq_active", std::to_string(endpoint.active));
      line("rq_total", std::to_string(endpoint.total));
      line("rq_success", std::to_string(endpoint.success));
      line("rq_error", std::to_string(endpoint.errors));
      line("cx_connect_fail", std::to_string(endpoint.connect_failures));
      line("health_flags",
           endpoint.ejected ? "/failed_outlier_check" : HealthName(endpoint.health));
      line("weight", std::to_string(endpoint.weight));
      line("priority", std::to_string(endpoint.priority));
    }
  }
  return out;
}

}  // namespace weft::server
