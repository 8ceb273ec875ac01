// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/datagram.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "proxy/net/listen.h"

namespace weft::net {
namespace {

int FamilyOf(int fd) {
  int family = 0;
  socklen_t size = sizeof family;
  return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) == 0 ? family : 0;
}

// Without it answers leave from the address that the route prefers, which is the right one where
// there is only one.
void AskForDestinations(int fd, int family) {
  const int on = 1;
  if (family == AF_INET6) {
    (void)setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);
  } else {
    (void)setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on);
  }
}

union Control {
  cmsghdr align;
  char bytes[CMSG_SPACE(sizeof(in6_pktinfo)) + CMSG_SPACE(sizeof(in_pktinfo))];
};

IpAddress Mapped(const in_addr& address) {
  IpAddress ip;
  ip.bytes[10] = ip.bytes[11] = 0xff;
  memcpy(ip.bytes.data() + 12, &address, sizeof address);
  return ip;
}

IpAddress DestinationOf(msghdr& message) {
  IpAddress ip;
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
      in6_pktinfo info;
      memcpy(&info, CMSG_DATA(c), sizeof info);
      memcpy(ip.bytes.data(), &info.ipi6_addr, sizeof info.ipi6_addr);
    } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
      in_pktinfo info;
      memcpy(&info, CMSG_DATA(c), sizeof info);
      ip = Mapped(info.ipi_addr);
    }
  }
  return ip;
}

// An AF_INET6 socket takes the mapped form for IPv4 too.
void SetSource(int family, const IpAddress& from, Control* control, msghdr* message) {
  cmsghdr* c = &control->align;
  message->msg_control = control;
  if (family == AF_INET6) {
    in6_pktinfo info{};
    memcpy(&info.ipi6_addr, from.bytes.data(), sizeof info.ipi6_addr);
    c->cmsg_level = IPPROTO_IPV6;
    c->cmsg_type = IPV6_PKTINFO;
    c->cmsg_len = CMSG_LEN(sizeof info);
    memcpy(CMSG_DATA(c), &info, sizeof info);
    message->msg_controllen = CMSG_SPACE(sizeof info);
  } else {
    in_pktinfo info{};
    memcpy(&info.ipi_spec_dst, from.bytes.data() + 12, sizeof info.ipi_spec_dst);
    c->cmsg_level = IPPROTO_IP;
    c->cmsg_type = IP_PKTINFO;
    c->cmsg_len = CMSG_LEN(sizeof info);
    memcpy(CMSG_DATA(c), &info, sizeof info);
    message->msg_controllen = CMSG_SPACE(sizeof info);
  }
}

}  // namespace

DatagramSocket::DatagramSocket(const asio::any_io_executor& executor, int fd)
    : descriptor_(executor), family_(FamilyOf(fd)) {
  AskForDestinations(fd, family_);
  boost::system::error_code error;
  descriptor_.assign(fd, error);
  if (error) {
    (void)close(fd);
    return;
  }
  fd_ = fd;
}

DatagramSocket::Received DatagramSocket::TryReceive(std::span<uint8_t> into) {
  if (fd_ < 0) return {.error = EBADF};
  sockaddr_storage from{};
  Control control;
  iovec piece{into.data(), into.size()};
  msghdr message{};
  message.msg_name = &from;
  message.msg_namelen = sizeof from;
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = &control;
  message.msg_controllen = sizeof control;
  for (;;) {
    const ssize_t n = recvmsg(fd_, &message, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return {.error = errno};
    Received received{.bytes = static_cast<size_t>(n),
                      .truncated = (message.msg_flags & MSG_TRUNC) != 0,
                      .to = DestinationOf(message)};
    received.from =
        SocketAddress::FromSockaddr(reinterpret_cast<sockaddr*>(&from), message.msg_namelen)
            .value_or(SocketAddress{});
    return received;
  }
}

int DatagramSocket::TrySend(std::span<const uint8_t> bytes) {
  if (fd_ < 0) return EBADF;
  for (;;) {
    if (send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL) >= 0) return 0;
    if (errno != EINTR) return errno;
  }
}

int DatagramSocket::TrySendTo(std::span<const uint8_t> bytes, const SocketAddress& to,
                              const IpAddress& from) {
  if (fd_ < 0) return EBADF;
  sockaddr_storage address{};
  Control control{};
  iovec piece{const_cast<uint8_t*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_name = &address;
  message.msg_namelen = to.ToSockaddr(family_, &address);
  if (message.msg_namelen == 0) return EAFNOSUPPORT;
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  if (!from.is_unspecified()) SetSource(family_, from, &control, &message);
  for (;;) {
    if (sendmsg(fd_, &message, MSG_NOSIGNAL) >= 0) return 0;
    if (errno != EINTR) return errno;
  }
}

int DatagramSocket::Connect(const SocketAddress& to) {
  if (fd_ < 0) return EBADF;
  sockaddr_storage address{};
  const socklen_t length = to.ToSockaddr(family_, &address);
  if (length == 0) return EAFNOSUPPORT;
  return connect(fd_, reinterpret_cast<const sockaddr*>(&address), length) == 0 ? 0 : errno;
}

Task<void> DatagramSocket::Readable() {
  if (fd_ < 0) co_return;
  auto [error] =
      co_await descriptor_.async_wait(asio::posix::stream_descriptor::wait_read, kAsTuple);
  (void)error;  // the next TryReceive finds out by itself
}

void DatagramSocket::WhenReadable(std::function<void()> callback) {
  if (fd_ < 0) return;
  descriptor_.async_wait(asio::posix::stream_descriptor::wait_read,
                         [callback = std::move(callback)](boost::system::error_code error) {
                           if (!error) callback();
                         });
}

void DatagramSocket::Close() {
  if (fd_ < 0) return;
  fd_ = -1;
  boost::system::error_code ignored;
  descriptor_.close(ignored);
}

SocketAddress DatagramSocket::local_address() const {
  return fd_ < 0 ? SocketAddress{} : LocalAddress(fd_);
}

}  // namespace weft::net
