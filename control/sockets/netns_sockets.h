// SPDX-License-Identifier: Apache-2.0
// Makes sockets inside a network namespace: moves the calling thread there and back. Thread: one
// that may be moved (root).
#pragma once
#include <cstdint>
#include <vector>

#include "proxy/base/status.h"

namespace weft::sockets {

class NetnsSockets final {
 public:
  // Remembers the namespace it is called in as home.
  static absl::StatusOr<NetnsSockets> Create();
  NetnsSockets(NetnsSockets&& other) noexcept;
  NetnsSockets& operator=(NetnsSockets&&) = delete;
  ~NetnsSockets();

  // `count` sockets of `type` (SOCK_STREAM: TCP, SOCK_DGRAM: UDP), non-blocking, close-on-exec.
  // `netns_fd` -1: home. On error nothing is left open. If the thread cannot come home, the process
  // ends: its next socket would be in the wrong namespace.
  absl::StatusOr<std::vector<int>> Make(int netns_fd, int family, int type, uint32_t count) const;
  // Binds a stamped socket to [::]:port (or 0.0.0.0, for an AF_INET socket) and, TCP, listens.
  static absl::Status Listen(int fd, int type, uint16_t port);

 private:
  explicit NetnsSockets(int home_fd) : home_fd_(home_fd) {}
  int home_fd_ = -1;
};

// Identifies a namespace; 0 if `fd` is not a network namespace.
uint64_t NetnsInode(int fd);

}  // namespace weft::sockets
