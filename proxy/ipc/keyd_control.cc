// SPDX-License-Identifier: Apache-2.0
#include "proxy/ipc/keyd_control.h"

#include <cstring>
#include <utility>
#include <vector>

namespace weft::ipc {

absl::StatusOr<KeydControl> KeydControl::Connect(const std::string& path) {
  WEFT_ASSIGN_OR_RETURN(ControlSocket socket, ControlSocket::Connect(path, "weft-keyd"));
  return KeydControl(std::move(socket));
}

absl::StatusOr<KeydControl::Reply> KeydControl::Call(KeydRequest request,
                                                     std::string_view identity) {
  request.id = socket_.NextId();
  request.identity_bytes = static_cast<uint32_t>(identity.size());
  if (identity.size() > kMaxIdentityBytes)
    return absl::InvalidArgumentError("identity longer than 2048 bytes");
  std::vector<uint8_t> bytes(sizeof request + identity.size());
  memcpy(bytes.data(), &request, sizeof request);
  if (!identity.empty()) memcpy(bytes.data() + sizeof request, identity.data(), identity.size());
  WEFT_ASSIGN_OR_RETURN(const ControlSocket::Packet packet, socket_.Call(request.id, bytes));
  Reply reply;
  if (packet.bytes.size() < sizeof reply.answer) return socket_.Malformed(packet);
  memcpy(&reply.answer, packet.bytes.data(), sizeof reply.answer);
  const size_t fds = request.op == KeydOp::kNewChannel && reply.answer.error == 0 ? 1 : 0;
  const bool valid = reply.answer.version == kKeydVersion && packet.fds.size() == fds &&
                     packet.bytes.size() == sizeof reply.answer + reply.answer.body_bytes;
  if (!valid) return socket_.Malformed(packet);
  if (reply.answer.error != 0) return socket_.Refused(reply.answer.error);
  if (fds == 1) reply.fd = packet.fds[0];
  reply.body.assign(packet.bytes.begin() + sizeof reply.answer, packet.bytes.end());
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
