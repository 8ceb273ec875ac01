// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>

#include "tests/unit/proxy/worker/http_world.h"

namespace weft::worker {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;

class ExchangeHttp2Test : public HttpWorld {
 protected:
  ExchangeHttp2Test() {
    cluster->http = model::HttpVersion::kHttp2;
    connector.http2 = true;
  }
  http::StreamId Ask2(Peer& client, std::string path, bool end = true, std::string method = "GET",
                      std::string content_type = "") {
    http::RequestHead head;
    head.method = std::move(method);
    head.scheme = "http";
    head.authority = "web";
    head.path = std::move(path);
    if (!content_type.empty()) head.headers.Add("content-type", content_type);
    const http::StreamId id = client.session->SubmitRequest(head, end);
    EXPECT_NE(id, 0);
    return id;
  }
  void Answer(Peer& upstream, http::StreamId id, int status, std::string_view body,
              bool end = true) {
    http::ResponseHead head;
    head.status = status;
    upstream.session->SubmitResponse(id, head, end && body.empty());
    if (!body.empty()) {
      upstream.session->SubmitData(id, {reinterpret_cast<const uint8_t*>(body.data()), body.size()},
                                   end);
    }
  }
  static void Data(Peer& peer, http::StreamId id, const std::string& body, bool end) {
    peer.session->SubmitData(id, {reinterpret_cast<const uint8_t*>(body.data()), body.size()}, end);
  }
};

// As over HTTP/1: who begins a head must end it in time, and who is silent at first has not come
// to speak HTTP/2.
TEST_F(ExchangeHttp2Test, AHeadThatDoesNotEndIsCut) {
  Start();
  const std::string preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  const std::string settings("\0\0\0\4\0\0\0\0\0", 9);
  const std::string head("\0\0\1\1\1\0\0\0\1\x82", 10);  // no END_HEADERS
  const std::string half("\0\0\7\1\5\0\0\0\1\x82", 10);  // its frame is not whole
  Peer& silent = Client(true, 65536, true);
  Peer& no_settings = Client(true, 65536, true);
  Peer& no_continuation = Client(true, 65536, true);
  Peer& half_frame = Client(true, 65536, true);
  Peer& only_connected = Client(true, 65536, true);
  Peer& good = Client(true);
  no_settings.Send(preface);
  no_continuation.Send(preface + settings + head);
  half_frame.Send(preface + settings + half);
  only_connected.Send(preface + settings);
  Ask2(good, "/x");
  Run();
  for (int i = 0; i < 9; ++i) Pass(seconds(1));
  for (Peer* peer : {&silent, &no_settings, &no_continuation, &half_frame}) {
    EXPECT_FALSE(peer->eof || peer->error);
  }
  for (int i = 0; i < 3; ++i) Pass(seconds(1));
  for (Peer* peer : {&silent, &no_settings, &no_continuation, &half_frame}) {
    EXPECT_TRUE(peer->eof || peer->error);
  }
  EXPECT_FALSE(only_connected.eof || only_connected.error);
  Answer(Upstream(), 1, 200, "late");
  Run();
  EXPECT_EQ(good.bodies[1], "late");
}

TEST_F(ExchangeHttp2Test, ManyRequestsShareOneUpstreamConnection) {
  Start();
  Peer& client = Client(true);
  std::vector<http::StreamId> ids;
  for (int i = 0; i < 20; ++i) ids.push_back(Ask2(client, "/" + std::to_string(i)));
  Run();
  EXPECT_EQ(connector.connects[1], 1);
  ASSERT_EQ(Upstream().events.size(), 20u);
  EXPECT_EQ(Upstream().events[0], "request 1 GET /0 end");
  EXPECT_EQ(InUse(upstream::Limit::kRequests), 20u);
  for (int i = 19; i >= 0; --i) Answer(Upstream(), 1 + 2 * i, 200, "body" + std::to_string(i));
  Run();
  for (int i = 0; i < 20; ++i) EXPECT_EQ(client.bodies[ids[i]], "body" + std::to_string(i));
  EXPECT_EQ(InUse(upstream::Limit::kRequests), 0u);
  EXPECT_EQ(records.size(), 20u);
}

TEST_F(ExchangeHttp2Test, TranslatesToHttp1AndBack) {
  cluster->http = model::HttpVersion::kHttp1;
  connector.http2 = false;
  Start();
  Peer& client = Client(true);
  const auto a = Ask2(client, "/a", false, "POST"), b = Ask2(client, "/b");
  Data(client, a, "hello", true);
  Run();
  ASSERT_EQ(connector.connects[1], 2);  // one request a connection
  size_t first = connector.upstreams[1][0]->received.starts_with("POST") ? 0 : 1;
  EXPECT_THAT(Upstream(1, first).received, HasSubstr("transfer-encoding: chunked"));
  EXPECT_THAT(Upstream(1, first).received, HasSubstr("hello"));
  Upstream(1, first).Send(
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nworld\r\n0\r\n\r\n");
  Upstream(1, 1 - first).Send(kOk);
  Run();
  EXPECT_EQ(client.bodies[a], "world");
  EXPECT_EQ(client.bodies[b], "hi");
}

TEST_F(ExchangeHttp2Test, Http1DownstreamToHttp2UpstreamWithTrailers) {
  Start();
  Peer& client = Client();
  Ask(client,
      "POST /x HTTP/1.1\r\nHost: web\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nx-sum: "
      "1\r\n\r\n");
  EXPECT_EQ(Upstream().bodies[1], "ab");
  EXPECT_THAT(Upstream().events, Contains("trailers 1"));
  Answer(Upstream(), 1, 200, "cd", false);
  http::HeaderList trailers;
  trailers.Add("x-end", "1");
  Upstream().session->SubmitTrailers(1, trailers);
  Run();
  EXPECT_THAT(client.Take(), HasSubstr("2\r\ncd\r\n0\r\n"));
}

TEST_F(ExchangeHttp2Test, RequestsBreakerIs503) {
  cluster->breaker.max_requests = 2;
  Start();
  Peer& client = Client(true);
  for (int i = 0; i < 3; ++i) Ask2(client, "/");
  Run();
  EXPECT_THAT(client.events, Contains("response 5 503"));
  EXPECT_EQ(client.last_response.headers.Get("x-weft-reason"), "overflow_requests");
  EXPECT_EQ(client.last_response.headers.Get("x-envoy-overloaded"), "true");
  Answer(Upstream(), 1, 200, "");
  Answer(Upstream(), 3, 200, "");
  Run();
  Ask2(client, "/");
  Run();
  EXPECT_EQ(InUse(upstream::Limit::kRequests), 1u);
}

TEST_F(ExchangeHttp2Test, AResetDownstreamStreamResetsTheUpstreamStreamOnly) {
  Start();
  Peer& client = Client(true);
  const auto a = Ask2(client, "/a"), b = Ask2(client, "/b");
  Run();
  client.session->Reset(a, http::ResetCode::kCancel);
  Run();
  EXPECT_THAT(Upstream().events, Contains("reset 1"));
  Answer(Upstream(), 3, 200, "b");
  Run();
  EXPECT_EQ(client.bodies[b], "b");
  EXPECT_EQ(connector.connects[1], 1);
  EXPECT_EQ(records.at(0).status, 0);
}

TEST_F(ExchangeHttp2Test, AnUpstreamResetMidBodyResetsTheDownstreamStreamOnly) {
  Start();
  Peer& client = Client(true);
  const auto a = Ask2(client, "/a"), b = Ask2(client, "/b");
  Run();
  Answer(Upstream(), 1, 200, "half", false);
  Run();
  Upstream().session->Reset(1, http::ResetCode::kInternalError);
  Answer(Upstream(), 3, 200, "b");
  Run();
  EXPECT_THAT(client.events, Contains("reset " + std::to_string(a)));
  EXPECT_EQ(client.bodies[b], "b");
}

TEST_F(ExchangeHttp2Test, ARefusedStreamIsTriedAgainEvenForPost) {
  Start();
  Peer& client = Client(true);
  const auto id = Ask2(client, "/a", false, "POST");
  Data(client, id, "", true);
  Run();
  // The upstream says that it has not processed it.
  Upstream().session->Reset(1, http::ResetCode::kRefusedStream);
  Run();
  EXPECT_THAT(Upstream().events, Contains("request 3 POST /a end"));
  Answer(Upstream(), 3, 200, "ok");
  Run();
  EXPECT_EQ(client.bodies[id], "ok");
}

TEST_F(ExchangeHttp2Test, AfterGoAwayNewRequestsGetANewConnection) {
  Start();
  Peer& client = Client(true);
  const auto a = Ask2(client, "/a");
  Run();
  Upstream().session->StartDrain();
  Run();
  const auto b = Ask2(client, "/b");
  Run();
  ASSERT_EQ(connector.connects[1], 2);
  Answer(Upstream(1, 0), 1, 200, "a");
  Answer(Upstream(1, 1), 1, 200, "b");
  Run();
  EXPECT_EQ(client.bodies[a], "a");
  EXPECT_EQ(client.bodies[b], "b");
  EXPECT_EQ(InUse(upstream::Limit::kConnections), 1u);
}

TEST_F(ExchangeHttp2Test, GrpcGetsItsStatusInAHead) {
  cluster->endpoints.clear();
  Start();
  Peer& client = Client(true);
  Ask2(client, "/svc/Method", false, "POST", "application/grpc");
  Run();
  EXPECT_THAT(client.events, Contains("response 1 200 end"));
  EXPECT_EQ(client.last_response.headers.Get("grpc-status"), "14");
  EXPECT_EQ(client.last_response.headers.Get("grpc-message"), "no healthy upstream");
}

TEST_F(ExchangeHttp2Test, ASlowStreamHoldsBackItsUpstreamAndNotTheOthers) {
  connector.limits.max_concurrent_streams = 100;
  Start();
  Peer& client = Client(true);
  client.auto_consume = false;
  const auto slow = Ask2(client, "/slow");
  Run();
  constexpr size_t kBody = 8 << 20;
  Answer(Upstream(), 1, 200, std::string(kBody, 's'));
  Run();
  // The downstream's window and what the proxy holds: never the body.
  const size_t left = Upstream().session->buffered_bytes(1);
  EXPECT_GT(left, kBody - (4u << 20));
  const auto quick = Ask2(client, "/quick");
  Run();
  Answer(Upstream(), 3, 200, "q");
  Run();
  EXPECT_EQ(client.bodies[quick], "q");
  client.auto_consume = true;
  client.session->Consume(slow, client.bodies[slow].size());
  Run();
  EXPECT_EQ(client.bodies[slow].size(), kBody);
}

TEST_F(ExchangeHttp2Test, ALargeUploadIsBoundedByTheSlowUpstream) {
  Start();
  Peer& client = Client(true);
  const auto id = Ask2(client, "/up", false, "POST");
  Run();
  Upstream().auto_consume = false;
  constexpr size_t kBody = 8 << 20;
  Data(client, id, std::string(kBody, 'u'), true);
  Run();
  EXPECT_GT(client.session->buffered_bytes(id), kBody - (4u << 20));
  Upstream().auto_consume = true;
  Upstream().session->Consume(1, Upstream().bodies[1].size());
  Run();
  EXPECT_EQ(Upstream().bodies[1].size(), kBody);
  Answer(Upstream(), 1, 200, "");
  Run();
  EXPECT_THAT(client.events, Contains("response 1 200 end"));
}

TEST_F(ExchangeHttp2Test, MoreStreamsThanThePeerTakesWaitForAnotherConnection) {
  connector.limits.max_concurrent_streams = 4;
  Start();
  Peer& client = Client(true);
  Ask2(client, "/first");
  Run();
  for (int i = 0; i < 9; ++i) Ask2(client, "/" + std::to_string(i));
  Run();
  size_t requests = 0;
  for (auto& peer : connector.upstreams[1]) {
    EXPECT_LE(peer->events.size(), 4u);
    requests += peer->events.size();
  }
  EXPECT_EQ(requests, 10u);
  EXPECT_EQ(InUse(upstream::Limit::kPending), 0u);
}

TEST_F(ExchangeHttp2Test, ALostConnectionFailsAllItsRequests) {
  Start();
  Peer& client = Client(true);
  for (int i = 0; i < 3; ++i) Ask2(client, "/", true, "POST");
  Run();
  Upstream().stream.reset();
  Run();
  for (const char* id : {"1", "3", "5"})
    EXPECT_THAT(client.events, Contains("response " + std::string(id) + " 503"));
  EXPECT_EQ(InUse(upstream::Limit::kRequests), 0u);
  EXPECT_EQ(InUse(upstream::Limit::kConnections), 0u);
}

TEST_F(ExchangeHttp2Test, DrainSendsGoAwayAndFinishesWhatRuns) {
  Start();
  Peer& client = Client(true);
  const auto id = Ask2(client, "/");
  Run();
  services->StartDrain();
  Run();
  EXPECT_THAT(client.events, Contains("goaway"));
  Answer(Upstream(), 1, 200, "done");
  Run();
  EXPECT_EQ(client.bodies[id], "done");
  EXPECT_TRUE(client.eof);
}

TEST_F(ExchangeHttp2Test, SameAsDownstreamFollowsTheDownstream) {
  cluster->http = model::HttpVersion::kSameAsDownstream;
  Start();
  Peer& client = Client(true);
  Ask2(client, "/");
  Run();
  EXPECT_EQ(Upstream().events.at(0), "request 1 GET / end");
}

}  // namespace
}  // namespace weft::worker
