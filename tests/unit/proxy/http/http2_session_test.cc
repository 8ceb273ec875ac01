// SPDX-License-Identifier: Apache-2.0
#include "proxy/http/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "session_pair.h"

namespace weft::http {
namespace {

using ::testing::ElementsAre;

RequestHead Request(std::string method, std::string path) {
  RequestHead head;
  head.method = std::move(method);
  head.scheme = "http";
  head.authority = "shop.example:80";
  head.path = std::move(path);
  return head;
}

ResponseHead Response(int status) {
  ResponseHead head;
  head.status = status;
  return head;
}

HeaderList Fields(std::initializer_list<HeaderList::Field> fields) {
  HeaderList list;
  for (const auto& field : fields) list.Add(field.name, field.value);
  return list;
}

Pair MakePair(Limits client = {}, Limits server = {}, unsigned seed = 0) {
  return Pair(MakeHttp2Session(Role::kClient, client), MakeHttp2Session(Role::kServer, server),
              seed);
}

class Http2Splits : public ::testing::TestWithParam<unsigned> {};
INSTANTIATE_TEST_SUITE_P(Seeds, Http2Splits, ::testing::Range(0u, 40u));

TEST_P(Http2Splits, RequestsAndResponsesWithBodiesAndTrailers) {
  Pair pair = MakePair({}, {}, GetParam());
  Session& client = *pair.client().session;
  Session& server = *pair.server().session;
  RequestHead head = Request("POST", "/a?b=c");
  head.headers =
      Fields({{"Content-Type", "text/plain"}, {"Connection", "close"}, {"te", "trailers"}});
  EXPECT_EQ(client.SubmitRequest(head, false), 1);
  client.SubmitData(1, Bytes("hello "), false);
  client.SubmitData(1, Bytes("world"), false);
  client.SubmitTrailers(1, Fields({{"x-sum", "7"}}));
  EXPECT_EQ(client.SubmitRequest(Request("GET", "/"), true), 3);
  pair.Run();
  EXPECT_THAT(
      pair.server().transcript.lines(),
      ElementsAre("request 1 POST http shop.example:80 /a?b=c content-type=text/plain te=trailers",
                  "request 3 GET http shop.example:80 / END", "data 1 hello world",
                  "trailers 1 x-sum=7"));
  server.SubmitResponse(1, Response(103), false);
  server.SubmitResponse(1, Response(200), false);
  server.SubmitData(1, Bytes("body"), true);
  server.SubmitResponse(3, Response(404), true);
  pair.Run();
  std::vector<std::string> lines = pair.client().transcript.lines();
  EXPECT_THAT(lines, ElementsAre("informational 1 103", "response 1 200", "response 3 404 END",
                                 "data 1 body", "end 1"));
  EXPECT_EQ(client.open_streams(), 0u);
  EXPECT_EQ(server.open_streams(), 0u);
  EXPECT_FALSE(client.finished());
}

TEST(Http2Session, TrailersWithoutBodyAndEmptyEnd) {
  Pair pair = MakePair();
  Session& client = *pair.client().session;
  Session& server = *pair.server().session;
  const StreamId id = client.SubmitRequest(Request("POST", "/"), false);
  client.SubmitData(id, {}, true);
  pair.Run();
  EXPECT_THAT(pair.server().transcript.lines(),
              ElementsAre("request 1 POST http shop.example:80 /", "end 1"));
  server.SubmitResponse(id, Response(200), false);
  server.SubmitTrailers(id, Fields({{"grpc-status", "0"}}));
  pair.Run();
  EXPECT_THAT(pair.client().transcript.lines(),
              ElementsAre("response 1 200", "trailers 1 grpc-status=0"));
  EXPECT_EQ(server.open_streams(), 0u);
}

TEST(Http2Session, ConnectAndExtendedConnect) {
  Limits server_limits;
  server_limits.enable_connect_protocol = true;
  Pair pair = MakePair({}, server_limits);
  pair.Run();
  RequestHead head;
  head.method = "CONNECT";
  head.authority = "10.0.0.1:8080";
  const StreamId tunnel = pair.client().session->SubmitRequest(head, false);
  head.protocol = "websocket";
  head.scheme = "https";
  head.path = "/chat";
  const StreamId socket = pair.client().session->SubmitRequest(head, false);
  pair.Run();
  EXPECT_THAT(pair.server().transcript.lines(),
              ElementsAre("request 1 CONNECT  10.0.0.1:8080 ",
                          "request 3 CONNECT https 10.0.0.1:8080 /chat protocol=websocket"));
  pair.server().session->SubmitResponse(tunnel, Response(200), false);
  pair.server().session->SubmitData(tunnel, Bytes("down"), false);
  pair.client().session->SubmitData(tunnel, Bytes("up"), false);
  pair.Run();
  pair.server().session->SubmitData(tunnel, {}, true);
  pair.client().session->SubmitData(tunnel, Bytes("!"), true);
  pair.Run();
  EXPECT_EQ(pair.server().bodies[tunnel], "up!");
  EXPECT_EQ(pair.client().bodies[tunnel], "down");
  EXPECT_EQ(pair.client().session->open_streams(), 1u);
  EXPECT_EQ(socket, 3);
}

// A receiver that does not Consume() stops the sender at one stream window; other streams go on;
// Consume() resumes.
TEST(Http2Session, FlowControlIsEndToEnd) {
  Limits limits;
  limits.stream_window_bytes = 100'000;
  limits.connection_window_bytes = 1'000'000;
  Pair pair = MakePair({}, limits);
  pair.server().auto_consume = false;
  Session& client = *pair.client().session;
  pair.Run();
  const StreamId id = client.SubmitRequest(Request("POST", "/"), false);
  const std::string body(1'000'000, 'x');
  client.SubmitData(id, Bytes(body), false);
  pair.Run();
  EXPECT_EQ(pair.server().bodies[id].size(), 100'000u);
  EXPECT_EQ(client.buffered_bytes(id), 900'000u);
  const StreamId other = client.SubmitRequest(Request("POST", "/"), false);
  client.SubmitData(other, Bytes("through"), true);
  pair.Run();
  EXPECT_EQ(pair.server().bodies[other], "through");

  pair.client().transcript.Clear();
  while (pair.server().bodies[id].size() < body.size()) {
    const size_t before = pair.server().bodies[id].size();
    pair.server().session->Consume(id, 100'000);
    pair.Run();
    ASSERT_GT(pair.server().bodies[id].size(), before);
  }
  EXPECT_THAT(pair.client().transcript.lines(), ElementsAre("writable 1"));
}

// Streams that end with unread bytes give their part of the connection's window back.
TEST(Http2Session, WindowOfGoneStreamsComesBack) {
  Limits limits;
  limits.stream_window_bytes = 64 * 1024;
  limits.connection_window_bytes = 256 * 1024;
  for (const bool peer_resets : {false, true}) {
    Pair pair = MakePair({}, limits);
    pair.server().auto_consume = false;
    Session& client = *pair.client().session;
    pair.Run();
    for (int i = 0; i < 50; ++i) {
      const StreamId id = client.SubmitRequest(Request("POST", "/"), false);
      ASSERT_NE(id, 0);
      const std::string body(64 * 1024, 'x');
      client.SubmitData(id, Bytes(body), false);
      pair.Run();
      ASSERT_EQ(pair.server().bodies[id].size(), body.size()) << i;
      (peer_resets ? client : *pair.server().session).Reset(id, ResetCode::kCancel);
      pair.Run();
    }
    EXPECT_EQ(pair.server().session->open_streams(), 0u);
  }
}

TEST(Http2Session, OutputIsBoundedAndWritableComesAtTheLowMark) {
  Pair pair = MakePair();
  pair.Run();
  Session& client = *pair.client().session;
  const StreamId id = client.SubmitRequest(Request("POST", "/"), false);
  const std::string body(200'000, 'x');
  client.SubmitData(id, Bytes(body), false);
  const size_t out = client.Output().size();
  EXPECT_LT(out, 130'000u);
  EXPECT_GT(client.buffered_bytes(id), 64u * 1024);
  EXPECT_TRUE(client.events().empty());
  client.OutputWritten(out);
  while (client.buffered_bytes(id) > 64 * 1024) client.OutputWritten(client.Output().size());
  // A Feed() between two looks does not lose it.
  size_t consumed = 0;
  EXPECT_EQ(client.Feed(Bytes(std::string("\0\0\4\x8\0\0\0\0\0\0\0\0\1", 13)), &consumed),
            WEFT_R_NONE);
  ASSERT_EQ(client.events().size(), 1u);
  EXPECT_EQ(client.events()[0].kind, Event::Kind::kWritable);
}

TEST(Http2Session, ResetsCarryCodeAndReason) {
  Pair pair = MakePair();
  Session& client = *pair.client().session;
  for (int i = 0; i < 3; ++i) client.SubmitRequest(Request("POST", "/"), false);
  pair.Run();
  client.Reset(1, ResetCode::kCancel);
  pair.server().session->Reset(3, ResetCode::kRefusedStream);
  pair.server().transcript.Clear();
  pair.Run();
  EXPECT_THAT(pair.server().transcript.lines(), ElementsAre("reset 1 peer_reset 8"));
  EXPECT_THAT(pair.client().transcript.lines(), ElementsAre("reset 3 upstream_reset 7"));
  EXPECT_EQ(client.open_streams(), 1u);
  pair.client().transcript.Clear();
  client.FeedEof();
  pair.client().Look();
  EXPECT_THAT(pair.client().transcript.lines(), ElementsAre("reset 5 upstream_reset 8"));
  EXPECT_TRUE(client.finished());
}

TEST(Http2Session, ServerDrainsInTwoSteps) {
  Pair pair = MakePair();
  Session& client = *pair.client().session;
  Session& server = *pair.server().session;
  client.SubmitRequest(Request("GET", "/1"), true);
  pair.Run();
  server.StartDrain();
  EXPECT_FALSE(server.finished());
  // Sent before the notice arrived: still served.
  EXPECT_EQ(client.SubmitRequest(Request("GET", "/2"), true), 3);
  pair.server().transcript.Clear();
  pair.Run();
  EXPECT_THAT(pair.server().transcript.lines(),
              ElementsAre("request 3 GET http shop.example:80 /2 END"));
  EXPECT_THAT(pair.client().transcript.lines(), ElementsAre("goaway 2147483647 0", "goaway 3 0"));
  EXPECT_FALSE(client.can_open_stream());
  EXPECT_EQ(client.SubmitRequest(Request("GET", "/3"), true), 0);
  server.SubmitResponse(1, Response(200), true);
  server.SubmitResponse(3, Response(200), true);
  EXPECT_FALSE(server.finished());
  pair.Run();
  EXPECT_TRUE(server.finished());
  EXPECT_TRUE(client.finished());
}

TEST(Http2Session, ClientRespectsTheServersLimitOfStreams) {
  Limits server_limits;
  server_limits.max_concurrent_streams = 2;
  Pair pair = MakePair({}, server_limits);
  pair.Run();
  Session& client = *pair.client().session;
  EXPECT_EQ(client.SubmitRequest(Request("GET", "/"), true), 1);
  EXPECT_EQ(client.SubmitRequest(Request("GET", "/"), true), 3);
  EXPECT_FALSE(client.can_open_stream());
  EXPECT_EQ(client.SubmitRequest(Request("GET", "/"), true), 0);
  pair.Run();
  pair.server().session->SubmitResponse(1, Response(200), true);
  pair.Run();
  EXPECT_TRUE(client.can_open_stream());
}

TEST(Http2Session, RequestHeadersBeyondTheLimitAreAnswered431) {
  Limits limits;
  limits.max_header_list_bytes = 1000;
  limits.max_header_count = 10;
  Pair pair = MakePair({}, limits);
  Session& client = *pair.client().session;
  RequestHead large = Request("POST", "/");
  large.headers.Add("x", std::string(1000, 'v'));
  client.SubmitRequest(large, false);
  RequestHead many = Request("GET", "/");
  for (int i = 0; i < 11; ++i) many.headers.Add("n" + std::to_string(i), "v");
  client.SubmitRequest(many, true);
  pair.Run();
  EXPECT_TRUE(pair.server().transcript.lines().empty());
  EXPECT_THAT(pair.client().transcript.lines(),
              ElementsAre("response 1 431 content-length=0 END",
                          "response 3 431 content-length=0 END", "reset 1 upstream_reset 0"));
  EXPECT_EQ(client.open_streams(), 0u);
  EXPECT_EQ(client.SubmitRequest(Request("GET", "/"), true), 5);
  pair.Run();
  EXPECT_EQ(pair.server().transcript.lines().size(), 1u);
}

TEST(Http2Session, OversizeResponseAndTrailersResetTheStream) {
  Limits limits;
  limits.max_header_list_bytes = 1000;
  Pair pair = MakePair(limits, {});
  Session& client = *pair.client().session;
  client.SubmitRequest(Request("GET", "/"), true);
  client.SubmitRequest(Request("GET", "/"), true);
  pair.Run();
  ResponseHead head = Response(200);
  pair.server().session->SubmitResponse(3, head, false);
  pair.server().session->SubmitTrailers(3, Fields({{"x", std::string(1000, 'v')}}));
  head.headers.Add("x", std::string(1000, 'v'));
  pair.server().session->SubmitResponse(1, head, false);
  pair.Run();
  EXPECT_THAT(pair.client().transcript.lines(),
              ElementsAre("response 3 200", "reset 1 headers_too_large 11",
                          "reset 3 headers_too_large 11"));
  EXPECT_EQ(client.open_streams(), 0u);
}

}  // namespace
}  // namespace weft::http
