// SPDX-License-Identifier: Apache-2.0
#include "tests/bpf/splice_bed.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace weft::bpf {

char ByteAt(uint64_t offset) {
  uint64_t x = (offset / 8 + 1) * 0x9e3779b97f4a7c15ull;
  x ^= x >> 29;
  return static_cast<char>(x >> (8 * (offset % 8)));
}

std::string Bytes(uint64_t from, size_t count) {
  std::string out(count, '\0');
  for (size_t i = 0; i < count; ++i) out[i] = ByteAt(from + i);
  return out;
}

bool Push(Direction& d) {
  if (d.sent == d.total) return true;
  const std::string bytes = Bytes(d.sent, std::min<uint64_t>(d.piece, d.total - d.sent));
  const ssize_t n = send(d.from.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n > 0) d.sent += static_cast<uint64_t>(n);
  return n > 0 || errno == EAGAIN;
}

bool Pull(Direction& d) {
  static char buffer[256 * 1024];
  const ssize_t n = recv(d.to.get(), buffer, sizeof buffer, MSG_DONTWAIT);
  if (n < 0) return errno == EAGAIN;
  for (ssize_t i = 0; i < n; ++i) {
    if (buffer[i] != ByteAt(d.received + static_cast<uint64_t>(i))) {
      ADD_FAILURE() << "wrong byte at " << d.received + static_cast<uint64_t>(i);
      return false;
    }
  }
  d.received += static_cast<uint64_t>(n);
  return n > 0 || d.received == d.total;
}

void Exchange(Direction there, Direction back) {
  while (there.received < there.total || back.received < back.total) {
    pollfd fds[2] = {{there.from.get(), POLLIN, 0}, {there.to.get(), POLLIN, 0}};
    if (there.sent < there.total) fds[0].events |= POLLOUT;
    if (back.sent < back.total) fds[1].events |= POLLOUT;
    ASSERT_GT(poll(fds, 2, 5000), 0) << "stuck at " << there.received << "/" << there.total << ", "
                                     << back.received << "/" << back.total;
    ASSERT_TRUE(Push(there) && Push(back)) << strerror(errno);
    ASSERT_TRUE(Pull(there) && Pull(back)) << strerror(errno);
  }
}

Pair SpliceBed::Connected(Blocking client, Blocking server, int family) {
  Pair pair;
  pair.client = TcpSocket(client_pod_, family, client);
  EXPECT_EQ(Connect(pair.client, family == AF_INET ? server_pod_.At(kPort) : server_pod_.At6(kPort),
                    family),
            0);
  pair.server = Accept(server_, server);
  return pair;
}

Pair SpliceBed::Spliced(int family) {
  Pair first = Connected(Blocking::kNo, Blocking::kNo, family);
  Settle();
  const uint64_t before = stats().inserted;
  Pair pair = Connected(Blocking::kNo, Blocking::kNo, family);
  EXPECT_EQ(stats().inserted, before + 2);
  return pair;
}

}  // namespace weft::bpf
