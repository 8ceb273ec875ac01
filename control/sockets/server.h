// SPDX-License-Identifier: Apache-2.0
// weft-sockets without its start-up: channels in, sockets out. Holds the netns descriptors and the
// listeners, so that a proxy or an agent may restart without a refused connection. Thread: one, a
// poll loop. Not here: flags, cgroup, signals (main.cc). What the bytes mean:
// proxy/ipc/sockets_protocol.h.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "bpf/abi.h"
#include "control/sockets/netns_sockets.h"
#include "proxy/base/status.h"
#include "proxy/ipc/packet_server.h"
#include "proxy/ipc/sockets_protocol.h"

namespace weft::sockets {

// The kernel maps (control/bpf/sockets_maps.h).
class Stamper {
 public:
  virtual ~Stamper() = default;
  virtual absl::Status Stamp(int fd, weft_role role, uint32_t workload, uint32_t generation) = 0;
  virtual absl::Status PutListener(uint32_t workload, uint16_t port, int fd) = 0;
  virtual absl::Status RemoveListener(uint32_t workload, uint16_t port) = 0;
};

class Server final {
 public:
  // Takes `control_listener`, a listening SEQPACKET socket. Only peers of uid `control_uid` may use
  // it. The stamper must outlive it.
  Server(NetnsSockets netns, Stamper& stamper, int control_listener, uint32_t control_uid);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // One turn: waits at most `timeout_ms` (-1: for ever) and serves what is there.
  void Turn(int timeout_ms) { channels_.Turn(timeout_ms); }
  size_t workload_count() const { return workloads_.size(); }
  size_t channel_count() const { return channels_.channel_count(); }

 private:
  struct Workload {
    uint32_t generation = 0;
    uint32_t tenant = 0;
    int netns_fd = -1;
    uint64_t netns_inode = 0;
    std::vector<int> listeners;  // in the protocol's order; empty until asked for
  };
  struct Reply {
    ipc::SocketsAnswer answer;
    std::vector<int> fds;
    bool keep = false;  // fds stay ours after sending (listeners)
  };

  bool Serve(const ipc::PacketServer::Channel& channel);
  Reply HandleControl(const ipc::SocketsRequest& request, std::vector<int>& fds);
  Reply HandleTenant(uint32_t tenant, const ipc::SocketsRequest& request);
  Reply AddWorkload(const ipc::SocketsRequest& request, std::vector<int>& fds);
  Reply Listeners(uint32_t id, Workload& workload);
  Reply Sockets(int netns_fd, weft_role role, const ipc::SocketsRequest& request);
  absl::Status MakeListener(uint32_t id, Workload& workload, uint16_t port, int type, bool steered);
  void Drop(uint32_t id, Workload& workload);

  NetnsSockets netns_;
  Stamper& stamper_;
  std::map<uint32_t, Workload> workloads_;
  ipc::PacketServer channels_;
};

}  // namespace weft::sockets
