// SPDX-License-Identifier: Apache-2.0
#include "proxy/worker/egress_permits.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace weft::worker {

EgressPermits::~EgressPermits() {
  for (const auto& [id, socket] : asked_with_) (void)close(socket.fd);
}

const EgressPermits::Socket* EgressPermits::Find(const model::LocalWorkload& source) const {
  auto found = asked_with_.find(source.id);
  if (found == asked_with_.end() || found->second.generation != source.generation) return nullptr;
  return &found->second;
}

bool EgressPermits::Keep(const model::LocalWorkload& source, int fd) {
  Socket& kept = asked_with_[source.id];
  const bool newest = kept.fd < 0 || kept.generation <= source.generation;
  if (newest) std::swap(kept.fd, fd);
  if (newest) kept.generation = source.generation;
  if (fd >= 0) (void)close(fd);
  return newest;
}

Task<Reason> EgressPermits::Ask(std::shared_ptr<const model::LocalWorkload> source,
                                SocketAddress destination) {
  if (source->policy_epoch == 0) co_return WEFT_R_NONE;
  if (Find(*source) == nullptr) {
    net::SocketSource::Result taken = co_await sockets_.Take({.kind = net::SocketKind::kTunnel,
                                                              .workload = source->id,
                                                              .generation = source->generation,
                                                              .family = AF_INET});
    if (taken.fd < 0) co_return taken.reason;
    if (!Keep(*source, taken.fd)) co_return WEFT_R_WORKLOAD_GONE;
  }
  co_return AskAgain(*source, destination);
}

Reason EgressPermits::AskAgain(const model::LocalWorkload& source,
                               const SocketAddress& destination) const {
  const Socket* socket = Find(source);
  return socket == nullptr ? WEFT_R_NONE : sockets_.Permit(socket->fd, destination);
}

void EgressPermits::Retain(const model::Named<model::LocalWorkload>& workloads) {
  std::erase_if(asked_with_, [&workloads](const auto& item) {
    const auto& [id, socket] = item;
    const bool stays = std::ranges::any_of(workloads, [&](const auto& named) {
      return named.second->id == id && named.second->generation == socket.generation;
    });
    if (!stays) (void)close(socket.fd);
    return !stays;
  });
}

}  // namespace weft::worker
