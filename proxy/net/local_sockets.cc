// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/local_sockets.h"

#include <sys/socket.h>

namespace weft::net {

Task<SocketSource::Result> LocalSocketSource::Take(SocketRequest request) {
  const int family = request.family == 0 ? AF_INET : request.family;
  const int type = request.kind == SocketKind::kDatagram ? SOCK_DGRAM : SOCK_STREAM;
  const int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  co_return Result{.fd = fd, .reason = fd < 0 ? WEFT_R_SOCKETS_UNAVAILABLE : WEFT_R_NONE};
}

Task<std::vector<int>> LocalSocketSource::Listeners(uint32_t, uint32_t) {
  co_return std::vector<int>{};
}

Reason LocalSocketSource::Permit(int, const SocketAddress&) { return WEFT_R_NONE; }

}  // namespace weft::net
