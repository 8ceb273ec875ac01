// SPDX-License-Identifier: Apache-2.0
// The SocketSource of a proxy in the mesh: sockets come from weft-sockets in batches of 32, asked
// for at half; a taker that finds its batch empty waits at most a second. Thread: the worker's
// (executor). Owns the channel and the sockets not yet taken.
#pragma once
#include <boost/asio/any_io_executor.hpp>
#include <memory>

#include "proxy/net/socket_source.h"

namespace weft::ipc {

class RemoteSocketSource final : public net::SocketSource {
 public:
  // Takes `channel_fd`, a tenant channel (sockets_protocol.h).
  RemoteSocketSource(asio::any_io_executor executor, int channel_fd);
  ~RemoteSocketSource() override;  // no Take() or Listeners() may be waiting
  Task<Result> Take(net::SocketRequest request) override;
  Task<std::vector<int>> Listeners(uint32_t workload, uint32_t generation) override;
  // Asks the kernel programs. Anything but their word is a refusal (STAMP_MISUSE).
  Reason Permit(int fd, const SocketAddress& destination) override;
  // Closes what is kept for a workload that is gone.
  void Forget(uint32_t workload) override;
  bool alive() const;  // false once the channel broke: every call then fails at once

 private:
  struct Core;
  std::shared_ptr<Core> core_;
};

}  // namespace weft::ipc
