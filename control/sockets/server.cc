// SPDX-License-Identifier: Apache-2.0
#include "control/sockets/server.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "proxy/base/log.h"
#include "proxy/ipc/fd_passing.h"

namespace weft::sockets {

using ipc::SocketsAnswer;
using ipc::SocketsOp;
using ipc::SocketsRequest;

namespace {

struct Listened {
  uint16_t port;
  int type;
  bool steered;  // sk_lookup sends to it what comes to other ports or from outside
};
constexpr Listened kListened[] = {{WEFT_PORT_OUTBOUND, SOCK_STREAM, false},
                                  {WEFT_PORT_INBOUND, SOCK_STREAM, true},
                                  {WEFT_PORT_HBONE, SOCK_STREAM, true},
                                  {WEFT_PORT_DNS, SOCK_STREAM, false},
                                  {WEFT_PORT_DNS, SOCK_DGRAM, false}};
constexpr size_t kMaxWorkloads = 16384;  // each holds six descriptors

void CloseAll(std::vector<int>& fds) {
  for (const int fd : fds) (void)close(fd);
  fds.clear();
}

SocketsAnswer Error(int error) { return {.error = error}; }

// An errno for a status; what was wrong is in our log.
SocketsAnswer Failed(const absl::Status& status, std::string_view what, uint32_t workload) {
  LogWarning(what, {{"workload", std::to_string(workload)}, {"error", status.ToString()}});
  if (absl::IsNotFound(status)) return Error(ENOENT);
  if (absl::IsAlreadyExists(status)) return Error(EADDRINUSE);
  if (absl::IsResourceExhausted(status)) return Error(EMFILE);
  return Error(EIO);
}

}  // namespace

Server::Server(NetnsSockets netns, Stamper& stamper, int control_listener, uint32_t control_uid)
    : netns_(std::move(netns)),
      stamper_(stamper),
      channels_(control_listener, control_uid,
                [this](ipc::PacketServer::Channel& channel) { return Serve(channel); }) {}

Server::~Server() {
  for (auto& [id, workload] : workloads_) Drop(id, workload);
}

bool Server::Serve(const ipc::PacketServer::Channel& channel) {
  uint8_t buffer[sizeof(SocketsRequest) + 1];
  ipc::ReceivedPacket packet = ipc::ReceivePacket(channel.fd, buffer);
  if (packet.error != 0) return packet.error == EAGAIN;
  SocketsRequest request;
  if (packet.bytes == sizeof request) memcpy(&request, buffer, sizeof request);
  if (packet.bytes != sizeof request || request.version != ipc::kSocketsVersion) {
    LogWarning("malformed request: ending its channel",
               {{"tenant", std::to_string(channel.tenant)}});
    CloseAll(packet.fds);
    return false;
  }
  Reply reply =
      channel.control ? HandleControl(request, packet.fds) : HandleTenant(channel.tenant, request);
  CloseAll(packet.fds);
  reply.answer.version = ipc::kSocketsVersion;
  reply.answer.id = request.id;
  reply.answer.count = static_cast<uint32_t>(reply.fds.size());
  const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(&reply.answer),
                                       sizeof reply.answer);
  const int error = ipc::SendPacket(channel.fd, bytes, reply.fds);
  if (!reply.keep) CloseAll(reply.fds);
  return error == 0;  // EAGAIN too: who lets 200 answers pile up is broken
}

Server::Reply Server::HandleControl(const SocketsRequest& request, std::vector<int>& fds) {
  switch (request.op) {
    case SocketsOp::kAddWorkload:
      return AddWorkload(request, fds);
    case SocketsOp::kRemoveWorkload: {
      const auto found = workloads_.find(request.workload);
      if (found == workloads_.end()) return {.answer = Error(ENOENT)};
      Drop(found->first, found->second);
      workloads_.erase(found);
      return {};
    }
    case SocketsOp::kNewChannel: {
      const int fd = channels_.NewChannel(request.tenant);
      if (fd < 0) return {.answer = Error(-fd)};
      return {.fds = {fd}};
    }
    case SocketsOp::kListWorkloads:
      return {.answer = {.value = workloads_.size()}};
    default:
      return {.answer = Error(EPERM)};
  }
}

Server::Reply Server::HandleTenant(uint32_t tenant, const SocketsRequest& request) {
  const bool known_family = request.family == AF_INET || request.family == AF_INET6;
  const bool counted = request.count >= 1 && request.count <= ipc::kMaxSocketsPerAnswer;
  if (request.op == SocketsOp::kHost) {
    return known_family && counted ? Sockets(-1, WEFT_ROLE_HOST, request)
                                   : Reply{.answer = Error(EINVAL)};
  }
  if (request.op != SocketsOp::kListeners && request.op != SocketsOp::kTunnel &&
      request.op != SocketsOp::kToApp && request.op != SocketsOp::kDatagram) {
    LogWarning("a proxy asked for what only the agent may", {{"tenant", std::to_string(tenant)}});
    return {.answer = Error(EPERM)};
  }
  const auto found = workloads_.find(request.workload);
  // Another tenant's workload looks exactly like none.
  if (found == workloads_.end() || found->second.tenant != tenant) return {.answer = Error(ENOENT)};
  Workload& workload = found->second;
  if (workload.generation != request.generation) return {.answer = Error(ESTALE)};
  if (request.op == SocketsOp::kListeners) return Listeners(found->first, workload);
  if (!known_family || !counted) return {.answer = Error(EINVAL)};
  const weft_role role = request.op == SocketsOp::kToApp ? WEFT_ROLE_TO_APP : WEFT_ROLE_TUNNEL;
  return Sockets(workload.netns_fd, role, request);
}

Server::Reply Server::AddWorkload(const SocketsRequest& request, std::vector<int>& fds) {
  if (fds.size() != 1 || request.workload == 0) return {.answer = Error(EINVAL)};
  const uint64_t inode = NetnsInode(fds[0]);
  if (inode == 0) return {.answer = Error(EINVAL)};
  const auto found = workloads_.find(request.workload);
  if (found == workloads_.end() && workloads_.size() >= kMaxWorkloads)
    return {.answer = Error(ENOSPC)};
  if (found != workloads_.end()) {
    Workload& known = found->second;
    if (known.generation == request.generation && known.netns_inode == inode) {
      known.tenant = request.tenant;
      return {};
    }
    Drop(found->first, known);
    workloads_.erase(found);
  }
  workloads_[request.workload] = {.generation = request.generation,
                                  .tenant = request.tenant,
                                  .netns_fd = fds[0],
                                  .netns_inode = inode,
                                  .listeners = {}};
  fds.clear();  // ours now
  return {};
}

absl::Status Server::MakeListener(uint32_t id, Workload& workload, uint16_t port, int type,
                                  bool steered) {
  auto made = netns_.Make(workload.netns_fd, AF_INET6, type, 1);
  if (!made.ok()) made = netns_.Make(workload.netns_fd, AF_INET, type, 1);  // a kernel without IPv6
  if (!made.ok()) return made.status();
  const int fd = made->front();
  workload.listeners.push_back(fd);
  WEFT_RETURN_IF_ERROR(stamper_.Stamp(fd, WEFT_ROLE_LISTENER, id, workload.generation));
  WEFT_RETURN_IF_ERROR(NetnsSockets::Listen(fd, type, port));
  return steered ? stamper_.PutListener(id, port, fd) : absl::OkStatus();
}

Server::Reply Server::Listeners(uint32_t id, Workload& workload) {
  if (workload.listeners.empty()) {
    for (const auto& [port, type, steered] : kListened) {
      const absl::Status status = MakeListener(id, workload, port, type, steered);
      if (status.ok()) continue;
      CloseAll(workload.listeners);
      return {.answer = Failed(status, "no listeners for a workload", id)};
    }
  }
  return {.fds = workload.listeners, .keep = true};
}

Server::Reply Server::Sockets(int netns_fd, weft_role role, const SocketsRequest& request) {
  const bool host = role == WEFT_ROLE_HOST;
  const int type = request.op == SocketsOp::kDatagram ? SOCK_DGRAM : SOCK_STREAM;
  auto made = netns_.Make(netns_fd, request.family, type, request.count);
  if (!made.ok()) return {.answer = Failed(made.status(), "no sockets", request.workload)};
  Reply reply{.fds = std::move(*made)};
  for (const int fd : reply.fds) {
    const absl::Status stamped =
        stamper_.Stamp(fd, role, host ? 0 : request.workload, host ? 0 : request.generation);
    if (stamped.ok()) continue;
    CloseAll(reply.fds);
    return {.answer = Failed(stamped, "a socket could not be stamped", request.workload)};
  }
  return reply;
}

void Server::Drop(uint32_t id, Workload& workload) {
  for (const uint16_t port : {WEFT_PORT_INBOUND, WEFT_PORT_HBONE}) {
    if (workload.listeners.empty()) break;
    const absl::Status status = stamper_.RemoveListener(id, static_cast<uint16_t>(port));
    if (!status.ok()) LogWarning("a listener stays in the map", {{"error", status.ToString()}});
  }
  CloseAll(workload.listeners);
  (void)close(workload.netns_fd);
  workload.netns_fd = -1;
}

}  // namespace weft::sockets
