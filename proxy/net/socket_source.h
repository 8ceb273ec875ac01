// SPDX-License-Identifier: Apache-2.0
// Where a worker gets sockets from. A proxy in the mesh may not create any: weft-sockets makes and
// stamps them (proxy/ipc/remote_sockets.h). Run alone, or in a test, it makes them itself
// (proxy/net/local_sockets.h). Thread: the worker that owns it.
#pragma once
#include <chrono>
#include <cstdint>
#include <vector>

#include "proxy/base/address.h"
#include "proxy/base/reason.h"
#include "proxy/base/task.h"

namespace weft::net {

enum class SocketKind : uint8_t { kTunnel, kToApp, kHost, kDatagram };

struct SocketRequest {
  SocketKind kind = SocketKind::kHost;
  uint32_t workload = 0;  // struct weft_workload.id; ignored for kHost
  uint32_t generation = 0;
  int family = 0;  // AF_INET or AF_INET6
};

class SocketSource {
 public:
  virtual ~SocketSource() = default;
  // An unconnected, non-blocking socket in the workload's netns, TCP but for kDatagram (UDP); the
  // caller owns and closes it.
  // -1 with a reason (SOCKETS_UNAVAILABLE) if none came within a second.
  struct Result {
    int fd = -1;
    Reason reason = WEFT_R_NONE;
  };
  virtual Task<Result> Take(SocketRequest request) = 0;
  // The listeners of a workload: 15001, 15006, 15008, 15053 and 15053 UDP in this order,
  // non-blocking, listening (or bound); empty on failure.
  virtual Task<std::vector<int>> Listeners(uint32_t workload, uint32_t generation) = 0;
  // Whether network policy lets the workload that `fd` (from Take) is stamped with send to
  // `destination`: NONE, or why not. Does not wait.
  virtual Reason Permit(int fd, const SocketAddress& destination) = 0;
  // The workload is gone: closes what is kept for it.
  virtual void Forget(uint32_t /*workload*/) {}
};

}  // namespace weft::net
