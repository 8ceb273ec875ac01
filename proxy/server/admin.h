// SPDX-License-Identifier: Apache-2.0
// The admin interface over HTTP: readiness, metrics, clusters, configuration, status, drain and
// quit. What belongs to a worker is asked for by Post() and answered when the last one has
// answered. Thread: main. Borrows what AdminView points to.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "proxy/ipc/local_http.h"
#include "proxy/upstream/node_table.h"
#include "proxy/worker/worker.h"
#include "xds/client/snapshot_source.h"

namespace weft::server {

// type url -> name -> version, of what the xDS client accepted last.
using Versions = std::map<std::string, std::map<std::string, std::string>>;

struct AdminView {
  asio::any_io_executor executor;  // main's
  std::string node, trust_domain;
  const std::vector<std::unique_ptr<worker::Worker>>* workers = nullptr;
  const xds::SnapshotSource* source = nullptr;
  const upstream::NodeTable* table = nullptr;
  const Versions* versions = nullptr;
  std::function<bool()> draining;
  std::function<void()> drain;  // then quit
};

class Admin final {
 public:
  // Takes the listening socket.
  Admin(AdminView view, int listen_fd);

 private:
  void Handle(const ipc::LocalRequest& request, const ipc::Responder& responder);
  void Ready(const ipc::Responder& responder) const;
  std::string Metrics() const;
  void Clusters(const ipc::LocalRequest& request, const ipc::Responder& responder) const;
  std::string ConfigDump() const;
  std::string Certificates() const;
  // Asks every worker, then answers with what `render` makes of it; after a second without those
  // that have not answered.
  using Render = std::function<std::string(const std::vector<worker::WorkerStatus>&)>;
  void AskWorkers(uint64_t flows_after, const ipc::Responder& responder, Render render) const;
  std::string Status(const std::vector<worker::WorkerStatus>& workers) const;

  AdminView view_;
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  ipc::LocalHttpServer server_;
};

}  // namespace weft::server
