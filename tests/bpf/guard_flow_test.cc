// SPDX-License-Identifier: Apache-2.0
// UDP, ICMP and others under network policy at the guards: both directions, answers, fragments,
// errors, and a change of policy for a flow that lives.
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <netinet/in.h>
#include <poll.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "bpf/guard.h"
#include "tests/bpf/guard_bed.h"

namespace weft::bpf {
namespace {

constexpr uint16_t kPort = 5300;
constexpr int kShortMs = 200;  // nothing comes

class FlowTest : public testing::Test {
 protected:
  void SetUp() override {
    node_.Enrol(a_, WEFT_WL_PROXY_READY);
    node_.Enrol(b_, WEFT_WL_PROXY_READY);
    // Neighbours are known before policy says anything: a test waits for packets, not for ND.
    ASSERT_TRUE(Ping(a_, b_.v4) && Ping(a_, b_.v6) && Ping(b_, a_.v4) && Ping(a_, outside_.v4));
    node_.Events();
  }
  // Nothing in that direction but what is allowed below.
  void DenyByDefault(const Pod& pod, weft_layer layer) {
    SubjectState state = node_.policy().subjects[pod.id];
    state[layer] = {.says = WEFT_SAYS_DENY, .rule = 9, .lengths = 1u << 16 | 1u};
    node_.Permit(pod, state);
  }
  void AllowEverything(const Pod& pod) { node_.Permit(pod, SubjectState{}); }
  void AllowPort(const Pod& pod, weft_layer layer, uint32_t whom, uint16_t port,
                 weft_protocol protocol) {
    const uint8_t length = port == 0 ? 0 : 16;
    node_.policy().entries[{pod.id, whom, port, length, static_cast<uint8_t>(protocol),
                            static_cast<uint32_t>(layer)}] = {WEFT_SAYS_ALLOW, 5, 0};
    node_.Apply();
  }
  // One datagram there, one back.
  bool Talks(const Pod& from, const SocketAddress& to, const UniqueFd& server) {
    const IpAddress& own = to.ip.is_v4() ? from.v4 : from.v6;
    const UniqueFd client = UdpSocket(from, {own, 0});
    SocketAddress asker;
    EXPECT_EQ(SendTo(client, to, "question"), 0);
    if (ReceiveFrom(server, &asker, kShortMs) != "question") return false;
    EXPECT_EQ(SendTo(server, asker, "answer"), 0);
    return ReceiveFrom(client, nullptr, kShortMs) == "answer";
  }

  Network network_;
  Pod& a_ = network_.pod(0);
  Pod& b_ = network_.pod(1);
  Pod& outside_ = network_.pod(2);
  // The next event of a guard that tells of policy; none within 5 s: of kind 0. What else it drops
  // meanwhile, as a late packet of neighbour discovery while a pod comes up, is shown.
  weft_event Denied() {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (std::chrono::steady_clock::now() < end) {
      for (const weft_event& event : node_.Events()) {
        if (event.kind != WEFT_EVENT_GUARD) continue;
        if (event.reason == WEFT_R_POLICY_DEFAULT_DENIED || event.reason == WEFT_R_POLICY_DENIED) {
          return event;
        }
        printf("dropped beside: reason %u, protocol %u, workloads %u -> %u\n", event.reason,
               event.protocol, event.source_workload, event.destination_workload);
      }
      pollfd waiting{node_.kernel().events_fd(), POLLIN, 0};
      poll(&waiting, 1, 100);
    }
    return {};
  }

  Node node_{"flow"};
};

TEST_F(FlowTest, WithoutPolicyEverybodyTalks) {
  for (const bool v6 : {false, true}) {
    const SocketAddress at = v6 ? b_.At6(kPort) : b_.At(kPort);
    const UniqueFd server = UdpSocket(b_, at);
    EXPECT_TRUE(Talks(a_, at, server));
    EXPECT_TRUE(Talks(outside_, at, server));
    EXPECT_TRUE(Ping(outside_, at.ip));
    EXPECT_TRUE(Ping(b_, v6 ? outside_.v6 : outside_.v4));
  }
}

TEST_F(FlowTest, EgressIsAskedAtTheSender) {
  const UniqueFd server = UdpSocket(b_, b_.At(kPort));
  const UniqueFd other = UdpSocket(b_, b_.At(kPort + 1));
  DenyByDefault(a_, WEFT_LAYER_EGRESS);
  EXPECT_FALSE(Talks(a_, b_.At(kPort), server));
  const weft_event event = Denied();
  EXPECT_EQ(event.reason, WEFT_R_POLICY_DEFAULT_DENIED);
  EXPECT_EQ(event.rule, 9u);
  EXPECT_EQ(event.protocol, static_cast<uint32_t>(IPPROTO_UDP));
  EXPECT_EQ(event.source_workload, a_.id);
  EXPECT_FALSE(Ping(a_, b_.v4, kShortMs));
  EXPECT_TRUE(Talks(outside_, b_.At(kPort), server));
  AllowPort(a_, WEFT_LAYER_EGRESS, ClassOf(b_), kPort, WEFT_PROTOCOL_UDP);
  EXPECT_TRUE(Talks(a_, b_.At(kPort), server));
  EXPECT_FALSE(Talks(a_, b_.At(kPort + 1), other));
  AllowPort(a_, WEFT_LAYER_EGRESS, WEFT_CLASS_ANY, 0, WEFT_PROTOCOL_OTHER);
  EXPECT_TRUE(Ping(a_, b_.v4));
  EXPECT_TRUE(Ping(a_, outside_.v4));
}

TEST_F(FlowTest, IngressIsAskedAtTheReceiver) {
  const UniqueFd server = UdpSocket(b_, b_.At(kPort));
  DenyByDefault(b_, WEFT_LAYER_INGRESS);
  EXPECT_FALSE(Talks(a_, b_.At(kPort), server));
  EXPECT_EQ(Denied().destination_workload, b_.id);
  EXPECT_FALSE(Talks(outside_, b_.At(kPort), server));
  EXPECT_FALSE(Ping(a_, b_.v4, kShortMs));
  EXPECT_FALSE(Ping(outside_, b_.v6, kShortMs));
  AllowPort(b_, WEFT_LAYER_INGRESS, ClassOf(a_), kPort, WEFT_PROTOCOL_UDP);
  EXPECT_TRUE(Talks(a_, b_.At(kPort), server));
  EXPECT_FALSE(Talks(outside_, b_.At(kPort), server));
  AllowPort(b_, WEFT_LAYER_INGRESS, WEFT_CLASS_ANY, 0, WEFT_PROTOCOL_OTHER);
  EXPECT_TRUE(Ping(outside_, b_.v4));
}

// Answers need no permission of their own; questions of the other side do.
TEST_F(FlowTest, AnswersPassAndNothingElseDoes) {
  DenyByDefault(a_, WEFT_LAYER_INGRESS);
  const UniqueFd server = UdpSocket(outside_, outside_.At(kPort));
  EXPECT_TRUE(Talks(a_, outside_.At(kPort), server));
  EXPECT_TRUE(Ping(a_, outside_.v4));
  EXPECT_TRUE(Ping(a_, outside_.v6));
  EXPECT_FALSE(Ping(outside_, a_.v4, kShortMs));
  const UniqueFd asked = UdpSocket(a_, a_.At(kPort));
  EXPECT_FALSE(Talks(outside_, a_.At(kPort), asked));
}

TEST_F(FlowTest, AChangeOfPolicyMeetsALiveFlow) {
  const UniqueFd server = UdpSocket(b_, b_.At(kPort));
  const UniqueFd client = UdpSocket(a_, a_.At(4000));
  const auto passes = [&] {
    EXPECT_EQ(SendTo(client, b_.At(kPort), "x"), 0);
    return ReceiveFrom(server, nullptr, kShortMs) == "x";
  };
  EXPECT_TRUE(passes());
  DenyByDefault(a_, WEFT_LAYER_EGRESS);  // in force when it returns
  EXPECT_FALSE(passes());
  EXPECT_FALSE(passes());
  AllowEverything(a_);
  EXPECT_TRUE(passes());
  DenyByDefault(b_, WEFT_LAYER_INGRESS);
  EXPECT_FALSE(passes());
  AllowEverything(b_);
  EXPECT_TRUE(passes());
  // The answers of a flow that its beginner may no longer have end, too.
  DenyByDefault(a_, WEFT_LAYER_EGRESS);
  DenyByDefault(a_, WEFT_LAYER_INGRESS);
  EXPECT_EQ(SendTo(server, a_.At(4000), "late"), 0);
  EXPECT_EQ(ReceiveFrom(client, nullptr, kShortMs), "");
}

TEST_F(FlowTest, FragmentsFollowTheFirst) {
  const std::string large(20000, 'f');
  for (const bool v6 : {false, true}) {
    const SocketAddress at = v6 ? b_.At6(kPort) : b_.At(kPort);
    const UniqueFd server = UdpSocket(b_, at);
    const UniqueFd client = UdpSocket(a_, v6 ? a_.At6(4000) : a_.At(4000));
    EXPECT_EQ(SendTo(client, at, large), 0);
    EXPECT_EQ(ReceiveFrom(server).size(), large.size());
    DenyByDefault(b_, WEFT_LAYER_INGRESS);
    EXPECT_EQ(SendTo(client, at, large), 0);
    EXPECT_EQ(ReceiveFrom(server, nullptr, kShortMs), "");
    AllowEverything(b_);
  }
}

// Fragments without a first one that policy has seen.
TEST_F(FlowTest, LooseFragmentsAreDropped) {
  Observer observer(b_);
  const Bytes mac = MacOf(a_);
  SendFrame(a_,
            FrameFrom(mac, 0x0800,
                      Ip4(a_.v4, b_.v4, IPPROTO_UDP, Bytes(64, 'L'), {.id = 999, .fragment = 3})));
  EXPECT_EQ(node_.WaitEvent(WEFT_EVENT_GUARD).reason, WEFT_R_BAD_PACKET);
  EXPECT_FALSE(observer.Saw(Bytes(64, 'L')));
}

// "Port unreachable" belongs to the flow that it is about, though ICMP as such is denied.
TEST_F(FlowTest, ErrorsBelongToTheirFlow) {
  DenyByDefault(a_, WEFT_LAYER_INGRESS);
  DenyByDefault(b_, WEFT_LAYER_EGRESS);
  for (const bool v6 : {false, true}) {
    const SocketAddress at = v6 ? b_.At6(kPort) : b_.At(kPort);
    const UniqueFd client = UdpSocket(a_, v6 ? a_.At6(4000) : a_.At(4000));
    ASSERT_EQ(Connect(client, at, v6 ? AF_INET6 : AF_INET), 0);
    ASSERT_EQ(send(client.get(), "x", 1, 0), 1);
    char byte = 0;
    ASSERT_TRUE(WaitFor(client, POLLIN));
    EXPECT_EQ(recv(client.get(), &byte, 1, MSG_DONTWAIT), -1);
    EXPECT_EQ(errno, ECONNREFUSED);
  }
}

// An error about TCP is no way out for bytes.
TEST_F(FlowTest, AnErrorCarriesNothingOut) {
  DenyByDefault(a_, WEFT_LAYER_EGRESS);
  Observer observer(outside_);
  const Bytes cargo(64, 'C');
  for (const uint8_t protocol : {IPPROTO_TCP, IPPROTO_UDP}) {
    const uint64_t before = node_.Count(WEFT_R_POLICY_DEFAULT_DENIED);
    const Bytes quoted = Ip4(outside_.v4, a_.v4, protocol, Tcp(1, 2, kAck, 0) + cargo);
    SendFrame(a_, FrameFrom(MacOf(a_), 0x0800,
                            Ip4(a_.v4, outside_.v4, IPPROTO_ICMP, Icmp(3, 3, quoted))));
    const UniqueFd fence = UdpSocket(a_, a_.At(0));
    EXPECT_EQ(SendTo(fence, outside_.At(1), "x"), 0);
    for (int i = 0; i < 100 && node_.Count(WEFT_R_POLICY_DEFAULT_DENIED) < before + 2; ++i) {
      NothingToAccept(fence, 20);  // polls a counter
    }
    EXPECT_EQ(node_.Count(WEFT_R_POLICY_DEFAULT_DENIED), before + 2);
  }
  EXPECT_FALSE(observer.Saw(cargo));
}

// One about an allowed flow goes to that flow's other end, not to whom the pod likes.
TEST_F(FlowTest, AnErrorGoesToWhomItIsAbout) {
  DenyByDefault(a_, WEFT_LAYER_EGRESS);
  AllowPort(a_, WEFT_LAYER_EGRESS, ClassOf(b_), kPort, WEFT_PROTOCOL_UDP);
  const UniqueFd server = UdpSocket(b_, b_.At(kPort));
  const UniqueFd client = UdpSocket(a_, a_.At(4000));
  ASSERT_EQ(SendTo(client, b_.At(kPort), "x"), 0);
  ASSERT_EQ(ReceiveFrom(server), "x");
  const Bytes cargo(64, 'E');
  const Bytes about = Ip4(b_.v4, a_.v4, IPPROTO_UDP, bpf::Udp(kPort, 4000, cargo));
  const auto error_to = [&](const IpAddress& whom) {
    SendFrame(a_, FrameFrom(MacOf(a_), 0x0800, Ip4(a_.v4, whom, IPPROTO_ICMP, Icmp(3, 3, about))));
  };
  Observer at_b(b_), at_outside(outside_);
  error_to(b_.v4);
  EXPECT_TRUE(at_b.WaitFor(cargo));
  const uint64_t before = node_.Count(WEFT_R_POLICY_DEFAULT_DENIED);
  at_outside.Forget();
  error_to(outside_.v4);
  for (int i = 0; i < 250 && node_.Count(WEFT_R_POLICY_DEFAULT_DENIED) == before; ++i) {
    poll(nullptr, 0, 20);  // polls a counter
  }
  EXPECT_GT(node_.Count(WEFT_R_POLICY_DEFAULT_DENIED), before);
  EXPECT_FALSE(at_outside.Saw(cargo));
}

// What a pod may not do takes no room from the flows of others.
TEST_F(FlowTest, DeniedFlowsAreKeptWithMeasure) {
  const UniqueFd flows(bpf_obj_get(
      (node_.config().bpffs_root + "/weft/" + node_.config().node + "/maps/weft_flows").c_str()));
  const auto denied = [&] {
    int count = 0;
    weft_flow_key key{};
    for (weft_flow_key* last = nullptr; bpf_map_get_next_key(flows.get(), last, &key) == 0;
         last = &key) {
      weft_flow_state state{};
      if (bpf_map_lookup_elem(flows.get(), &key, &state) == 0) count += state.denied;
    }
    return count;
  };
  constexpr int kFlows = 3000;
  DenyByDefault(a_, WEFT_LAYER_EGRESS);
  const UniqueFd client = UdpSocket(a_, a_.At(4000));
  const uint64_t before = node_.Count(WEFT_R_POLICY_DEFAULT_DENIED);
  const auto start = std::chrono::steady_clock::now();
  for (int i = 1; i <= kFlows; ++i) {
    ASSERT_EQ(SendTo(client, b_.At(static_cast<uint16_t>(i)), "x"), 0);
  }
  for (int i = 0; i < 250 && node_.Count(WEFT_R_POLICY_DEFAULT_DENIED) < before + kFlows; ++i) {
    poll(nullptr, 0, 20);  // polls a counter
  }
  EXPECT_GE(node_.Count(WEFT_R_POLICY_DEFAULT_DENIED), before + kFlows);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  const double most = WEFT_GUARD_DENIALS * (took.count() + 2);
  EXPECT_LE(denied(), most);
  EXPECT_GT(denied(), 0);
  EXPECT_LT(most, kFlows) << "too slow to tell";
}

// Tunnels and other protocols are packets of a protocol without ports.
TEST_F(FlowTest, OtherProtocolsAreUnderPolicy) {
  Observer observer(outside_);
  const Bytes cargo(64, 'G');
  for (const uint8_t protocol : {47 /* GRE */, 4 /* IPIP */, 132 /* SCTP */, 136 /* UDP-Lite */}) {
    const Bytes frame =
        FrameFrom(MacOf(a_), 0x0800, Ip4(a_.v4, outside_.v4, protocol, Bytes(8, 0) + cargo));
    observer.Forget();
    AllowEverything(a_);
    SendFrame(a_, frame);
    EXPECT_TRUE(observer.WaitFor(cargo)) << int{protocol};
    observer.Forget();
    DenyByDefault(a_, WEFT_LAYER_EGRESS);
    const uint64_t before = node_.Count(WEFT_R_POLICY_DEFAULT_DENIED);
    SendFrame(a_, frame);
    for (int i = 0; i < 100 && node_.Count(WEFT_R_POLICY_DEFAULT_DENIED) == before; ++i) {
      poll(nullptr, 0, 20);  // polls a counter
    }
    EXPECT_GT(node_.Count(WEFT_R_POLICY_DEFAULT_DENIED), before) << int{protocol};
    EXPECT_FALSE(observer.Saw(cargo)) << int{protocol};
  }
}

// Enrolled, but the control plane has not spoken yet.
TEST_F(FlowTest, WithoutASubjectNothingPasses) {
  const UniqueFd server = UdpSocket(b_, b_.At(kPort));
  node_.policy().subjects.erase(a_.id);
  node_.Apply();
  EXPECT_FALSE(Talks(a_, b_.At(kPort), server));
}

}  // namespace
}  // namespace weft::bpf
