// SPDX-License-Identifier: Apache-2.0
// A SocketSource that makes sockets in the process's own netns: run-alone proxies and tests. No
// stamps, no workload listeners. Thread: any.
#pragma once
#include "proxy/net/socket_source.h"

namespace weft::net {

class LocalSocketSource final : public SocketSource {
 public:
  Task<Result> Take(SocketRequest request) override;
  // Always empty: alone, a proxy binds the addresses of its xDS listeners.
  Task<std::vector<int>> Listeners(uint32_t workload, uint32_t generation) override;
  // Always NONE: alone, a proxy stands for nobody.
  Reason Permit(int fd, const SocketAddress& destination) override;
};

}  // namespace weft::net
