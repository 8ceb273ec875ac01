// SPDX-License-Identifier: Apache-2.0
// Connections of one worker to one endpoint on behalf of one workload, for one HTTP version.
// HTTP/1: one request each, the last used first; HTTP/2: many requests each. Requests that find
// none wait, first come first served, while connections are made. Thread: the worker's. The
// coroutine of each connection owns it; the pool outlives them.
#pragma once
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "proxy/worker/http_connection.h"

namespace weft::worker {

class Exchange;
class HttpPool;

class UpstreamConnection final : public HttpConnection {
 public:
  UpstreamConnection(HttpServicesState& services, HttpPool& pool,
                     std::unique_ptr<net::Stream> stream, std::unique_ptr<http::Session> session,
                     std::string peer_identity, std::chrono::system_clock::time_point expiry);
  ~UpstreamConnection() override;

  // Sends the request head; 0 if the session cannot take it now.
  http::StreamId Attach(Exchange& exchange, const http::RequestHead& head, bool end_stream);
  // The exchange is done with its stream. `complete`: both directions ended; else the stream is
  // reset (HTTP/1: the connection is closed).
  void Detach(http::StreamId stream, bool complete);

  // The stream ended by itself (reset by the peer): only out of the list.
  void Forget(http::StreamId stream);

  bool CanTakeRequest() const;
  // A certificate that it rests on has ended: no new request.
  bool expired() const;
  // It already carried a request: the peer may have closed it while it was idle.
  bool reused() const { return requests_ > 1; }
  bool used() const { return requests_ > 0; }
  size_t streams() const { return streams_.size(); }
  const std::string& peer_identity() const { return peer_identity_; }
  HttpPool& pool() { return pool_; }
  Task<void> Serve();

 private:
  struct Stream {
    http::StreamId id;
    Exchange* exchange;
  };
  friend class HttpPool;
  Exchange* Find(http::StreamId id);
  void OnEvent(http::Event& event) override;
  void AfterBatch() override;
  void OnEof() override;
  void FailStreams(Reason reason);

  HttpPool& pool_;
  std::string peer_identity_;
  std::chrono::system_clock::time_point expiry_;  // ConnectResult::expiry
  std::vector<Stream> streams_;                   // ascending ids
  uint64_t requests_ = 0;
  bool draining_ = false;  // takes no new requests: GOAWAY, its request limit, or its endpoint left
  bool ready_ = false;     // in the pool's list
  WheelTimer idle_timer_;
  WheelTimer expiry_timer_;
};

class HttpPool final {
 public:
  enum class Acquired : uint8_t {
    kNow,       // exchange.OnConnection() was called
    kQueued,    // exchange.OnConnection() or OnConnectFailed() will be
    kOverflow,  // max_pending_requests
  };

  HttpPool(HttpServicesState& services, const HttpPoolKey& key, upstream::ClusterRef cluster,
           upstream::HostRef host, std::shared_ptr<const model::LocalWorkload> source,
           SocketAddress client);
  ~HttpPool();

  // `fresh`: not a connection that has been idle, which may be stale.
  Acquired Acquire(Exchange& exchange, bool fresh);
  // It no longer waits.
  void Cancel(Exchange& exchange);

  bool unused() const { return tasks_ == 0 && pending_.empty(); }
  bool removed() const { return host_->removed(); }
  size_t connections() const { return connections_.size(); }
  size_t pending() const { return pending_.size(); }
  // Ends idle connections; the others after their last request.
  void Drain();
  // The same for those that are neither a tunnel nor in place, if the endpoint has become a
  // workload of the mesh.
  void DrainPlaintext(const model::Snapshot& snapshot);
  void CloseAll(Reason reason);

 private:
  friend class UpstreamConnection;
  void Drain(UpstreamConnection& connection);
  void EnsureConnecting();
  Task<void> Connect();
  void OnConnected(UpstreamConnection& connection);
  void OnConnectFailed(Reason reason, const std::string& policy);
  // The connection may take requests (again): give it what waits, or keep it.
  void OnReady(UpstreamConnection& connection);
  void Unready(UpstreamConnection& connection);
  UpstreamConnection* TakeReady();
  Exchange* NextPending();

  HttpServicesState& services_;
  HttpPoolKey key_;
  upstream::ClusterRef cluster_;
  upstream::HostRef host_;
  std::shared_ptr<const model::LocalWorkload> source_;
  SocketAddress client_;
  std::vector<UpstreamConnection*> connections_;  // all established
  std::vector<UpstreamConnection*>
      ready_;  // may take a request; HTTP/1: idle, most recently used last
  uint32_t connecting_ = 0;
  uint32_t tasks_ = 0;  // connects and connections
  std::deque<Exchange*> pending_;
};

}  // namespace weft::worker
