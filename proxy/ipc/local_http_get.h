// SPDX-License-Identifier: Apache-2.0
// GET of the local interface without blocking: for a process that asks another one while it has
// more to do. Thread: the executor's. The blocking client is in local_http.h.
#pragma once
#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <string>

#include "proxy/base/task.h"
#include "proxy/ipc/local_http.h"

namespace weft::ipc {

// The whole answer within `limit`, of at most 16 MiB, or an error.
Task<absl::StatusOr<LocalResponse>> HttpGet(asio::any_io_executor executor, std::string socket_path,
                                            std::string target, std::chrono::milliseconds limit);

}  // namespace weft::ipc
