// SPDX-License-Identifier: Apache-2.0
// A connection that a workload made and the kernel handed to us at 15001, or that came to a
// listener of a proxy that runs alone: original destination, listener, protocol, then HTTP or TCP.
// Thread: the worker's.
#pragma once
#include <memory>
#include <optional>

#include "proxy/worker/worker_state.h"

namespace weft::worker {

struct OriginalDestination {
  SocketAddress destination;
  SocketAddress picked;  // port 0: the proxy chooses
};
// What the capture programs said about a connection accepted at 15001; nullopt: nothing, so nobody
// captured it.
std::optional<OriginalDestination> CapturedDestination(int fd);
// The same from netfilter's REDIRECT, for a listener with use_original_dst of a proxy that runs
// alone.
std::optional<OriginalDestination> RedirectedDestination(int fd);

struct OutboundArgs {
  std::unique_ptr<net::Stream> stream;
  std::shared_ptr<const model::LocalWorkload> source;  // null when run alone
  SocketAddress client;
  OriginalDestination original;
  std::shared_ptr<const model::Listener> listener;  // null: pass through
};
// Ends with the connection.
Task<void> ServeOutbound(WorkerState& state, OutboundArgs args);

}  // namespace weft::worker
