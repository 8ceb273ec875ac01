// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/tcp_stream.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cerrno>

namespace weft::net {
namespace {

constexpr int kKeepaliveSeconds = 180;  // first probe and interval, as ztunnel
constexpr int kKeepaliveProbes = 9;
constexpr size_t kMaxIovecs = 1024;  // IOV_MAX of Linux

void SetOption(int fd, int level, int name, int value) {
  // Each of these is a preference: a socket without it still works.
  (void)setsockopt(fd, level, name, &value, sizeof value);
}

bool IsTcp(int fd) {
  int protocol = 0;
  socklen_t size = sizeof protocol;
  return getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) == 0 && protocol == IPPROTO_TCP;
}

class SocketStream final : public Stream {
 public:
  SocketStream(const asio::any_io_executor& executor, int fd)
      : descriptor_(executor), tcp_(IsTcp(fd)) {
    const int flags = fcntl(fd, F_GETFL);
    if (flags >= 0 && (flags & O_NONBLOCK) == 0) (void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    if (tcp_) {
      SetOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
      SetOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
      SetOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, kKeepaliveSeconds);
      SetOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, kKeepaliveSeconds);
      SetOption(fd, IPPROTO_TCP, TCP_KEEPCNT, kKeepaliveProbes);
    }
    boost::system::error_code error;
    descriptor_.assign(fd, error);
    if (error) {
      (void)close(fd);
      reason_ = WEFT_R_IO_ERROR;
      return;
    }
    fd_ = fd;
  }

  ~SocketStream() override { Close(WEFT_R_CLOSED); }

  IoResult TryRead(std::span<uint8_t> into) override {
    if (reason_ != WEFT_R_NONE) return Dead();
    for (;;) {
      const ssize_t n = recv(fd_, into.data(), into.size(), 0);
      if (n > 0) return {.bytes = static_cast<size_t>(n)};
      if (n == 0) return {.status = IoStatus::kEof};
      if (errno != EINTR) return Failed(errno);
    }
  }

  IoResult TryWrite(std::span<const iovec> from) override {
    if (reason_ != WEFT_R_NONE) return Dead();
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(from.data());
    message.msg_iovlen = std::min(from.size(), kMaxIovecs);
    for (;;) {
      const ssize_t n = sendmsg(fd_, &message, MSG_NOSIGNAL);
      if (n >= 0) return {.bytes = static_cast<size_t>(n)};
      if (errno != EINTR) return Failed(errno);
    }
  }

  Task<void> Readable() override { return Wait(asio::posix::stream_descriptor::wait_read); }
  Task<void> Writable() override { return Wait(asio::posix::stream_descriptor::wait_write); }

  void ShutdownWrite() override {
    if (reason_ == WEFT_R_NONE) (void)shutdown(fd_, SHUT_WR);
  }

  void Close(Reason reason) override {
    if (fd_ < 0) return;
    if (reason_ == WEFT_R_NONE) reason_ = reason;
    if (tcp_ && reason_ != WEFT_R_CLOSED) {
      const linger reset{.l_onoff = 1, .l_linger = 0};
      (void)setsockopt(fd_, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    }
    fd_ = -1;
    boost::system::error_code ignored;
    descriptor_.close(ignored);  // also wakes both waiters
  }

  int native_handle() const override { return fd_; }

 private:
  Task<void> Wait(asio::posix::stream_descriptor::wait_type what) {
    if (reason_ != WEFT_R_NONE) co_return;
    auto [error] = co_await descriptor_.async_wait(what, kAsTuple);
    (void)error;  // the next Try* finds out by itself; `this` may be gone here
  }

  IoResult Dead() const { return {.status = IoStatus::kError, .reason = reason_}; }
  IoResult Failed(int error) {
    if (error == EAGAIN) return {.status = IoStatus::kWouldBlock};
    reason_ = error == EPIPE || error == ECONNRESET ? WEFT_R_PEER_RESET : WEFT_R_IO_ERROR;
    return Dead();
  }

  asio::posix::stream_descriptor descriptor_;
  int fd_ = -1;
  bool tcp_;
  Reason reason_ = WEFT_R_NONE;  // not NONE: dead
};

}  // namespace

Reason ReasonOfConnectErrno(int error) {
  switch (error) {
    case 0:
      return WEFT_R_NONE;
    case ECONNRESET:
    case ECONNREFUSED:
    case ENETUNREACH:
    case EHOSTUNREACH:
    case EADDRNOTAVAIL:
      return WEFT_R_CONNECT_FAILED;
    case ETIMEDOUT:
      return WEFT_R_CONNECT_TIMEOUT;
    case EPERM:
      return WEFT_R_POLICY_DENIED;  // what the connect programs answer
    default:
      return WEFT_R_IO_ERROR;
  }
}

std::unique_ptr<Stream> MakeSocketStream(asio::any_io_executor executor, int fd) {
  return std::make_unique<SocketStream>(executor, fd);
}

}  // namespace weft::net
