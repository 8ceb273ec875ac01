// SPDX-License-Identifier: Apache-2.0
#include "proxy/ipc/sockets_control.h"

#include <cstring>
#include <utility>

namespace weft::ipc {

absl::StatusOr<SocketsControl> SocketsControl::Connect(const std::string& path) {
  WEFT_ASSIGN_OR_RETURN(ControlSocket socket, ControlSocket::Connect(path, "weft-sockets"));
  return SocketsControl(std::move(socket));
}

absl::StatusOr<SocketsAnswer> SocketsControl::Call(SocketsRequest request, int send_fd,
                                                   int* received_fd) {
  request.id = socket_.NextId();
  const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(&request), sizeof request);
  const std::span<const int> fds(&send_fd, send_fd >= 0 ? 1 : 0);
  WEFT_ASSIGN_OR_RETURN(const ControlSocket::Packet packet, socket_.Call(request.id, bytes, fds));
  SocketsAnswer answer;
  if (packet.bytes.size() != sizeof answer) return socket_.Malformed(packet);
  memcpy(&answer, packet.bytes.data(), sizeof answer);
  const size_t expected = received_fd != nullptr && answer.error == 0 ? 1 : 0;
  if (answer.version != kSocketsVersion || packet.fds.size() != expected) {
    return socket_.Malformed(packet);
  }
  if (answer.error != 0) return socket_.Refused(answer.error);
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
