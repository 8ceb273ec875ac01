// SPDX-License-Identifier: Apache-2.0
// What a worker accepts connections on: in the mesh 15001, 15006, 15008 and 15053 of each workload
// this proxy serves, alone the addresses of its listeners. One worker, the leader, opens them; each
// accepts on a duplicate. Thread: the worker's. Owns the listening sockets.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "proxy/net/datagram.h"
#include "proxy/net/listen.h"
#include "proxy/worker/dns_service.h"
#include "proxy/worker/worker_state.h"

namespace weft::worker {

// The sockets of one workload (five) or one listener (one), on their way to a worker.
struct SharedSockets {
  std::string name;  // the workload's uid or the listener's name
  bool is_workload = false;
  uint32_t id = 0, generation = 0;  // of the workload
  SocketAddress address;            // of the listener, as configured
  uint64_t sequence = 0;            // of the snapshot they were opened for
  std::vector<int> fds;             // owned by the receiver
};

class AcceptPoints final {
 public:
  // `share`: called on the leader with sockets to be duplicated for the other workers (which call
  // Add). Empty on the others.
  using Share = std::function<void(const SharedSockets&)>;
  AcceptPoints(WorkerState& state, bool alone, bool leader, Share share);

  // After state.Adopt(): closes what is gone, on the leader opens what is new. `gone` gets the uid
  // of each workload that left.
  void Adopt(const std::function<void(const std::string& uid, uint32_t id)>& gone);
  // Takes the descriptors.
  void Add(SharedSockets sockets);
  // On the leader, about every second: asks again for what failed.
  void Retry();
  void CloseAll() { points_.clear(); }

  struct Bound {
    std::string name;
    SocketAddress address;
  };
  std::vector<Bound> bound() const;

 private:
  // Whoever serves the socket ends with this.
  struct Datagrams {
    std::shared_ptr<net::DatagramSocket> socket;
    ~Datagrams() { socket->Close(); }
  };
  struct Point {
    bool is_workload = false;
    uint32_t id = 0, generation = 0;
    SocketAddress configured;
    std::vector<std::unique_ptr<net::Acceptor>> acceptors;
    std::unique_ptr<Datagrams> datagrams;
  };

  bool IsWanted(const std::string& name, const Point& point) const;
  void OpenMissing();
  Task<void> AskFor(std::shared_ptr<const model::LocalWorkload> workload);
  void Bind(const model::Listener& listener);
  void Opened(SharedSockets sockets);
  void OnAccept(const std::string& name, size_t which, int fd, SocketAddress peer);
  void OnCaptured(std::shared_ptr<const model::LocalWorkload> workload, int fd, SocketAddress peer);
  void OnDns(std::shared_ptr<const model::LocalWorkload> workload, int fd, SocketAddress peer);
  void OnListener(const std::string& name, int fd, SocketAddress peer);
  void RecordUnannounced(const model::LocalWorkload& workload, SocketAddress peer);

  WorkerState& state_;
  DnsService dns_;
  bool alone_;
  bool leader_;
  Share share_;
  std::map<std::string, Point> points_;
  std::map<std::string, uint32_t> asking_;       // uid -> generation
  std::map<std::string, std::string> failures_;  // name -> what was logged last
};

}  // namespace weft::worker
