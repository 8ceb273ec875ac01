// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/netns.h"

#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <thread>

#include "control/bpf/loader.h"
#include "control/bpf/pins.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

namespace weft::bpf {

absl::Status InNetns(int netns_fd, const std::function<absl::Status()>& work) {
  absl::Status status;
  std::thread thread([&] {
    status =
        setns(netns_fd, CLONE_NEWNET) == 0 ? work() : ErrnoStatus(errno, "enter network namespace");
  });
  thread.join();
  return status;
}

absl::StatusOr<uint64_t> NetnsCookie(int netns_fd) {
  uint64_t cookie = 0;
  WEFT_RETURN_IF_ERROR(InNetns(netns_fd, [&] {
    UniqueFd probe(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!probe.ok()) return ErrnoStatus(errno, "socket in network namespace");
    socklen_t length = sizeof cookie;
    if (getsockopt(probe.get(), SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &length) != 0) {
      return ErrnoStatus(errno, "SO_NETNS_COOKIE");
    }
    return absl::OkStatus();
  }));
  return cookie;
}

}  // namespace weft::bpf
