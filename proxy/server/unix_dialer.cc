// SPDX-License-Identifier: Apache-2.0
#include "proxy/server/unix_dialer.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "proxy/net/tcp_stream.h"

namespace weft::server {

absl::StatusOr<std::unique_ptr<UnixDialer>> UnixDialer::Create(asio::any_io_executor executor,
                                                               std::string path) {
  if (path.size() >= sizeof(sockaddr_un::sun_path))
    return absl::InvalidArgumentError(path + ": too long for a socket");
  std::unique_ptr<UnixDialer> dialer(new UnixDialer(std::move(executor), std::move(path)));
  for (size_t i = 0; i < kStock; ++i) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return ErrnoStatus(errno, "socket");
    dialer->stock_.push_back(fd);
  }
  return dialer;
}

UnixDialer::~UnixDialer() {
  for (int fd : stock_) close(fd);
}

Task<absl::StatusOr<std::unique_ptr<net::Stream>>> UnixDialer::Dial() {
  if (stock_.empty()) {
    co_return absl::ResourceExhaustedError(
        "no unix socket left in stock; the process must be started anew");
  }
  sockaddr_un address{.sun_family = AF_UNIX};
  memcpy(address.sun_path, path_.data(), path_.size());
  // A unix connect is over at once: established, refused, or EAGAIN where the listener's queue is
  // full.
  int fd = stock_.back();
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    co_return ErrnoStatus(errno, path_);
  }
  stock_.pop_back();
  co_return net::MakeSocketStream(executor_, fd);
}

}  // namespace weft::server
