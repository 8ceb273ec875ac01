// SPDX-License-Identifier: Apache-2.0
// The Connector of a worker: in place for a workload this proxy serves, by tunnel for other
// workloads of the mesh, plain or TLS for the rest. A destination that the workload API calls HBONE
// or EDS of the mesh is never reached in plaintext, whatever fails. Also the Dialer of the tunnels:
// a socket in the source's netns, TLS with its identity. Thread: the worker's.
#pragma once
#include <memory>
#include <string>

#include "proxy/tunnel/pool.h"
#include "proxy/tunnel/server.h"
#include "proxy/worker/connector.h"
#include "proxy/worker/worker_state.h"

namespace weft::worker {

class MeshConnector final : public Connector, public tunnel::Dialer {
 public:
  explicit MeshConnector(WorkerState& state) : state_(state) {}

  Task<ConnectResult> Connect(ConnectRequest request) override;
  Task<tunnel::DialResult> Dial(tunnel::TunnelKey key,
                                std::shared_ptr<const model::LocalWorkload> source,
                                std::chrono::milliseconds timeout) override;

 private:
  Task<ConnectResult> ConnectInPlace(ConnectRequest request,
                                     std::shared_ptr<const model::LocalWorkload> local,
                                     std::chrono::milliseconds timeout);
  Task<ConnectResult> ConnectByTunnel(ConnectRequest request, const model::Workload& workload,
                                      std::chrono::milliseconds timeout);
  // Null: the roots that the cluster names are not known, and nothing is sent unverified.
  std::shared_ptr<const tls::TlsContext> UpstreamContext(const model::Cluster& cluster) const;
  Task<ConnectResult> ConnectOutside(ConnectRequest request, std::chrono::milliseconds timeout);

  WorkerState& state_;
};

// The proxy's own ports in every workload's netns: no application is there, and a connection to one
// would come back to us. The kernel refuses them, too; this does not rely on it.
bool IsOwnPort(uint16_t port);

// A to-app socket of `workload`, connected; the application sees `client` as its peer where the
// kernel programs can tell it.
Task<tunnel::ServerHandler::App> ConnectToApp(WorkerState& state,
                                              std::shared_ptr<const model::LocalWorkload> workload,
                                              SocketAddress client, SocketAddress destination,
                                              std::chrono::milliseconds timeout);

// k8s.* and service.* of the source, as ztunnel sends them.
std::string BaggageOf(const model::LocalWorkload& source, const model::Workload* known,
                      const std::string& cluster_id);

}  // namespace weft::worker
