// SPDX-License-Identifier: Apache-2.0
// What the parts of one worker share: the adopted snapshot with its indices, sockets, certificates,
// counters, open connections. Internal to proxy/worker. Thread: the worker's. Owned by Worker.
#pragma once
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "proxy/net/socket_source.h"
#include "proxy/policy/policy_index.h"
#include "proxy/telemetry/worker_telemetry.h"
#include "proxy/tunnel/pool.h"
#include "proxy/worker/cert_store.h"
#include "proxy/worker/connection_set.h"
#include "proxy/worker/egress_permits.h"
#include "proxy/worker/gate.h"
#include "proxy/worker/http_services.h"
#include "proxy/worker/listener_match.h"
#include "xds/model/snapshot.h"

namespace weft::worker {

struct WorkerState {
  WorkerState(const asio::any_io_executor& executor_in, net::SocketSource& sockets_in,
              tls::KeySigner* signer)
      : executor(executor_in),
        sockets(sockets_in),
        permits(sockets_in),
        certs(signer),
        gate(executor_in),
        scratch(256 * 1024) {}

  // Makes `next` the snapshot that new connections and streams see, and closes those that it no
  // longer allows.
  void Adopt(std::shared_ptr<const model::Snapshot> next);
  // The workload of this proxy that has the address; null: none.
  std::shared_ptr<const model::LocalWorkload> FindLocal(const IpAddress& ip) const {
    auto found = local_by_ip.find(ip);
    return found == local_by_ip.end() ? nullptr : found->second;
  }
  // False while a workload leaves: its connections are drained, not judged again.
  bool Knows(const IpAddress& ip) const { return snapshot->FindWorkload(ip) != nullptr; }
  // Its address in the family of `like`; unspecified if it has none.
  static IpAddress AddressOf(const model::LocalWorkload& workload, const IpAddress& like);
  // Counts and records one ended connection or stream. Fills in times.
  void Record(telemetry::FlowRecord record, std::chrono::steady_clock::time_point started);

  asio::any_io_executor executor;
  net::SocketSource& sockets;
  EgressPermits permits;
  CertStore certs;
  Gate gate;
  std::vector<uint8_t> scratch;  // read buffer of HBONE connections
  ConnectionSet connections;
  telemetry::WorkerTelemetry telemetry;

  std::shared_ptr<const model::Snapshot> snapshot = std::make_shared<model::Snapshot>();
  policy::PolicyIndex policies{snapshot};
  ListenerMatch listeners;
  std::unordered_map<IpAddress, std::shared_ptr<const model::LocalWorkload>, AddressHash>
      local_by_ip;
  std::string cluster_id;  // for `baggage`
  bool draining = false;

  // Set by Worker once they exist; outlive every connection.
  HttpServices* http = nullptr;
  tunnel::TunnelPool* tunnels = nullptr;
  Connector* connector = nullptr;
};

}  // namespace weft::worker
