// SPDX-License-Identifier: Apache-2.0
#include "proxy/net/dial.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/ip/tcp.hpp>
#include <cerrno>
#include <cstring>
#include <vector>

#include "proxy/net/deadline.h"
#include "proxy/net/tcp_stream.h"

namespace weft::net {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

int SocketError(int fd) {
  int error = 0;
  socklen_t size = sizeof error;
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

// True if the connection is decided already, as it is on loopback and within a node: saves a round
// through epoll.
bool IsDecided(int fd) {
  pollfd poll_fd{.fd = fd, .events = POLLOUT, .revents = 0};
  return poll(&poll_fd, 1, 0) == 1;
}

int FamilyOf(int fd) {
  int family = 0;
  socklen_t size = sizeof family;
  return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) == 0 ? family : -1;
}

std::string_view ConnectFailure(Reason reason) {
  return reason == WEFT_R_NONE ? "unknown failure" : ReasonMeaning(reason);
}

struct HostPort {
  std::string host, port;
};
std::optional<HostPort> SplitHostPort(std::string_view target) {
  const size_t colon = target.rfind(':');
  if (colon == std::string_view::npos || colon == 0 || colon + 1 == target.size())
    return std::nullopt;
  return HostPort{std::string(target.substr(0, colon)), std::string(target.substr(colon + 1))};
}

Task<StatusOrStream> DialName(asio::any_io_executor executor, HostPort name, milliseconds timeout) {
  const auto end = steady_clock::now() + timeout;
  asio::ip::tcp::resolver resolver(executor);
  Deadline limit(executor, timeout, [&resolver] { resolver.cancel(); });
  auto [error, found] = co_await resolver.async_resolve(name.host, name.port, kAsTuple);
  if (error) co_return absl::UnavailableError("resolve " + name.host + ": " + error.message());
  absl::Status last = absl::UnavailableError("resolve " + name.host + ": no address");
  for (const auto& entry : found) {
    const auto left = std::chrono::duration_cast<milliseconds>(end - steady_clock::now());
    if (left.count() <= 0) break;
    const auto endpoint = entry.endpoint();
    auto address =
        SocketAddress::FromSockaddr(endpoint.data(), static_cast<socklen_t>(endpoint.size()));
    if (!address) continue;
    StatusOrStream stream = co_await DialTcp(executor, *address, left);
    if (stream.ok()) co_return stream;
    last = stream.status();
  }
  co_return last;
}

}  // namespace

Task<Connected> ConnectFd(asio::any_io_executor executor, int fd, SocketAddress to,
                          milliseconds timeout) {
  sockaddr_storage storage;
  const socklen_t length = to.ToSockaddr(FamilyOf(fd), &storage);
  if (length == 0) {
    (void)close(fd);
    co_return Connected{.stream = nullptr, .reason = WEFT_R_CONNECT_FAILED};
  }
  const int connected = connect(fd, reinterpret_cast<const sockaddr*>(&storage), length);
  int error = connected == 0 ? 0 : errno;
  Connected result;
  result.stream = MakeSocketStream(executor, fd);
  if (error == EINPROGRESS) {
    Deadline limit(executor, timeout, [&result] { result.stream->Close(WEFT_R_CONNECT_TIMEOUT); });
    if (!IsDecided(fd)) co_await result.stream->Writable();
    error = limit.expired() ? ETIMEDOUT : SocketError(fd);
  }
  if (result.stream->native_handle() < 0 && error == 0) error = EIO;  // could not be watched
  if (error != 0) {
    result.reason = ReasonOfConnectErrno(error);
    result.stream->Close(result.reason);
    result.stream.reset();
  }
  co_return result;
}

Task<StatusOrStream> DialTcp(asio::any_io_executor executor, SocketAddress address,
                             milliseconds timeout) {
  const int family = address.ip.is_v4() ? AF_INET : AF_INET6;
  const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) co_return ErrnoStatus(errno, "socket");
  Connected connected = co_await ConnectFd(executor, fd, address, timeout);
  if (connected.stream == nullptr) {
    co_return absl::UnavailableError("connect " + address.ToString() + ": " +
                                     std::string(ConnectFailure(connected.reason)));
  }
  co_return std::move(connected.stream);
}

Task<StatusOrStream> DialUnix(asio::any_io_executor executor, std::string path,
                              milliseconds timeout) {
  (void)timeout;  // a unix connect never waits: a full backlog answers EAGAIN
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    co_return absl::InvalidArgumentError("unix path too long or empty: " + path);
  }
  memcpy(address.sun_path, path.data(), path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) co_return ErrnoStatus(errno, "socket");
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const int error = errno;
    (void)close(fd);
    co_return ErrnoStatus(error, "connect " + path);
  }
  co_return MakeSocketStream(executor, fd);
}

Task<StatusOrStream> Dial(asio::any_io_executor executor, std::string target,
                          milliseconds timeout) {
  if (target.starts_with("unix:")) return DialUnix(executor, target.substr(5), timeout);
  if (auto address = SocketAddress::Parse(target)) return DialTcp(executor, *address, timeout);
  if (auto name = SplitHostPort(target)) return DialName(executor, *name, timeout);
  // An unusable target fails as a name without a port would.
  return DialName(executor, HostPort{target, ""}, timeout);
}

}  // namespace weft::net
