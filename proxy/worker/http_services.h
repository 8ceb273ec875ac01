// SPDX-License-Identifier: Apache-2.0
// What the HTTP connections of one worker share: snapshot, compiled routes, upstream state, pools,
// timers, randomness, counters. Thread: the worker's. Owns the pools and the exchanges; outlives
// every ServeHttp() task and upstream connection of them. Use: make one per Worker, Adopt() each
// snapshot, ServeHttp() each connection, StartDrain(), then await Shutdown().
#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

#include "proxy/base/address.h"
#include "proxy/base/reason.h"
#include "proxy/base/task.h"
#include "proxy/http/session.h"
#include "proxy/upstream/cluster_map.h"
#include "proxy/upstream/random.h"
#include "proxy/worker/connector.h"
#include "proxy/worker/timer_wheel.h"
#include "xds/model/snapshot.h"

namespace weft::worker {

// One finished request, for access logs and telemetry. Views are valid during the callback only.
struct RequestRecord {
  std::string_view method, path, authority, request_id;
  int status = 0;  // 0: the downstream left before a response
  Reason reason =
      WEFT_R_NONE;  // why the proxy itself answered or ended it; NONE: the upstream's answer
  std::string_view policy;  // with POLICY_DENIED
  std::string_view route, cluster;
  SocketAddress client;
  SocketAddress upstream;  // of the last attempt; port 0: none
  std::string_view client_identity, upstream_identity;
  uint32_t attempts = 0;  // upstream attempts begun
  std::chrono::nanoseconds duration{0};
  std::chrono::nanoseconds to_first_byte{0};       // until the upstream's response head; 0: none
  uint64_t request_bytes = 0, response_bytes = 0;  // bodies
  bool http2 = false;
};

// Written by the worker only (relaxed); read by anyone.
struct HttpCounters {
  using Counter = std::atomic<uint64_t>;
  Counter downstream_connections{0}, downstream_active{0};
  Counter requests{0}, requests_active{0};
  Counter responses[6] = {};  // by status / 100; [0]: none was sent
  Counter upstream_connections{0}, upstream_active{0}, upstream_connect_failures{0};
  Counter retries{0}, retries_succeeded{0}, retries_refused{0};
  Counter timeouts{0}, downstream_resets{0}, upstream_resets{0}, protocol_errors{0};
  Counter local_replies[WEFT_R_MAX] = {};  // by reason
};

// From the first byte of a request's head to its last (slow loris).
inline constexpr std::chrono::milliseconds kRequestHeadLimit{10000};

struct HttpServicesOptions {
  Connector* connector = nullptr;        // not null; outlives the services
  upstream::NodeTable* table = nullptr;  // not null; likewise
  uint32_t worker = 0;                   // its number in the table
  uint64_t seed = 1;
  std::function<TimePoint()> clock;  // empty: steady_clock::now
  std::function<std::chrono::system_clock::time_point()>
      wall_clock;  // for certificates' ends; empty: system_clock::now
  // Called at the end of each request; empty: no record is made at all.
  std::function<void(const RequestRecord&)> on_request;
  http::Limits limits;
  std::chrono::milliseconds downstream_idle_timeout{
      3600000};  // Envoy's hour, for a connection without requests
  std::chrono::milliseconds upstream_idle_timeout{300000};  // pooled connections
};

class HttpServicesState;  // http_state.h: for the HTTP path only

class HttpServices final {
 public:
  HttpServices(asio::any_io_executor executor, HttpServicesOptions options);
  ~HttpServices();  // after Shutdown(); no connection may be alive
  HttpServices(const HttpServices&) = delete;
  HttpServices& operator=(const HttpServices&) = delete;

  // New requests see it from now on; requests in flight keep theirs.
  void Adopt(std::shared_ptr<const model::Snapshot> snapshot);
  // A workload left: its upstream connections end, at the latest with their last request.
  void DrainSource(uint32_t workload, uint32_t generation);
  // No new requests on existing downstream connections (GOAWAY, Connection: close); what runs goes
  // on.
  void StartDrain();
  // Ends every connection, at once, and waits until their coroutines are gone.
  Task<void> Shutdown();

  // The worker's view of the clusters: the TCP path picks endpoints from the same one.
  upstream::ClusterMap& clusters();
  upstream::Random& random();
  TimePoint now() const;
  const HttpCounters& counters() const;
  size_t downstream_connections() const;
  // Fires what is due by clock() and returns ejected endpoints. Tests with their own clock call it;
  // otherwise a timer does.
  void Tick();

  HttpServicesState& state() { return *state_; }

 private:
  std::unique_ptr<HttpServicesState> state_;
};

}  // namespace weft::worker
