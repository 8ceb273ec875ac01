// SPDX-License-Identifier: Apache-2.0
// A Client and a SnapshotBuilder tied together: give it a way to connect, get snapshots. What
// weft-proxy and weft-agent use. Thread: one, that of the executor.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "xds/client/client.h"
#include "xds/client/snapshot_builder.h"

namespace weft::xds {

// Wildcard types of a proxy that runs alone (Envoy's) and of a member of the mesh; of weft-agent
// towards weft-control, which has no weft.node.v1 types.
std::vector<std::string> StandaloneTypes();  // LDS, CDS
std::vector<std::string> AgentTypes();       // LDS, CDS, Address, Authorization
std::vector<std::string> PolicyTypes();  // NetworkPolicy, ProcessPolicy: the agent's policy_types
std::vector<std::string> ProxyTypes();   // those and LocalWorkload, Certificate, TrustBundle

class SnapshotSource final {
 public:
  struct Callbacks {
    std::function<void(std::shared_ptr<const model::Snapshot>)> on_snapshot;
    Client::OnUpdate
        on_update;  // each update as it came, before it becomes part of a snapshot; may be empty
  };
  // The wildcard types of `options` are also those that are required before the first snapshot, its
  // policy types if the server has them.
  SnapshotSource(asio::any_io_executor executor, ClientOptions options, Callbacks callbacks);
  ~SnapshotSource();
  SnapshotSource(const SnapshotSource&) = delete;

  // As Client::Run and Client::Stop.
  Task<void> Run();
  void Stop();

  ClientStatus status() const;
  std::vector<Warming> warming() const;
  std::shared_ptr<const model::Snapshot> current() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace weft::xds
