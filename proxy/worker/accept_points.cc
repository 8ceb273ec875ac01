// SPDX-License-Identifier: Apache-2.0
#include "proxy/worker/accept_points.h"

#include <unistd.h>

#include <utility>

#include "proxy/base/log.h"
#include "proxy/net/tcp_stream.h"
#include "proxy/worker/inbound.h"
#include "proxy/worker/outbound.h"

namespace weft::worker {
namespace {

// Order of SocketSource::Listeners().
enum : size_t { kOutbound = 0, kPlaintext, kHbone, kDns, kDnsDatagrams, kPorts };

void CloseFds(const std::vector<int>& fds) {
  for (int fd : fds) close(fd);
}

bool IsBound(const model::Listener& listener) {
  return listener.address.has_value() && listener.bind_to_port;
}

}  // namespace

AcceptPoints::AcceptPoints(WorkerState& state, bool alone, bool leader, Share share)
    : state_(state), dns_(state), alone_(alone), leader_(leader), share_(std::move(share)) {}

bool AcceptPoints::IsWanted(const std::string& name, const Point& point) const {
  if (point.is_workload) {
    auto found = state_.snapshot->local_workloads.find(name);
    return found != state_.snapshot->local_workloads.end() && found->second->id == point.id &&
           found->second->generation == point.generation;
  }
  auto found = state_.snapshot->listeners.find(name);
  return found != state_.snapshot->listeners.end() && IsBound(*found->second) &&
         *found->second->address == point.configured;
}

void AcceptPoints::Adopt(const std::function<void(const std::string& uid, uint32_t id)>& gone) {
  for (auto it = points_.begin(); it != points_.end();) {
    if (IsWanted(it->first, it->second)) {
      ++it;
      continue;
    }
    if (it->second.is_workload) gone(it->first, it->second.id);
    it = points_.erase(it);
  }
  if (leader_) OpenMissing();
}

void AcceptPoints::Retry() {
  if (leader_ && !state_.draining) OpenMissing();
}

void AcceptPoints::OpenMissing() {
  if (alone_) {
    for (const auto& [name, listener] : state_.snapshot->listeners) {
      if (IsBound(*listener) && !points_.contains(name)) Bind(*listener);
    }
    return;
  }
  for (const auto& [uid, workload] : state_.snapshot->local_workloads) {
    auto asking = asking_.find(uid);
    if (points_.contains(uid) ||
        (asking != asking_.end() && asking->second == workload->generation))
      continue;
    asking_[uid] = workload->generation;
    state_.gate.Spawn(AskFor(workload));
  }
}

Task<void> AcceptPoints::AskFor(std::shared_ptr<const model::LocalWorkload> workload) {
  std::vector<int> fds = co_await state_.sockets.Listeners(workload->id, workload->generation);
  asking_.erase(workload->uid);
  if (fds.size() != kPorts) {
    CloseFds(fds);
    if (failures_.emplace(workload->uid, "").second) {
      LogWarning("no listeners for a workload; asking again", {{"workload", workload->uid}});
    }
    co_return;
  }
  failures_.erase(workload->uid);
  Opened({.name = workload->uid,
          .is_workload = true,
          .id = workload->id,
          .generation = workload->generation,
          .sequence = state_.snapshot->sequence,
          .fds = std::move(fds)});
}

void AcceptPoints::Bind(const model::Listener& listener) {
  absl::StatusOr<int> fd = net::ListenTcp(*listener.address);
  if (!fd.ok()) {
    std::string error(fd.status().message());
    if (std::exchange(failures_[listener.name], error) != error) {
      LogError("listener cannot be bound; trying again",
               {{"listener", listener.name}, {"error", error}});
    }
    return;
  }
  failures_.erase(listener.name);
  Opened({.name = listener.name,
          .address = *listener.address,
          .sequence = state_.snapshot->sequence,
          .fds = {*fd}});
}

void AcceptPoints::Opened(SharedSockets sockets) {
  if (share_) share_(sockets);
  Add(std::move(sockets));
}

void AcceptPoints::Add(SharedSockets sockets) {
  Point point{.is_workload = sockets.is_workload,
              .id = sockets.id,
              .generation = sockets.generation,
              .configured = sockets.address};
  // Sockets may overtake the snapshot they belong to, or arrive after it was replaced.
  bool stale = state_.snapshot->sequence >= sockets.sequence && !IsWanted(sockets.name, point);
  if (stale || state_.draining) {
    CloseFds(sockets.fds);
    return;
  }
  for (size_t which = 0; which < sockets.fds.size(); ++which) {
    if (which == kDnsDatagrams) {
      point.datagrams = std::make_unique<Datagrams>();
      point.datagrams->socket =
          std::make_shared<net::DatagramSocket>(state_.executor, sockets.fds[which]);
      continue;
    }
    point.acceptors.push_back(std::make_unique<net::Acceptor>(
        state_.executor, sockets.fds[which],
        [this, name = sockets.name, which](int fd, SocketAddress peer) {
          OnAccept(name, which, fd, peer);
        }));
  }
  Point& placed = points_[sockets.name];
  placed = std::move(point);
  for (const std::unique_ptr<net::Acceptor>& acceptor : placed.acceptors) acceptor->Start();
  if (placed.datagrams) dns_.ServeDatagrams(sockets.name, placed.datagrams->socket);
}

void AcceptPoints::OnAccept(const std::string& name, size_t which, int fd, SocketAddress peer) {
  auto point = points_.find(name);
  if (point == points_.end() || !point->second.is_workload) {
    OnListener(name, fd, peer);
    return;
  }
  auto found = state_.snapshot->local_workloads.find(name);
  if (found == state_.snapshot->local_workloads.end()) {
    close(fd);  // its snapshot has not arrived here yet
    return;
  }
  std::shared_ptr<const model::LocalWorkload> workload = found->second;
  if (which == kOutbound) {
    OnCaptured(std::move(workload), fd, peer);
    return;
  }
  if (which == kDns) {
    OnDns(std::move(workload), fd, peer);
    return;
  }
  InboundArgs args{
      .workload = std::move(workload), .peer = peer, .destination = net::LocalAddress(fd)};
  args.stream = net::MakeSocketStream(state_.executor, fd);
  if (which == kHbone) {
    state_.gate.Spawn(ServeInboundTunnel(state_, std::move(args)));
  } else {
    state_.gate.Spawn(ServeInboundPlaintext(state_, std::move(args)));
  }
}

void AcceptPoints::OnCaptured(std::shared_ptr<const model::LocalWorkload> workload, int fd,
                              SocketAddress peer) {
  std::optional<OriginalDestination> original = CapturedDestination(fd);
  std::unique_ptr<net::Stream> stream = net::MakeSocketStream(state_.executor, fd);
  if (!original) {
    stream->Close(WEFT_R_NO_ORIGINAL_DESTINATION);
    RecordUnannounced(*workload, peer);
    return;
  }
  state_.gate.Spawn(
      ServeOutbound(state_, {.stream = std::move(stream),
                             .source = std::move(workload),
                             .client = peer,
                             .original = *original,
                             .listener = state_.listeners.Find(original->destination)}));
}

void AcceptPoints::OnDns(std::shared_ptr<const model::LocalWorkload> workload, int fd,
                         SocketAddress peer) {
  std::optional<OriginalDestination> original = CapturedDestination(fd);
  std::unique_ptr<net::Stream> stream = net::MakeSocketStream(state_.executor, fd);
  if (!original) {
    stream->Close(WEFT_R_NO_ORIGINAL_DESTINATION);
    RecordUnannounced(*workload, peer);
    return;
  }
  state_.gate.Spawn(dns_.ServeStream({.stream = std::move(stream),
                                      .workload = std::move(workload),
                                      .client = peer,
                                      .resolver = original->destination}));
}

void AcceptPoints::RecordUnannounced(const model::LocalWorkload& workload, SocketAddress peer) {
  state_.Record({.source = peer,
                 .source_identity = workload.identity,
                 .workload = workload.uid,
                 .reason = WEFT_R_NO_ORIGINAL_DESTINATION},
                std::chrono::steady_clock::now());
}

void AcceptPoints::OnListener(const std::string& name, int fd, SocketAddress peer) {
  auto found = state_.snapshot->listeners.find(name);
  if (found == state_.snapshot->listeners.end()) {
    close(fd);
    return;
  }
  OutboundArgs args{
      .client = peer, .original = {net::LocalAddress(fd), {}}, .listener = found->second};
  if (found->second->use_original_dst) {
    std::optional<OriginalDestination> redirected = RedirectedDestination(fd);
    if (redirected) args.original = *redirected;
    args.listener = state_.listeners.Find(args.original.destination);
  }
  args.stream = net::MakeSocketStream(state_.executor, fd);
  state_.gate.Spawn(ServeOutbound(state_, std::move(args)));
}

std::vector<AcceptPoints::Bound> AcceptPoints::bound() const {
  std::vector<Bound> result;
  for (const auto& [name, point] : points_) {
    for (const std::unique_ptr<net::Acceptor>& acceptor : point.acceptors) {
      result.push_back({name, acceptor->address()});
    }
  }
  return result;
}

}  // namespace weft::worker
