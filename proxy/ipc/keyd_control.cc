// SPDX-License-Identifier: Apache-2.0
#include "proxy/ipc/keyd_control.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstring>
#include <utility>
#include <vector>

#include "proxy/ipc/fd_passing.h"

namespace weft::ipc {
namespace {

constexpr timeval kTimeout{.tv_sec = 5, .tv_usec = 0};

}  // namespace

absl::StatusOr<KeydControl> KeydControl::Connect(const std::string& path) {
  const int fd = ConnectPackets(path);
  if (fd < 0) return ErrnoStatus(-fd, "connect " + path);
  (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &kTimeout, sizeof kTimeout);
  (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &kTimeout, sizeof kTimeout);
  return KeydControl(fd);
}

KeydControl::KeydControl(KeydControl&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), next_id_(other.next_id_) {}
KeydControl& KeydControl::operator=(KeydControl&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(next_id_, other.next_id_);
  return *this;
}
KeydControl::~KeydControl() {
  if (fd_ >= 0) (void)close(fd_);
}

absl::StatusOr<KeydControl::Reply> KeydControl::Call(KeydRequest request,
                                                     std::string_view identity) {
  request.id = next_id_++;
  request.identity_bytes = static_cast<uint32_t>(identity.size());
  if (identity.size() > kMaxIdentityBytes)
    return absl::InvalidArgumentError("identity longer than 2048 bytes");
  std::vector<uint8_t> packet(sizeof request + identity.size());
  memcpy(packet.data(), &request, sizeof request);
  if (!identity.empty()) memcpy(packet.data() + sizeof request, identity.data(), identity.size());
  if (const int error = SendPacket(fd_, packet); error != 0)
    return ErrnoStatus(error, "weft-keyd: send");

  std::vector<uint8_t> buffer(kMaxKeydPacket + 1);
  ReceivedPacket received = ReceivePacket(fd_, buffer);
  if (received.error != 0) return ErrnoStatus(received.error, "weft-keyd: receive");
  Reply reply;
  if (received.bytes >= sizeof reply.answer)
    memcpy(&reply.answer, buffer.data(), sizeof reply.answer);
  const size_t fds = request.op == KeydOp::kNewChannel && reply.answer.error == 0 ? 1 : 0;
  const bool valid = received.bytes >= sizeof reply.answer &&
                     reply.answer.version == kKeydVersion && reply.answer.id == request.id &&
                     received.fds.size() == fds &&
                     received.bytes == sizeof reply.answer + reply.answer.body_bytes;
  if (!valid) {
    for (const int fd : received.fds) (void)close(fd);
    return absl::InternalError("weft-keyd: malformed answer");
  }
  if (reply.answer.error != 0) return ErrnoStatus(reply.answer.error, "weft-keyd");
  if (fds == 1) reply.fd = received.fds[0];
  reply.body.assign(reinterpret_cast<const char*>(buffer.data()) + sizeof reply.answer,
                    reply.answer.body_bytes);
  return reply;
}

absl::StatusOr<KeydControl::Generated> KeydControl::Generate(std::string_view identity) {
  KeydRequest request;
  request.op = KeydOp::kGenerate;
  WEFT_ASSIGN_OR_RETURN(Reply reply, Call(request, identity));
  return Generated{.key_id = reply.answer.key_id, .csr_pem = std::move(reply.body)};
}

absl::Status KeydControl::Grant(std::string_view identity, uint64_t key_id, uint32_t tenant) {
  KeydRequest request;
  request.op = KeydOp::kGrant;
  request.key_id = key_id;
  request.tenant = tenant;
  return Call(request, identity).status();
}

absl::Status KeydControl::Forget(uint64_t key_id) {
  KeydRequest request;
  request.op = KeydOp::kForget;
  request.key_id = key_id;
  return Call(request, {}).status();
}

absl::StatusOr<int> KeydControl::NewChannel(uint32_t tenant) {
  KeydRequest request;
  request.op = KeydOp::kNewChannel;
  request.tenant = tenant;
  WEFT_ASSIGN_OR_RETURN(const Reply reply, Call(request, {}));
  return reply.fd;
}

absl::StatusOr<std::string> KeydControl::StatusJson() {
  KeydRequest request;
  request.op = KeydOp::kStatus;
  WEFT_ASSIGN_OR_RETURN(Reply reply, Call(request, {}));
  return std::move(reply.body);
}

}  // namespace weft::ipc
