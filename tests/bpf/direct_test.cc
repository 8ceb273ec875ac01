// SPDX-License-Identifier: Apache-2.0
// Between two pods of one node: direct by admission, policy, what is steered to our listeners, and
// a full hand-over map.
#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "control/bpf/address.h"
#include "tests/bpf/testbed.h"

namespace weft::bpf {
namespace {

constexpr uint16_t kPort = 8080;
const SocketAddress kVip{*IpAddress::Parse("10.96.0.10"), 80};

class DirectTest : public testing::Test {
 protected:
  void SetUp() override {
    node_.Enrol(client_pod_, WEFT_WL_PROXY_READY);
    node_.Enrol(server_pod_, WEFT_WL_PROXY_READY);
    client_listeners_ = node_.Listen(client_pod_);
    server_listeners_ = node_.Listen(server_pod_);
    server_ = Listener(server_pod_, kPort);
    node_.Events();
  }

  Network network_;
  Pod& client_pod_ = network_.pod(0);
  Pod& server_pod_ = network_.pod(1);
  Pod& outside_ = network_.pod(2);
  Node node_{"direct"};
  Node::Listeners client_listeners_, server_listeners_;
  UniqueFd server_;
};

TEST_F(DirectTest, GoesStraightToTheAppInBothFamilies) {
  for (const bool v6 : {false, true}) {
    const int family = v6 ? AF_INET6 : AF_INET;
    const SocketAddress to = v6 ? server_pod_.At6(kPort) : server_pod_.At(kPort);
    UniqueFd client = TcpSocket(client_pod_, family, Blocking::kYes);
    ASSERT_EQ(Connect(client, to, family), 0);
    SocketAddress shown;
    UniqueFd accepted = Accept(server_, Blocking::kYes, &shown);
    EXPECT_EQ(shown, SocketName(client));
    EXPECT_EQ(PeerName(accepted), SocketName(client));
    EXPECT_EQ(PeerName(client), to);
    SendAll(client, "ping");
    EXPECT_EQ(ReceiveSome(accepted, 4), "ping");
    const weft_event event = node_.WaitEvent(WEFT_EVENT_CONNECT);
    EXPECT_EQ(event.reason, WEFT_R_DIRECT);
    EXPECT_EQ(event.destination_workload, server_pod_.id);
    EXPECT_EQ(event.destination_identity, IdentityOf(server_pod_));
  }
  EXPECT_EQ(node_.Count(WEFT_R_DIRECT), 2u);
}

TEST_F(DirectTest, AVipBecomesTheLocalEndpointAndIsStillAnswered) {
  ASSERT_TRUE(node_.kernel()
                  .SetService({.id = 5, .vips = {kVip}, .backends = {server_pod_.At(kPort)}})
                  .ok());
  UniqueFd client = TcpSocket(client_pod_, AF_INET, Blocking::kNo);
  ASSERT_EQ(Connect(client, kVip), 0);
  EXPECT_EQ(PeerName(client), kVip);
  SocketAddress shown;
  UniqueFd accepted = Accept(server_, Blocking::kYes, &shown);
  EXPECT_EQ(shown, SocketName(client));
  const weft_event event = node_.WaitEvent(WEFT_EVENT_CONNECT);
  EXPECT_EQ(event.reason, WEFT_R_DIRECT);
  EXPECT_EQ(FromKernel(event.destination), kVip);
  EXPECT_EQ(FromKernel(event.picked), server_pod_.At(kPort));
}

TEST_F(DirectTest, BackendsAreAllUsedAndReplacedWithoutAHole) {
  UniqueFd second = Listener(server_pod_, kPort + 1);
  ServiceConfig service{
      .id = 5, .vips = {kVip}, .backends = {server_pod_.At(kPort), server_pod_.At(kPort + 1)}};
  ASSERT_TRUE(node_.kernel().SetService(service).ok());
  int first_count = 0;
  for (int i = 0; i < 64; ++i) {
    UniqueFd client = TcpSocket(client_pod_, AF_INET, Blocking::kYes);
    ASSERT_EQ(Connect(client, kVip), 0);
    pollfd both[] = {{server_.get(), POLLIN, 0}, {second.get(), POLLIN, 0}};
    ASSERT_EQ(poll(both, 2, 5000), 1);
    first_count += both[0].revents != 0;
    Accept(both[0].revents != 0 ? server_ : second, Blocking::kYes);
  }
  EXPECT_GT(first_count, 10);
  EXPECT_LT(first_count, 54);
  service.backends.resize(1);
  ASSERT_TRUE(node_.kernel().SetService(service).ok());
  for (int i = 0; i < 16; ++i) {
    UniqueFd client = TcpSocket(client_pod_, AF_INET, Blocking::kYes);
    ASSERT_EQ(Connect(client, kVip), 0);
    Accept(server_, Blocking::kYes);
  }
}

TEST_F(DirectTest, L7ServicesAndWorkloadsGoToTheProxy) {
  ASSERT_TRUE(
      node_.kernel()
          .SetService(
              {.id = 5, .flags = WEFT_SVC_L7, .vips = {kVip}, .backends = {server_pod_.At(kPort)}})
          .ok());
  UniqueFd by_vip = TcpSocket(client_pod_, AF_INET, Blocking::kYes);
  ASSERT_EQ(Connect(by_vip, kVip), 0);
  Accept(client_listeners_.outbound, Blocking::kNo);
  node_.Announce(server_pod_, WEFT_WL_PROXY_READY | WEFT_WL_L7_INBOUND);
  UniqueFd by_address = TcpSocket(client_pod_, AF_INET, Blocking::kYes);
  ASSERT_EQ(Connect(by_address, server_pod_.At(kPort)), 0);
  Accept(client_listeners_.outbound, Blocking::kNo);
  UniqueFd our_port = TcpSocket(client_pod_, AF_INET, Blocking::kYes);
  ASSERT_EQ(Connect(our_port, server_pod_.At(WEFT_PORT_HBONE)), 0);
  Accept(client_listeners_.outbound, Blocking::kNo);
}

TEST_F(DirectTest, DeniedByPolicyIsEpermAndSaysWhy) {
  SubjectState state;
  state[WEFT_LAYER_AUTHORIZATION] = {.says = WEFT_SAYS_ALLOW, .lengths = 1u << 16};
  node_.policy().entries[{server_pod_.id, ClassOf(client_pod_), kPort, 16, WEFT_PROTOCOL_TCP,
                          WEFT_LAYER_AUTHORIZATION}] = {.says = WEFT_SAYS_DENY, .rule = 42};
  node_.Permit(server_pod_, state);
  for (const Blocking blocking : {Blocking::kYes, Blocking::kNo}) {
    UniqueFd client = TcpSocket(client_pod_, AF_INET, blocking);
    EXPECT_EQ(Connect(client, server_pod_.At(kPort)), EPERM);
  }
  const weft_event event = node_.WaitEvent(WEFT_EVENT_CONNECT);
  EXPECT_EQ(event.reason, WEFT_R_POLICY_DENIED);
  EXPECT_EQ(event.rule, 42u);
  EXPECT_EQ(event.pid, static_cast<uint32_t>(getpid()));
  EXPECT_STREQ(reinterpret_cast<const char*>(event.comm), "bpf_direct_test");
  EXPECT_EQ(event.source_identity, IdentityOf(client_pod_));
  EXPECT_EQ(event.destination_identity, IdentityOf(server_pod_));
  EXPECT_EQ(FromKernel(event.destination), server_pod_.At(kPort));
  EXPECT_EQ(FromKernel(event.source).ip, client_pod_.v4);
  EXPECT_TRUE(NothingToAccept(server_, 0));
}

TEST_F(DirectTest, DefaultDenyNeedsAnAllow) {
  SubjectState state;
  state[WEFT_LAYER_AUTHORIZATION] = {.says = WEFT_SAYS_DENY, .rule = 7, .lengths = 1u << 0};
  node_.Permit(server_pod_, state);
  UniqueFd denied = TcpSocket(client_pod_, AF_INET, Blocking::kYes);
  EXPECT_EQ(Connect(denied, server_pod_.At(kPort)), EPERM);
  const weft_event event = node_.WaitEvent(WEFT_EVENT_CONNECT);
  EXPECT_EQ(event.reason, WEFT_R_POLICY_DEFAULT_DENIED);
  EXPECT_EQ(event.rule, 7u);
  node_.policy().entries[{server_pod_.id, ClassOf(client_pod_), 0, 0, WEFT_PROTOCOL_TCP,
                          WEFT_LAYER_AUTHORIZATION}] = {.says = WEFT_SAYS_ALLOW, .rule = 1};
  node_.Apply();
  UniqueFd allowed = TcpSocket(client_pod_, AF_INET, Blocking::kYes);
  EXPECT_EQ(Connect(allowed, server_pod_.At(kPort)), 0);
  Accept(server_, Blocking::kYes);
}

TEST_F(DirectTest, WithoutAnAdmissionItIsSteeredToThePlaintextListener) {
  // A pod that avoids the connect hook (a raw socket, a nested netns) looks like one that is not
  // enrolled.
  UniqueFd forged = TcpSocket(outside_, AF_INET, Blocking::kYes);
  ASSERT_EQ(Connect(forged, server_pod_.At(kPort)), 0);
  UniqueFd accepted = Accept(server_listeners_.inbound, Blocking::kNo);
  EXPECT_EQ(SocketName(accepted), server_pod_.At(kPort));  // the destination is intact
  EXPECT_EQ(PeerName(accepted), SocketName(forged));
  EXPECT_TRUE(NothingToAccept(server_, 0));
  EXPECT_EQ(node_.Count(WEFT_R_NOT_ADMITTED), 1u);
}

TEST_F(DirectTest, AKnownPodWithoutAnAdmissionIsReported) {
  node_.Announce(outside_, 0);
  UniqueFd forged = TcpSocket(outside_, AF_INET6, Blocking::kYes);
  ASSERT_EQ(Connect(forged, server_pod_.At6(kPort), AF_INET6), 0);
  Accept(server_listeners_.inbound, Blocking::kNo);
  const weft_event event = node_.WaitEvent(WEFT_EVENT_ACCEPT);
  EXPECT_EQ(event.reason, WEFT_R_NOT_ADMITTED);
  EXPECT_EQ(event.source_workload, outside_.id);
  EXPECT_EQ(FromKernel(event.destination), server_pod_.At6(kPort));
}

TEST_F(DirectTest, HboneReachesOurListenerAndOtherPortsOfOursNobody) {
  UniqueFd tunnel = TcpSocket(outside_, AF_INET, Blocking::kYes);
  ASSERT_EQ(Connect(tunnel, server_pod_.At(WEFT_PORT_HBONE)), 0);
  Accept(server_listeners_.hbone, Blocking::kNo);
  UniqueFd out = TcpSocket(outside_, AF_INET, Blocking::kNo);
  sockaddr_storage address{};
  const socklen_t length = server_pod_.At(WEFT_PORT_OUTBOUND).ToSockaddr(AF_INET, &address);
  EXPECT_EQ(connect(out.get(), reinterpret_cast<sockaddr*>(&address), length), -1);
  EXPECT_EQ(errno, EINPROGRESS);
  node_.WaitEvent(WEFT_EVENT_ACCEPT);
  EXPECT_TRUE(NothingToAccept(server_listeners_.outbound, 0));
}

TEST_F(DirectTest, WithoutListenersNothingFromOutsideComesIn) {
  server_listeners_ = {};
  UniqueFd out = TcpSocket(outside_, AF_INET, Blocking::kNo);
  sockaddr_storage address{};
  const socklen_t length = server_pod_.At(kPort).ToSockaddr(AF_INET, &address);
  EXPECT_EQ(connect(out.get(), reinterpret_cast<sockaddr*>(&address), length), -1);
  EXPECT_EQ(node_.WaitEvent(WEFT_EVENT_ACCEPT).reason, WEFT_R_PROXY_GONE);
  EXPECT_TRUE(NothingToAccept(server_, 0));
}

TEST_F(DirectTest, ReleasedWorkloadsAreLeftAlone) {
  ASSERT_TRUE(node_.kernel().DetachWorkload(server_pod_.cookie).ok());
  ASSERT_TRUE(node_.kernel().DetachWorkload(server_pod_.cookie).ok());
  EXPECT_EQ(node_.kernel().Workloads().size(), 1u);
  UniqueFd client = TcpSocket(outside_, AF_INET, Blocking::kYes);
  ASSERT_EQ(Connect(client, server_pod_.At(kPort)), 0);
  Accept(server_, Blocking::kYes);
}

TEST(HandoverMap, FullRefusesAndClosedConnectionsGiveBack) {
  constexpr int kRoom = 8;
  Network network;
  Node node("full", [](KernelConfig& config) { config.sizes.handovers = kRoom; });
  Pod& client_pod = network.pod(0);
  Pod& server_pod = network.pod(1);
  node.Enrol(client_pod, WEFT_WL_PROXY_READY);
  node.Enrol(server_pod, WEFT_WL_PROXY_READY);
  Ip(server_pod.netns, "link set eth0 down\n");  // SYNs are not answered, so nothing is taken
  sockaddr_storage address{};
  const socklen_t length = server_pod.At(kPort).ToSockaddr(AF_INET, &address);
  std::vector<UniqueFd> waiting;
  for (int i = 0; i < kRoom; ++i) {
    waiting.push_back(TcpSocket(client_pod, AF_INET, Blocking::kNo));
    EXPECT_EQ(connect(waiting.back().get(), reinterpret_cast<sockaddr*>(&address), length), -1);
    ASSERT_EQ(errno, EINPROGRESS);
  }
  node.Events();
  UniqueFd refused = TcpSocket(client_pod, AF_INET, Blocking::kNo);
  EXPECT_EQ(connect(refused.get(), reinterpret_cast<sockaddr*>(&address), length), -1);
  EXPECT_EQ(errno, EHOSTUNREACH);
  EXPECT_EQ(node.Count(WEFT_R_MAP_FULL), 1u);
  bool reported = false;
  for (const weft_event& event : node.Events()) {
    reported |= event.reason == WEFT_R_MAP_FULL && event.pid == static_cast<uint32_t>(getpid());
  }
  EXPECT_TRUE(reported);
  waiting.clear();  // the connecting sockets close: their hand-overs go
  Ip(server_pod.netns, "link set eth0 up\n");
  UniqueFd server = Listener(server_pod, kPort);
  // The same socket may try again, and another one succeeds too.
  EXPECT_EQ(Connect(refused, server_pod.At(kPort)), 0);
  UniqueFd other = TcpSocket(client_pod, AF_INET, Blocking::kYes);
  EXPECT_EQ(Connect(other, server_pod.At(kPort)), 0);
}

// Between the verdict and the SYN: the race is run until it is won.
TEST_F(DirectTest, ADestinationThatLeavesDuringTheConnectIsNoFullMap) {
  std::atomic<bool> done = false;
  std::thread leaves([&] {
    while (!done) {
      EXPECT_TRUE(node_.kernel().RemovePeer(server_pod_.v4).ok());
      node_.Announce(server_pod_, WEFT_WL_PROXY_READY);
    }
  });
  sockaddr_storage address{};
  const socklen_t length = server_pod_.At(kPort).ToSockaddr(AF_INET, &address);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  int refused = 0;
  while (refused == 0 && std::chrono::steady_clock::now() < deadline) {
    const UniqueFd client = TcpSocket(client_pod_, AF_INET, Blocking::kNo);
    const int result = connect(client.get(), reinterpret_cast<sockaddr*>(&address), length);
    refused += result != 0 && errno == EHOSTUNREACH;
  }
  done = true;
  leaves.join();
  EXPECT_EQ(refused, 1);
  EXPECT_EQ(node_.Count(WEFT_R_WORKLOAD_GONE), 1u);
  EXPECT_EQ(node_.Count(WEFT_R_MAP_FULL), 0u);
}

}  // namespace
}  // namespace weft::bpf
