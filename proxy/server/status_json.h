// SPDX-License-Identifier: Apache-2.0
// The admin interface's answers as JSON and text. Pure. Internal to proxy/server.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "proxy/upstream/status.h"
#include "proxy/worker/worker.h"
#include "xds/client/snapshot_source.h"

namespace weft::server {

nlohmann::json XdsJson(const xds::ClientStatus& status, const std::vector<xds::Warming>& warming);
nlohmann::json WorkersJson(const std::vector<worker::WorkerStatus>& workers);
nlohmann::json ListeningJson(const std::vector<worker::WorkerStatus>& workers);
nlohmann::json TunnelsJson(const std::vector<worker::WorkerStatus>& workers);
// Of all workers, oldest first.
nlohmann::json FlowsJson(const std::vector<worker::WorkerStatus>& workers);
// `listening`: its three ports are accepted on by every worker.
nlohmann::json WorkloadsJson(const model::Snapshot& snapshot,
                             const std::vector<worker::WorkerStatus>& workers);
nlohmann::json CertificatesJson(const model::Snapshot& snapshot);
nlohmann::json ClustersJson(const std::vector<upstream::ClusterStatus>& clusters);
// Envoy's format: cluster::address::name::value.
std::string ClustersText(const std::vector<upstream::ClusterStatus>& clusters);

}  // namespace weft::server
