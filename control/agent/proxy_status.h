// SPDX-License-Identifier: Apache-2.0
// What the agent asks a proxy's admin interface. Asynchronous: a proxy is the one process of the
// node that talks to strangers, and one that hangs, or is made to, must not hold the agent's
// thread. Thread: the executor's.
#pragma once
#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <cstdint>
#include <set>
#include <string>

#include "proxy/base/task.h"

namespace weft::agent {

inline constexpr std::chrono::milliseconds kProxyStatusLimit{1000};

// Its GET /status as JSON text; empty if there is no whole answer within `limit`.
Task<std::string> StatusOfProxy(asio::any_io_executor executor, std::string admin_socket,
                                std::chrono::milliseconds limit = kProxyStatusLimit);
// Ids of the workloads whose listeners the proxy serves, of such a status.
std::set<uint32_t> ListeningWorkloads(const std::string& status);

}  // namespace weft::agent
