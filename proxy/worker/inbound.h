// SPDX-License-Identifier: Apache-2.0
// Connections that come to a workload: tunnels at 15008, plaintext at 15006. Identity, policy, then
// a socket to the application. Thread: the worker's.
#pragma once
#include <memory>

#include "proxy/worker/worker_state.h"

namespace weft::worker {

struct InboundArgs {
  std::unique_ptr<net::Stream> stream;  // as accepted
  std::shared_ptr<const model::LocalWorkload> workload;
  SocketAddress peer;
  SocketAddress destination;  // 15006: where the sender meant to go
};

// 15008: TLS with the workload's identity, then HBONE. Ends with the connection and all its
// streams.
Task<void> ServeInboundTunnel(WorkerState& state, InboundArgs args);
// 15006: refused under STRICT; else policy with an empty identity. Ends with the connection.
Task<void> ServeInboundPlaintext(WorkerState& state, InboundArgs args);

}  // namespace weft::worker
