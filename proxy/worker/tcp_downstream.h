// SPDX-License-Identifier: Apache-2.0
// Serves one downstream connection on layer 4: chooses a cluster and an endpoint, connects
// (elsewhere, if the first does not answer, as long as no byte has left), and pumps. Thread: the
// worker's.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "proxy/worker/worker_state.h"

namespace weft::worker {

struct TcpDownstreamArgs {
  std::shared_ptr<const model::LocalWorkload> source;  // null when run alone
  SocketAddress client;
  SocketAddress original_destination;
  SocketAddress picked;  // the endpoint the kernel chose; port 0: none. Tried first
  std::shared_ptr<const model::Listener> listener;  // null: pass through
};

// An upstream connection with what has to be given back at its end.
class TcpUpstream final {
 public:
  TcpUpstream() = default;
  TcpUpstream(TcpUpstream&&) = default;
  TcpUpstream& operator=(TcpUpstream&&) = default;
  ~TcpUpstream();

  std::unique_ptr<net::Stream> stream;  // null: `reason` says why
  Reason reason = WEFT_R_NONE;
  std::string policy, peer_identity;
  SocketAddress address;  // of the endpoint; port 0: none was chosen
  std::string cluster;    // empty: pass through

 private:
  friend Task<TcpUpstream> OpenTcpUpstream(WorkerState& state, TcpDownstreamArgs args);
  upstream::ClusterRef admitted_;
  upstream::HostRef host_;
};

// Everything up to an established upstream connection.
Task<TcpUpstream> OpenTcpUpstream(WorkerState& state, TcpDownstreamArgs args);

// The whole life of a downstream connection whose protocol is not looked at. `stream` is closed
// when it returns.
Task<void> ServeTcp(WorkerState& state, std::unique_ptr<net::Stream> stream,
                    TcpDownstreamArgs args);

// What the flow log says about it.
telemetry::FlowRecord TcpRecord(const TcpDownstreamArgs& args, const TcpUpstream& upstream);
// TCP's idle timeout of the listener.
std::chrono::milliseconds TcpIdleTimeout(const TcpDownstreamArgs& args);

}  // namespace weft::worker
