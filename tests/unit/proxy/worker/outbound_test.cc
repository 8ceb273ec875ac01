// SPDX-License-Identifier: Apache-2.0
// Captured connections on layer 4: listener match, endpoint choice, retry elsewhere, breakers,
// protocol detection.
#include "tests/unit/proxy/worker/mesh_world.h"

#include "proxy/worker/detect_downstream.h"

namespace weft::worker {
namespace {

std::shared_ptr<model::Listener> ListenerAt(std::string name, const char* address) {
  auto listener = std::make_shared<model::Listener>();
  listener->name = std::move(name);
  if (address != nullptr) listener->address = SocketAddress::Parse(address);
  listener->tcp.emplace();
  return listener;
}

TEST(ListenerMatch, ExactThenAnyPortThenAnyAddressThenDefault) {
  model::Snapshot snapshot;
  for (auto& listener : {ListenerAt("exact", "10.0.0.1:80"), ListenerAt("any port", "10.0.0.1:0"),
                         ListenerAt("any address", "0.0.0.0:443")}) {
    snapshot.listeners[listener->name] = listener;
  }
  auto fallback = ListenerAt("default", "0.0.0.0:15001");
  fallback->use_original_dst = true;
  snapshot.listeners["default"] = fallback;
  ListenerMatch match(snapshot);
  auto name = [&](const char* destination) {
    return match.Find(*SocketAddress::Parse(destination))->name;
  };
  EXPECT_EQ(name("10.0.0.1:80"), "exact");
  EXPECT_EQ(name("10.0.0.1:81"), "any port");
  EXPECT_EQ(name("10.0.0.2:443"), "any address");
  EXPECT_EQ(name("10.0.0.2:80"), "default");
  EXPECT_EQ(name("10.0.0.2:15001"), "default");
}

TEST(ListenerMatch, NothingMatches) {
  model::Snapshot snapshot;
  snapshot.listeners["web"] = ListenerAt("web", "10.0.0.1:80");
  auto capture = std::make_shared<model::Listener>();
  capture->name = "virtual";
  capture->use_original_dst = true;  // no chains: only says that others are chosen by destination
  snapshot.listeners["virtual"] = capture;
  EXPECT_EQ(ListenerMatch(snapshot).Find(*SocketAddress::Parse("10.0.0.2:80")), nullptr);
}

class Outbound : public MeshWorld {
 protected:
  // A cluster with these endpoints and a listener in front of it.
  void AddCluster(std::vector<SocketAddress> addresses, uint32_t attempts = 1,
                  uint32_t max_connections = 100) {
    auto cluster = std::make_shared<model::Cluster>();
    cluster->name = "db";
    for (const SocketAddress& address : addresses)
      cluster->endpoints.push_back({.address = address});
    cluster->breaker.max_connections = max_connections;
    clusters_["db"] = cluster;
    listener_ = ListenerAt("db", "10.9.9.9:5432");
    listener_->tcp->clusters = {{.cluster = "db", .weight = 1}};
    listener_->tcp->max_connect_attempts = attempts;
    listeners_["db"] = listener_;
    Publish();
  }
  // The application's end of a captured connection.
  std::unique_ptr<net::Stream> Capture(SocketAddress destination, SocketAddress picked = {}) {
    int fds[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    a_.state.gate.Spawn(
        ServeOutbound(a_.state, {.stream = net::MakeSocketStream(io_.get_executor(), fds[0]),
                                 .source = a_.local,
                                 .client = {a_.ip, 40001},
                                 .original = {destination, picked},
                                 .listener = a_.state.listeners.Find(destination)}));
    return net::MakeSocketStream(io_.get_executor(), fds[1]);
  }
  telemetry::FlowRecord LastFlow() { return a_.state.telemetry.flows.Since(0).back(); }
  SocketAddress db_ = *SocketAddress::Parse("10.9.9.9:5432");
  std::shared_ptr<model::Listener> listener_;
};

TEST_F(Outbound, ServiceAddressBecomesAnEndpoint) {
  App& app = StartApp(TestIp(5));
  AddCluster({app.address()});
  auto client = Capture(db_);
  Write(*client, "query");
  ASSERT_TRUE(RunUntil([&] { return app.accepted.size() == 1; }));
  EXPECT_EQ(Read(*app.accepted[0], 5), "query");
  Write(*app.accepted[0], "answer");
  EXPECT_EQ(Read(*client, 6), "answer");
  client->ShutdownWrite();
  EXPECT_EQ(Read(*app.accepted[0], 1), "<eof>");
  app.accepted[0]->ShutdownWrite();
  EXPECT_EQ(Read(*client, 1), "<eof>");
  ASSERT_TRUE(RunUntil([&] { return a_.state.telemetry.flows.last_sequence() == 1; }));
  EXPECT_EQ(LastFlow().destination, db_);
  EXPECT_EQ(LastFlow().upstream, app.address());
  EXPECT_EQ(LastFlow().source_identity, kAlice);
  EXPECT_EQ(LastFlow().reason, WEFT_R_CLOSED);
}

TEST_F(Outbound, RefusedEndpointIsReplacedByAnother) {
  App& app = StartApp(TestIp(5));
  SocketAddress dead = StartApp(TestIp(6)).address();
  apps_.pop_back();
  AddCluster({dead, app.address()}, 2);
  for (int i = 0; i < 4; ++i) {
    auto client = Capture(db_);
    Write(*client, "x");
    ASSERT_TRUE(RunUntil([&] { return app.accepted.size() == static_cast<size_t>(i) + 1; }));
    EXPECT_EQ(Read(*app.accepted.back(), 1), "x");
  }
  EXPECT_GT(a_.state.telemetry.counters[telemetry::Counter::kConnectRetries].value(), 0u);
}

// A workload of the mesh that we know no tunnel to counts as one that cannot be reached.
TEST_F(Outbound, MarkedEndpointIsReplacedByAnother) {
  App& secret = StartApp(TestIp(5));
  App& open = StartApp(TestIp(6));
  AddCluster({secret.address(), open.address()}, 2);
  auto cluster = std::make_shared<model::Cluster>(*clusters_["db"]);
  cluster->endpoints[0].in_mesh = true;
  clusters_["db"] = cluster;
  Publish();
  for (size_t i = 0; i < 4; ++i) {
    auto client = Capture(db_);
    Write(*client, "x");
    ASSERT_TRUE(RunUntil([&] { return open.accepted.size() == i + 1; }));
    EXPECT_EQ(Read(*open.accepted.back(), 1), "x");
  }
  EXPECT_GT(a_.state.telemetry.counters[telemetry::Counter::kConnectRetries].value(), 0u);
  // What the kernel picked, or its raw address, is no way around.
  for (SocketAddress destination : {secret.address(), *SocketAddress::Parse("10.8.8.8:1")}) {
    uint64_t refused = Closed(a_, WEFT_R_PLAINTEXT_REFUSED);
    auto client = Capture(destination, secret.address());
    EXPECT_EQ(Read(*client, 1).front(), '<');
    EXPECT_TRUE(RunUntil([&] { return Closed(a_, WEFT_R_PLAINTEXT_REFUSED) == refused + 1; }));
  }
  EXPECT_TRUE(secret.accepted.empty());
}

TEST_F(Outbound, OneAttemptFailsWithItsReason) {
  SocketAddress dead = StartApp(TestIp(6)).address();
  apps_.pop_back();
  AddCluster({dead});
  auto client = Capture(db_);
  EXPECT_EQ(Read(*client, 1).front(), '<');
  EXPECT_TRUE(RunUntil([&] { return Closed(a_, WEFT_R_CONNECT_FAILED) == 1; }));
}

TEST_F(Outbound, KernelsChoiceIsTriedFirst) {
  App& first = StartApp(TestIp(5));
  App& second = StartApp(TestIp(6));
  AddCluster({first.address(), second.address()});
  std::vector<std::unique_ptr<net::Stream>> clients;
  for (int i = 0; i < 3; ++i) clients.push_back(Capture(db_, second.address()));
  EXPECT_TRUE(RunUntil([&] { return second.accepted.size() == 3; }));
  EXPECT_TRUE(first.accepted.empty());
}

TEST_F(Outbound, BreakerRefusesAndRecovers) {
  App& app = StartApp(TestIp(5));
  AddCluster({app.address()}, 1, 1);
  auto first = Capture(db_);
  ASSERT_TRUE(RunUntil([&] { return app.accepted.size() == 1; }));
  auto second = Capture(db_);
  EXPECT_EQ(Read(*second, 1).front(), '<');
  EXPECT_TRUE(RunUntil([&] { return Closed(a_, WEFT_R_OVERFLOW_CONNECTIONS) == 1; }));
  first->Close(WEFT_R_CLOSED);
  app.accepted[0]->Close(WEFT_R_CLOSED);
  ASSERT_TRUE(RunUntil([&] { return a_.state.gate.in_flight() == 0; }));
  auto third = Capture(db_);
  EXPECT_TRUE(RunUntil([&] { return app.accepted.size() == 2; }));
}

TEST_F(Outbound, UnknownClusterSaysSo) {
  AddCluster({});
  clusters_.clear();
  Publish();
  auto client = Capture(db_);
  EXPECT_EQ(Read(*client, 1).front(), '<');
  EXPECT_TRUE(RunUntil([&] { return Closed(a_, WEFT_R_NO_CLUSTER) == 1; }));
}

TEST_F(Outbound, EmptyClusterSaysSo) {
  AddCluster({});
  auto client = Capture(db_);
  EXPECT_EQ(Read(*client, 1).front(), '<');
  EXPECT_TRUE(RunUntil([&] { return Closed(a_, WEFT_R_NO_HEALTHY_UPSTREAM) == 1; }));
}

TEST_F(Outbound, NoListenerPassesThrough) {
  App& app = StartApp(TestIp(5));
  auto client = Capture(app.address());
  Write(*client, "x");
  ASSERT_TRUE(RunUntil([&] { return app.accepted.size() == 1; }));
  EXPECT_EQ(Read(*app.accepted[0], 1), "x");
}

// The workload API may name a service before its listener comes, and a program may ask for a port
// that the service does not have.
TEST_F(Outbound, ServiceAddressWithoutAListenerIsRefused) {
  App& app = StartApp(TestIp(5));
  auto service = std::make_shared<model::Service>();
  service->namespace_name = "prod";
  service->hostname = "db.prod.svc.cluster.local";
  service->addresses = {app.address().ip};
  services_[service->Key()] = service;
  Publish();
  auto client = Capture(app.address());
  EXPECT_EQ(Read(*client, 1).front(), '<');
  EXPECT_TRUE(RunUntil([&] { return Closed(a_, WEFT_R_NO_LISTENER) == 1; }));
  EXPECT_TRUE(app.accepted.empty());
  App& endpoint = StartApp(TestIp(6));
  auto resolved = Capture(app.address(), endpoint.address());
  Write(*resolved, "x");
  ASSERT_TRUE(RunUntil([&] { return endpoint.accepted.size() == 1; }));
  EXPECT_EQ(Read(*endpoint.accepted[0], 1), "x");
}

// A listener with both chains: the first byte decides, from whichever side.
class Detection : public Outbound {
 protected:
  void AddBothChains(SocketAddress tcp_upstream, bool keep = false) {
    if (!keep) AddCluster({tcp_upstream});
    auto routes = std::make_shared<model::RouteConfiguration>();
    model::Route route;
    route.action = model::DirectResponse{.status = 200, .body = "from http"};
    routes->virtual_hosts.push_back({.name = "all", .domains = {"*"}, .routes = {route}});
    auto listener = std::make_shared<model::Listener>(*listener_);
    listener->http.emplace();
    listener->http->inline_routes = routes;
    listeners_["db"] = listener;
    Publish();
  }
};

TEST_F(Detection, ServerThatSpeaksFirstIsHeardAtOnce) {
  App& app = StartApp(TestIp(5));
  AddBothChains(app.address());
  auto client = Capture(db_);
  ASSERT_TRUE(RunUntil([&] { return app.accepted.size() == 1; }));
  Write(*app.accepted[0], "220 smtp ready\r\n");
  EXPECT_EQ(Read(*client, 16), "220 smtp ready\r\n");
  Write(*client, "GET this is not http\r\n");
  EXPECT_EQ(Read(*app.accepted[0], 22), "GET this is not http\r\n");
  Write(*app.accepted[0], "500 what\r\n");
  EXPECT_EQ(Read(*client, 10), "500 what\r\n");
}

TEST_F(Detection, ClientThatIsNotHttpIsTcp) {
  App& app = StartApp(TestIp(5));
  AddBothChains(app.address());
  auto client = Capture(db_);
  Write(*client, "\x01\x02\x03");
  ASSERT_TRUE(RunUntil([&] { return app.accepted.size() == 1; }));
  EXPECT_EQ(Read(*app.accepted[0], 3), "\x01\x02\x03");
  client->ShutdownWrite();
  EXPECT_EQ(Read(*app.accepted[0], 1), "<eof>");
  Write(*app.accepted[0], "bye");
  app.accepted[0]->ShutdownWrite();
  EXPECT_EQ(Read(*client, 3), "bye");
  EXPECT_EQ(Read(*client, 1), "<eof>");
  ASSERT_TRUE(RunUntil([&] { return a_.state.telemetry.flows.last_sequence() == 1; }));
  EXPECT_EQ(LastFlow().sent_bytes, 3u);
  EXPECT_EQ(LastFlow().received_bytes, 3u);
}

TEST_F(Detection, HttpIsHttpByteByByte) {
  App& app = StartApp(TestIp(5));
  AddBothChains(app.address());
  auto client = Capture(db_);
  for (char c : std::string("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")) {
    Write(*client, std::string(1, c));
    io_.restart();
    io_.poll();
  }
  std::string answer = Read(*client, 100000);
  EXPECT_NE(answer.find("200"), std::string::npos) << answer;
  EXPECT_NE(answer.find("from http"), std::string::npos) << answer;
}

TEST_F(Detection, SilenceOnBothSidesEnds) {
  App& app = StartApp(TestIp(5));
  AddCluster({app.address()});
  listener_->tcp->idle_timeout = 100ms;
  AddBothChains(app.address(), /*keep=*/true);
  auto silent = Capture(db_);
  auto talked = Capture(db_);
  Write(*talked, "\x01");
  ASSERT_TRUE(RunUntil([&] { return app.accepted.size() == 2; }));
  EXPECT_EQ(Read(*silent, 1).front(), '<');
  EXPECT_EQ(Read(*talked, 1).front(), '<');
  EXPECT_TRUE(RunUntil([&] { return Closed(a_, WEFT_R_IDLE_TIMEOUT) == 2; }));
}

TEST_F(Detection, HttpWorksWhereTheTcpUpstreamIsDead) {
  SocketAddress dead = StartApp(TestIp(6)).address();
  apps_.pop_back();
  AddBothChains(dead);
  auto client = Capture(db_);
  Write(*client, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_NE(Read(*client, 100000).find("from http"), std::string::npos);
}

}  // namespace
}  // namespace weft::worker
