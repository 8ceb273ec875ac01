// SPDX-License-Identifier: Apache-2.0
#include "proxy/ipc/sockets_control.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "proxy/ipc/fd_passing.h"

namespace weft::ipc {
namespace {

constexpr timeval kTimeout{.tv_sec = 5, .tv_usec = 0};

std::span<const uint8_t> BytesOf(const SocketsRequest& request) {
  return {reinterpret_cast<const uint8_t*>(&request), sizeof request};
}

}  // namespace

absl::StatusOr<SocketsControl> SocketsControl::Connect(const std::string& path) {
  const int fd = ConnectPackets(path);
  if (fd < 0) return ErrnoStatus(-fd, "connect " + path);
  (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &kTimeout, sizeof kTimeout);
  (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &kTimeout, sizeof kTimeout);
  return SocketsControl(fd);
}

SocketsControl::SocketsControl(SocketsControl&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), next_id_(other.next_id_) {}
SocketsControl& SocketsControl::operator=(SocketsControl&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(next_id_, other.next_id_);
  return *this;
}
SocketsControl::~SocketsControl() {
  if (fd_ >= 0) (void)close(fd_);
}

absl::StatusOr<SocketsAnswer> SocketsControl::Call(SocketsRequest request, int send_fd,
                                                   int* received_fd) {
  request.id = next_id_++;
  const std::span<const int> fds(&send_fd, send_fd >= 0 ? 1 : 0);
  if (const int error = SendPacket(fd_, BytesOf(request), fds); error != 0)
    return ErrnoStatus(error, "weft-sockets: send");
  uint8_t buffer[sizeof(SocketsAnswer) + 1];
  ReceivedPacket packet = ReceivePacket(fd_, buffer);
  if (packet.error != 0) return ErrnoStatus(packet.error, "weft-sockets: receive");
  SocketsAnswer answer;
  memcpy(&answer, buffer, sizeof answer);
  const size_t expected = received_fd != nullptr && answer.error == 0 ? 1 : 0;
  const bool valid = packet.bytes == sizeof answer && answer.version == kSocketsVersion &&
                     answer.id == request.id && packet.fds.size() == expected;
  if (!valid) {
    for (const int fd : packet.fds) (void)close(fd);
    return absl::InternalError("weft-sockets: malformed answer");
  }
  if (answer.error != 0) return ErrnoStatus(answer.error, "weft-sockets");
  if (expected == 1) *received_fd = packet.fds[0];
  return answer;
}

absl::Status SocketsControl::AddWorkload(uint32_t workload, uint32_t generation, uint32_t tenant,
                                         int netns_fd) {
  SocketsRequest request;
  request.op = SocketsOp::kAddWorkload;
  request.workload = workload;
  request.generation = generation;
  request.tenant = tenant;
  return Call(request, netns_fd, nullptr).status();
}

absl::Status SocketsControl::RemoveWorkload(uint32_t workload) {
  SocketsRequest request;
  request.op = SocketsOp::kRemoveWorkload;
  request.workload = workload;
  return Call(request, -1, nullptr).status();
}

absl::StatusOr<int> SocketsControl::NewChannel(uint32_t tenant) {
  SocketsRequest request;
  request.op = SocketsOp::kNewChannel;
  request.tenant = tenant;
  int fd = -1;
  WEFT_RETURN_IF_ERROR(Call(request, -1, &fd).status());
  return fd;
}

absl::StatusOr<uint64_t> SocketsControl::CountWorkloads() {
  SocketsRequest request;
  request.op = SocketsOp::kListWorkloads;
  WEFT_ASSIGN_OR_RETURN(const SocketsAnswer answer, Call(request, -1, nullptr));
  return answer.value;
}

}  // namespace weft::ipc
