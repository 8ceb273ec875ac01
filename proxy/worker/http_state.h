// SPDX-License-Identifier: Apache-2.0
// The inside of HttpServices: what connections, pools and exchanges reach. Thread: the worker's.
// Output is written at the end of a batch: whoever runs on its own (a read loop, a timer, a
// finished connect) calls FlushDirty() last, which lets every touched connection take waiting input
// and write once. Nothing else writes to a stream, so no event handler is ever re-entered.
#pragma once
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <unordered_map>
#include <vector>

#include "proxy/base/signal.h"
#include "proxy/worker/http_services.h"

namespace weft::route {
class Router;
}

namespace weft::worker {

class DownstreamConnection;
class Exchange;
class HttpConnection;
class HttpPool;
struct HttpPoolKey;

struct HttpPoolKey {
  const upstream::ClusterState* cluster = nullptr;
  const upstream::Host* host = nullptr;
  uint32_t workload = 0;    // who calls: its identity is shown to the peer
  uint32_t generation = 0;  // of its netns, in which the sockets are
  IpAddress client;         // ... and its address, in the mesh
  bool http2 = false;
  bool operator==(const HttpPoolKey&) const = default;
};
struct HttpPoolKeyHash {
  size_t operator()(const HttpPoolKey& k) const noexcept {
    auto h = reinterpret_cast<uintptr_t>(k.host) * 0x9e3779b97f4a7c15ull;
    h ^= (reinterpret_cast<uintptr_t>(k.cluster) >> 4) + k.workload * 2 + (k.http2 ? 1 : 0);
    return h ^ AddressHash {}(k.client);
  }
};

class HttpServicesState final {
 public:
  HttpServicesState(asio::any_io_executor executor_in, HttpServicesOptions options_in);
  ~HttpServicesState();

  // Read once per batch; within one batch time stands still.
  void UpdateNow() { now = options.clock ? options.clock() : std::chrono::steady_clock::now(); }
  // Not once per batch: asked for what rests on certificates only.
  std::chrono::system_clock::time_point WallNow() const {
    return options.wall_clock ? options.wall_clock() : std::chrono::system_clock::now();
  }
  void SetTimer(WheelTimer& timer, TimePoint due);
  void Tick();
  void StopTimers();

  void MarkDirty(HttpConnection& connection);
  void Forget(HttpConnection& connection);  // it is being destroyed
  void FlushDirty();

  // The compiled form of `config`, made once per worker; null if the configuration cannot be
  // compiled.
  std::shared_ptr<const route::Router> RouterFor(
      const std::shared_ptr<const model::RouteConfiguration>& config);
  // Those of configurations that the snapshot has no more.
  void ForgetRouters();
  HttpPool& PoolFor(const HttpPoolKey& key, Exchange& exchange);
  // Ends idle connections of endpoints that left the configuration and forgets pools without use.
  void SweepPools();

  Exchange* NewExchange();
  void Recycle(
      Exchange* exchange);  // at the next FlushDirty(), since its caller may be its own method

  // Tasks alive; Shutdown() waits for none.
  class Alive final {
   public:
    explicit Alive(HttpServicesState& s) : s_(s) { ++s_.tasks; }
    ~Alive() {
      --s_.tasks;
      if (s_.stopping) s_.task_ended.Notify();
    }
    Alive(const Alive&) = delete;
    Alive& operator=(const Alive&) = delete;

   private:
    HttpServicesState& s_;
  };

  asio::any_io_executor executor;
  HttpServicesOptions options;
  HttpCounters counters;
  TimePoint now;
  upstream::ClusterMap clusters;
  upstream::Random random;
  TimerWheel wheel;
  std::shared_ptr<const model::Snapshot> snapshot;
  // Every read goes through this one: what arrives is handled before the next read. 64 KiB: a TLS
  // stream gives four records.
  std::vector<uint8_t> read_buffer = std::vector<uint8_t>(64 * 1024);
  std::vector<DownstreamConnection*> downstreams;
  std::unordered_map<HttpPoolKey, std::unique_ptr<HttpPool>, HttpPoolKeyHash> pools;
  // Bodies kept for replay, all requests of the worker together; beyond the cap a request goes on
  // without retries.
  static constexpr size_t kMaxReplayBytes = 64 * 1024 * 1024;
  size_t replay_bytes = 0;
  size_t tasks = 0;
  bool draining = false;
  bool stopping = false;
  Signal task_ended;

 private:
  struct CompiledRoutes {
    std::shared_ptr<const model::RouteConfiguration> config;  // keeps the key alive
    std::shared_ptr<const route::Router> router;
  };
  void ArmDriver();
  void Sweep();
  void OnDriver(const boost::system::error_code& error);

  std::unordered_map<const model::RouteConfiguration*, CompiledRoutes> routers_;
  std::vector<HttpConnection*> dirty_;
  bool flushing_ = false;
  std::vector<std::unique_ptr<Exchange>> exchanges_;  // all of them
  std::vector<Exchange*> free_, ended_;
  asio::steady_timer driver_;
  TimePoint driver_due_ = TimePoint::max();
  WheelTimer sweep_timer_;
};

// Single-writer counting.
inline void Count(std::atomic<uint64_t>& c, int64_t by = 1) {
  c.store(c.load(std::memory_order_relaxed) + static_cast<uint64_t>(by), std::memory_order_relaxed);
}

}  // namespace weft::worker
