// SPDX-License-Identifier: Apache-2.0
// A running pod comes under the mesh, its agent restarts, it leaves: connections that are open go
// on. And what the guard costs.
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <thread>

#include "control/bpf/pins.h"
#include "tests/bpf/guard_bed.h"

namespace weft::bpf {
namespace {

constexpr uint16_t kPort = 8080;

struct Open {
  UniqueFd client, server;
  void Exchange() const {
    SendAll(client, "ping");
    EXPECT_EQ(ReceiveSome(server, 4), "ping");
    SendAll(server, "pong");
    EXPECT_EQ(ReceiveSome(client, 4), "pong");
  }
};

Open Connection(const Pod& from, const SocketAddress& to, const UniqueFd& listener) {
  const int family = to.ip.is_v4() ? AF_INET : AF_INET6;
  Open open{TcpSocket(from, family, Blocking::kNo), UniqueFd()};
  EXPECT_EQ(Connect(open.client, to, family), 0);
  open.server = Accept(listener, Blocking::kNo);
  return open;
}

class LifeTest : public testing::Test {
 protected:
  Network network_;
  Pod& a_ = network_.pod(0);
  Pod& b_ = network_.pod(1);
  Pod& outside_ = network_.pod(2);
  Node node_{"glife"};
};

TEST_F(LifeTest, OpenConnectionsGoOnThroughEnrolmentAndRelease) {
  UniqueFd in_a = Listener(a_, kPort), in_b = Listener(b_, kPort),
           in_outside = Listener(outside_, kPort);
  std::vector<Open> open;
  open.push_back(Connection(a_, b_.At(kPort), in_b));
  open.push_back(Connection(a_, b_.At6(kPort), in_b));
  open.push_back(Connection(a_, outside_.At(kPort), in_outside));
  open.push_back(Connection(outside_, a_.At(kPort), in_a));
  open.push_back(Connection(a_, a_.At(kPort), in_a));
  for (const Open& each : open) each.Exchange();
  node_.Enrol(a_, WEFT_WL_PROXY_READY);
  for (const Open& each : open) each.Exchange();
  node_.Enrol(b_, WEFT_WL_PROXY_READY);
  for (const Open& each : open) each.Exchange();
  const Open direct = Connection(a_, b_.At(kPort), in_b);  // under the mesh
  direct.Exchange();
  EXPECT_EQ(node_.Count(WEFT_R_UNSTAMPED), 0u);
  ASSERT_TRUE(node_.kernel().DetachWorkload(a_.cookie).ok());
  for (const Open& each : open) each.Exchange();
  direct.Exchange();
  ASSERT_TRUE(node_.kernel().DetachWorkload(b_.cookie).ok());
  for (const Open& each : open) each.Exchange();
  direct.Exchange();
  // And under it again, with a new generation: what was stamped then counts no longer.
  WorkloadConfig again{.id = a_.id, .generation = kGeneration + 1, .ipv4 = a_.v4, .ipv6 = a_.v6};
  ASSERT_TRUE(node_.kernel().AttachWorkload(a_.netns.get(), again).ok());
  auto guard = node_.kernel().GuardWorkload(a_.cookie, a_.host_netns);
  ASSERT_TRUE(guard.ok()) << guard.status();
  EXPECT_GT(guard->stamped, 0u);
  for (const Open& each : open) each.Exchange();
  direct.Exchange();
  EXPECT_EQ(node_.Count(WEFT_R_UNSTAMPED), 0u);
}

// Sockets that were neither open nor closed: a SYN that waits for its listener's answer, and a
// connection that nobody has accepted.
TEST_F(LifeTest, ConnectionsInTheMakingGoOnToo) {
  UniqueFd in_a = Listener(a_, kPort);
  UniqueFd waiting = TcpSocket(outside_, AF_INET, Blocking::kNo);
  ASSERT_EQ(Connect(waiting, a_.At(kPort)), 0);
  SendAll(waiting, "early");
  // Nobody answers for that address until it appears outside.
  const IpAddress late = *IpAddress::Parse("10.77.0.50");
  UniqueFd in_outside = Listener(outside_, kPort);
  UniqueFd connecting = TcpSocket(a_, AF_INET, Blocking::kNo);
  sockaddr_storage address{};
  const socklen_t length = SocketAddress{late, kPort}.ToSockaddr(AF_INET, &address);
  ASSERT_EQ(connect(connecting.get(), reinterpret_cast<sockaddr*>(&address), length), -1);
  ASSERT_EQ(errno, EINPROGRESS);
  node_.Enrol(a_, WEFT_WL_PROXY_READY);
  UniqueFd accepted = Accept(in_a, Blocking::kNo);
  EXPECT_EQ(ReceiveSome(accepted, 5), "early");
  SendAll(accepted, "late");
  EXPECT_EQ(ReceiveSome(waiting, 4), "late");
  Ip(outside_.netns, "addr add " + late.ToString() + "/24 dev eth0\n");
  ASSERT_TRUE(WaitFor(connecting, POLLOUT));
  Open open{std::move(connecting), Accept(in_outside, Blocking::kNo)};
  open.Exchange();
}

// Policy is asked for them as for others: by the side that connected.
TEST_F(LifeTest, PolicyCutsOpenConnectionsOfBefore) {
  UniqueFd in_a = Listener(a_, kPort), in_outside = Listener(outside_, kPort);
  const Open out = Connection(a_, outside_.At(kPort), in_outside);
  const Open in = Connection(outside_, a_.At(kPort), in_a);
  node_.Enrol(a_, WEFT_WL_PROXY_READY);
  SubjectState state{};
  state[WEFT_LAYER_EGRESS] = {.says = WEFT_SAYS_DENY, .rule = 3};
  node_.Permit(a_, state);
  auto cut = node_.kernel().CutDenied({a_.id});
  ASSERT_TRUE(cut.ok()) << cut.status();
  EXPECT_EQ(cut->destroyed, 1u);
  char byte = 0;
  ASSERT_TRUE(WaitFor(out.server, POLLIN));
  EXPECT_EQ(recv(out.server.get(), &byte, 1, 0), -1);
  EXPECT_EQ(errno, ECONNRESET);
  in.Exchange();
  state = {};
  state[WEFT_LAYER_INGRESS] = {.says = WEFT_SAYS_DENY, .rule = 3};
  node_.Permit(a_, state);
  cut = node_.kernel().CutDenied({a_.id});
  ASSERT_TRUE(cut.ok()) << cut.status();
  EXPECT_EQ(cut->destroyed, 1u);
  ASSERT_TRUE(WaitFor(in.client, POLLIN));
  EXPECT_EQ(recv(in.client.get(), &byte, 1, 0), -1);
  EXPECT_EQ(errno, ECONNRESET);
}

// What a pod does with itself is nobody's affair, also over a listener of before its enrolment.
TEST_F(LifeTest, PolicyCutsNothingThatStaysInside) {
  UniqueFd in_a = Listener(a_, kPort);
  node_.Enrol(a_, WEFT_WL_PROXY_READY);
  std::vector<Open> open;
  open.push_back(Connection(a_, a_.At(kPort), in_a));
  open.push_back(Connection(a_, a_.At6(kPort), in_a));
  open.push_back(Connection(a_, {*IpAddress::Parse("127.0.0.1"), kPort}, in_a));
  open.push_back(Connection(a_, {*IpAddress::Parse("::1"), kPort}, in_a));
  SubjectState state{};
  state[WEFT_LAYER_EGRESS] = {.says = WEFT_SAYS_DENY, .rule = 3};
  state[WEFT_LAYER_INGRESS] = {.says = WEFT_SAYS_DENY, .rule = 3};
  state[WEFT_LAYER_AUTHORIZATION] = {.says = WEFT_SAYS_DENY, .rule = 3};
  node_.Permit(a_, state);
  const auto cut = node_.kernel().CutDenied({a_.id});
  ASSERT_TRUE(cut.ok()) << cut.status();
  EXPECT_EQ(cut->destroyed, 0u);
  for (const Open& each : open) each.Exchange();
}

// The pinned links outlive their agent, and the next one takes them over without a gap.
TEST(GuardLife, SurvivesItsAgent) {
  Network network;
  Pod& pod = network.pod(0);
  Pod& outside = network.pod(2);
  Node node("gadopt");
  node.Enrol(pod, WEFT_WL_PROXY_READY);
  Observer observer(outside);
  const Bytes canary(40, 'K');
  const Bytes frame = FrameFrom(MacOf(pod), 0x0800,
                                Ip4(pod.v4, outside.v4, IPPROTO_TCP, Tcp(1, 2, kAck, 0) + canary));
  std::atomic<uint64_t> sent = 0;
  const std::jthread attacker([&](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      SendFrame(pod, frame);
      ++sent;
    }
  });
  const auto wait_for_more_than = [&](uint64_t frames) {
    for (int j = 0; j < 500 && sent <= frames; ++j) poll(nullptr, 0, 10);
    EXPECT_GT(sent, frames) << "nothing was sent";
  };
  const auto links = [&] {
    std::vector<std::string> all;
    const std::string folder = node.config().bpffs_root + "/weft/" + node.config().node + "/links";
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      all.push_back(entry.path().filename());
    }
    std::ranges::sort(all);
    return all;
  };
  const std::vector<std::string> before = links();
  for (int i = 0; i < 3; ++i) {
    const uint64_t sent_before = sent;
    auto next = Kernel::Open(node.config());
    ASSERT_TRUE(next.ok()) << next.status();
    EXPECT_TRUE((*next)->adopted());
    WorkloadConfig config{.id = pod.id,
                          .generation = kGeneration,
                          .identity = IdentityOf(pod),
                          .flags = WEFT_WL_PROXY_READY,
                          .ipv4 = pod.v4,
                          .ipv6 = pod.v6};
    ASSERT_TRUE((*next)->AttachWorkload(pod.netns.get(), config).ok());
    auto guard = (*next)->GuardWorkload(pod.cookie, pod.host_netns);
    ASSERT_TRUE(guard.ok()) << guard.status();
    EXPECT_EQ(links(), before);
    wait_for_more_than(sent_before);
  }
  wait_for_more_than(sent);
  EXPECT_FALSE(observer.Saw(canary));
}

// Bytes a second over one connection in about that time.
double Throughput(const Open& open, std::chrono::milliseconds time) {
  const std::string block(64 << 10, 'b');
  uint64_t received = 0;
  std::atomic<bool> stop = false;
  std::thread reader([&] {
    std::string into(256 << 10, '\0');
    while (!stop) {
      const ssize_t got = recv(open.server.get(), into.data(), into.size(), 0);
      if (got > 0) received += static_cast<uint64_t>(got);
      if (got < 0 && errno == EAGAIN) WaitFor(open.server, POLLIN);
    }
  });
  const auto start = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() - start < time) SendAll(open.client, block);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  stop = true;
  SendAll(open.client, "end");
  reader.join();
  return static_cast<double>(received) / took.count();
}

// The same connection with and without its two ends' guards, in turns. Printed; what is asserted is
// far from what is measured, because other work on the machine is not the guard's.
TEST_F(LifeTest, CostOfTheGuard) {
  node_.Enrol(a_, WEFT_WL_PROXY_READY);
  node_.Enrol(b_, WEFT_WL_PROXY_READY);
  UniqueFd in_b = Listener(b_, kPort);
  const Open open = Connection(a_, b_.At(kPort), in_b);
  const std::string folder = node_.config().bpffs_root + "/weft/" + node_.config().node + "/links";
  const auto unguard = [&] {
    std::vector<std::string> pins;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      if (entry.path().filename().string().rfind("guard_", 0) == 0) pins.push_back(entry.path());
    }
    EXPECT_EQ(pins.size(), 4u);
    for (const std::string& pin : pins) EXPECT_TRUE(RemoveLink(pin).ok());
  };
  const auto guard = [&] {
    for (const Pod* pod : {&a_, &b_}) {
      EXPECT_TRUE(node_.kernel().GuardWorkload(pod->cookie, pod->host_netns).ok());
    }
  };
  std::vector<double> ratios;
  for (int round = 0; round < 15; ++round) {
    const double with = Throughput(open, std::chrono::milliseconds(100));
    unguard();
    const double without = Throughput(open, std::chrono::milliseconds(100));
    guard();
    ratios.push_back(with / without);
  }
  std::ranges::sort(ratios);
  printf("direct TCP over veth, guarded / unguarded: median %.3f, lowest %.3f, highest %.3f\n",
         ratios[ratios.size() / 2], ratios.front(), ratios.back());
  EXPECT_GT(ratios[ratios.size() / 2], 0.8);
}

}  // namespace
}  // namespace weft::bpf
