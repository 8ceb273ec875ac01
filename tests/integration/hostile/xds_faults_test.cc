// SPDX-License-Identifier: Apache-2.0
// weft-proxy and an xDS server that sends garbage, breaks off, lies or says nothing: what was
// received stays in force, the cause is told, and the next good server is used.
#include "tests/integration/hostile/lying_xds.h"

namespace weft::test {
namespace {

struct Fault {
  const char* name;
  Lie lie;
  const char* cause;  // in /status
};

Lie Raw(std::string bytes, bool hang_up = false) {
  return {.is_raw = true, .raw = std::move(bytes), .hang_up = hang_up};
}
std::string Frame(std::string_view head, std::string_view payload = "") {
  return std::string(head).append(payload);
}
std::string Noise(size_t bytes) {
  std::string out;
  uint32_t seed = 12345;
  for (size_t i = 0; i < bytes; ++i) {
    seed = seed * 1664525 + 1013904223;
    out.push_back(static_cast<char>(seed >> 24));
  }
  return out;
}
using namespace std::string_literals;  // NOLINT: bytes with zeros in them

const std::string kSettings = "\0\0\0\4\0\0\0\0\0"s;

std::vector<Fault> Faults() {
  std::string pings;
  for (int i = 0; i < 20000; ++i) pings += Frame("\0\0\10\6\0\0\0\0\0"s, "12345678");
  return {
      {"Noise", Raw(Noise(65536)), "broke HTTP/2"},
      {"Http1", Raw("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"), "broke HTTP/2"},
      {"TlsInstead", Raw("\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03"s + Noise(200)),
       "broke HTTP/2"},
      {"HangsUpAtOnce", Raw("", true), "connection"},
      {"HalfAFrame", Raw(Frame("\0\0\x60\4\0\0\0\0\0"s, "abc"), true), "connection"},
      {"HugeFrame", Raw(kSettings + "\xff\xff\xff\0\0\0\0\0\1"s + Noise(1 << 20)), "broke HTTP/2"},
      {"PingFlood", Raw(kSettings + pings, true), ""},
      {"SaysNothing", Raw(""), "says nothing"},
      {"Status503", {.status = 503}, "503"},
      {"StatusInTrailers",
       {.trailers = {{"grpc-status", "14"}, {"grpc-message", "go%0aaway%1b[31m%ff"}}},
       "status 14, go"},
      {"NoProtobuf",
       {.data = "\0\0\0\0\x08"s + "\xff\xff\xff\xff\xff\xff\xff\xff"},
       "does not parse"},
      {"Compressed", {.data = "\1\0\0\0\x02hi"s}, "compressed or larger"},
      {"MoreThan64MiB", {.data = "\0\x04\0\0\x01"s + Noise(1000)}, "compressed or larger"},
      {"StatusInsideAMessage",
       {.data = "\0\0\1\0\0"s + Noise(100), .trailers = {{"grpc-status", "0"}}},
       "status 0"},
  };
}

class XdsFault : public LyingXds, public testing::WithParamInterface<Fault> {};

TEST_P(XdsFault, WhatWasReceivedStaysAndTheCauseIsTold) {
  Put(HttpListener("web", "routes"), DirectRoutes("routes", "one"));
  Start({"--xds", Target()});
  ASSERT_TRUE(Ready());
  SocketAddress proxy = Bound("web");
  LieNext({GetParam().lie});
  ASSERT_TRUE(RunUntil([&] { return lied_ == 1; }, 20s));
  EXPECT_NE(HttpGet(proxy, "/").find("\r\n\r\none"), std::string::npos);
  EXPECT_TRUE(
      RunUntil([&] { return LastError().find(GetParam().cause) != std::string::npos; }, 30s))
      << LastError();
  EXPECT_NE(HttpGet(proxy, "/").find("\r\n\r\none"), std::string::npos);
  Put(DirectRoutes("routes", "two"));
  EXPECT_TRUE(
      RunUntil([&] { return HttpGet(proxy, "/").find("\r\n\r\ntwo") != std::string::npos; }, 30s));
  kill(pid_, SIGTERM);
  EXPECT_EQ(WaitForExit(), 0);
}

INSTANTIATE_TEST_SUITE_P(Faults, XdsFault, testing::ValuesIn(Faults()),
                         [](const auto& fault) { return fault.param.name; });

// Responses that parse, and what is wrong with them. The first element of the pair is said in the
// NACK.
struct Refused {
  const char* name;
  const char* why;
  bool delta;
  std::vector<std::pair<std::string, std::string>> resources;  // name, Any
};

const std::string kRouteType(xds::kRouteType);

std::vector<Refused> Refusals() {
  std::string two = xds::Encode(DirectRoutes("routes", "evil")).bytes;
  std::string other = xds::Encode(DirectRoutes("other", "evil")).bytes;
  std::vector<Refused> out;
  for (bool delta : {true, false}) {
    out.push_back({"Twice",
                   "twice",
                   delta,
                   {{"routes", AnyOf(kRouteType, two)}, {"routes", AnyOf(kRouteType, two)}}});
    out.push_back({"Garbage",
                   "routes",
                   delta,
                   {{"routes", AnyOf(kRouteType, Bytes(1, "routes") + "\x12\xff")}}});
    out.push_back(
        {"OtherType",
         "type",
         delta,
         {{"routes", AnyOf("type.googleapis.com/envoy.config.cluster.v3.Cluster", two)}}});
    if (delta) {
      out.push_back({"OtherName", "calls itself", delta, {{"routes", AnyOf(kRouteType, other)}}});
      out.push_back({"NoName", "no name", delta, {{"", AnyOf(kRouteType, two)}}});
    }
  }
  return out;
}

class XdsRefusal : public LyingXds, public testing::WithParamInterface<Refused> {};

TEST_P(XdsRefusal, IsToldToTheServerAndChangesNothing) {
  const Refused& refused = GetParam();
  Put(HttpListener("web", "routes"), DirectRoutes("routes", "one"));
  Start({"--xds", Target(), "--xds-variant", refused.delta ? "delta" : "sotw"});
  ASSERT_TRUE(Ready());
  SocketAddress proxy = Bound("web");
  std::vector<std::string> anys;
  for (const auto& [name, any] : refused.resources) anys.push_back(any);
  std::string response = refused.delta ? DeltaResponse(kRouteType, "evil", refused.resources)
                                       : FullResponse(kRouteType, "evil", anys);
  LieNext({{.messages = {{kRouteType, {response}}}}});
  // The nonce comes back with the reason.
  ASSERT_TRUE(RunUntil([&] { return heard_.find("nonce-evil") != std::string::npos; }, 20s));
  EXPECT_NE(heard_.find(refused.why), std::string::npos) << heard_;
  EXPECT_NE(HttpGet(proxy, "/").find("\r\n\r\none"), std::string::npos);
  Put(DirectRoutes("routes", "two"));
  CutAll();
  EXPECT_TRUE(
      RunUntil([&] { return HttpGet(proxy, "/").find("\r\n\r\ntwo") != std::string::npos; }, 30s));
}

INSTANTIATE_TEST_SUITE_P(Refusals, XdsRefusal, testing::ValuesIn(Refusals()),
                         [](const auto& refused) {
                           return std::string(refused.param.name) +
                                  (refused.param.delta ? "Delta" : "Sotw");
                         });

// Versions are the server's words: one that goes back is taken as it is, and types that nobody
// asked for are not looked at.
TEST_F(LyingXds, VersionsMayGoBackAndUnaskedTypesAreIgnored) {
  Put(HttpListener("web", "routes"), DirectRoutes("routes", "one"));
  Start({"--xds", Target(), "--xds-variant", "sotw"});
  ASSERT_TRUE(Ready());
  SocketAddress proxy = Bound("web");
  auto routes = [](const char* version, const char* body) {
    return FullResponse(kRouteType, version,
                        {AnyOf(kRouteType, xds::Encode(DirectRoutes("routes", body)).bytes)});
  };
  std::string unasked = FullResponse("type.googleapis.com/evil.Type", "1", {AnyOf("x", "y")});
  LieNext({{.messages = {{kRouteType, {unasked, routes("9", "nine"), routes("1", "first")}}}}});
  EXPECT_TRUE(RunUntil(
      [&] { return HttpGet(proxy, "/").find("\r\n\r\nfirst") != std::string::npos; }, 20s));
  EXPECT_EQ(heard_.find("evil.Type"), std::string::npos);
}

// 64 MiB that never become a message are dropped with the connection.
TEST_F(LyingXds, MemoryComesBackAfterAHugeMessage) {
  Put(HttpListener("web", "routes"), DirectRoutes("routes", "one"));
  Start({"--xds", Target()});
  ASSERT_TRUE(Ready());
  SocketAddress proxy = Bound("web");
  LieNext({{.data = "\0\x03\xff\xff\xff"s + Noise(48 << 20)}});
  ASSERT_TRUE(RunUntil([&] { return lied_ == 1; }, 20s));
  EXPECT_NE(HttpGet(proxy, "/").find("\r\n\r\none"), std::string::npos);
  CutAll();
  Put(DirectRoutes("routes", "two"));
  EXPECT_TRUE(
      RunUntil([&] { return HttpGet(proxy, "/").find("\r\n\r\ntwo") != std::string::npos; }, 30s));
}

}  // namespace
}  // namespace weft::test
