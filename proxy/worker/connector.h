// SPDX-License-Identifier: Apache-2.0
// How a worker reaches an endpoint: over an HBONE tunnel if the address is a workload of the mesh,
// in place if this proxy serves that workload itself, in plaintext or TLS otherwise. The callers
// (HTTP pool, TCP path) do not know which it was. Thread: the worker's. Implementation:
// proxy/worker/mesh_connector.h; tests have a fake.
#pragma once
#include <chrono>
#include <memory>
#include <string>

#include "proxy/base/address.h"
#include "proxy/base/reason.h"
#include "proxy/base/task.h"
#include "proxy/net/stream.h"
#include "xds/model/snapshot.h"

namespace weft::worker {

struct ConnectRequest {
  // Who calls: the captured workload, null when the proxy runs alone. Its identity is shown to the
  // peer.
  std::shared_ptr<const model::LocalWorkload> source;
  SocketAddress client;  // the downstream's own address: what the upstream application shall see
  SocketAddress destination;  // the endpoint
  std::shared_ptr<const model::Cluster>
      cluster;           // may be null (pass through); for connect_timeout and TLS
  bool in_mesh = false;  // model::Endpoint::in_mesh of the endpoint: by tunnel or not at all
};

struct ConnectResult {
  std::unique_ptr<net::Stream> stream;  // null: `reason` says why
  Reason reason = WEFT_R_NONE;
  // POLICY_DENIED and POLICY_DEFAULT_DENIED: "namespace/name" of the policy where the peer told it,
  // else empty.
  std::string policy;
  std::string peer_identity;  // verified SPIFFE id of the upstream; empty: plaintext
  // By the wall clock, when the first certificate ends that the stream rests on: nothing new may
  // begin on it then. The epoch: never.
  std::chrono::system_clock::time_point expiry{};
};

class Connector {
 public:
  virtual ~Connector() = default;
  // Takes at most the cluster's connect_timeout (5 s without one), all steps together.
  virtual Task<ConnectResult> Connect(ConnectRequest request) = 0;
};

}  // namespace weft::worker
