// SPDX-License-Identifier: Apache-2.0
// One unary gRPC call over a connection of its own: what the agent needs to ask weft-control for a
// certificate now and then. Thread: the executor's.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "proxy/base/task.h"
#include "proxy/net/stream.h"

namespace weft::agent {

struct GrpcCall {
  std::string authority;
  std::string path;  // "/package.Service/Method"
  std::vector<std::pair<std::string, std::string>> metadata;
  std::string message;
};

// Closes the stream in any case. Bound to end it within 15 s. A gRPC status other than 0 is an
// error with its message.
Task<absl::StatusOr<std::string>> CallUnary(asio::any_io_executor executor,
                                            std::unique_ptr<net::Stream> stream, GrpcCall call);

}  // namespace weft::agent
