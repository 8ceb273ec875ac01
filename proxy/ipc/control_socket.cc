// SPDX-License-Identifier: Apache-2.0
#include "proxy/ipc/control_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>

#include "proxy/ipc/fd_passing.h"
#include "proxy/ipc/keyd_protocol.h"
#include "proxy/ipc/sockets_protocol.h"

namespace weft::ipc {
namespace {

using Clock = std::chrono::steady_clock;

// Both protocols answer with the id at the same place.
constexpr size_t kIdOffset = offsetof(KeydAnswer, id);
static_assert(kIdOffset == offsetof(SocketsAnswer, id));
static_assert(kMaxKeydPacket > sizeof(SocketsAnswer));

void CloseAll(const std::vector<int>& fds) {
  for (const int fd : fds) (void)close(fd);
}

// Waits until `fd` may work: 0 or an errno.
int WaitFor(int fd, short events, Clock::time_point until) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
    if (left <= 0) return ETIMEDOUT;
    pollfd polled{.fd = fd, .events = events, .revents = 0};
    const int ready = poll(&polled, 1, static_cast<int>(left));
    if (ready > 0) return 0;
    if (ready < 0 && errno != EINTR) return errno;
  }
}

}  // namespace

absl::StatusOr<ControlSocket> ControlSocket::Connect(const std::string& path, std::string server) {
  const int fd = ConnectPackets(path);
  if (fd < 0) return ErrnoStatus(-fd, "connect " + path);
  (void)fcntl(fd, F_SETFL, O_NONBLOCK);
  return ControlSocket(fd, std::move(server));
}

ControlSocket::ControlSocket(ControlSocket&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      server_(std::move(other.server_)),
      next_id_(other.next_id_) {}
ControlSocket& ControlSocket::operator=(ControlSocket&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(server_, other.server_);
  std::swap(next_id_, other.next_id_);
  return *this;
}
ControlSocket::~ControlSocket() {
  if (fd_ >= 0) (void)close(fd_);
}

absl::StatusOr<ControlSocket::Packet> ControlSocket::Receive(Clock::time_point until) {
  for (;;) {
    Packet packet;
    packet.bytes.resize(kMaxKeydPacket + 1);
    ReceivedPacket received = ReceivePacket(fd_, packet.bytes);
    if (received.error == 0) {
      packet.bytes.resize(received.bytes);
      packet.fds = std::move(received.fds);
      return packet;
    }
    if (received.error == EAGAIN) received.error = WaitFor(fd_, POLLIN, until);
    if (received.error != 0) return ErrnoStatus(received.error, server_ + ": receive");
  }
}

absl::StatusOr<ControlSocket::Packet> ControlSocket::Call(uint32_t id,
                                                          std::span<const uint8_t> request,
                                                          std::span<const int> fds) {
  const Clock::time_point until = Clock::now() + kAnswerLimit;
  for (;;) {
    int error = SendPacket(fd_, request, fds);
    if (error == 0) break;
    if (error == EAGAIN) error = WaitFor(fd_, POLLOUT, until);
    if (error != 0) return ErrnoStatus(error, server_ + ": send");
  }
  for (;;) {
    WEFT_ASSIGN_OR_RETURN(Packet packet, Receive(until));
    if (packet.bytes.size() < kIdOffset + sizeof id) return Malformed(packet);
    if (memcmp(packet.bytes.data() + kIdOffset, &id, sizeof id) == 0) return packet;
    CloseAll(packet.fds);
  }
}

absl::Status ControlSocket::Malformed(const Packet& packet) const {
  CloseAll(packet.fds);
  return absl::InternalError(server_ + ": malformed answer");
}

absl::Status ControlSocket::Refused(int error) const { return ErrnoStatus(error, server_); }

}  // namespace weft::ipc
