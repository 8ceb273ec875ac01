// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/listen.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "proxy/base/log.h"

namespace weft::net {
namespace {

constexpr int kAcceptsPerWakeup = 64;  // then other work of the thread gets its turn
constexpr auto kRest = std::chrono::milliseconds(100);

absl::Status CloseWith(int fd, std::string_view what) {
  const int error = errno;
  (void)close(fd);
  return ErrnoStatus(error, what);
}

SocketAddress AddressBy(int (*get)(int, sockaddr*, socklen_t*), int fd) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  auto* address = reinterpret_cast<sockaddr*>(&storage);
  if (get(fd, address, &size) != 0) return {};
  return SocketAddress::FromSockaddr(address, size).value_or(SocketAddress{});
}

int GetSockName(int fd, sockaddr* address, socklen_t* size) {
  return getsockname(fd, address, size);
}
int GetPeerName(int fd, sockaddr* address, socklen_t* size) {
  return getpeername(fd, address, size);
}

// A socket file that nobody listens on any more.
bool IsDeadSocketFile(const sockaddr_un& address) {
  struct stat info{};
  if (lstat(address.sun_path, &info) != 0 || !S_ISSOCK(info.st_mode)) return false;
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return false;
  const int result = connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const bool dead = result != 0 && errno == ECONNREFUSED;
  (void)close(fd);
  return dead;
}

}  // namespace

absl::StatusOr<int> ListenTcp(SocketAddress address, ListenOptions options) {
  const int family = address.ip.is_v4() ? AF_INET : AF_INET6;
  const std::string name = address.ToString();
  const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return ErrnoStatus(errno, "socket");
  const int on = 1;
  const int off = 0;
  (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (options.reuse_port) (void)setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  if (family == AF_INET6) (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  sockaddr_storage storage{};
  const socklen_t length = address.ToSockaddr(family, &storage);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&storage), length) != 0)
    return CloseWith(fd, "bind " + name);
  if (listen(fd, options.backlog) != 0) return CloseWith(fd, "listen " + name);
  return fd;
}

absl::StatusOr<int> ListenUnix(const std::string& path, mode_t mode) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return absl::InvalidArgumentError("unix path too long or empty: " + path);
  }
  memcpy(address.sun_path, path.data(), path.size());
  if (IsDeadSocketFile(address)) (void)unlink(path.c_str());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return ErrnoStatus(errno, "socket");
  // The file appears with these permissions, not with others for a moment.
  if (fchmod(fd, mode) != 0) return CloseWith(fd, "fchmod " + path);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return CloseWith(fd, "bind " + path);
  if (chmod(path.c_str(), mode) != 0) return CloseWith(fd, "chmod " + path);
  if (listen(fd, 128) != 0) return CloseWith(fd, "listen " + path);
  return fd;
}

SocketAddress LocalAddress(int fd) { return AddressBy(GetSockName, fd); }
SocketAddress PeerAddress(int fd) { return AddressBy(GetPeerName, fd); }

struct Acceptor::State : std::enable_shared_from_this<Acceptor::State> {
  State(const asio::any_io_executor& executor, OnAccept callback)
      : descriptor(executor), rest(executor), on_accept(std::move(callback)) {}

  void Wait() {
    descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                          [self = shared_from_this()](boost::system::error_code error) {
                            if (!error && self->running) self->AcceptSome();
                          });
  }

  void AcceptSome() {
    for (int i = 0; i < kAcceptsPerWakeup; ++i) {
      sockaddr_storage storage{};
      socklen_t size = sizeof storage;
      auto* address = reinterpret_cast<sockaddr*>(&storage);
      const int fd =
          accept4(descriptor.native_handle(), address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
          return Rest();
        if (errno == EAGAIN) break;
        if (errno == EINVAL || errno == EBADF) return Stopped();
        continue;  // the connection died in the queue
      }
      on_accept(fd, SocketAddress::FromSockaddr(address, size).value_or(SocketAddress{}));
      if (!running) return;
    }
    Wait();
  }

  void Rest() {
    LogWarning("out of file descriptors or memory: not accepting for a moment");
    rest.expires_after(kRest);
    rest.async_wait([self = shared_from_this()](boost::system::error_code error) {
      if (!error && self->running) self->Wait();
    });
  }

  void Stopped() {
    LogError("a listening socket failed", {{"errno", std::to_string(errno)}});
    running = false;
  }

  asio::posix::stream_descriptor descriptor;
  asio::steady_timer rest;
  OnAccept on_accept;
  bool running = false;
};

Acceptor::Acceptor(asio::any_io_executor executor, int listen_fd, OnAccept on_accept)
    : state_(std::make_shared<State>(executor, std::move(on_accept))) {
  boost::system::error_code error;
  state_->descriptor.assign(listen_fd, error);
  if (error) {
    LogError("cannot watch a listening socket", {{"error", error.message()}});
    (void)close(listen_fd);
  }
}

Acceptor::~Acceptor() {
  state_->running = false;
  boost::system::error_code ignored;
  state_->descriptor.close(ignored);
  state_->rest.cancel();
}

void Acceptor::Start() {
  if (state_->running || !state_->descriptor.is_open()) return;
  state_->running = true;
  state_->Wait();
}

void Acceptor::Stop() {
  state_->running = false;
  boost::system::error_code ignored;
  state_->descriptor.cancel(ignored);
  state_->rest.cancel();
}

SocketAddress Acceptor::address() const { return LocalAddress(state_->descriptor.native_handle()); }

}  // namespace weft::net
