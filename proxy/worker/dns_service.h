// SPDX-License-Identifier: Apache-2.0
// Port 15053 of each workload: what its programs ask their own resolver, over UDP and TCP. Names of
// the mesh are answered here, the rest goes to the resolver: over UDP from the pod's netns, over
// TCP the way of any TCP connection (policy, tunnel). Thread: the worker's. Owned by AcceptPoints;
// its coroutines end with the sockets.
#pragma once
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "proxy/dns/forwarder.h"
#include "proxy/dns/table.h"
#include "proxy/net/datagram.h"
#include "proxy/worker/tcp_downstream.h"
#include "proxy/worker/worker_state.h"

namespace weft::worker {

struct DnsStreamArgs {
  std::unique_ptr<net::Stream> stream;
  std::shared_ptr<const model::LocalWorkload> workload;
  SocketAddress client;
  SocketAddress resolver;  // as the program asked for it
};

class DnsService final {
 public:
  explicit DnsService(WorkerState& state) : state_(state) {}
  DnsService(const DnsService&) = delete;
  DnsService& operator=(const DnsService&) = delete;

  // Serves the workload's datagrams until the socket is closed, which its owner does before this
  // ends. Not in the gate: an idle socket is no connection.
  void ServeDatagrams(std::string uid, std::shared_ptr<net::DatagramSocket> socket);
  // Ends with the connection.
  Task<void> ServeStream(DnsStreamArgs args);
  // Queries that wait for a resolver, and connections, of one workload.
  size_t outstanding(uint32_t workload) const;

 private:
  class Place;
  struct DatagramQuery;
  struct StreamUpstream;

  void ReceiveSome(const std::string& uid, const std::shared_ptr<net::DatagramSocket>& socket);
  void OnDatagram(const std::string& uid, const std::shared_ptr<net::DatagramSocket>& socket,
                  dns::Bytes message, const net::DatagramSocket::Received& received);
  Task<void> ForwardDatagram(DatagramQuery query);
  Task<std::vector<uint8_t>> AnswerOnStream(const DnsStreamArgs& args, StreamUpstream& upstream,
                                            const std::vector<uint8_t>& message);
  Task<std::vector<uint8_t>> AskUpstream(const DnsStreamArgs& args, StreamUpstream& upstream,
                                         const std::vector<uint8_t>& message,
                                         const dns::Query& query);
  const dns::Table& table();
  telemetry::Cell& Count(telemetry::Counter counter) { return state_.telemetry.counters[counter]; }

  WorkerState& state_;
  dns::Table table_;
  std::shared_ptr<const model::Snapshot> table_of_;
  uint32_t rotation_ = 0;
  std::vector<uint8_t> buffer_ = std::vector<uint8_t>(dns::kMaxDatagramBytes);
  std::unordered_map<uint32_t, size_t> outstanding_;  // by workload id
};

}  // namespace weft::worker
