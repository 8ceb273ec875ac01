// SPDX-License-Identifier: Apache-2.0
// The two maps that weft-sockets writes, opened by their pins: stamps (socket storage) and
// listeners for sk_lookup. Thread: one. Owns two descriptors. weft-agent must have opened the node
// before (loader.h).
#pragma once
#include <cstdint>
#include <string>

#include "bpf/abi.h"
#include "proxy/base/status.h"

namespace weft::bpf {

struct SocketStamp {
  weft_role role = WEFT_ROLE_NONE;
  uint32_t workload = 0;    // struct weft_workload.id; 0 for HOST
  uint32_t generation = 0;  // must be the enrolment's, or the programs treat the stamp as misused
};

class SocketMaps final {
 public:
  // NotFound while the agent has not loaded the node's programs; FailedPrecondition names both
  // numbers if the ABI differs.
  static absl::StatusOr<SocketMaps> Open(const std::string& bpffs_root, const std::string& node);
  SocketMaps(SocketMaps&& other) noexcept;
  SocketMaps& operator=(SocketMaps&& other) noexcept;
  ~SocketMaps();

  // Stamps a fresh socket, before bind() and connect(): the bind guard asks for the stamp. Accepted
  // sockets inherit it.
  absl::Status Stamp(int fd, const SocketStamp& stamp) const;
  // Makes a stamped, listening socket the one that sk_lookup steers to. `port` in host order: 15006
  // or 15008. Replaces an earlier one. The entry disappears when the last descriptor of the socket
  // is closed.
  absl::Status PutListener(uint32_t workload, uint16_t port, int fd) const;
  // OK if there is none.
  absl::Status RemoveListener(uint32_t workload, uint16_t port) const;

 private:
  SocketMaps(int stamps_fd, int listeners_fd)
      : stamps_fd_(stamps_fd), listeners_fd_(listeners_fd) {}
  int stamps_fd_ = -1;
  int listeners_fd_ = -1;
};

}  // namespace weft::bpf
