// SPDX-License-Identifier: Apache-2.0
#include "control/agent/proxy_status.h"

#include <nlohmann/json.hpp>

#include "proxy/ipc/local_http.h"

namespace weft::agent {
namespace {

constexpr int kTimeoutSeconds = 1;

}  // namespace

std::string StatusOfProxy(const std::string& admin_socket) {
  auto response = ipc::HttpRequest(admin_socket, "GET", "/status", {}, kTimeoutSeconds);
  return response.ok() && response->status == 200 ? response->body : "";
}

std::set<uint32_t> WorkloadsOfProxy(const std::string& admin_socket) {
  std::set<uint32_t> ids;
  const auto status = nlohmann::json::parse(StatusOfProxy(admin_socket), nullptr, false);
  if (!status.is_object() || !status.contains("workloads")) return ids;
  for (const auto& workload : status["workloads"]) {
    if (workload.is_object() && workload.value("listening", false)) {
      ids.insert(workload.value("id", 0u));
    }
  }
  return ids;
}

}  // namespace weft::agent
