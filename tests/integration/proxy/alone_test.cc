// SPDX-License-Identifier: Apache-2.0
// weft-proxy run alone: configured over ADS, in both variants, with and without the sandbox.
#include <fstream>
#include <sstream>

#include "tests/integration/proxy/proxy_process.h"

namespace weft::test {
namespace {

const SocketAddress kLoopback = *SocketAddress::Parse("127.0.0.1:0");

struct Mode {
  const char* name;
  std::vector<std::string> flags;
};

class Alone : public ProxyTest, public testing::WithParamInterface<Mode> {
 protected:
  void StartAlone() {
    std::vector<std::string> flags = {"--xds", ServeXds(false), "--workers", "2"};
    flags.insert(flags.end(), GetParam().flags.begin(), GetParam().flags.end());
    Start(flags);
  }
};

TEST_P(Alone, CarriesTcpAndFollowsEndpoints) {
  App first(io_, kLoopback);
  Put(EdsCluster("db"), EndpointsOf("db", {first.address()}), TcpListener("db", "db"));
  StartAlone();
  ASSERT_TRUE(Ready());
  SocketAddress proxy = Bound("db");
  auto client = Dial(proxy);
  Write(*client, "query");
  ASSERT_TRUE(RunUntil([&] { return first.accepted.size() == 1; }));
  EXPECT_EQ(Read(*first.accepted[0], 5), "query");
  Write(*first.accepted[0], "answer");
  EXPECT_EQ(Read(*client, 6), "answer");

  App second(io_, kLoopback);
  Put(EndpointsOf("db", {second.address()}));
  // New connections go to the new endpoint as soon as the proxy heard of it; the open one stays.
  std::vector<std::unique_ptr<net::Stream>> clients;
  ASSERT_TRUE(RunUntil([&] {
    clients.push_back(Dial(proxy));
    RunUntil([&] { return first.accepted.size() + second.accepted.size() > clients.size(); });
    return !second.accepted.empty();
  }));
  Write(*client, "again");
  EXPECT_EQ(Read(*first.accepted[0], 5), "again");
}

// EDS says that the endpoint is of the mesh; nothing says how to reach it.
TEST_P(Alone, SendsNoPlaintextToAMarkedEndpoint) {
  App app(io_, kLoopback);
  model::Endpoints endpoints = EndpointsOf("web", {app.address()});
  endpoints.endpoints[0].in_mesh = true;
  model::Route route;
  model::Forward forward;
  forward.clusters.push_back({.cluster = "web", .weight = 1});
  route.action = forward;
  model::RouteConfiguration routes{
      .name = "routes", .virtual_hosts = {{.name = "all", .domains = {"*"}, .routes = {route}}}};
  Put(EdsCluster("web"), endpoints, HttpListener("web", "routes"), routes);
  StartAlone();
  ASSERT_TRUE(Ready());
  std::string answer = HttpGet(Bound("web"), "/");
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 503 ")) << answer;
  EXPECT_NE(answer.find("x-weft-reason: plaintext_refused\r\n"), std::string::npos) << answer;
  EXPECT_TRUE(app.accepted.empty());
  // Without the mark it is an endpoint as any other.
  Put(EndpointsOf("web", {app.address()}));
  std::vector<std::unique_ptr<net::Stream>> clients;
  EXPECT_TRUE(RunUntil([&] {
    clients.push_back(Dial(Bound("web")));
    Write(*clients.back(), "GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    return RunUntil([&] { return !app.accepted.empty(); }, 1s);
  }));
}

TEST_P(Alone, ServesHttpAndChangesRoutes) {
  Put(HttpListener("web", "routes"), DirectRoutes("routes", "one"));
  StartAlone();
  ASSERT_TRUE(Ready());
  SocketAddress proxy = Bound("web");
  EXPECT_NE(HttpGet(proxy, "/").find("\r\n\r\none"), std::string::npos);
  Put(DirectRoutes("routes", "two"));
  EXPECT_TRUE(
      RunUntil([&] { return HttpGet(proxy, "/").find("\r\n\r\ntwo") != std::string::npos; }));
  auto metrics = Admin("GET", "/stats/prometheus");
  ASSERT_TRUE(metrics.ok());
  EXPECT_NE(metrics->body.find("istio_requests_total{"), std::string::npos);
}

TEST_P(Alone, ListenersComeAndGo) {
  Put(HttpListener("web", "routes"), DirectRoutes("routes", "one"));
  StartAlone();
  ASSERT_TRUE(Ready());
  SocketAddress proxy = Bound("web");
  Put(HttpListener("other", "routes"));
  EXPECT_NE(HttpGet(Bound("other"), "/").find("one"), std::string::npos);
  xds::CacheBatch batch;
  batch.Remove(xds::kListenerType, "web");
  cache_.Apply(std::move(batch));
  EXPECT_TRUE(RunUntil([&] { return AdminJson("/listeners").size() == 1; }));
  auto refused = Await(net::DialTcp(io_.get_executor(), proxy, 1s));
  EXPECT_FALSE(refused.ok());
}

TEST_P(Alone, SigtermDrainsAndEndsWithZero) {
  App app(io_, kLoopback);
  Put(EdsCluster("db"), EndpointsOf("db", {app.address()}), TcpListener("db", "db"));
  StartAlone();
  ASSERT_TRUE(Ready());
  auto client = Dial(Bound("db"));
  ASSERT_TRUE(RunUntil([&] { return app.accepted.size() == 1; }));
  kill(pid_, SIGTERM);
  ASSERT_TRUE(RunUntil([&] {
    auto ready = Admin("GET", "/ready");
    return ready.ok() && ready->body == "DRAINING\n";
  }));
  // The open connection is still served.
  Write(*client, "late");
  EXPECT_EQ(Read(*app.accepted[0], 4), "late");
  client->Close(WEFT_R_CLOSED);
  app.accepted[0]->Close(WEFT_R_CLOSED);
  EXPECT_EQ(WaitForExit(), 0);
}

TEST_P(Alone, SurvivesTheXdsServersDeath) {
  Put(HttpListener("web", "routes"), DirectRoutes("routes", "one"));
  StartAlone();
  ASSERT_TRUE(Ready());
  SocketAddress proxy = Bound("web");
  for (net::Stream* stream : xds_streams_) stream->Close(WEFT_R_IO_ERROR);
  EXPECT_NE(HttpGet(proxy, "/").find("one"), std::string::npos);
  Put(DirectRoutes("routes", "two"));
  EXPECT_TRUE(RunUntil([&] { return HttpGet(proxy, "/").find("two") != std::string::npos; }));
  EXPECT_EQ(AdminJson("/status")["xds"]["connects"], 2);
}

INSTANTIATE_TEST_SUITE_P(Modes, Alone,
                         testing::Values(Mode{"Delta", {}}, Mode{"Sotw", {"--xds-variant", "sotw"}},
                                         Mode{"Sandboxed", {"--sandbox"}}),
                         [](const auto& mode) { return mode.param.name; });

using AloneOnce = ProxyTest;

TEST_F(AloneOnce, BadResourceIsRefusedByNameAndTheRestServes) {
  Put(HttpListener("web", "routes"), DirectRoutes("routes", "one"));
  model::RouteConfiguration bad = DirectRoutes("routes", "two");
  Start({"--xds", ServeXds(false)});
  ASSERT_TRUE(Ready());
  SocketAddress proxy = Bound("web");
  bad.virtual_hosts[0].routes[0].path = {.kind = model::PathMatch::Kind::kRegex,
                                         .value = "(unclosed"};
  Put(bad);
  ASSERT_TRUE(RunUntil([&] { return !nacks_.empty(); }));
  EXPECT_NE(nacks_[0].find("routes"), std::string::npos) << nacks_[0];
  EXPECT_NE(HttpGet(proxy, "/").find("one"), std::string::npos);
}

TEST_F(AloneOnce, SandboxShowsInProc) {
  std::vector<std::string> flags = {"--xds", ServeXds(false), "--sandbox"};
  if (geteuid() == 0) flags.insert(flags.end(), {"--uid", "65534", "--gid", "65534"});
  Put(HttpListener("web", "routes"), DirectRoutes("routes", "one"));
  Start(flags);
  ASSERT_TRUE(Ready());
  std::ifstream file("/proc/" + std::to_string(pid_) + "/status");
  std::stringstream text;
  text << file.rdbuf();
  std::string status = text.str();
  auto has = [&](const std::string& line) { return status.find(line) != std::string::npos; };
  EXPECT_TRUE(has("NoNewPrivs:\t1")) << status;
  EXPECT_TRUE(has("Seccomp:\t2")) << status;
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapAmb"}) {
    EXPECT_TRUE(has(std::string(set) + ":\t0000000000000000")) << set << status;
  }
  if (geteuid() == 0) {
    EXPECT_TRUE(has("CapBnd:\t0000000000000000")) << status;
    EXPECT_TRUE(has("Uid:\t65534\t65534\t65534\t65534")) << status;
    EXPECT_TRUE(has("Groups:\t \n") || has("Groups:\t\n")) << status;
  }
  EXPECT_NE(HttpGet(Bound("web"), "/").find("one"), std::string::npos);
}

}  // namespace
}  // namespace weft::test
