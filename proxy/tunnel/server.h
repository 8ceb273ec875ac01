// SPDX-License-Identifier: Apache-2.0
// HBONE as a server: one accepted, authenticated connection at a workload's 15008. Each CONNECT is
// checked (it must name an address of this workload), judged by policy, connected to the
// application, answered 200 only then, and pumped. Thread: the worker's. Owns its streams; borrows
// the handler.
#pragma once
#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "proxy/net/deadline.h"
#include "proxy/net/stream.h"
#include "proxy/policy/policy_index.h"
#include "proxy/tunnel/mux.h"

namespace weft::tunnel {

// What became of one CONNECT.
struct ServedStream {
  std::string peer_identity;
  SocketAddress client;
  SocketAddress destination;  // zero if the request did not name one
  policy::Decision decision;
  uint64_t sent_bytes = 0;      // towards the application
  uint64_t received_bytes = 0;  // from it
  std::chrono::steady_clock::time_point started;
  Reason reason = WEFT_R_NONE;
};

// The worker, as a connection's streams need it. Outlives the server.
class ServerHandler {
 public:
  virtual ~ServerHandler() = default;
  virtual bool Serves(const SocketAddress& destination) const = 0;
  virtual policy::Decision Decide(const policy::Connection& connection) const = 0;
  struct App {
    std::unique_ptr<net::Stream> stream;  // null: `reason` says why
    Reason reason = WEFT_R_NONE;
  };
  // The application shall see `client` as its peer.
  virtual Task<App> ConnectApp(SocketAddress client, SocketAddress destination) = 0;
  virtual void OnStreamStart() = 0;
  virtual void OnStreamEnd(const ServedStream& stream) = 0;
};

struct ServerArgs {
  asio::any_io_executor executor;
  std::unique_ptr<net::Stream> stream;  // TLS is done
  std::string peer_identity;            // verified
  SocketAddress peer;                   // of the TCP connection
  std::span<uint8_t> scratch;           // see MuxArgs
  // Without a stream for so long it ends. The client's pool lets go first, in order.
  std::chrono::milliseconds idle_timeout = std::chrono::minutes(10);
};

class TunnelServer final {
 public:
  TunnelServer(ServerHandler& handler, ServerArgs args);
  // Returns when the connection and all its streams are over.
  Task<Reason> Serve();
  void StartDrain() { mux_.StartDrain(); }
  void Close(Reason reason) { mux_.Close(reason); }
  // Asks the handler about every open stream again and ends those it no longer allows.
  void Recheck();
  size_t streams() const { return serving_; }
  const std::string& peer_identity() const { return peer_identity_; }
  const SocketAddress& peer() const { return peer_; }

 private:
  void OnRequest(std::unique_ptr<TunnelStream> stream, http::RequestHead head);
  Task<void> ServeStream(std::unique_ptr<TunnelStream> stream, http::RequestHead head);
  // Checks, policy, application. Answers the request; null if it was refused.
  Task<std::unique_ptr<net::Stream>> Open(TunnelStream& stream, const http::RequestHead& head,
                                          ServedStream& record);

  // Ends the connection if it has been idle for long enough, or looks again when it might be.
  void WatchIdle();

  // Let in by policy, in the frame of ServeStream().
  struct Judged {
    TunnelStream* stream;
    ServedStream* record;
  };

  ServerHandler& handler_;
  std::vector<Judged> judged_;
  asio::any_io_executor executor_;
  std::string peer_identity_;
  SocketAddress peer_;
  Mux mux_;
  std::chrono::milliseconds idle_timeout_;
  std::optional<net::Deadline> idle_;
  Signal quiet_;
  size_t serving_ = 0;
};

// The client's address that a CONNECT stands for: the tunnel's own peer address, with the port of
// `forwarded: for=` where that names the same address (the header alone proves nothing).
SocketAddress ClientOf(const http::HeaderList& headers, const SocketAddress& peer);

}  // namespace weft::tunnel
