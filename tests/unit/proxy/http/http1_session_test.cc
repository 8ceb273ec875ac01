// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proxy/http/session.h"
#include "session_pair.h"

namespace weft::http {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;
using std::string_literals::operator""s;

ResponseHead Response(int status) {
  ResponseHead head;
  head.status = status;
  return head;
}

RequestHead Request(std::string method, std::string path) {
  RequestHead head;
  head.method = std::move(method);
  head.authority = "h";
  head.path = std::move(path);
  return head;
}

// A server that answers every request with 200 and no body as soon as it is complete, so that
// pipelined ones follow.
std::string Serve(std::string_view input, unsigned seed, const Limits& limits = {}) {
  std::mt19937 random(seed);
  End server;
  server.session = MakeHttp1Session(Role::kServer, limits);
  server.input = input;
  std::string responses;
  for (;;) {
    const size_t lines = server.transcript.lines().size();
    const size_t size = seed == 0 ? server.input.size() : 1 + random() % 7;
    const bool moved = server.Feed(size);
    for (size_t i = lines; i < server.transcript.lines().size(); ++i) {
      const std::string& line = server.transcript.lines()[i];
      const bool complete =
          line.ends_with(" END") || line.starts_with("end") || line.starts_with("trailers");
      if (complete)
        server.session->SubmitResponse(1 + 2 * (std::stoi(line.substr(line.find(' '))) / 2),
                                       Response(200), true);
    }
    responses += Text(server.session->Output());
    server.session->OutputWritten(server.session->Output().size());
    if (!moved) break;
  }
  if (server.reason != WEFT_R_NONE) {
    server.transcript.Add(std::string(ReasonName(server.reason)) + " " +
                          responses.substr(responses.rfind("HTTP/1.1"), 12));
  } else if (server.session->finished()) {
    server.transcript.Add("finished");
  }
  return server.transcript.Joined();
}

struct Case {
  const char* name;
  std::string input;
  std::string expected;
};

const std::string kBad = "downstream_protocol_error HTTP/1.1 400\n";

const Case kRequests[] = {
    {"Get", "GET /a?b HTTP/1.1\r\nHost: x:80\r\nAccept:  a, b \r\n\r\n",
     "request 1 GET http x:80 /a?b accept=a, b END\n"},
    {"Pipelined", "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: y\r\n\r\n",
     "request 1 GET http x /1 END\nrequest 3 GET http y /2 END\n"},
    {"ContentLength",
     "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: "
     "x\r\n\r\n",
     "request 1 POST http x / content-length=5\ndata 1 hello\nend 1\nrequest 3 GET http x / END\n"},
    {"Chunked",
     "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
     "chunked\r\n\r\n3;a=\"b\"\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
     "request 1 POST http x /\ndata 1 abc0123456789\nend 1\n"},
    {"Trailers",
     "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: "
     "x-sum\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\n",
     "request 1 POST http x / trailer=x-sum\ndata 1 a\ntrailers 1 x-sum=1\n"},
    {"HopByHop",
     "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, X-Drop\r\nX-Drop: 1\r\nKeep-Alive: "
     "5\r\nTE: trailers\r\nProxy-Connection: a\r\nX: 1\r\n\r\n",
     "request 1 GET http x / x=1 END\n"},
    {"ForwardedStays",
     "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1\r\nConnection: x-forwarded-for\r\n\r\n",
     "request 1 GET http x / x-forwarded-for=1 END\n"},
    {"Upgrade", "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
     "request 1 GET http x / upgrade=websocket END\n"},
    {"UpgradeWithoutConnection", "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n",
     "request 1 GET http x / END\n"},
    {"NoUpgradeToH2c",
     "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: "
     "h2c\r\nHTTP2-Settings: a\r\n\r\n",
     "request 1 GET http x / END\n"},
    {"AbsoluteForm", "GET http://a.b:8/c?d HTTP/1.1\r\nHost: other\r\n\r\n",
     "request 1 GET http a.b:8 /c?d END\n"},
    {"AbsoluteFormWithoutPath", "GET http://a.b?d HTTP/1.1\r\nHost: other\r\n\r\n",
     "request 1 GET http a.b /?d END\n"},
    {"Asterisk", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "request 1 OPTIONS http x * END\n"},
    {"Connect", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "request 1 CONNECT http a:443 \n"},
    {"Close",
     "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n",
     "request 1 GET http x / END\nfinished\n"},
    {"Http10", "GET / HTTP/1.0\r\n\r\n", "request 1 GET http  / END\nfinished\n"},
    {"Http10KeepAlive", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
     "request 1 GET http  / END\n"},
    {"Expect", "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
     "request 1 POST http x / expect=100-continue content-length=1\n"},
    {"TwoSpaces", "GET  / HTTP/1.1\r\nHost: x\r\n\r\n", "request 1 GET http x / END\n"},
    {"LeadingEmptyLines", "\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
     "request 1 GET http x / END\n"},
    {"EmptyValue", "GET / HTTP/1.1\r\nHost: x\r\nA:\r\nB: \r\nC: c\r\n\r\n",
     "request 1 GET http x / a= b= c=c END\n"},
};

const Case kRefused[] = {
    {"ClTe",
     "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: "
     "chunked\r\n\r\n0\r\n\r\n",
     kBad},
    {"TeCl",
     "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: "
     "5\r\n\r\n0\r\n\r\n",
     kBad},
    {"TeTwice",
     "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: "
     "chunked\r\n\r\n0\r\n\r\n",
     kBad},
    {"TeTwiceOther",
     "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: "
     "identity\r\n\r\n0\r\n\r\n",
     kBad},
    {"TeList", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
     kBad},
    {"TeDoubleChunked",
     "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", kBad},
    {"TeSpaceColon", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
     kBad},
    {"TeTabColon", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
     kBad},
    {"TeXchunked", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
     kBad},
    {"TeVerticalTab",
     "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0b"
     "chunked\r\n\r\n0\r\n\r\n",
     kBad},
    {"TeQuoted", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
     kBad},
    {"TeParameter", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
     kBad},
    {"TeEmpty", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", kBad},
    {"TeIdentity", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n", kBad},
    {"TeInHttp10", "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     kBad},
    {"ClTwice", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
     kBad},
    {"ClDiffer",
     "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", kBad},
    {"ClPlus", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello", kBad},
    {"ClMinus", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nhello", kBad},
    {"ClHex", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\nhello", kBad},
    {"ClList", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5,5\r\n\r\nhello", kBad},
    {"ClSpaces", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5 5\r\n\r\nhello", kBad},
    {"ClOverflow",
     "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551616\r\n\r\nhello", kBad},
    {"ClEmpty", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\nhello", kBad},
    {"ClSpaceColon", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\nhello", kBad},
    {"BareLf", "GET / HTTP/1.1\nHost: x\n\n", kBad},
    {"BareLfInHeaders", "GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", kBad},
    {"BareLfAtEnd", "GET / HTTP/1.1\r\nHost: x\r\n\n", kBad},
    {"BareCr", "GET / HTTP/1.1\r\nHost: x\r\nA: b\rC: d\r\n\r\n", kBad},
    {"Nul", "GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n"s, kBad},
    {"NulInName", "GET / HTTP/1.1\r\nHost: x\r\nA\0: bc\r\n\r\n"s, kBad},
    {"ObsFold", "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", kBad},
    {"ObsFoldFirst", "GET / HTTP/1.1\r\n Host: x\r\n\r\n", kBad},
    {"EmptyName", "GET / HTTP/1.1\r\nHost: x\r\n: v\r\n\r\n", kBad},
    {"NoColon", "GET / HTTP/1.1\r\nHost: x\r\nabc\r\n\r\n", kBad},
    {"SpaceInName", "GET / HTTP/1.1\r\nHost: x\r\na b: c\r\n\r\n", kBad},
    {"NoHost", "GET / HTTP/1.1\r\n\r\n", kBad},
    {"TwoHosts", "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", kBad},
    {"HostList", "GET / HTTP/1.1\r\nHost: x, y\r\n\r\n", kBad},
    {"HostWithPath", "GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", kBad},
    {"HostWithUser", "GET / HTTP/1.1\r\nHost: u@x\r\n\r\n", kBad},
    {"Http09", "GET /\r\n\r\n", "downstream_protocol_error HTTP/1.1 505\n"},
    {"Http2Version", "GET / HTTP/2.0\r\nHost: x\r\n\r\n",
     "downstream_protocol_error HTTP/1.1 505\n"},
    {"Http12", "GET / HTTP/1.2\r\nHost: x\r\n\r\n", kBad},
    {"Preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", kBad},
    {"TabInLine", "GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n", kBad},
    {"SpaceInPath", "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", kBad},
    {"Fragment", "GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n", kBad},
    {"NoSlash", "GET a HTTP/1.1\r\nHost: x\r\n\r\n", kBad},
    {"OtherScheme", "GET ftp://a/ HTTP/1.1\r\nHost: x\r\n\r\n", kBad},
    {"AsteriskGet", "GET * HTTP/1.1\r\nHost: x\r\n\r\n", kBad},
    {"ConnectWithLength", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", kBad},
    {"ConnectChunked",
     "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", kBad},
    {"ConnectionNamesHost", "GET / HTTP/1.1\r\nHost: x\r\nConnection: host\r\n\r\n", kBad},
    {"ConnectionNamesLength",
     "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: content-length\r\n\r\na",
     kBad},
    {"LowerCaseMethod", "get / HTTP/1.1\r\nHost: x\r\n\r\n", kBad},
    {"UnknownMethod", "FOO / HTTP/1.1\r\nHost: x\r\n\r\n", kBad},
    {"Binary", "\x16\x03\x01\x02\x01", kBad},
};

const std::string kChunkHead = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
const Case kBadChunks[] = {
    {"NotHex", "g\r\nabc\r\n", ""},
    {"SizeOverflow", "10000000000000003\r\nabc\r\n", ""},
    {"SizePrefix", "0x3\r\nabc\r\n", ""},
    {"SizeMinus", "-3\r\nabc\r\n", ""},
    {"SizeSpace", "3 \r\nabc\r\n", ""},
    {"SizeBareLf", "3\nabc\r\n", ""},
    {"ExtensionLf", "3;a\nabc\r\n", ""},
    {"DataTooLong", "3\r\nabcd\r\n", ""},
    {"DataBareLf", "3\r\nabc\n0\r\n\r\n", ""},
    {"NoSize", "\r\nabc\r\n", ""},
    {"TrailerSpaceColon", "0\r\nA : b\r\n\r\n", ""},
    {"ExtensionFlood", "3;" + std::string(20000, 'a') + "\r\nabc\r\n", ""},
};

class Http1Splits : public ::testing::TestWithParam<unsigned> {};
INSTANTIATE_TEST_SUITE_P(Seeds, Http1Splits, ::testing::Values(0u, 1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u));

TEST_P(Http1Splits, Requests) {
  for (const Case& c : kRequests) EXPECT_EQ(Serve(c.input, GetParam()), c.expected) << c.name;
}

TEST_P(Http1Splits, RefusedHeads) {
  for (const Case& c : kRefused) EXPECT_EQ(Serve(c.input, GetParam()), c.expected) << c.name;
}

TEST_P(Http1Splits, RefusedBodies) {
  for (const Case& c : kBadChunks) {
    const std::string said = Serve(kChunkHead + c.input, GetParam());
    EXPECT_THAT(said, StartsWith("request 1 POST http x /\n")) << c.name;
    EXPECT_THAT(said, ::testing::EndsWith("reset 1 downstream_protocol_error 1\n" + kBad))
        << c.name;
  }
}

TEST_P(Http1Splits, HeaderLimits) {
  Limits limits;
  limits.max_header_list_bytes = 200;
  limits.max_header_count = 5;
  const std::string kTooLarge = "headers_too_large HTTP/1.1 431\n";
  const std::string head = "GET / HTTP/1.1\r\nHost: x\r\n";
  EXPECT_EQ(Serve(head + "A: " + std::string(200, 'a') + "\r\n\r\n", GetParam(), limits),
            kTooLarge);
  EXPECT_EQ(Serve(head + std::string(201, 'a'), GetParam(), limits), kTooLarge);
  EXPECT_EQ(Serve("GET /" + std::string(200, 'a'), GetParam(), limits), kTooLarge);
  EXPECT_EQ(Serve(head + "A:1\r\nB:1\r\nC:1\r\nD:1\r\nE:1\r\nF:1\r\n\r\n", GetParam(), limits),
            kTooLarge);
  EXPECT_THAT(Serve(head + "A:1\r\nB:1\r\nC:1\r\nD:1\r\nE:1\r\n\r\n", GetParam(), limits),
              StartsWith("request"));
}

struct Answer {
  std::string request;
  ResponseHead head;
  std::string body;
  bool end_with_head = false;
};

std::string WrittenBy(std::string_view request, const ResponseHead& head, std::string_view body,
                      bool* finished) {
  End server;
  server.session = MakeHttp1Session(Role::kServer, {});
  server.input = request;
  server.Feed(request.size());
  server.session->SubmitResponse(1, head, body.empty());
  if (!body.empty()) {
    server.session->SubmitData(1, Bytes(body.substr(0, 1)), false);
    server.session->SubmitData(1, Bytes(body.substr(1)), true);
  }
  *finished = server.session->finished();
  return std::string(Text(server.session->Output()));
}

TEST(Http1Server, FramesResponses) {
  bool finished = false;
  const std::string get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
  EXPECT_EQ(WrittenBy(get, Response(200), "", &finished),
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
  EXPECT_FALSE(finished);
  EXPECT_EQ(WrittenBy(get, Response(200), "abc", &finished),
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n");
  ResponseHead sized = Response(404);
  sized.headers.Add("Content-Length", "3");
  EXPECT_EQ(WrittenBy(get, sized, "abc", &finished),
            "HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nabc");
  EXPECT_FALSE(finished);
  EXPECT_EQ(WrittenBy(get, sized, "abcdef", &finished),
            "HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nabc");
  EXPECT_TRUE(finished) << "a body longer than announced ends the connection";
  EXPECT_EQ(WrittenBy(get, sized, "ab", &finished),
            "HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nab");
  EXPECT_TRUE(finished) << "so does a shorter one";
  EXPECT_EQ(WrittenBy("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", sized, "abc", &finished),
            "HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\n");
  EXPECT_FALSE(finished);
  EXPECT_EQ(WrittenBy(get, Response(204), "", &finished), "HTTP/1.1 204 No Content\r\n\r\n");
  EXPECT_EQ(WrittenBy(get, Response(304), "", &finished), "HTTP/1.1 304 Not Modified\r\n\r\n");
  EXPECT_EQ(WrittenBy("GET / HTTP/1.0\r\n\r\n", Response(200), "abc", &finished),
            "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc");
  EXPECT_TRUE(finished);
  EXPECT_EQ(
      WrittenBy("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", Response(200), "", &finished),
      "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n");
  EXPECT_EQ(WrittenBy("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", Response(200), "",
                      &finished),
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
  EXPECT_TRUE(finished);
}

TEST(Http1Server, NoFieldForgesALine) {
  bool finished = false;
  ResponseHead head = Response(200);
  head.headers.Add("x", "a\r\nset-cookie: evil");
  head.headers.Add("connection", "x");
  head.headers.Add("transfer-encoding", "chunked");
  head.headers.Add("upgrade", "foo");
  head.headers.Add("y", "fine");
  EXPECT_EQ(WrittenBy("GET / HTTP/1.1\r\nHost: x\r\n\r\n", head, "", &finished),
            "HTTP/1.1 200 OK\r\ny: fine\r\ncontent-length: 0\r\n\r\n");
}

TEST(Http1Server, PipelinedRequestWaits) {
  End server;
  server.session = MakeHttp1Session(Role::kServer, {});
  server.input = "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n";
  EXPECT_TRUE(server.Feed(1000));
  EXPECT_FALSE(server.session->wants_input());
  EXPECT_FALSE(server.Feed(1000));
  EXPECT_THAT(server.transcript.lines(), ElementsAre("request 1 GET http x /1 END"));
  server.session->SubmitResponse(1, Response(200), false);
  EXPECT_FALSE(server.session->wants_input());
  server.session->SubmitData(1, {}, true);
  EXPECT_TRUE(server.session->wants_input());
  EXPECT_TRUE(server.Feed(1000));
  EXPECT_THAT(server.transcript.lines().back(), "request 3 GET http x /2 END");
}

TEST(Http1Server, WindowStopsTheBodyUntilConsumed) {
  Limits limits;
  limits.stream_window_bytes = 1000;
  End server;
  server.auto_consume = false;
  server.session = MakeHttp1Session(Role::kServer, limits);
  server.input =
      "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + std::string(5000, 'x');
  while (server.Feed(500)) {
  }
  EXPECT_FALSE(server.session->wants_input());
  EXPECT_LT(server.bodies[1].size(), 1500u);
  server.session->Consume(1, server.bodies[1].size());
  EXPECT_TRUE(server.session->wants_input());
  EXPECT_TRUE(server.Feed(500));
}

TEST(Http1Server, EarlyResponseAndUnwantedBody) {
  for (const size_t rest : {1000u, 200'000u}) {
    End server;
    server.session = MakeHttp1Session(Role::kServer, {});
    server.input =
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(rest) + "\r\n\r\n";
    server.Feed(1000);
    server.session->SubmitResponse(1, Response(413), true);
    EXPECT_EQ(server.session->open_streams(), 1u);
    server.session->Reset(1, ResetCode::kNoError);
    EXPECT_FALSE(server.session->finished());
    server.input = std::string(rest, 'x') + "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    server.transcript.Clear();
    while (server.Feed(16384)) {
    }
    EXPECT_EQ(server.session->finished(), rest > 64 * 1024);
    EXPECT_EQ(server.transcript.lines().size(), rest > 64 * 1024 ? 0u : 1u);
  }
}

TEST(Http1Server, DrainClosesAfterTheCurrentResponse) {
  End server;
  server.session = MakeHttp1Session(Role::kServer, {});
  server.input = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
  server.Feed(1000);
  server.session->StartDrain();
  EXPECT_FALSE(server.session->finished());
  server.session->SubmitResponse(1, Response(200), true);
  EXPECT_THAT(Text(server.session->Output()), HasSubstr("connection: close"));
  EXPECT_TRUE(server.session->finished());
  End idle;
  idle.session = MakeHttp1Session(Role::kServer, {});
  idle.session->StartDrain();
  EXPECT_TRUE(idle.session->finished());
}

TEST(Http1Server, EndOfInput) {
  for (const auto& [input, events] : std::map<std::string, std::string>{
           {"", ""},
           {"GET / HT", ""},
           {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab",
            "request 1 POST http x / content-length=5\ndata 1 ab\nreset 1 peer_reset 8\n"}}) {
    End server;
    server.session = MakeHttp1Session(Role::kServer, {});
    server.input = input;
    server.Feed(1000);
    server.session->FeedEof();
    server.Look();
    EXPECT_EQ(server.transcript.Joined(), events);
    EXPECT_TRUE(server.session->finished());
  }
  End server;
  server.session = MakeHttp1Session(Role::kServer, {});
  server.input = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
  server.Feed(1000);
  server.session->FeedEof();
  EXPECT_FALSE(server.session->finished()) << "a half-closed downstream still gets its response";
  server.session->SubmitResponse(1, Response(200), true);
  EXPECT_TRUE(server.session->finished());
  EXPECT_THAT(Text(server.session->Output()), HasSubstr("200 OK"));
}

std::string WrittenBy(const RequestHead& head, std::string_view body) {
  auto client = MakeHttp1Session(Role::kClient, {});
  if (client->SubmitRequest(head, body.empty()) == 0) return "refused";
  if (!body.empty()) client->SubmitData(1, Bytes(body), true);
  return std::string(Text(client->Output()));
}

TEST(Http1Client, FramesRequests) {
  RequestHead head = Request("GET", "/a?b");
  head.headers.Add("Accept", "*/*");
  head.headers.Add("Cookie", "a=1");
  head.headers.Add("te", "trailers");
  head.headers.Add("cookie", "b=2");
  EXPECT_EQ(WrittenBy(head, ""),
            "GET /a?b HTTP/1.1\r\nhost: h\r\naccept: */*\r\ncookie: a=1; b=2\r\n\r\n");
  EXPECT_EQ(WrittenBy(Request("POST", "/"), ""),
            "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n");
  EXPECT_EQ(WrittenBy(Request("POST", "/"), "ab"),
            "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n");
  head = Request("PUT", "/");
  head.headers.Add("content-length", "2");
  EXPECT_EQ(WrittenBy(head, "ab"), "PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nab");
  EXPECT_EQ(WrittenBy(Request("GET", "/a b"), ""), "refused");
  EXPECT_EQ(WrittenBy(Request("GET", "/a\r\nx: y"), ""), "refused");
  EXPECT_EQ(WrittenBy(Request("GET /x HTTP/1.1\r\n", "/"), ""), "refused");
  EXPECT_EQ(WrittenBy(Request("GET", ""), ""), "refused");
}

// A client that sent `method`, then gets `input` and perhaps the end of the connection.
std::string Receive(std::string method, std::string_view input, bool eof, unsigned seed) {
  std::mt19937 random(seed);
  End client;
  client.session = MakeHttp1Session(Role::kClient, {});
  RequestHead head = Request(std::move(method), "/");
  if (head.method == "UPGRADE") {
    head.method = "GET";
    head.headers.Add("upgrade", "websocket");
  }
  client.session->SubmitRequest(head, head.method != "CONNECT");
  client.input = input;
  while (client.Feed(seed == 0 ? client.input.size() : 1 + random() % 7)) {
  }
  if (eof && client.reason == WEFT_R_NONE) client.session->FeedEof();
  client.Look();
  if (client.reason != WEFT_R_NONE) client.transcript.Add(std::string(ReasonName(client.reason)));
  client.transcript.Add(client.session->can_open_stream() ? "reusable"
                        : client.session->finished()      ? "finished"
                                                          : "open");
  return client.transcript.Joined();
}

struct ResponseCase {
  const char* name;
  std::string method;
  std::string input;
  bool eof;
  std::string expected;
};

const std::string kBadResponse =
    "reset 1 upstream_protocol_error 1\nupstream_protocol_error\nfinished\n";
const ResponseCase kResponses[] = {
    {"Length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", false,
     "response 1 200 content-length=3\ndata 1 abc\nend 1\nreusable\n"},
    {"Empty", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false,
     "response 1 200 content-length=0 END\nreusable\n"},
    {"Chunked", "GET",
     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nt: v\r\n\r\n", false,
     "response 1 200\ndata 1 abc\ntrailers 1 t=v\nreusable\n"},
    {"ByClose", "GET", "HTTP/1.1 200 OK\r\n\r\nabc", true,
     "response 1 200\ndata 1 abc\nend 1\nfinished\n"},
    {"ByCloseNotYet", "GET", "HTTP/1.1 200 OK\r\n\r\nabc", false,
     "response 1 200\ndata 1 abc\nopen\n"},
    {"ByClose10", "GET", "HTTP/1.0 200 OK\r\n\r\nabc", true,
     "response 1 200\ndata 1 abc\nend 1\nfinished\n"},
    {"Cut", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", true,
     "response 1 200 content-length=5\ndata 1 abc\nreset 1 upstream_reset 8\nfinished\n"},
    {"CutChunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", true,
     "response 1 200\ndata 1 abc\nreset 1 upstream_reset 8\nfinished\n"},
    {"CutHead", "GET", "HTTP/1.1 200 OK\r\nCont", true, "reset 1 upstream_reset 8\nfinished\n"},
    {"NoBytes", "GET", "", true, "reset 1 upstream_reset 8\nfinished\n"},
    {"Head", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", false,
     "response 1 200 content-length=3 END\nreusable\n"},
    {"HeadWithoutLength", "HEAD", "HTTP/1.1 200 OK\r\n\r\n", false,
     "response 1 200 END\nreusable\n"},
    {"NoContent", "GET", "HTTP/1.1 204 No Content\r\n\r\n", false,
     "response 1 204 END\nreusable\n"},
    {"NotModified", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", false,
     "response 1 304 content-length=9 END\nreusable\n"},
    {"Informational", "GET",
     "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 104 "
     "X\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
     false,
     "informational 1 100\ninformational 1 103 link=a\ninformational 1 104 "
     "content-length=5\nresponse 1 200 content-length=0 END\nreusable\n"},
    {"Close", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", false,
     "response 1 200 content-length=0 END\nfinished\n"},
    {"Http10KeepAlive", "GET",
     "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", false,
     "response 1 200 content-length=0 END\nreusable\n"},
    {"Extra", "GET",
     "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: "
     "6\r\n\r\npoison",
     false, "response 1 200 content-length=0 END\nfinished\n"},
    {"Upgrade", "UPGRADE",
     "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw",
     true, "response 1 101 upgrade=websocket\nupgraded 1\ndata 1 raw\nend 1\nopen\n"},
    {"UpgradeRefused", "UPGRADE", "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", false,
     "response 1 403 content-length=0 END\nreusable\n"},
    {"UpgradeUnasked", "GET",
     "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw",
     false, kBadResponse},
    {"Connect", "CONNECT", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nraw", false,
     "response 1 200 content-length=5\nupgraded 1\ndata 1 raw\nopen\n"},
    {"ConnectRefused", "CONNECT", "HTTP/1.1 403 No\r\nContent-Length: 1\r\n\r\nx", false,
     "response 1 403 content-length=1\ndata 1 x\nreusable\n"},
    {"ClTe", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
     false, kBadResponse},
    {"TwoLengths", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
     false, kBadResponse},
    {"TeGzip", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", false, kBadResponse},
    {"Te10", "GET", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, kBadResponse},
    {"NoHttp", "GET", "SSH-2.0-OpenSSH\r\n", false, kBadResponse},
    {"Status", "GET", "HTTP/1.1 99 X\r\n\r\n", false, kBadResponse},
    {"BareLf", "GET", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", false, kBadResponse},
};

TEST_P(Http1Splits, Responses) {
  for (const ResponseCase& c : kResponses) {
    EXPECT_EQ(Receive(c.method, c.input, c.eof, GetParam()), c.expected) << c.name;
  }
}

TEST_P(Http1Splits, InformationalStormEnds) {
  std::string storm;
  for (int i = 0; i < 200; ++i) storm += "HTTP/1.1 103 Early Hints\r\n\r\n";
  EXPECT_THAT(Receive("GET", storm, false, GetParam()), ::testing::EndsWith(kBadResponse));
}

TEST(Http1Client, EarlyResponseResetsTheRequest) {
  End client;
  client.session = MakeHttp1Session(Role::kClient, {});
  client.session->SubmitRequest(Request("POST", "/"), false);
  client.input = "HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n";
  client.Feed(1000);
  EXPECT_THAT(client.transcript.lines(),
              ElementsAre("response 1 413 content-length=0 END", "reset 1 none 0"));
  EXPECT_TRUE(client.session->finished());
}

Pair MakePair(unsigned seed) {
  return Pair(MakeHttp1Session(Role::kClient, {}), MakeHttp1Session(Role::kServer, {}), seed);
}

TEST_P(Http1Splits, ClientAgainstServer) {
  Pair pair = MakePair(GetParam());
  for (StreamId id = 1; id < 9; id += 2) {
    pair.client().transcript.Clear();
    pair.server().transcript.Clear();
    RequestHead head = Request("POST", "/x");
    head.headers.Add("a", "b");
    ASSERT_EQ(pair.client().session->SubmitRequest(head, false), id);
    EXPECT_FALSE(pair.client().session->can_open_stream());
    std::string body(70'000, 'q');
    pair.client().session->SubmitData(id, Bytes(body), false);
    HeaderList trailers;
    trailers.Add("t", "1");
    pair.client().session->SubmitTrailers(id, trailers);
    pair.Run();
    const std::string n = std::to_string(id);
    EXPECT_THAT(pair.server().transcript.lines(),
                ElementsAre("request " + n + " POST http h /x a=b", "data " + n + " " + body,
                            "trailers " + n + " t=1"));
    pair.server().session->SubmitResponse(id, Response(103), false);
    pair.server().session->SubmitResponse(id, Response(200), false);
    pair.server().session->SubmitData(id, Bytes("fine"), true);
    pair.Run();
    EXPECT_THAT(pair.client().transcript.lines(),
                ElementsAre("informational " + n + " 103", "response " + n + " 200",
                            "data " + n + " fine", "end " + n));
  }
}

TEST_P(Http1Splits, UpgradeCarriesRawBytesBothWays) {
  for (const bool connect : {false, true}) {
    Pair pair = MakePair(GetParam());
    Session& client = *pair.client().session;
    Session& server = *pair.server().session;
    RequestHead head = Request("GET", "/chat");
    if (connect) {
      head.method = "CONNECT";
    } else {
      head.headers.Add("upgrade", "websocket");
    }
    client.SubmitRequest(head, !connect);
    client.SubmitData(1, Bytes("early "), false);  // held back until the answer
    pair.Run();
    EXPECT_EQ(pair.server().transcript.lines().size(), 1u);
    ResponseHead answer = Response(connect ? 200 : 101);
    if (!connect) answer.headers.Add("upgrade", "websocket");
    server.SubmitResponse(1, answer, false);
    server.SubmitData(1, Bytes("down"), false);
    pair.Run();
    client.SubmitData(1, Bytes("HTTP/1.1 up"), true);
    EXPECT_TRUE(client.output_ended());
    pair.Run();
    server.FeedEof();
    pair.server().Look();
    EXPECT_THAT(pair.server().transcript.lines(), ElementsAre(StartsWith("request 1"), "upgraded 1",
                                                              "data 1 early HTTP/1.1 up", "end 1"));
    EXPECT_THAT(pair.client().transcript.lines(),
                ElementsAre(StartsWith("response 1"), "upgraded 1", "data 1 down"));
    EXPECT_FALSE(server.finished());
    server.SubmitData(1, {}, true);
    EXPECT_TRUE(server.finished());
  }
}

TEST(Http1Client, WritableAtTheLowMark) {
  auto client = MakeHttp1Session(Role::kClient, {});
  client->SubmitRequest(Request("POST", "/"), false);
  const std::string body(100'000, 'x');
  client->SubmitData(1, Bytes(body), false);
  EXPECT_GT(client->buffered_bytes(1), 100'000u);
  client->OutputWritten(10'000);
  EXPECT_THAT(client->events(), IsEmpty());
  client->OutputWritten(30'000);
  ASSERT_EQ(client->events().size(), 1u);
  EXPECT_EQ(client->events()[0].kind, Event::Kind::kWritable);
}

}  // namespace
}  // namespace weft::http
