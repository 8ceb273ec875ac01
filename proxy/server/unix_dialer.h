// SPDX-License-Identifier: Apache-2.0
// Connects to a unix socket again and again from a process that may not make sockets: it makes a
// stock of them while it still may. An attempt that fails puts its socket back, so the stock
// shrinks only with connections that were established. Thread: the executor's. Owns the sockets in
// stock.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "proxy/base/status.h"
#include "proxy/net/stream.h"

namespace weft::server {

class UnixDialer final {
 public:
  // Reconnections to an agent that was restarted, over the life of a proxy.
  static constexpr size_t kStock = 256;

  static absl::StatusOr<std::unique_ptr<UnixDialer>> Create(asio::any_io_executor executor,
                                                            std::string path);
  ~UnixDialer();
  UnixDialer(const UnixDialer&) = delete;
  UnixDialer& operator=(const UnixDialer&) = delete;

  Task<absl::StatusOr<std::unique_ptr<net::Stream>>> Dial();

 private:
  UnixDialer(asio::any_io_executor executor, std::string path)
      : executor_(std::move(executor)), path_(std::move(path)) {}
  asio::any_io_executor executor_;
  std::string path_;
  std::vector<int> stock_;
};

}  // namespace weft::server
