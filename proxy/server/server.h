// SPDX-License-Identifier: Apache-2.0
// weft-proxy's main thread: xDS in, snapshots out to the workers, admin interface, privileges,
// drain. Owns the workers and everything they share.
#pragma once
#include <memory>
#include <vector>

#include "proxy/server/admin.h"
#include "proxy/server/flags.h"
#include "proxy/server/unix_dialer.h"
#include "proxy/upstream/node_table.h"
#include "proxy/worker/worker.h"
#include "xds/client/snapshot_source.h"

namespace weft::server {

class Server final {
 public:
  // Everything that needs privileges: listening, channels, shared memory. Nothing runs yet.
  static absl::StatusOr<std::unique_ptr<Server>> Create(Config config);
  ~Server();

  // Drops privileges, starts the workers, serves until SIGTERM, SIGINT or /quitquitquit, drains.
  absl::Status Run();

 private:
  explicit Server(Config config);
  absl::Status Open();
  absl::StatusOr<xds::ConnectFunction> XdsConnect();
  void CreateWorkers();
  void OnUpdate(const xds::Update& update);
  void WatchSignals();
  void Drain();

  Config config_;
  asio::io_context io_{1};
  std::unique_ptr<upstream::NodeTable> table_;
  std::unique_ptr<UnixDialer> unix_dialer_;
  std::unique_ptr<xds::SnapshotSource> source_;
  std::vector<std::unique_ptr<worker::Worker>> workers_;
  Versions versions_;
  std::unique_ptr<Admin> admin_;
  struct Signals;
  std::unique_ptr<Signals> signals_;
  bool draining_ = false;
};

}  // namespace weft::server
