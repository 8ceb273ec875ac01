// SPDX-License-Identifier: Apache-2.0
// What connect() and bind() of an enrolled pod do: capture to 15001, addresses as the program and
// the proxy see them, refusals.
#include <netinet/in.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "control/bpf/address.h"
#include "control/bpf/netns.h"
#include "tests/bpf/testbed.h"

namespace weft::bpf {
namespace {

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

constexpr int kSoOriginalDst = 80;
const SocketAddress kElsewhere{*IpAddress::Parse("203.0.113.9"), 443};
const SocketAddress kElsewhere6{*IpAddress::Parse("2001:db8::9"), 443};

class CaptureTest : public testing::Test {
 protected:
  void SetUp() override {
    node_.Enrol(pod_, WEFT_WL_PROXY_READY);
    listeners_ = node_.Listen(pod_);
    node_.Events();
  }
  weft_original Original(const UniqueFd& fd) {
    weft_original original{};
    socklen_t length = sizeof original;
    EXPECT_EQ(getsockopt(fd.get(), WEFT_SOL, WEFT_SO_ORIGINAL, &original, &length), 0)
        << strerror(errno);
    EXPECT_EQ(length, sizeof original);
    return original;
  }

  Network network_;
  Pod& pod_ = network_.pod(0);
  Node node_{"capture"};
  Node::Listeners listeners_;
};

struct Case {
  const char* name;
  int family;
  bool v6;
  Blocking blocking;
};

class CaptureFamilies : public CaptureTest, public testing::WithParamInterface<Case> {};

TEST_P(CaptureFamilies, TheProxyGetsItAndNobodyCanTell) {
  const Case& c = GetParam();
  const SocketAddress asked = c.v6 ? kElsewhere6 : kElsewhere;
  const IpAddress own = c.v6 ? pod_.v6 : pod_.v4;
  UniqueFd client = TcpSocket(pod_, c.family, c.blocking);
  ASSERT_EQ(Connect(client, asked, c.family), 0);
  EXPECT_EQ(PeerName(client), asked);
  EXPECT_EQ(SocketName(client).ip, own);

  SocketAddress shown;
  UniqueFd accepted = Accept(listeners_.outbound, Blocking::kNo, &shown);
  EXPECT_EQ(shown, SocketName(client));
  EXPECT_EQ(PeerName(accepted), SocketName(client));
  EXPECT_EQ(SocketName(accepted), (SocketAddress{own, WEFT_PORT_OUTBOUND}));
  const weft_original original = Original(accepted);
  EXPECT_EQ(FromKernel(original.dst), asked);
  EXPECT_EQ(FromKernel(original.picked), SocketAddress{});

  sockaddr_storage plain{};
  socklen_t length = c.v6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  ASSERT_EQ(getsockopt(accepted.get(), c.v6 ? SOL_IPV6 : SOL_IP, kSoOriginalDst, &plain, &length),
            0)
      << strerror(errno);
  EXPECT_EQ(SocketAddress::FromSockaddr(reinterpret_cast<sockaddr*>(&plain), length), asked);

  SendAll(client, "hello");
  EXPECT_EQ(ReceiveSome(accepted, 5), "hello");
  const weft_event event = node_.WaitEvent(WEFT_EVENT_CONNECT);
  EXPECT_EQ(event.reason, WEFT_R_PROXIED);
  EXPECT_EQ(event.pid, static_cast<uint32_t>(getpid()));
  EXPECT_EQ(event.source_workload, pod_.id);
  EXPECT_EQ(event.source_identity, IdentityOf(pod_));
  EXPECT_EQ(FromKernel(event.destination), asked);
}

INSTANTIATE_TEST_SUITE_P(All, CaptureFamilies,
                         testing::Values(Case{"v4_blocking", AF_INET, false, Blocking::kYes},
                                         Case{"v4_nonblocking", AF_INET, false, Blocking::kNo},
                                         Case{"v6_blocking", AF_INET6, true, Blocking::kYes},
                                         Case{"v6_nonblocking", AF_INET6, true, Blocking::kNo},
                                         Case{"mapped_blocking", AF_INET6, false, Blocking::kYes},
                                         Case{"mapped_nonblocking", AF_INET6, false,
                                              Blocking::kNo}),
                         [](const auto& test) { return test.param.name; });

TEST_F(CaptureTest, CloseIsReportedOnceWithItsBytes) {
  UniqueFd client = TcpSocket(pod_, AF_INET, Blocking::kYes);
  ASSERT_EQ(Connect(client, kElsewhere), 0);
  UniqueFd accepted = Accept(listeners_.outbound, Blocking::kNo);
  SendAll(client, "12345");
  ASSERT_EQ(ReceiveSome(accepted, 5), "12345");
  SendAll(accepted, "123");
  ASSERT_EQ(ReceiveSome(client, 3), "123");
  accepted = UniqueFd();
  client = UniqueFd();
  const weft_event event = node_.WaitEvent(WEFT_EVENT_CLOSE);
  EXPECT_EQ(event.reason, WEFT_R_CLOSED);
  EXPECT_EQ(event.received_bytes, 3u);
  EXPECT_EQ(event.sent_bytes, 5u);
  EXPECT_EQ(FromKernel(event.destination), kElsewhere);
}

TEST_F(CaptureTest, MptcpIsCapturedToo) {
  UniqueFd client;
  ASSERT_TRUE(InNetns(pod_.netns.get(), [&] {
                client = UniqueFd(socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP));
                return absl::OkStatus();
              }).ok());
  if (!client.ok()) GTEST_SKIP() << "this kernel has no MPTCP";
  ASSERT_EQ(Connect(client, kElsewhere), 0);
  UniqueFd accepted = Accept(listeners_.outbound, Blocking::kNo);
  EXPECT_EQ(FromKernel(Original(accepted).dst), kElsewhere);
  SendAll(client, "hello");
  EXPECT_EQ(ReceiveSome(accepted, 5), "hello");
}

TEST_F(CaptureTest, FastOpenIsCapturedToo) {
  UniqueFd client = TcpSocket(pod_, AF_INET, Blocking::kYes);
  sockaddr_storage address{};
  const socklen_t length = kElsewhere.ToSockaddr(AF_INET, &address);
  ASSERT_EQ(
      sendto(client.get(), "hello", 5, MSG_FASTOPEN, reinterpret_cast<sockaddr*>(&address), length),
      5)
      << strerror(errno);
  UniqueFd accepted = Accept(listeners_.outbound, Blocking::kNo);
  EXPECT_EQ(FromKernel(Original(accepted).dst), kElsewhere);
  EXPECT_EQ(ReceiveSome(accepted, 5), "hello");
}

TEST_F(CaptureTest, LoopbackAndOwnAddressPass) {
  UniqueFd server = Listener(pod_, 8080);
  for (const SocketAddress& to :
       {SocketAddress{*IpAddress::Parse("127.0.0.1"), 8080}, pod_.At(8080)}) {
    UniqueFd client = TcpSocket(pod_, AF_INET, Blocking::kYes);
    ASSERT_EQ(Connect(client, to), 0) << to.ToString();
    Accept(server, Blocking::kNo);
  }
  EXPECT_GE(node_.Count(WEFT_R_NOT_OURS), 2u);
}

TEST_F(CaptureTest, AnotherNetnsIsUntouched) {
  Pod& other = network_.pod(1);
  UniqueFd server = Listener(network_.pod(2), 8080);
  UniqueFd client = TcpSocket(other, AF_INET, Blocking::kYes);
  ASSERT_EQ(Connect(client, network_.pod(2).At(8080)), 0);
  Accept(server, Blocking::kNo);
  UniqueFd ours = Listener(other, WEFT_PORT_OUTBOUND);  // and may bind our ports
  EXPECT_TRUE(node_.Events().empty());
}

TEST_F(CaptureTest, RefusedWithoutAProxy) {
  node_.Enrol(pod_, 0);
  for (const Blocking blocking : {Blocking::kYes, Blocking::kNo}) {
    UniqueFd client = TcpSocket(pod_, AF_INET, blocking);
    EXPECT_EQ(Connect(client, kElsewhere), ECONNREFUSED);
  }
  EXPECT_EQ(node_.WaitEvent(WEFT_EVENT_CONNECT).reason, WEFT_R_PROXY_GONE);
  EXPECT_EQ(node_.Count(WEFT_R_PROXY_GONE), 2u);
}

TEST_F(CaptureTest, L4ServiceWithoutEndpointsIsRefused) {
  ASSERT_TRUE(node_.kernel().SetService({.id = 1, .vips = {kElsewhere}}).ok());
  UniqueFd client = TcpSocket(pod_, AF_INET, Blocking::kYes);
  EXPECT_EQ(Connect(client, kElsewhere), ECONNREFUSED);
  EXPECT_EQ(node_.WaitEvent(WEFT_EVENT_CONNECT).reason, WEFT_R_NO_ENDPOINT);
}

TEST_F(CaptureTest, RemoteBackendGoesToTheProxyAsPicked) {
  const SocketAddress remote{*IpAddress::Parse("10.99.0.5"), 6379};
  ASSERT_TRUE(
      node_.kernel().SetService({.id = 1, .vips = {kElsewhere}, .backends = {remote}}).ok());
  UniqueFd client = TcpSocket(pod_, AF_INET, Blocking::kYes);
  ASSERT_EQ(Connect(client, kElsewhere), 0);
  UniqueFd accepted = Accept(listeners_.outbound, Blocking::kNo);
  const weft_original original = Original(accepted);
  EXPECT_EQ(FromKernel(original.dst), kElsewhere);
  EXPECT_EQ(FromKernel(original.picked), remote);
  ASSERT_TRUE(node_.kernel().RemoveService(1).ok());
  EXPECT_TRUE(node_.kernel().Services().empty());
}

TEST_F(CaptureTest, AConnectionNobodyAnnouncedHasNoOriginal) {
  UniqueFd client = TcpSocket(pod_, AF_INET, Blocking::kYes);
  ASSERT_EQ(Connect(client, pod_.At(WEFT_PORT_OUTBOUND)), 0);  // own address passes
  UniqueFd accepted = Accept(listeners_.outbound, Blocking::kNo);
  weft_original original{};
  socklen_t length = sizeof original;
  EXPECT_EQ(getsockopt(accepted.get(), WEFT_SOL, WEFT_SO_ORIGINAL, &original, &length), -1);
  EXPECT_EQ(errno, ENOPROTOOPT);
}

TEST_F(CaptureTest, OnlyStampedSocketsBindOurPorts) {
  for (const uint16_t port :
       {WEFT_PORT_OUTBOUND, WEFT_PORT_INBOUND, WEFT_PORT_HBONE, WEFT_PORT_DNS}) {
    for (const int family : {AF_INET, AF_INET6}) {
      UniqueFd thief = TcpSocket(pod_, family, Blocking::kYes);
      const int one = 1;
      setsockopt(thief.get(), SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
      sockaddr_storage address{};
      IpAddress any;
      if (family == AF_INET) any = *IpAddress::Parse("0.0.0.0");
      const socklen_t length = SocketAddress{any, port}.ToSockaddr(family, &address);
      EXPECT_EQ(bind(thief.get(), reinterpret_cast<sockaddr*>(&address), length), -1) << port;
      EXPECT_EQ(errno, EPERM);
    }
  }
  const weft_event event = node_.WaitEvent(WEFT_EVENT_BIND);
  EXPECT_EQ(event.reason, WEFT_R_STAMP_MISUSE);
  EXPECT_EQ(event.pid, static_cast<uint32_t>(getpid()));
}

TEST_F(CaptureTest, StampedSocketsKeepToTheirRole) {
  Pod& other = network_.pod(1);
  UniqueFd server = Listener(other, 8080);
  UniqueFd tunnel = node_.Stamped(pod_, WEFT_ROLE_TUNNEL, AF_INET);
  EXPECT_EQ(Connect(tunnel, other.At(8080)), 0);
  UniqueFd host = node_.Stamped(pod_, WEFT_ROLE_HOST, AF_INET);
  EXPECT_EQ(Connect(host, other.At(8080)), 0);
  for (const weft_role role : {WEFT_ROLE_TO_APP, WEFT_ROLE_LISTENER}) {
    UniqueFd misused = node_.Stamped(pod_, role, AF_INET);
    EXPECT_EQ(Connect(misused, other.At(8080)), EPERM) << role;
  }
  EXPECT_EQ(node_.WaitEvent(WEFT_EVENT_CONNECT).reason, WEFT_R_STAMP_MISUSE);
  UniqueFd stale = node_.Stamped(pod_, WEFT_ROLE_TO_APP, AF_INET);
  ASSERT_TRUE(
      node_.sockets().Stamp(stale.get(), {WEFT_ROLE_TO_APP, pod_.id, kGeneration - 1}).ok());
  EXPECT_EQ(Connect(stale, pod_.At(8080)), EPERM);
}

TEST_F(CaptureTest, TheAppSeesTheClientOfAToAppSocket) {
  const SocketAddress real{*IpAddress::Parse("10.9.9.9"), 55555};
  UniqueFd server = Listener(pod_, 8080);
  UniqueFd to_app = node_.Stamped(pod_, WEFT_ROLE_TO_APP, AF_INET);
  const weft_addr client = ToKernel(real);
  ASSERT_EQ(setsockopt(to_app.get(), WEFT_SOL, WEFT_SO_CLIENT, &client, sizeof client), 0)
      << strerror(errno);
  ASSERT_EQ(Connect(to_app, pod_.At(8080)), 0);
  EXPECT_EQ(PeerName(to_app), pod_.At(8080));
  SocketAddress shown;
  UniqueFd accepted = Accept(server, Blocking::kYes, &shown);
  EXPECT_EQ(shown, real);
  EXPECT_EQ(PeerName(accepted), real);
  SendAll(to_app, "x");
  EXPECT_EQ(ReceiveSome(accepted, 1), "x");
}

TEST_F(CaptureTest, OurSocketOptionsNeedOurStamp) {
  UniqueFd plain = TcpSocket(pod_, AF_INET, Blocking::kYes);
  const weft_addr client = ToKernel(kElsewhere);
  EXPECT_EQ(setsockopt(plain.get(), WEFT_SOL, WEFT_SO_CLIENT, &client, sizeof client), -1);
  EXPECT_EQ(errno, ENOPROTOOPT);
  UniqueFd tunnel = node_.Stamped(pod_, WEFT_ROLE_TUNNEL, AF_INET);
  EXPECT_EQ(setsockopt(tunnel.get(), WEFT_SOL, WEFT_SO_CLIENT, &client, sizeof client), -1);
  EXPECT_EQ(errno, ENOPROTOOPT);
}

}  // namespace
}  // namespace weft::bpf
