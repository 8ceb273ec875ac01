// SPDX-License-Identifier: Apache-2.0
#include "control/agent/proxy_status.h"

#include <nlohmann/json.hpp>

#include "proxy/ipc/local_http_get.h"

namespace weft::agent {

Task<std::string> StatusOfProxy(asio::any_io_executor executor, std::string admin_socket,
                                std::chrono::milliseconds limit) {
  auto response = co_await ipc::HttpGet(executor, admin_socket, "/status", limit);
  co_return response.ok() && response->status == 200 ? std::move(response->body) : "";
}

std::set<uint32_t> ListeningWorkloads(const std::string& status_text) {
  std::set<uint32_t> ids;
  const auto status = nlohmann::json::parse(status_text, nullptr, false);
  if (!status.is_object() || !status.contains("workloads")) return ids;
  for (const auto& workload : status["workloads"]) {
    if (workload.is_object() && workload.value("listening", false)) {
      ids.insert(workload.value("id", 0u));
    }
  }
  return ids;
}

}  // namespace weft::agent
