// SPDX-License-Identifier: Apache-2.0
// The agent's side of weft-sockets' control channel. Calls are synchronous, at most 250 ms
// (control_socket.h). Thread: one. Owns the connection.
#pragma once
#include <cstdint>
#include <string>
#include <utility>

#include "proxy/base/status.h"
#include "proxy/ipc/control_socket.h"
#include "proxy/ipc/sockets_protocol.h"

namespace weft::ipc {

class SocketsControl final {
 public:
  static absl::StatusOr<SocketsControl> Connect(const std::string& path);

  // `netns_fd` stays the caller's. Repeating it with the same generation is harmless.
  absl::Status AddWorkload(uint32_t workload, uint32_t generation, uint32_t tenant, int netns_fd);
  absl::Status RemoveWorkload(uint32_t workload);
  // The proxy's end of a new tenant channel; the caller owns it (close-on-exec).
  absl::StatusOr<int> NewChannel(uint32_t tenant);
  absl::StatusOr<uint64_t> CountWorkloads();

 private:
  explicit SocketsControl(ControlSocket socket) : socket_(std::move(socket)) {}
  absl::StatusOr<SocketsAnswer> Call(SocketsRequest request, int send_fd, int* received_fd);
  ControlSocket socket_;
};

}  // namespace weft::ipc
