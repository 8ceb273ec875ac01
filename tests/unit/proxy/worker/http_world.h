// SPDX-License-Identifier: Apache-2.0
// A worker's HTTP path in memory: clients and upstreams are the test, the clock is the test's,
// nothing sleeps.
#pragma once
#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "proxy/base/signal.h"
#include "proxy/http/session.h"
#include "proxy/net/stream_pair.h"
#include "proxy/worker/http_downstream.h"
#include "proxy/worker/http_services.h"

namespace weft::worker {

inline SocketAddress At(uint16_t port) { return {*IpAddress::Parse("10.0.0.1"), port}; }

// The test's end of one connection. Without a session it speaks raw text.
class Peer {
 public:
  explicit Peer(std::unique_ptr<net::Stream> s, std::unique_ptr<http::Session> session_in = nullptr)
      : stream(std::move(s)), session(std::move(session_in)) {}

  void Send(std::string_view text) { out_ += text; }
  // What arrived since the last call.
  std::string Take() { return std::exchange(received, {}); }

  bool Pump() {
    bool moved = false;
    if (session) moved = PumpSession();
    while (!out_.empty() && stream) {
      const iovec piece{out_.data(), out_.size()};
      const net::IoResult r = stream->TryWrite({&piece, 1});
      if (r.bytes == 0) break;
      out_.erase(0, r.bytes);
      moved = true;
    }
    uint8_t buffer[65536];
    while (stream && reading && !eof && !error) {
      const net::IoResult r = stream->TryRead(buffer);
      if (r.status == net::IoStatus::kWouldBlock) break;
      moved = true;
      if (r.status == net::IoStatus::kEof) eof = true;
      if (r.status == net::IoStatus::kError) error = true;
      if (r.status == net::IoStatus::kOk) Receive({buffer, r.bytes});
    }
    return moved;
  }

  std::unique_ptr<net::Stream> stream;
  std::unique_ptr<http::Session> session;
  std::string received;             // raw
  std::vector<std::string> events;  // of the session: "response 1 200", "data 1 abc", ...
  std::map<http::StreamId, std::string> bodies;
  bool auto_consume = true;
  bool reading = true, eof = false, error = false;

 private:
  bool PumpSession() {
    bool moved = false;
    for (;;) {
      const auto bytes = session->Output();
      if (bytes.empty() || !stream) return moved;
      const iovec piece{const_cast<uint8_t*>(bytes.data()), bytes.size()};
      const net::IoResult r = stream->TryWrite({&piece, 1});
      if (r.bytes == 0) return moved;
      session->OutputWritten(r.bytes);
      moved = true;
    }
  }
  void Receive(std::span<const uint8_t> bytes) {
    if (!session) {
      received.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      return;
    }
    size_t used = 0;
    EXPECT_EQ(session->Feed(bytes, &used), WEFT_R_NONE);
    for (http::Event& e : session->events()) Note(e);
    session->ClearEvents();
  }
  void Note(http::Event& e) {
    using Kind = http::Event::Kind;
    const std::string id = std::to_string(e.stream);
    const std::string end = e.end_stream ? " end" : "";
    switch (e.kind) {
      case Kind::kRequest:
        events.push_back("request " + id + " " + e.request->method + " " + e.request->path + end);
        break;
      case Kind::kResponse:
      case Kind::kInformational:
        last_response = *e.response;
        events.push_back("response " + id + " " + std::to_string(e.response->status) + end);
        break;
      case Kind::kData:
        bodies[e.stream].append(reinterpret_cast<const char*>(e.data.data()), e.data.size());
        if (auto_consume) session->Consume(e.stream, e.data.size());
        if (e.end_stream) events.push_back("end " + id);
        break;
      case Kind::kTrailers:
        events.push_back("trailers " + id);
        break;
      case Kind::kEnd:
        events.push_back("end " + id);
        break;
      case Kind::kReset:
        events.push_back("reset " + id);
        break;
      case Kind::kGoAway:
        events.push_back("goaway");
        break;
      case Kind::kWritable:
      case Kind::kUpgraded:
        break;
    }
  }
  std::string out_;

 public:
  http::ResponseHead last_response;
};

// Reaches "endpoints" by making a pair of streams; the test holds the other end.
class FakeConnector final : public Connector {
 public:
  explicit FakeConnector(asio::any_io_executor executor) : executor_(std::move(executor)) {}

  Task<ConnectResult> Connect(ConnectRequest request) override {
    ++connects[request.destination.port];
    ConnectResult result;
    if (auto it = refuse.find(request.destination.port); it != refuse.end()) {
      result.reason = it->second;
      result.policy = policy;
      co_return result;
    }
    while (hold) co_await released_.Wait();
    net::StreamPair pair = net::MakeStreamPair(executor_, {.capacity_bytes = capacity});
    result.stream = std::move(pair.first);
    result.peer_identity = identity;
    result.expiry = expiry;
    auto session = http2 ? http::MakeHttp2Session(http::Role::kServer, limits) : nullptr;
    upstreams[request.destination.port].push_back(
        std::make_unique<Peer>(std::move(pair.second), std::move(session)));
    last_identity = request.source ? request.source->identity : "";
    co_return result;
  }

  std::map<uint16_t, int> connects;
  std::map<uint16_t, Reason> refuse;
  std::string policy, last_identity;
  std::string identity = "spiffe://cluster.local/ns/default/sa/web";
  std::chrono::system_clock::time_point expiry{};
  std::map<uint16_t, std::vector<std::unique_ptr<Peer>>> upstreams;
  size_t capacity = 65536;
  bool http2 = false;
  bool hold = false;
  http::Limits limits;

  void Release() {
    hold = false;
    released_.Notify();
  }

 private:
  asio::any_io_executor executor_;
  Signal released_{executor_};
};

class HttpWorld : public testing::Test {
 protected:
  HttpWorld() {
    cluster->name = "web";
    AddEndpoint(1);
    model::Route route;
    route.name = "main";
    model::Forward forward;
    forward.clusters.push_back({.cluster = "web"});
    route.action = forward;
    model::VirtualHost host;
    host.name = "all";
    host.domains = {"*"};
    host.routes.push_back(route);
    routes->name = "r";
    routes->virtual_hosts.push_back(host);
    listener->http.emplace();
  }
  ~HttpWorld() override {
    for (auto& client : clients) client->stream.reset();
    connector.Release();
    asio::co_spawn(io, services->Shutdown(), [this](std::exception_ptr) { shut = true; });
    Run();
    EXPECT_TRUE(shut) << "Shutdown() does not end";
    EXPECT_EQ(table->FindCluster("web"), std::nullopt) << "a cluster is still referred to";
  }

  model::Forward& forward() {
    return std::get<model::Forward>(routes->virtual_hosts[0].routes[0].action);
  }
  model::RetryPolicy& retry() {
    if (!forward().retry) {
      forward().retry.emplace();
      forward().retry->retry_on =
          model::kRetry5xx | model::kRetryConnectFailure | model::kRetryReset;
    }
    return *forward().retry;
  }
  void AddEndpoint(uint16_t port) {
    model::Endpoint e;
    e.address = At(port);
    cluster->endpoints.push_back(e);
  }
  // Makes the services from what the test has configured so far.
  void Start() {
    services.emplace(
        io.get_executor(),
        HttpServicesOptions{.connector = &connector,
                            .table = table.get(),
                            .seed = 11,
                            .clock = [this] { return now; },
                            .wall_clock = [this] { return wall_now; },
                            .on_request = [this](const RequestRecord& r) { Keep(r); }});
    Adopt();
  }
  void Adopt() {
    listener->http->inline_routes = std::make_shared<model::RouteConfiguration>(*routes);
    auto snapshot = std::make_shared<model::Snapshot>();
    snapshot->clusters[cluster->name] = std::make_shared<model::Cluster>(*cluster);
    for (auto& other : more_clusters)
      snapshot->clusters[other.name] = std::make_shared<model::Cluster>(other);
    snapshot->Finish();
    services->Adopt(snapshot);
  }
  // `raw`: the test writes the frames of HTTP/2 itself.
  Peer& Client(bool http2 = false, size_t capacity = 65536, bool raw = false) {
    net::StreamPair pair = net::MakeStreamPair(io.get_executor(), {.capacity_bytes = capacity});
    HttpDownstreamArgs args;
    args.stream = std::move(pair.first);
    args.http2 = http2;
    args.client = At(40000);
    args.original_destination = At(80);
    args.listener = std::make_shared<model::Listener>(*listener);
    args.source = source;
    asio::co_spawn(io, ServeHttp(*services, std::move(args)), asio::detached);
    clients.push_back(std::make_unique<Peer>(
        std::move(pair.second),
        http2 && !raw ? http::MakeHttp2Session(http::Role::kClient, {}) : nullptr));
    return *clients.back();
  }
  // Until nothing moves any more.
  void Run() {
    for (int i = 0; i < 100000; ++i) {
      io.restart();
      bool moved = io.poll() > 0;
      for (auto& client : clients) moved |= client->Pump();
      for (auto& [port, peers] : connector.upstreams) {
        for (auto& peer : peers) moved |= peer->Pump();
      }
      if (!moved) return;
    }
    FAIL() << "it never comes to rest";
  }
  void Pass(std::chrono::milliseconds time) {
    now += time;
    wall_now += time;
    services->Tick();
    Run();
  }
  // The n-th connection to the endpoint; fails the test if there is none.
  Peer& Upstream(uint16_t port = 1, size_t n = 0) {
    static Peer nobody(nullptr);
    auto& peers = connector.upstreams[port];
    EXPECT_LT(n, peers.size()) << "no connection " << n << " to endpoint " << port;
    return n < peers.size() ? *peers[n] : nobody;
  }
  std::string Ask(Peer& client, std::string_view request) {
    client.Send(request);
    Run();
    return client.Take();
  }
  uint32_t InUse(upstream::Limit which) {
    const auto row = table->FindCluster("web");
    return row ? table->cluster(*row).in_use[static_cast<size_t>(which)].load() : 0;
  }

  struct Kept {
    std::string method, path, route, cluster, policy, client_identity, upstream_identity;
    int status;
    Reason reason;
    uint32_t attempts;
    uint64_t request_bytes, response_bytes;
    SocketAddress upstream;
  };
  void Keep(const RequestRecord& r) {
    records.push_back({std::string(r.method), std::string(r.path), std::string(r.route),
                       std::string(r.cluster), std::string(r.policy),
                       std::string(r.client_identity), std::string(r.upstream_identity), r.status,
                       r.reason, r.attempts, r.request_bytes, r.response_bytes, r.upstream});
  }

  asio::io_context io{1};
  TimePoint now{std::chrono::seconds(5000)};
  std::chrono::system_clock::time_point wall_now{std::chrono::hours(24 * 365 * 50)};
  std::unique_ptr<upstream::NodeTable> table =
      std::move(*upstream::NodeTable::Create({.workers = 1}));
  FakeConnector connector{io.get_executor()};
  std::shared_ptr<model::Cluster> cluster = std::make_shared<model::Cluster>();
  std::vector<model::Cluster> more_clusters;
  std::shared_ptr<model::RouteConfiguration> routes = std::make_shared<model::RouteConfiguration>();
  std::shared_ptr<model::Listener> listener = std::make_shared<model::Listener>();
  std::shared_ptr<const model::LocalWorkload> source;
  std::optional<HttpServices> services;
  std::vector<std::unique_ptr<Peer>> clients;
  std::vector<Kept> records;
  bool shut = false;
};

inline constexpr std::string_view kGet = "GET /x HTTP/1.1\r\nHost: web\r\n\r\n";
inline constexpr std::string_view kOk = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
inline constexpr std::string_view k503 = "HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno";

inline int StatusOf(const std::string& text) {
  return text.size() > 12 && text.starts_with("HTTP/1.1 ") ? std::stoi(text.substr(9, 3)) : -1;
}

}  // namespace weft::worker
