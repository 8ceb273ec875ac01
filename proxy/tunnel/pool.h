// SPDX-License-Identifier: Apache-2.0
// HBONE as a client: tunnels by (source identity and address, destination identity and address),
// each an HTTP/2 connection over mutual TLS to pod:15008, and one CONNECT stream per captured
// connection. A key gets further connections when the present ones are full or when their transport
// is, so that bulk streams spread. None takes a new stream once either side's certificate has
// ended. Thread: the worker's. Owns the connections. Not here: sockets and TLS (Dialer;
// proxy/worker/mesh_connector.h).
#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "proxy/base/address.h"
#include "proxy/base/signal.h"
#include "proxy/tunnel/mux.h"
#include "xds/model/workload.h"

namespace weft::tunnel {

struct TunnelKey {
  std::string source_identity;
  IpAddress source;
  std::string destination_identity;  // what the peer must prove to be
  IpAddress destination;
  bool operator==(const TunnelKey&) const = default;
};

struct DialResult {
  std::unique_ptr<net::Stream> stream;  // null: `reason` says why
  Reason reason = WEFT_R_NONE;
  std::string peer_identity;  // verified
  Expiry expiry{};            // of the first of both sides' certificates to end
};

// Makes the mutually authenticated connection of a tunnel.
class Dialer {
 public:
  virtual ~Dialer() = default;
  // To key.destination:15008, from the netns of `source`, showing its identity. Ends within
  // `timeout`.
  virtual Task<DialResult> Dial(TunnelKey key, std::shared_ptr<const model::LocalWorkload> source,
                                std::chrono::milliseconds timeout) = 0;
};

struct TunnelRequest {
  std::shared_ptr<const model::LocalWorkload> source;
  IpAddress source_address;  // of `source`, in the family of the destination
  std::string destination_identity;
  SocketAddress destination;
  SocketAddress client;  // for `forwarded`
  std::string baggage;
  std::chrono::milliseconds timeout{5000};  // all steps together
};

struct TunnelResult {
  std::unique_ptr<net::Stream> stream;  // null: `reason` says why
  Reason reason = WEFT_R_NONE;
  std::string policy;  // of the peer, for POLICY_DENIED and POLICY_DEFAULT_DENIED
  std::string peer_identity;
  Expiry expiry{};  // of the tunnel: nothing new may begin on the stream after it
};

struct PoolOptions {
  std::chrono::milliseconds idle_timeout{5 * 60 * 1000};
  size_t max_spread = 4;  // connections made because others are congested rather than full
  size_t max_connections_per_key = 64;
  std::span<uint8_t> scratch;                      // see MuxArgs
  std::function<void(bool opened)> on_connection;  // false: one ended
  std::function<void()> on_stream;
  std::function<Expiry()> wall_clock;  // empty: system_clock::now
};

class TunnelPool final {
 public:
  TunnelPool(asio::any_io_executor executor, Dialer& dialer, PoolOptions options);
  // The executor's coroutines must have ended, or never run again.
  ~TunnelPool();
  TunnelPool(const TunnelPool&) = delete;
  TunnelPool& operator=(const TunnelPool&) = delete;

  Task<TunnelResult> Connect(TunnelRequest request);

  // Closes tunnels that were idle for the timeout. Call it about every idle_timeout / 10.
  void Sweep();
  // Tunnels of a source that is gone: no new streams, at once, so that one that comes back under
  // the same address does not get sockets of the netns before. Then, after a while, their end;
  // tunnels made since DrainSource() stay.
  void DrainSource(const std::string& source_identity, const IpAddress& source);
  void CloseDrained(const std::string& source_identity, const IpAddress& source, Reason reason);
  // No new streams; connections end with their last one.
  void StartDrain();
  // Ends all, dials included.
  void Close(Reason reason);
  // Returns once every coroutine of the pool has ended. At most one waiter.
  Task<void> Closed();

  size_t connections() const { return connections_; }
  struct Info {
    TunnelKey key;
    size_t streams;
    bool draining;
  };
  std::vector<Info> List() const;

 private:
  struct Waiter;
  struct Group;
  struct KeyHash {
    size_t operator()(const TunnelKey& key) const noexcept;
  };

  Group& GroupOf(const TunnelKey& key);
  bool IsOver(Expiry expiry) const;
  Mux* Pick(Group& group);
  void StartDial(Group& group, const TunnelRequest& request);
  Task<void> DialAndRun(TunnelKey key, std::shared_ptr<const model::LocalWorkload> source,
                        std::chrono::milliseconds timeout);
  Task<Reason> AwaitConnection(TunnelKey key, const TunnelRequest& request,
                               std::chrono::steady_clock::time_point until);
  Task<TunnelResult> TryOnce(TunnelKey key, const TunnelRequest& request,
                             std::chrono::steady_clock::time_point until, bool* again);
  void WakeWaiters(Group& group, Reason reason);
  void DropIfEmpty(const TunnelKey& key);

  asio::any_io_executor executor_;
  Dialer& dialer_;
  PoolOptions options_;
  std::unordered_map<TunnelKey, std::unique_ptr<Group>, KeyHash> groups_;
  size_t connections_ = 0;  // and dials
  Signal ended_;
  Reason closing_ = WEFT_R_NONE;
};

}  // namespace weft::tunnel
