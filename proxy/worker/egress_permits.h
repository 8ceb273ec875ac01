// SPDX-License-Identifier: Apache-2.0
// Network policy of a workload, for the streams that its proxy puts on tunnels: the kernel judges
// a tunnel's own connect without knowing what it will carry, so each stream is asked for on a
// socket that weft-sockets stamped for the workload (WEFT_SO_PERMIT). Such a socket is kept for
// each workload that ever opened a stream; it is never connected. Thread: the worker's.
#pragma once
#include <cstdint>
#include <memory>
#include <unordered_map>

#include "proxy/base/address.h"
#include "proxy/base/task.h"
#include "proxy/net/socket_source.h"
#include "xds/model/snapshot.h"

namespace weft::worker {

class EgressPermits final {
 public:
  explicit EgressPermits(net::SocketSource& sockets) : sockets_(sockets) {}
  ~EgressPermits();
  EgressPermits(const EgressPermits&) = delete;
  EgressPermits& operator=(const EgressPermits&) = delete;

  // NONE: `source` may open a stream to `destination`, or no kernel programs judge it
  // (LocalWorkload.policy_epoch). Waits only for the workload's first socket.
  Task<Reason> Ask(std::shared_ptr<const model::LocalWorkload> source, SocketAddress destination);
  // The same for a stream that Ask allowed, as policy is now. A workload that has left has nobody
  // to ask for and is not denied: its connections are being drained.
  Reason AskAgain(const model::LocalWorkload& source, const SocketAddress& destination) const;
  // Lets go of the sockets of all other workloads.
  void Retain(const model::Named<model::LocalWorkload>& workloads);
  size_t size() const { return asked_with_.size(); }

 private:
  struct Socket {
    uint32_t generation = 0;
    int fd = -1;
  };
  const Socket* Find(const model::LocalWorkload& source) const;
  // Takes `fd`. False: the workload has come back as another meanwhile.
  bool Keep(const model::LocalWorkload& source, int fd);

  net::SocketSource& sockets_;
  std::unordered_map<uint32_t, Socket> asked_with_;  // by LocalWorkload.id
};

}  // namespace weft::worker
