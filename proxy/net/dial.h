// SPDX-License-Identifier: Apache-2.0
// Makes connections. Dial* create their own socket (control planes, tests, run-alone); ConnectFd
// uses one that weft-sockets made. Thread: the executor's.
#pragma once
#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <memory>
#include <string>

#include "proxy/base/address.h"
#include "proxy/base/status.h"
#include "proxy/net/stream.h"

namespace weft::net {

using StatusOrStream = absl::StatusOr<std::unique_ptr<Stream>>;

Task<StatusOrStream> DialTcp(asio::any_io_executor executor, SocketAddress address,
                             std::chrono::milliseconds timeout);
Task<StatusOrStream> DialUnix(asio::any_io_executor executor, std::string path,
                              std::chrono::milliseconds timeout);
// "unix:/path", "10.0.0.1:80", "[::1]:80" or "name:80" (resolved by the system's resolver, in a
// thread of Asio; every address is tried in order). Control planes only.
Task<StatusOrStream> Dial(asio::any_io_executor executor, std::string target,
                          std::chrono::milliseconds timeout);

struct Connected {
  std::unique_ptr<Stream>
      stream;  // null: `reason` says why (CONNECT_FAILED, CONNECT_TIMEOUT, IO_ERROR)
  Reason reason = WEFT_R_NONE;
};
// Connects an unconnected TCP socket and takes it: on failure it is closed.
Task<Connected> ConnectFd(asio::any_io_executor executor, int fd, SocketAddress to,
                          std::chrono::milliseconds timeout);

}  // namespace weft::net
