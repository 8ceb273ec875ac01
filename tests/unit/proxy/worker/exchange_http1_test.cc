// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>

#include "tests/unit/proxy/worker/http_world.h"

namespace weft::worker {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using testing::Not;

using ExchangeTest = HttpWorld;

TEST_F(ExchangeTest, CarriesARequestAndItsResponseOverOnePooledConnection) {
  Start();
  Peer& client = Client();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Ask(client, kGet), "");
    const std::string request = Upstream().Take();
    EXPECT_THAT(request, testing::StartsWith("GET /x HTTP/1.1\r\n"));
    EXPECT_THAT(request, HasSubstr("x-forwarded-proto: http\r\n"));
    EXPECT_THAT(request, HasSubstr("x-request-id: "));
    Upstream().Send(kOk);
    Run();
    const std::string response = client.Take();
    EXPECT_EQ(StatusOf(response), 200);
    EXPECT_TRUE(response.ends_with("\r\n\r\nhi")) << response;
  }
  EXPECT_EQ(connector.connects[1], 1);
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(records[0].status, 200);
  EXPECT_EQ(records[0].cluster, "web");
  EXPECT_EQ(records[0].route, "main");
  EXPECT_EQ(records[0].response_bytes, 2u);
  EXPECT_EQ(records[0].upstream, At(1));
  EXPECT_EQ(records[0].upstream_identity, "spiffe://cluster.local/ns/default/sa/web");
  EXPECT_EQ(InUse(upstream::Limit::kRequests), 0u);
  EXPECT_EQ(InUse(upstream::Limit::kConnections), 1u);
}

TEST_F(ExchangeTest, RemovesWhatOnlyProxiesMaySay) {
  Start();
  Peer& client = Client();
  Ask(client,
      "GET / HTTP/1.1\r\nHost: web\r\nX-Forwarded-Client-Cert: "
      "By=spiffe://evil\r\nx-envoy-retry-on: 5xx\r\n"
      "x-weft-policy: a\r\nx-request-id: mine\r\nx-forwarded-for: 9.9.9.9\r\n\r\n");
  const std::string request = Upstream().Take();
  EXPECT_THAT(request, Not(HasSubstr("client-cert")));
  EXPECT_THAT(request, Not(HasSubstr("x-envoy")));
  EXPECT_THAT(request, Not(HasSubstr("x-weft")));
  EXPECT_THAT(request, HasSubstr("x-request-id: mine\r\n"));
  EXPECT_THAT(request, HasSubstr("x-forwarded-for: 9.9.9.9\r\n"));
}

TEST_F(ExchangeTest, NormalizesThePathBeforeRouting) {
  Start();
  Peer& client = Client();
  Ask(client, "GET /a/../b/./%63?q=/../x HTTP/1.1\r\nHost: web\r\n\r\n");
  EXPECT_THAT(Upstream().Take(), testing::StartsWith("GET /b/c?q=/../x HTTP/1.1\r\n"));
  Upstream().Send(kOk);
  Run();
  client.Take();
  EXPECT_EQ(StatusOf(Ask(client, "GET /a%00b HTTP/1.1\r\nHost: web\r\n\r\n")), 400);
}

TEST_F(ExchangeTest, AppliesHeaderChangesAndRewrites) {
  using Action = model::HeaderChange::Action;
  auto& host = routes->virtual_hosts[0];
  host.routes[0].path.value = "/x";
  forward().prefix_rewrite = "/y";
  forward().host_rewrite = "other";
  host.routes[0].request_headers = {{Action::kOverwriteOrAdd, "x-a", "1"},
                                    {Action::kRemove, "x-b", ""}};
  host.response_headers = {{Action::kAppendOrAdd, "x-c", "2"}, {Action::kAddIfAbsent, "x-c", "3"}};
  Start();
  Peer& client = Client();
  Ask(client, "GET /x/z HTTP/1.1\r\nHost: web\r\nx-a: 0\r\nx-b: 0\r\n\r\n");
  const std::string request = Upstream().Take();
  EXPECT_THAT(request, testing::StartsWith("GET /y/z HTTP/1.1\r\n"));
  EXPECT_THAT(request, HasSubstr("ost: other\r\n"));
  EXPECT_THAT(request, HasSubstr("x-a: 1\r\n"));
  EXPECT_THAT(request, Not(HasSubstr("x-b")));
  Upstream().Send(kOk);
  Run();
  const std::string response = client.Take();
  EXPECT_THAT(response, HasSubstr("x-c: 2\r\n"));
  EXPECT_THAT(response, Not(HasSubstr("x-c: 3")));
}

TEST_F(ExchangeTest, AnswersItselfWhereThereIsNothingToForward) {
  routes->virtual_hosts[0].routes[0].path.value = "/x";
  model::Route direct, redirect, lost;
  direct.path.value = "/direct";
  direct.action = model::DirectResponse{.status = 418, .body = "short"};
  redirect.path.value = "/old";
  redirect.action = model::Redirect{.status = 302, .scheme = "https", .prefix_rewrite = "/new"};
  lost.path.value = "/lost";
  lost.action = model::Forward{.clusters = {{.cluster = "nowhere"}}};
  for (auto& r : {direct, redirect, lost}) routes->virtual_hosts[0].routes.push_back(r);
  Start();
  Peer& client = Client();
  std::string answer = Ask(client, "GET /none HTTP/1.1\r\nHost: web\r\n\r\n");
  EXPECT_EQ(StatusOf(answer), 404);
  EXPECT_THAT(answer, HasSubstr("x-weft-reason: no_route\r\n"));
  answer = Ask(client, "GET /direct HTTP/1.1\r\nHost: web\r\n\r\n");
  EXPECT_EQ(StatusOf(answer), 418);
  EXPECT_TRUE(answer.ends_with("short"));
  answer = Ask(client, "GET /old/a?b HTTP/1.1\r\nHost: web:80\r\n\r\n");
  EXPECT_EQ(StatusOf(answer), 302);
  EXPECT_THAT(answer, HasSubstr("location: https://web/new/a?b\r\n"));
  answer = Ask(client, "GET /lost HTTP/1.1\r\nHost: web\r\n\r\n");
  EXPECT_EQ(StatusOf(answer), 503);
  EXPECT_THAT(answer, HasSubstr("x-weft-reason: no_cluster\r\n"));
  answer = Ask(client, "HEAD /direct HTTP/1.1\r\nHost: web\r\n\r\n");
  EXPECT_EQ(StatusOf(answer), 418);
  EXPECT_TRUE(answer.ends_with("\r\n\r\n")) << "a HEAD has no body: " << answer;
  EXPECT_EQ(StatusOf(Ask(client, "CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\n")), 405);
}

TEST_F(ExchangeTest, NoEndpointIs503WithItsReason) {
  cluster->endpoints.clear();
  Start();
  const std::string answer = Ask(Client(), kGet);
  EXPECT_EQ(StatusOf(answer), 503);
  EXPECT_THAT(answer, HasSubstr("x-weft-reason: no_healthy_upstream\r\n"));
  EXPECT_TRUE(answer.ends_with("no healthy upstream"));
}

TEST_F(ExchangeTest, ARefusedConnectIs503OrIsRetriedElsewhere) {
  connector.refuse[1] = WEFT_R_CONNECT_FAILED;
  Start();
  Peer& client = Client();
  const std::string answer = Ask(client, kGet);
  EXPECT_EQ(StatusOf(answer), 503);
  EXPECT_THAT(answer, HasSubstr("reset reason: remote connection failure"));
  EXPECT_THAT(answer, HasSubstr("x-weft-reason: connect_failed\r\n"));
  AddEndpoint(2);
  retry().num_retries = 2;
  retry().avoid_previous_hosts = true;
  retry().host_selection_attempts = 5;
  Adopt();
  Peer& other = Client();
  for (int i = 0; i < 4; ++i) {
    Ask(other, kGet);
    Pass(milliseconds(300));
    Upstream(2).Send(kOk);
    Run();
    EXPECT_EQ(StatusOf(other.Take()), 200);
  }
  EXPECT_EQ(InUse(upstream::Limit::kRetries), 0u);
  EXPECT_EQ(InUse(upstream::Limit::kPending), 0u);
}

TEST_F(ExchangeTest, ADenialByPolicyIs403WithItsName) {
  connector.refuse[1] = WEFT_R_POLICY_DENIED;
  connector.policy = "default/no-web";
  retry().num_retries = 3;
  auto workload = std::make_shared<model::LocalWorkload>();
  workload->identity = "spiffe://cluster.local/ns/default/sa/client";
  source = workload;
  Start();
  const std::string answer = Ask(Client(), kGet);
  EXPECT_EQ(StatusOf(answer), 403);
  EXPECT_THAT(answer, HasSubstr("x-weft-reason: policy_denied\r\n"));
  EXPECT_THAT(answer, HasSubstr("x-weft-policy: default/no-web\r\n"));
  EXPECT_TRUE(answer.ends_with("RBAC: access denied"));
  EXPECT_EQ(connector.connects[1], 1);
  EXPECT_EQ(records.at(0).policy, "default/no-web");
  EXPECT_EQ(records.at(0).client_identity, workload->identity);
}

TEST_F(ExchangeTest, RetriesA5xxWithTheBufferedBody) {
  retry().num_retries = 2;
  Start();
  Peer& client = Client();
  Ask(client, "POST /x HTTP/1.1\r\nHost: web\r\ncontent-length: 5\r\n\r\nhello");
  EXPECT_TRUE(Upstream().Take().ends_with("hello"));
  Upstream().Send(k503);
  Run();
  EXPECT_EQ(client.Take(), "");
  EXPECT_EQ(InUse(upstream::Limit::kRetries), 1u);
  Pass(milliseconds(300));
  Peer& second = connector.upstreams[1].size() > 1 ? Upstream(1, 1) : Upstream();
  EXPECT_TRUE(second.Take().ends_with("hello"));
  second.Send(k503);
  Run();
  Pass(milliseconds(300));
  Peer& third = *connector.upstreams[1].back();
  EXPECT_TRUE(third.Take().ends_with("hello"));
  third.Send(kOk);
  Run();
  EXPECT_EQ(StatusOf(client.Take()), 200);
  EXPECT_EQ(records.at(0).attempts, 3u);
  EXPECT_EQ(services->counters().retries.load(), 2u);
  EXPECT_EQ(InUse(upstream::Limit::kRetries), 0u);
}

TEST_F(ExchangeTest, TheLastTrysAnswerIsPassedOn) {
  retry().num_retries = 1;
  Start();
  Peer& client = Client();
  Ask(client, kGet);
  for (int i = 0; i < 2; ++i) {
    connector.upstreams[1].back()->Send(k503);
    Run();
    if (i == 0) Pass(milliseconds(300));
  }
  const std::string answer = client.Take();
  EXPECT_EQ(StatusOf(answer), 503);
  EXPECT_TRUE(answer.ends_with("no"));
  EXPECT_EQ(records.at(0).reason, WEFT_R_NONE);
}

TEST_F(ExchangeTest, ABodyBeyondTheBufferIsForwardedButNotReplayed) {
  retry().num_retries = 3;
  forward().retry_buffer_bytes = 1000;
  Start();
  Peer& client = Client();
  client.Send("POST /x HTTP/1.1\r\nHost: web\r\ncontent-length: 5000\r\n\r\n" +
              std::string(5000, 'b'));
  Run();
  EXPECT_TRUE(Upstream().Take().ends_with(std::string(5000, 'b')));
  Upstream().Send(k503);
  Run();
  EXPECT_EQ(StatusOf(client.Take()), 503);
  EXPECT_EQ(records.at(0).attempts, 1u);
}

TEST_F(ExchangeTest, NeverRetriesOnceBytesWentDownstream) {
  retry().num_retries = 3;
  Start();
  Peer& client = Client();
  Ask(client, kGet);
  Upstream().Send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
  Run();
  EXPECT_EQ(StatusOf(client.received), 200);
  Upstream().stream.reset();
  Run();
  EXPECT_TRUE(client.eof || client.error);  // it must see that the response is not whole
  EXPECT_EQ(connector.connects[1], 1);
  EXPECT_EQ(records.at(0).reason, WEFT_R_UPSTREAM_RESET);
}

TEST_F(ExchangeTest, AResetBeforeTheResponseIs503) {
  Start();
  Peer& client = Client();
  Ask(client, kGet);
  Upstream().stream.reset();
  Run();
  const std::string answer = client.Take();
  EXPECT_EQ(StatusOf(answer), 503);
  EXPECT_THAT(answer, HasSubstr("reset reason: connection termination"));
  EXPECT_THAT(answer, HasSubstr("x-weft-reason: upstream_reset\r\n"));
}

TEST_F(ExchangeTest, GarbageFromTheUpstreamIs502) {
  Start();
  Peer& client = Client();
  Ask(client, kGet);
  Upstream().Send("SMTP ready\r\n\r\n");
  Run();
  EXPECT_EQ(StatusOf(client.Take()), 502);
}

TEST_F(ExchangeTest, AStalePooledConnectionIsReplacedOnceForIdempotentRequests) {
  Start();
  Peer& client = Client();
  Ask(client, kGet);
  Upstream().Send(kOk);
  Run();
  client.Take();
  Ask(client, kGet);
  Upstream().stream.reset();  // the upstream had closed it when the request came
  Run();
  EXPECT_EQ(client.Take(), "");
  EXPECT_EQ(connector.connects[1], 2);
  Upstream(1, 1).Send(kOk);
  Run();
  EXPECT_EQ(StatusOf(client.Take()), 200);
  // A POST may have been processed.
  Ask(client, "POST / HTTP/1.1\r\nHost: web\r\ncontent-length: 0\r\n\r\n");
  Upstream(1, 1).stream.reset();
  Run();
  EXPECT_EQ(StatusOf(client.Take()), 503);
  EXPECT_EQ(connector.connects[1], 2);
}

TEST_F(ExchangeTest, RouteTimeoutIs504) {
  forward().timeout = milliseconds(1000);
  Start();
  Peer& client = Client();
  Ask(client, kGet);
  Pass(milliseconds(990));
  EXPECT_EQ(client.Take(), "");
  Pass(milliseconds(30));
  const std::string answer = client.Take();
  EXPECT_EQ(StatusOf(answer), 504);
  EXPECT_TRUE(answer.ends_with("upstream request timeout"));
  EXPECT_THAT(answer, HasSubstr("x-weft-reason: route_timeout\r\n"));
  EXPECT_TRUE(Upstream().eof || Upstream().error);
}

TEST_F(ExchangeTest, PerTryTimeoutIsRetried) {
  retry().per_try_timeout = milliseconds(100);
  Start();
  Peer& client = Client();
  Ask(client, kGet);
  Pass(milliseconds(120));
  Pass(milliseconds(60));
  ASSERT_EQ(connector.connects[1], 2);
  Upstream(1, 1).Send(kOk);
  Run();
  EXPECT_EQ(StatusOf(client.Take()), 200);
}

TEST_F(ExchangeTest, ConsecutiveFailuresEjectAndTimeBringsBack) {
  cluster->outlier.emplace();
  cluster->outlier->interval = milliseconds(1000);
  AddEndpoint(2);
  connector.refuse[1] = WEFT_R_CONNECT_FAILED;
  retry().num_retries = 1;
  Start();
  Peer& client = Client();
  for (int i = 0; i < 20; ++i) {
    Ask(client, kGet);
    Pass(milliseconds(60));
    Upstream(2).Send(kOk);
    Run();
    EXPECT_EQ(StatusOf(client.Take()), 200) << i;
  }
  EXPECT_EQ(connector.connects[1], 5);
  connector.refuse.clear();
  for (int i = 0; i < 40; ++i) Pass(seconds(1));
  for (int i = 0; i < 2; ++i) {
    Ask(client, kGet);
    for (auto& [port, peers] : connector.upstreams) {
      if (!peers.back()->received.empty()) peers.back()->Send(kOk);
      peers.back()->Take();
    }
    Run();
    client.Take();
  }
  EXPECT_EQ(connector.connects[1], 6);
  EXPECT_EQ(table->Events().size(), 2u);
}

TEST_F(ExchangeTest, RetriesStopAtTheBudget) {
  retry().num_retries = 1;
  cluster->breaker.max_retries = 2;
  Start();
  std::vector<Peer*> asking;
  for (int i = 0; i < 4; ++i) asking.push_back(&Client());
  for (Peer* client : asking) client->Send(kGet);
  Run();
  for (int i = 0; i < 4; ++i) Upstream(1, i).Send(k503);
  Run();
  int refused = 0;
  for (Peer* client : asking) refused += StatusOf(client->received) == 503;
  EXPECT_EQ(refused, 2);
  EXPECT_EQ(services->counters().retries_refused.load(), 2u);
  // The answers are the upstream's; the record says why they were the last ones.
  ASSERT_EQ(records.size(), 2u);
  for (const Kept& record : records) EXPECT_EQ(record.reason, WEFT_R_OVERFLOW_RETRIES);
}

// What was outside when we connected may be enrolled by now.
TEST_F(ExchangeTest, PlaintextConnectionsTakeNothingNewOnceTheEndpointIsOfTheMesh) {
  for (bool plaintext : {false, true}) {
    SCOPED_TRACE(plaintext);
    const uint16_t port = plaintext ? 2 : 1;
    cluster->endpoints.clear();
    AddEndpoint(port);
    connector.identity = plaintext ? "" : "spiffe://cluster.local/ns/default/sa/web";
    if (!services) Start();
    Adopt();
    Peer& client = Client();
    Ask(client, kGet);
    Upstream(port).Send(kOk);
    Run();
    EXPECT_EQ(StatusOf(client.Take()), 200);
    cluster->endpoints[0].in_mesh = true;
    Adopt();
    Ask(client, kGet);
    EXPECT_EQ(Upstream(port).eof, plaintext);
    EXPECT_EQ(connector.connects[port], plaintext ? 2 : 1);
    Upstream(port, plaintext ? 1 : 0).Send(kOk);
    Run();
    EXPECT_EQ(StatusOf(client.Take()), 200);
  }
}

TEST_F(ExchangeTest, ARetryThatTheBudgetRefusesIsTheReason) {
  retry().num_retries = 1;
  cluster->breaker.max_retries = 0;
  connector.refuse[1] = WEFT_R_CONNECT_FAILED;
  Start();
  const std::string answer = Ask(Client(), kGet);
  EXPECT_EQ(StatusOf(answer), 503);
  EXPECT_THAT(answer, HasSubstr("x-weft-reason: overflow_retries\r\n"));
  EXPECT_THAT(answer, HasSubstr("remote connection failure"));
}

TEST_F(ExchangeTest, ABodyTooLargeToSendAgainIsTheReason) {
  retry().num_retries = 1;
  forward().retry_buffer_bytes = 4;
  Start();
  Peer& client = Client();
  Ask(client, "POST /x HTTP/1.1\r\nHost: web\r\ncontent-length: 10\r\n\r\n0123456789");
  Upstream().stream->Close(WEFT_R_IO_ERROR);
  Run();
  const std::string answer = client.Take();
  EXPECT_EQ(StatusOf(answer), 503);
  EXPECT_THAT(answer, HasSubstr("x-weft-reason: buffer_limit\r\n"));
  EXPECT_EQ(records.at(0).attempts, 1u);
}

TEST_F(ExchangeTest, PendingOverflowIs503Overloaded) {
  cluster->breaker.max_connections = 1;
  cluster->breaker.max_pending_requests = 1;
  Start();
  Peer &a = Client(), &b = Client(), &c = Client();
  Ask(a, kGet);
  Ask(b, kGet);
  const std::string answer = Ask(c, kGet);
  EXPECT_EQ(StatusOf(answer), 503);
  EXPECT_THAT(answer, HasSubstr("x-envoy-overloaded: true\r\n"));
  EXPECT_THAT(answer, HasSubstr("x-weft-reason: overflow_pending\r\n"));
  EXPECT_THAT(answer, HasSubstr("reset reason: overflow"));
  Upstream().Send(kOk);
  Run();
  EXPECT_EQ(StatusOf(a.Take()), 200);
  Upstream().Send(kOk);
  Run();
  EXPECT_EQ(StatusOf(b.Take()), 200);
  EXPECT_EQ(connector.connects[1], 1);
}

TEST_F(ExchangeTest, ADownstreamThatLeavesCancelsTheUpstream) {
  Start();
  Peer& client = Client();
  Ask(client, "POST /x HTTP/1.1\r\nHost: web\r\ncontent-length: 500\r\n\r\nhalf");
  EXPECT_TRUE(Upstream().Take().ends_with("half"));
  client.stream.reset();
  Run();
  EXPECT_TRUE(Upstream().eof || Upstream().error);
  EXPECT_EQ(InUse(upstream::Limit::kRequests), 0u);
  EXPECT_EQ(services->downstream_connections(), 0u);
  EXPECT_EQ(records.at(0).status, 0);
}

TEST_F(ExchangeTest, ADownstreamThatLeavesWhileWaitingForAConnection) {
  connector.hold = true;
  Start();
  Peer& client = Client();
  Ask(client, kGet);
  EXPECT_EQ(InUse(upstream::Limit::kPending), 1u);
  client.stream.reset();
  Run();
  EXPECT_EQ(InUse(upstream::Limit::kPending), 0u);
  connector.Release();
  Run();
  EXPECT_EQ(Upstream().Take(), "");
}

TEST_F(ExchangeTest, PipelinedRequestsAreAnsweredInOrder) {
  Start();
  Peer& client = Client();
  client.Send(
      "GET /1 HTTP/1.1\r\nHost: web\r\n\r\nGET /2 HTTP/1.1\r\nHost: web\r\n\r\nGET /3 "
      "HTTP/1.1\r\nHost: web\r\n\r\n");
  for (int i = 1; i <= 3; ++i) {
    Run();
    EXPECT_THAT(Upstream().Take(), testing::StartsWith("GET /" + std::to_string(i)));
    Upstream().Send("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n" + std::to_string(i));
    Run();
    EXPECT_TRUE(client.Take().ends_with(std::to_string(i)));
  }
}

TEST_F(ExchangeTest, PipeliningWithoutReadingIsBounded) {
  routes->virtual_hosts[0].routes[0].action =
      model::DirectResponse{.status = 200, .body = std::string(30000, 'z')};
  Start();
  Peer& client = Client();
  client.reading = false;
  std::string many;
  for (int i = 0; i < 1000; ++i) many += kGet;
  client.Send(many);
  Run();
  EXPECT_LT(services->counters().requests.load(), 12u);  // 64 KiB in the stream, 64 KiB with us
  client.reading = true;
  Run();
  EXPECT_EQ(services->counters().requests.load(), 1000u);
  EXPECT_GT(client.received.size(), 30000u * 1000);
}

TEST_F(ExchangeTest, SplitsFollowTheWeights) {
  model::Cluster canary = *cluster;
  canary.name = "canary";
  canary.endpoints[0].address = At(2);
  more_clusters.push_back(canary);
  forward().clusters = {{.cluster = "web", .weight = 90}, {.cluster = "canary", .weight = 10}};
  Start();
  Peer& client = Client();
  std::map<uint16_t, int> counts;
  for (int i = 0; i < 1000; ++i) {
    Ask(client, kGet);
    for (auto& [port, peers] : connector.upstreams) {
      if (peers.empty() || peers.back()->Take().empty()) continue;
      ++counts[port];
      peers.back()->Send(kOk);
    }
    Run();
    ASSERT_EQ(StatusOf(client.Take()), 200);
  }
  EXPECT_NEAR(counts[1], 900, 40);
  EXPECT_EQ(counts[1] + counts[2], 1000);
}

TEST_F(ExchangeTest, InformationalResponsesPass) {
  Start();
  Peer& client = Client();
  Ask(client, "POST /x HTTP/1.1\r\nHost: web\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n");
  EXPECT_THAT(Upstream().Take(), HasSubstr("expect: 100-continue"));
  Upstream().Send("HTTP/1.1 100 Continue\r\n\r\n");
  Run();
  EXPECT_EQ(StatusOf(client.Take()), 100);
  Ask(client, "ok");
  EXPECT_EQ(Upstream().Take(), "ok");
  Upstream().Send(kOk);
  Run();
  EXPECT_EQ(StatusOf(client.Take()), 200);
}

TEST_F(ExchangeTest, UpgradeCarriesRawBytesBothWays) {
  Start();
  Peer& client = Client();
  Ask(client, "GET /ws HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
  const std::string request = Upstream().Take();
  EXPECT_THAT(request, HasSubstr("pgrade: websocket\r\n"));
  Upstream().Send(
      "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst");
  Run();
  const std::string answer = client.Take();
  EXPECT_EQ(StatusOf(answer), 101);
  EXPECT_TRUE(answer.ends_with("first"));
  Ask(client, "\x81\x05ping");
  EXPECT_EQ(Upstream().Take(), "\x81\x05ping");
  Pass(seconds(60));  // no route timeout any more
  Upstream().Send("pong");
  Run();
  EXPECT_EQ(client.Take(), "pong");
  Upstream().stream.reset();
  Run();
  EXPECT_TRUE(client.eof || client.error);
}

TEST_F(ExchangeTest, ASlowDownstreamStopsTheUpstream) {
  connector.capacity = 16384;
  Start();
  Peer& client = Client(false, 16384);
  Ask(client, kGet);
  client.reading = false;
  constexpr size_t kBody = 4 << 20;
  Upstream().Send("HTTP/1.1 200 OK\r\ncontent-length: " + std::to_string(kBody) + "\r\n\r\n" +
                  std::string(kBody, 'x'));
  Run();
  EXPECT_LT(services->counters().upstream_connections.load(), 2u);
  client.reading = true;
  const size_t before = client.received.size();
  client.Pump();
  EXPECT_LT(client.received.size() - before, 100000u);
  Run();
  EXPECT_EQ(client.received.size(), client.received.find("\r\n\r\n") + 4 + kBody);
}

TEST_F(ExchangeTest, ASlowUpstreamStopsTheDownstream) {
  connector.capacity = 16384;
  Start();
  Peer& client = Client(false, 16384);
  client.Send("POST /x HTTP/1.1\r\nHost: web\r\ncontent-length: 4194304\r\n\r\n");
  Run();
  Upstream().reading = false;
  client.Send(std::string(4 << 20, 'y'));
  Run();
  Upstream().Take();
  Upstream().reading = true;
  Run();
  EXPECT_EQ(Upstream().received.size(), size_t{4} << 20);
  Upstream().Send(kOk);
  Run();
  EXPECT_EQ(StatusOf(client.Take()), 200);
}

TEST_F(ExchangeTest, EndpointsThatLeaveAreDrained) {
  AddEndpoint(2);
  Start();
  Peer& client = Client();
  Ask(client, kGet);
  const uint16_t used = connector.upstreams.begin()->first;
  Upstream(used).Send(kOk);
  Run();
  std::erase_if(cluster->endpoints, [used](const auto& e) { return e.address.port == used; });
  Adopt();
  Run();
  EXPECT_TRUE(Upstream(used).eof || Upstream(used).error);
  EXPECT_EQ(InUse(upstream::Limit::kConnections), 0u);
}

TEST_F(ExchangeTest, MaxRequestsPerConnectionIsKept) {
  cluster->max_requests_per_connection = 2;
  Start();
  Peer& client = Client();
  for (int i = 0; i < 4; ++i) {
    Ask(client, kGet);
    connector.upstreams[1].back()->Send(kOk);
    Run();
    EXPECT_EQ(StatusOf(client.Take()), 200);
  }
  EXPECT_EQ(connector.connects[1], 2);
}

TEST_F(ExchangeTest, DrainEndsIdleConnectionsAndLetsRequestsFinish) {
  Start();
  Peer &idle = Client(), &busy = Client();
  Ask(busy, kGet);
  services->StartDrain();
  Run();
  EXPECT_TRUE(idle.eof);
  EXPECT_FALSE(busy.eof);
  Upstream().Send(kOk);
  Run();
  const std::string answer = busy.Take();
  EXPECT_EQ(StatusOf(answer), 200);
  EXPECT_THAT(answer, HasSubstr("onnection: close\r\n"));
  EXPECT_TRUE(busy.eof);
}

TEST_F(ExchangeTest, IdleStreamsAndConnectionsEnd) {
  Start();
  Peer& client = Client();
  Ask(client, "POST /x HTTP/1.1\r\nHost: web\r\ncontent-length: 500\r\n\r\nhalf");
  for (int i = 0; i < 310; ++i) Pass(seconds(1));
  EXPECT_EQ(StatusOf(client.Take()), 408);
  Peer& other = Client();
  Run();
  for (int i = 0; i < 3700; ++i) Pass(seconds(1));
  EXPECT_TRUE(other.eof);
}

// Slow loris: a byte now and then does not keep a head alive; whole requests do.
TEST_F(ExchangeTest, AHeadThatDoesNotEndIsCut) {
  Start();
  Peer &slow = Client(), &good = Client();
  Ask(slow, "GET /x HTTP/1.1\r\nHost: web\r\n");
  for (int i = 0; i < 12; ++i) {
    Ask(slow, "a");
    Ask(good, kGet);
    Upstream().Send(kOk);
    Run();
    EXPECT_EQ(StatusOf(good.Take()), 200);
    Pass(seconds(1));
  }
  EXPECT_TRUE(slow.eof || slow.error);
  EXPECT_EQ(slow.Take(), "");
  EXPECT_FALSE(good.eof || good.error);
}

TEST_F(ExchangeTest, RequestTimeoutIs408) {
  listener->http->request_timeout = milliseconds(1000);
  Start();
  Peer& client = Client();
  Ask(client, "POST /x HTTP/1.1\r\nHost: web\r\ncontent-length: 500\r\n\r\nhalf");
  Pass(milliseconds(900));
  Ask(client, "more");
  EXPECT_EQ(client.Take(), "");
  Pass(milliseconds(200));
  EXPECT_EQ(StatusOf(client.Take()), 408);
  Peer& whole = Client();
  Ask(whole, kGet);
  Pass(seconds(5));
  Upstream(1, 1).Send(kOk);
  Run();
  EXPECT_EQ(StatusOf(whole.Take()), 200);
}

// Its sockets are in the netns that went away.
TEST_F(ExchangeTest, PoolsOfASourceThatLeftEnd) {
  auto workload = std::make_shared<model::LocalWorkload>();
  workload->id = 7;
  workload->generation = 1;
  source = workload;
  Start();
  Peer& client = Client();
  Ask(client, kGet);
  Upstream().Send(kOk);
  Run();
  services->DrainSource(7, 2);
  Run();
  EXPECT_FALSE(Upstream().eof || Upstream().error);
  services->DrainSource(7, 1);
  Run();
  EXPECT_TRUE(Upstream().eof || Upstream().error);
  auto again = std::make_shared<model::LocalWorkload>(*workload);
  again->generation = 2;
  source = again;
  Peer& next = Client();
  Ask(next, kGet);
  Upstream(1, 1).Send(kOk);
  Run();
  EXPECT_EQ(StatusOf(next.Take()), 200);
}

TEST_F(ExchangeTest, BadRequestsAreAnsweredAndClosed) {
  Start();
  Peer& bad = Client();
  EXPECT_EQ(StatusOf(Ask(bad, "NONSENSE\r\n\r\n")), 400);
  EXPECT_TRUE(bad.eof);
  Peer& big = Client();
  EXPECT_EQ(StatusOf(Ask(
                big, "GET / HTTP/1.1\r\nHost: web\r\nx: " + std::string(70000, 'a') + "\r\n\r\n")),
            431);
  EXPECT_TRUE(big.eof);
  EXPECT_TRUE(connector.connects.empty());
}

TEST_F(ExchangeTest, AnEarlyAnswerDoesNotWaitForTheBody) {
  Start();
  Peer& client = Client();
  Ask(client, "POST /x HTTP/1.1\r\nHost: web\r\ncontent-length: 8\r\n\r\nhalf");
  Upstream().Send("HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n");
  Run();
  EXPECT_EQ(StatusOf(client.Take()), 413);
  EXPECT_TRUE(Upstream().eof || Upstream().error);  // its framing is lost
  // The rest of the body is read and dropped, and the connection goes on.
  client.Send("rest");
  Ask(client, kGet);
  if (!client.eof) {
    Upstream(1, 1).Send(kOk);
    Run();
    EXPECT_EQ(StatusOf(client.Take()), 200);
  }
}

}  // namespace
}  // namespace weft::worker
