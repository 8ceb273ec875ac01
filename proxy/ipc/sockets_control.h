// SPDX-License-Identifier: Apache-2.0
// The agent's side of weft-sockets' control channel. Calls block until answered, at most 5 s.
// Thread: one. Owns the connection.
#pragma once
#include <cstdint>
#include <string>

#include "proxy/base/status.h"
#include "proxy/ipc/sockets_protocol.h"

namespace weft::ipc {

class SocketsControl final {
 public:
  static absl::StatusOr<SocketsControl> Connect(const std::string& path);
  SocketsControl(SocketsControl&& other) noexcept;
  SocketsControl& operator=(SocketsControl&& other) noexcept;
  ~SocketsControl();

  // `netns_fd` stays the caller's. Repeating it with the same generation is harmless.
  absl::Status AddWorkload(uint32_t workload, uint32_t generation, uint32_t tenant, int netns_fd);
  absl::Status RemoveWorkload(uint32_t workload);
  // The proxy's end of a new tenant channel; the caller owns it (close-on-exec).
  absl::StatusOr<int> NewChannel(uint32_t tenant);
  absl::StatusOr<uint64_t> CountWorkloads();

 private:
  explicit SocketsControl(int fd) : fd_(fd) {}
  absl::StatusOr<SocketsAnswer> Call(SocketsRequest request, int send_fd, int* received_fd);
  int fd_ = -1;
  uint32_t next_id_ = 1;
};

}  // namespace weft::ipc
