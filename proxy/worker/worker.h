// SPDX-License-Identifier: Apache-2.0
// One thread of the data path with everything it needs: event loop, connections, tunnels, pools,
// certificates, counters. Workers share immutable snapshots and the node table, nothing else; other
// threads reach one by Post().
#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "proxy/net/socket_source.h"
#include "proxy/telemetry/worker_telemetry.h"
#include "proxy/tls/key_signer.h"
#include "proxy/tunnel/pool.h"
#include "proxy/upstream/node_table.h"
#include "proxy/worker/http_services.h"
#include "xds/model/snapshot.h"

namespace weft::worker {

struct WorkerOptions {
  uint32_t index = 0;  // 0: the leader, which opens listening sockets for all
  bool alone = false;  // binds the listeners' own addresses; no workloads, no identity
  std::string cluster_id;
  upstream::NodeTable* table = nullptr;  // outlives the workers
  uint64_t seed = 1;
  std::function<std::unique_ptr<net::SocketSource>(asio::any_io_executor)> make_sockets;
  std::function<std::unique_ptr<tls::KeySigner>(asio::any_io_executor)>
      make_signer;  // empty: no identities
};

// A copy of what a worker knows, for status.
struct WorkerStatus {
  uint32_t index = 0;
  uint64_t snapshot = 0;
  size_t in_flight = 0;  // coroutines: about the open connections
  struct Listening {
    std::string name;
    SocketAddress address;
  };
  std::vector<Listening> listening;
  std::vector<tunnel::TunnelPool::Info> tunnels;
  std::vector<telemetry::FlowRecord> flows;  // after the sequence asked for
};

class Worker final {
 public:
  explicit Worker(WorkerOptions options);
  // After Join(), or if Start() was never called.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Once. `all` includes this one and lives as long as it runs.
  void Start(std::vector<Worker*> all);

  // Any thread.
  void Post(std::function<void()> function);
  void Adopt(std::shared_ptr<const model::Snapshot> snapshot);
  // No new connections; those open get `limit` to finish, then are closed; then the thread ends.
  // Idempotent.
  void Drain(std::chrono::milliseconds limit);
  void Join();
  const telemetry::WorkerTelemetry& telemetry() const;
  const HttpCounters& http_counters() const;

  // The worker's thread only: call it in a function given to Post().
  WorkerStatus Status(uint64_t flows_after) const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace weft::worker
