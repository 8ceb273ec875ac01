// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/sockets_maps.h"

#include <bpf/bpf.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "control/bpf/pins.h"

namespace weft::bpf {

absl::StatusOr<SocketMaps> SocketMaps::Open(const std::string& bpffs_root,
                                            const std::string& node) {
  WEFT_ASSIGN_OR_RETURN(const PinPaths paths, PathsOf(bpffs_root, node));
  WEFT_RETURN_IF_ERROR(CheckAbi(paths));
  WEFT_ASSIGN_OR_RETURN(UniqueFd stamps, OpenPinnedMap(paths, "weft_stamps"));
  WEFT_ASSIGN_OR_RETURN(UniqueFd listeners, OpenPinnedMap(paths, "weft_listeners"));
  return SocketMaps(stamps.release(), listeners.release());
}

SocketMaps::SocketMaps(SocketMaps&& other) noexcept
    : stamps_fd_(std::exchange(other.stamps_fd_, -1)),
      listeners_fd_(std::exchange(other.listeners_fd_, -1)) {}

SocketMaps& SocketMaps::operator=(SocketMaps&& other) noexcept {
  std::swap(stamps_fd_, other.stamps_fd_);
  std::swap(listeners_fd_, other.listeners_fd_);
  return *this;
}

SocketMaps::~SocketMaps() {
  if (stamps_fd_ >= 0) close(stamps_fd_);
  if (listeners_fd_ >= 0) close(listeners_fd_);
}

absl::Status SocketMaps::Stamp(int fd, const SocketStamp& stamp) const {
  weft_sock value{};
  value.role = stamp.role;
  value.workload = stamp.workload;
  value.generation = stamp.generation;
  if (bpf_map_update_elem(stamps_fd_, &fd, &value, BPF_ANY) != 0) {
    return ErrnoStatus(errno, "stamp socket");
  }
  return absl::OkStatus();
}

absl::Status SocketMaps::PutListener(uint32_t workload, uint16_t port, int fd) const {
  weft_listener_key key{};
  key.workload = workload;
  key.port = port;
  const uint64_t value = static_cast<uint64_t>(fd);
  if (bpf_map_update_elem(listeners_fd_, &key, &value, BPF_ANY) != 0) {
    return ErrnoStatus(errno, absl::StrCat("steer port ", port, " of workload ", workload));
  }
  return absl::OkStatus();
}

absl::Status SocketMaps::RemoveListener(uint32_t workload, uint16_t port) const {
  weft_listener_key key{};
  key.workload = workload;
  key.port = port;
  if (bpf_map_delete_elem(listeners_fd_, &key) != 0 && errno != ENOENT && errno != EINVAL) {
    return ErrnoStatus(errno, absl::StrCat("stop steering port ", port));
  }
  return absl::OkStatus();
}

}  // namespace weft::bpf
