// SPDX-License-Identifier: Apache-2.0
#include "control/sockets/netns_sockets.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "proxy/base/log.h"

namespace weft::sockets {
namespace {

constexpr int kBacklog = 4096;

void CloseAll(const std::vector<int>& fds) {
  for (const int fd : fds) (void)close(fd);
}

}  // namespace

uint64_t NetnsInode(int fd) {
  struct stat info{};
  if (fstat(fd, &info) != 0) return 0;
  return ioctl(fd, NS_GET_NSTYPE) == CLONE_NEWNET ? info.st_ino : 0;
}

absl::StatusOr<NetnsSockets> NetnsSockets::Create() {
  const int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "open /proc/thread-self/ns/net");
  return NetnsSockets(fd);
}

NetnsSockets::NetnsSockets(NetnsSockets&& other) noexcept
    : home_fd_(std::exchange(other.home_fd_, -1)) {}
NetnsSockets::~NetnsSockets() {
  if (home_fd_ >= 0) (void)close(home_fd_);
}

absl::StatusOr<std::vector<int>> NetnsSockets::Make(int netns_fd, int family, int type,
                                                    uint32_t count) const {
  if (netns_fd >= 0 && setns(netns_fd, CLONE_NEWNET) != 0) return ErrnoStatus(errno, "setns");
  std::vector<int> fds;
  int error = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
      error = errno;
      break;
    }
    fds.push_back(fd);
  }
  if (netns_fd >= 0) WEFT_CHECK(setns(home_fd_, CLONE_NEWNET) == 0);
  if (error != 0) {
    CloseAll(fds);
    return ErrnoStatus(error, "socket");
  }
  return fds;
}

absl::Status NetnsSockets::Listen(int fd, int type, uint16_t port) {
  int family = 0;
  socklen_t size = sizeof family;
  if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) != 0)
    return ErrnoStatus(errno, "SO_DOMAIN");
  const int on = 1;
  const int off = 0;
  // Not for UDP: there it lets another socket have the port too.
  if (type == SOCK_STREAM) (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_storage storage{};
  socklen_t length = sizeof(sockaddr_in);
  if (family == AF_INET6) {
    if (setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) != 0)
      return ErrnoStatus(errno, "IPV6_V6ONLY");
    auto* address = reinterpret_cast<sockaddr_in6*>(&storage);
    address->sin6_family = AF_INET6;
    address->sin6_port = htons(port);
    length = sizeof *address;
  } else {
    auto* address = reinterpret_cast<sockaddr_in*>(&storage);
    address->sin_family = AF_INET;
    address->sin_port = htons(port);
  }
  const std::string name = "port " + std::to_string(port);
  if (bind(fd, reinterpret_cast<sockaddr*>(&storage), length) != 0)
    return ErrnoStatus(errno, "bind " + name);
  if (type == SOCK_STREAM && listen(fd, kBacklog) != 0) return ErrnoStatus(errno, "listen " + name);
  return absl::OkStatus();
}

}  // namespace weft::sockets
