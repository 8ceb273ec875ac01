// SPDX-License-Identifier: Apache-2.0
// What the agent asks a proxy's admin interface. Thread: the agent's; blocks for at most a second.
#pragma once
#include <cstdint>
#include <set>
#include <string>

namespace weft::agent {

// Ids of the workloads whose listeners the proxy serves. Empty if it does not answer.
std::set<uint32_t> WorkloadsOfProxy(const std::string& admin_socket);
// Its GET /status as JSON text; empty if it does not answer.
std::string StatusOfProxy(const std::string& admin_socket);

}  // namespace weft::agent
