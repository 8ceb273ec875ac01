// SPDX-License-Identifier: Apache-2.0
// Every verdict of the balancer, by both entry points: a packet in, a verdict and a packet out
// (BPF_PROG_TEST_RUN). One balancer is loaded for all tests; each starts without VIPs and flows.
#include <bpf/bpf.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <cerrno>
#include <map>

#include "control/bpf/balancer.h"
#include "tests/bpf/balancer/packet.h"

namespace weft::bpf {
namespace {

constexpr uint8_t kTcp = 6, kUdp = 17, kIcmp = 1, kIcmp6 = 58;
const MacAddress kHop{2, 0, 0, 0, 0, 9};

IpAddress A(std::string_view text) { return IpAddress::Parse(text).value(); }
const IpAddress kVip4 = A("192.0.2.1"), kVip6 = A("2001:db8::1");
const IpAddress kClient4 = A("198.51.100.7"), kClient6 = A("2001:db8:7::7");
const IpAddress kNode4 = A("10.0.0.1"), kNode6 = A("fd00::1");

enum Verdict { kPass, kDrop, kSent };

struct Result {
  Verdict verdict;
  Bytes frame;
};

std::unique_ptr<Balancer> balancer;  // of the whole program: loading takes seconds

class Packets : public testing::TestWithParam<BalancerHook> {
 protected:
  static void SetUpTestSuite() {
    if (balancer) return;
    cpu_set_t cpus;  // flows are known to one CPU
    CPU_ZERO(&cpus);
    CPU_SET(0, &cpus);
    ASSERT_EQ(sched_setaffinity(0, sizeof cpus, &cpus), 0);
    BalancerConfig config;
    config.source4 = kNode4;
    config.source6 = kNode6;
    config.flow4_bits = 6;
    config.flow6_bits = 6;
    config.ring_chunks = 64;
    absl::StatusOr<std::unique_ptr<Balancer>> loaded = Balancer::Load(config);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    balancer = std::move(*loaded);
  }
  void SetUp() override {
    ASSERT_TRUE(balancer);
    balancer->ForgetFlows();
    before_ = balancer->Counters();
  }
  void TearDown() override {
    for (const auto& [address, protocol] : set_) {
      EXPECT_TRUE(balancer->RemoveVip(address, protocol).ok());
    }
    balancer->SetMtu(1500);
  }

  static BalancerBackend Backend(std::string_view address) {
    BalancerBackend backend;
    backend.address = A(address);
    backend.next_hop = kHop;
    return backend;
  }
  void Set(const BalancerVip& vip) {
    const absl::Status status = balancer->SetVip(vip);
    ASSERT_TRUE(status.ok()) << status;
    set_[vip.address] = vip.protocol;
  }
  void Set(const IpAddress& vip, std::vector<BalancerBackend> backends, uint8_t protocol = kTcp) {
    Set(BalancerVip{.address = {vip, 80}, .protocol = protocol, .backends = std::move(backends)});
  }
  Result Run(const Bytes& in, unsigned gso_size = 0) {
    Bytes out(8192);
    __sk_buff context{};
    context.gso_size = gso_size;
    context.gso_segs = gso_size == 0 ? 0 : 2;
    bpf_test_run_opts options{};
    options.sz = sizeof options;
    options.data_in = in.data();
    options.data_size_in = static_cast<uint32_t>(in.size());
    options.data_out = out.data();
    options.data_size_out = static_cast<uint32_t>(out.size());
    if (gso_size != 0) {
      options.ctx_in = &context;
      options.ctx_size_in = sizeof context;
    }
    EXPECT_EQ(bpf_prog_test_run_opts(balancer->ProgramFd(GetParam()), &options), 0)
        << strerror(errno);
    out.resize(options.data_size_out);
    const std::map<uint32_t, Verdict> verdicts =
        GetParam() == BalancerHook::kTc
            ? std::map<uint32_t, Verdict>{{0, kPass}, {2, kDrop}, {7, kSent}}
            : std::map<uint32_t, Verdict>{{2, kPass}, {1, kDrop}, {3, kSent}};
    EXPECT_TRUE(verdicts.contains(options.retval)) << options.retval;
    return {verdicts.contains(options.retval) ? verdicts.at(options.retval) : kDrop, out};
  }
  // Sends a packet and says where to, by the outer destination; "" if it was not sent.
  std::string Destination(const Bytes& packet) {
    const Result result = Run(Frame(packet));
    if (result.verdict != kSent) return "";
    return OuterDestination(result.frame);
  }
  static std::string OuterDestination(const Bytes& frame) {
    const Bytes address = frame.at(14) >> 4 == 4 ? Cut(frame, 30, 4) : Cut(frame, 38, 16);
    return IpAddress::FromBytes(address)->ToString();
  }
  uint64_t Count(weft_lb_reason reason) { return balancer->Counters()[reason] - before_[reason]; }

 private:
  std::array<uint64_t, WEFT_LB_REASON_MAX> before_{};
  std::map<SocketAddress, uint8_t> set_;
};

INSTANTIATE_TEST_SUITE_P(Hooks, Packets,
                         testing::Values(BalancerHook::kTc, BalancerHook::kXdpGeneric),
                         [](const auto& hook) {
                           return hook.param == BalancerHook::kTc ? "tc" : "xdp";
                         });

Bytes Syn4(unsigned port = 1000) { return Ip4(kClient4, kVip4, kTcp, Tcp(port, 80, kSyn)); }
Bytes Ack4(unsigned port = 1000) { return Ip4(kClient4, kVip4, kTcp, Tcp(port, 80, kAck)); }

// What an encapsulated frame must be, field by field.
void CheckOuter(const Bytes& frame, const BalancerBackend& backend, const Bytes& inner,
                unsigned tos) {
  const bool v6 = !backend.address.is_v4();
  const bool gue = backend.encapsulation == Encapsulation::kGue;
  EXPECT_EQ(Cut(frame, 0, 6), Bytes(kHop.begin(), kHop.end()));
  EXPECT_EQ(Cut(frame, 6, 6), kOwnMac);
  EXPECT_EQ(Get16(frame, 12), v6 ? 0x86ddu : 0x0800u);
  const Bytes outer = Cut(frame, 14, v6 ? 40 : 20);
  const size_t after = inner.size() + (gue ? 8 : 0);
  const unsigned protocol = gue ? 17 : inner[0] >> 4 == 4 ? 4 : 41;
  if (v6) {
    EXPECT_EQ(outer[0] >> 4, 6);
    EXPECT_EQ((Get16(outer, 0) >> 4) & 0xff, tos);
    EXPECT_EQ(Get16(outer, 4), after);
    EXPECT_EQ(outer[6], protocol);
    EXPECT_EQ(outer[7], 64);
    EXPECT_EQ(Cut(outer, 8, 16), AddressBytes(kNode6));
    EXPECT_EQ(Cut(outer, 24, 16), AddressBytes(backend.address));
  } else {
    EXPECT_EQ(outer[0], 0x45);
    EXPECT_EQ(outer[1], tos);
    EXPECT_EQ(Get16(outer, 2), after + 20);
    EXPECT_EQ(Get16(outer, 6), 0x4000u);
    EXPECT_EQ(outer[8], 64);
    EXPECT_EQ(outer[9], protocol);
    EXPECT_EQ(Sum(outer), 0xffffu);
    EXPECT_EQ(Cut(outer, 12, 4), AddressBytes(kNode4));
    EXPECT_EQ(Cut(outer, 16, 4), AddressBytes(backend.address));
  }
  Bytes rest = Cut(frame, 14 + outer.size());
  if (gue) {
    EXPECT_GE(Get16(rest, 0), 0xc000u);
    EXPECT_EQ(Get16(rest, 2), backend.gue_port);
    EXPECT_EQ(Get16(rest, 4), after);
    EXPECT_EQ(Get16(rest, 6), 0u);
    rest = Cut(rest, 8);
  }
  EXPECT_EQ(rest, inner);
}

TEST_P(Packets, EncapsulatesEveryFamilyInEveryOther) {
  for (const IpAddress& vip : {kVip4, kVip6}) {
    for (const char* address : {"10.1.0.1", "fd00:1::1"}) {
      for (const Encapsulation encapsulation : {Encapsulation::kIpip, Encapsulation::kGue}) {
        for (const uint8_t protocol : {kTcp, kUdp}) {
          SCOPED_TRACE(vip.ToString() + " to " + address + (protocol == kTcp ? " tcp" : " udp") +
                       (encapsulation == Encapsulation::kGue ? " gue" : " ipip"));
          BalancerBackend backend = Backend(address);
          backend.encapsulation = encapsulation;
          backend.gue_port = 6081;
          Set(vip, {backend}, protocol);
          const Bytes l4 = protocol == kTcp ? Tcp(1000, 80, kSyn, 33) : Udp(1000, 80, Bytes(33));
          const Bytes inner = vip.is_v4() ? Ip4(kClient4, vip, protocol, l4, {.tos = 0xb9})
                                          : Ip6(kClient6, vip, protocol, l4, 0xb9);
          const Result result = Run(Frame(inner));
          ASSERT_EQ(result.verdict, kSent);
          CheckOuter(result.frame, backend, inner, 0xb9);
          const weft_lb_traffic traffic = balancer->Traffic({vip, 80}, protocol);
          EXPECT_GE(traffic.packets, 1u);
          ASSERT_TRUE(balancer->RemoveVip({vip, 80}, protocol).ok());
        }
      }
    }
  }
}

TEST_P(Packets, PassesWhatIsNotForAVip) {
  Set(kVip4, {Backend("10.1.0.1")});
  Set(kVip6, {Backend("10.1.0.1")});
  struct Case {
    const char* name;
    Bytes frame;
    weft_lb_reason reason;  // NONE: not counted
  };
  Bytes bad_version = Syn4();
  bad_version[0] = 0x65;
  Bytes short_header = Syn4();
  short_header[0] = 0x44;
  Bytes long_header = Ip4(kClient4, kVip4, kTcp, Bytes(8));
  long_header[0] = 0x4f;
  Bytes too_long = Syn4();
  Put16(too_long, 2, 200);
  Bytes too_long6 = Ip6(kClient6, kVip6, kTcp, Tcp(1, 80, kSyn));
  Put16(too_long6, 4, 200);
  Bytes bad_version6 = Ip6(kClient6, kVip6, kTcp, Tcp(1, 80, kSyn));
  Bytes frame6 = Frame(bad_version6);
  frame6[14] = 0x45;
  const std::vector<Case> cases = {
      {"ARP", kOwnMac + kRouterMac + Bytes{8, 6} + Bytes(28), WEFT_LB_PASS_NOT_IP},
      {"VLAN", kOwnMac + kRouterMac + Bytes{0x81, 0, 0, 5, 8, 0} + Syn4(), WEFT_LB_PASS_NOT_IP},
      {"another address", Frame(Ip4(kClient4, A("192.0.2.2"), kTcp, Tcp(1, 80, kSyn))),
       WEFT_LB_NONE},
      {"another port", Frame(Ip4(kClient4, kVip4, kTcp, Tcp(1, 81, kSyn))), WEFT_LB_NONE},
      {"another protocol's port", Frame(Ip4(kClient4, kVip4, kUdp, Udp(1, 80, {}))), WEFT_LB_NONE},
      {"another IPv6 address", Frame(Ip6(kClient6, A("2001:db8::2"), kTcp, Tcp(1, 80, kSyn))),
       WEFT_LB_NONE},
      {"ESP", Frame(Ip4(kClient4, kVip4, 50, Bytes(40))), WEFT_LB_PASS_PROTOCOL},
      {"ESP to another", Frame(Ip4(kClient4, kClient4, 50, Bytes(40))), WEFT_LB_PASS_NOT_VIP},
      {"ping", Frame(Ip4(kClient4, kVip4, kIcmp, Icmp(8, 0, Bytes(40)))), WEFT_LB_PASS_PROTOCOL},
      {"ping6", Frame(Ip6(kClient6, kVip6, kIcmp6, Icmp(128, 0, Bytes(40)))),
       WEFT_LB_PASS_PROTOCOL},
      {"ICMP cut short", Frame(Ip4(kClient4, kVip4, kIcmp, Bytes{3, 4})), WEFT_LB_PASS_PROTOCOL},
      {"first fragment to another",
       Frame(Ip4(kClient4, kClient4, kUdp, Udp(1, 80, Bytes(64)), {.fragment = 0x2000})),
       WEFT_LB_PASS_NOT_VIP},
      {"first fragment to another port",
       Frame(Ip4(kClient4, kVip4, kUdp, Udp(1, 81, Bytes(64)), {.fragment = 0x2000})),
       WEFT_LB_PASS_NOT_VIP},
      {"later fragment to another",
       Frame(Ip4(kClient4, kClient4, kUdp, Bytes(64), {.fragment = 0x0008})), WEFT_LB_PASS_NOT_VIP},
      {"truncated, to another", Frame(Ip4(kClient4, kClient4, kTcp, Bytes(8))),
       WEFT_LB_PASS_NOT_VIP},
      {"version 6 in an IPv4 frame", kOwnMac + kRouterMac + Bytes{8, 0} + bad_version,
       WEFT_LB_PASS_MALFORMED},
      {"version 4 in an IPv6 frame", frame6, WEFT_LB_PASS_MALFORMED},
      {"header of 16 bytes", Frame(short_header), WEFT_LB_PASS_MALFORMED},
      {"header longer than the packet", Frame(long_header), WEFT_LB_PASS_MALFORMED},
      {"longer than the frame", Frame(too_long), WEFT_LB_PASS_MALFORMED},
      {"IPv6 longer than the frame", Frame(too_long6), WEFT_LB_PASS_MALFORMED},
      {"half an IPv4 header", kOwnMac + kRouterMac + Bytes{8, 0} + Cut(Syn4(), 0, 12),
       WEFT_LB_PASS_MALFORMED},
      {"half an IPv6 header", kOwnMac + kRouterMac + Bytes{0x86, 0xdd} + Bytes{0x60} + Bytes(30),
       WEFT_LB_PASS_MALFORMED},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    // The kernel makes no skb of half a header.
    if (GetParam() == BalancerHook::kTc && std::string_view(c.name).starts_with("half")) continue;
    const uint64_t before = Count(c.reason);
    const Result result = Run(c.frame);
    EXPECT_EQ(result.verdict, kPass);
    EXPECT_EQ(result.frame, c.frame);
    EXPECT_EQ(Count(c.reason), before + (c.reason != WEFT_LB_NONE));
  }
}

TEST_P(Packets, DropsWhatIsForAVipAndCutShort) {
  for (const uint8_t protocol : {kTcp, kUdp}) Set(kVip4, {Backend("10.1.0.1")}, protocol);
  Set(kVip6, {Backend("10.1.0.1")});
  const Bytes whole = Tcp(1, 80, kSyn, 0);
  uint64_t dropped = 0;
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_EQ(Run(Frame(Ip4(kClient4, kVip4, kTcp, Cut(whole, 0, size)))).verdict, kDrop) << size;
    EXPECT_EQ(Run(Frame(Ip6(kClient6, kVip6, kTcp, Cut(whole, 0, size)))).verdict, kDrop) << size;
    dropped += 2;
  }
  for (size_t size = 0; size < 8; ++size) {
    EXPECT_EQ(Run(Frame(Ip4(kClient4, kVip4, kUdp, Cut(Udp(1, 80, {}), 0, size)))).verdict, kDrop);
    ++dropped;
  }
  // Bytes behind what the IP header counts are no part of the packet.
  EXPECT_EQ(Run(Frame(Ip4(kClient4, kVip4, kTcp, Cut(whole, 0, 10))) + Bytes(20)).verdict, kDrop);
  // An extension header that says it is longer than the packet; a packet that ends inside one.
  EXPECT_EQ(Run(Frame(Ip6(kClient6, kVip6, 60, Bytes{6, 200} + Bytes(30)))).verdict, kDrop);
  EXPECT_EQ(Run(Frame(Ip6(kClient6, kVip6, 60, Bytes{6, 0, 0, 0}))).verdict, kDrop);
  EXPECT_EQ(Count(WEFT_LB_DROP_TRUNCATED), dropped + 3);
}

TEST_P(Packets, ReadsOptionsAndExtensionHeaders) {
  Set(kVip4, {Backend("10.1.0.1")});
  Set(kVip6, {Backend("10.1.0.1")});
  const Bytes syn = Tcp(1, 80, kSyn);
  for (size_t size = 4; size <= 40; size += 4) {
    EXPECT_EQ(Destination(Ip4(kClient4, kVip4, kTcp, syn, {.options = Bytes(size, 1)})),
              "10.1.0.1");
  }
  const auto option = [](uint8_t next, uint8_t words = 0) {
    return Bytes{next, words} + Bytes(6u + words * 8u);
  };
  EXPECT_EQ(Destination(Ip6(kClient6, kVip6, 0, option(6) + syn)), "10.1.0.1");
  EXPECT_EQ(Destination(Ip6(kClient6, kVip6, 0, option(60) + option(43, 2) + option(6, 1) + syn)),
            "10.1.0.1");
  // An atomic fragment is a whole packet.
  EXPECT_EQ(Destination(Ip6(kClient6, kVip6, 44, Bytes{6, 0, 0, 0, 1, 2, 3, 4} + syn)), "10.1.0.1");
  // A fifth header is not looked into: no TCP is known to be there.
  const Bytes five = option(60) + option(60) + option(60) + option(60) + option(6) + syn;
  EXPECT_EQ(Run(Frame(Ip6(kClient6, kVip6, 0, five))).verdict, kPass);
}

TEST_P(Packets, DropsWithoutABackend) {
  Set(kVip4, {});
  EXPECT_EQ(Run(Frame(Syn4())).verdict, kDrop);
  BalancerBackend draining = Backend("10.1.0.1");
  draining.draining = true;
  Set(kVip4, {draining});
  EXPECT_EQ(Run(Frame(Syn4())).verdict, kDrop);
  EXPECT_EQ(Count(WEFT_LB_DROP_NO_BACKEND), 2u);
  EXPECT_EQ(balancer->Traffic({kVip4, 80}, kTcp).refused, 2u);
}

TEST_P(Packets, SendsFragmentsAfterTheirFirst) {
  Set(kVip4, {Backend("10.1.0.1"), Backend("10.1.0.2"), Backend("10.1.0.3")}, kUdp);
  Set(BalancerVip{.address = {kVip6, 80},
                  .protocol = kUdp,
                  .backends = {Backend("10.1.0.1"), Backend("10.1.0.2")}});
  for (unsigned id = 1; id <= 20; ++id) {
    const Bytes first =
        Ip4(kClient4, kVip4, kUdp, Udp(1000 + id, 80, Bytes(64)), {.id = id, .fragment = 0x2000});
    const Bytes middle = Ip4(kClient4, kVip4, kUdp, Bytes(64), {.id = id, .fragment = 0x2009});
    const Bytes last = Ip4(kClient4, kVip4, kUdp, Bytes(9), {.id = id, .fragment = 0x0011});
    EXPECT_EQ(Run(Frame(last)).verdict, kDrop) << "before the first";
    const std::string backend = Destination(first);
    EXPECT_EQ(backend, Destination(Ip4(kClient4, kVip4, kUdp, Udp(1000 + id, 80, Bytes(4)))));
    EXPECT_EQ(Destination(middle), backend);
    EXPECT_EQ(Destination(last), backend);
    const Bytes header{17, 0, 0, 1, 9, 9, 9, static_cast<uint8_t>(id)};
    const Bytes later{17, 0, 0, 72, 9, 9, 9, static_cast<uint8_t>(id)};
    EXPECT_EQ(Run(Frame(Ip6(kClient6, kVip6, 44, later + Bytes(64)))).verdict, kDrop);
    const std::string backend6 =
        Destination(Ip6(kClient6, kVip6, 44, header + Udp(1000 + id, 80, Bytes(64))));
    EXPECT_NE(backend6, "");
    EXPECT_EQ(Destination(Ip6(kClient6, kVip6, 44, later + Bytes(64))), backend6);
  }
  EXPECT_EQ(Count(WEFT_LB_DROP_FRAGMENT), 40u);
  EXPECT_EQ(Count(WEFT_LB_FRAGMENT_DELIVERED), 100u);
  // Of another sender with the same id: another datagram.
  EXPECT_EQ(
      Run(Frame(Ip4(A("198.51.100.8"), kVip4, kUdp, Bytes(64), {.id = 1, .fragment = 8}))).verdict,
      kDrop);
  // Its backend is gone.
  Set(kVip4, {}, kUdp);
  EXPECT_EQ(Run(Frame(Ip4(kClient4, kVip4, kUdp, Bytes(64), {.id = 20, .fragment = 9}))).verdict,
            kDrop);
}

// What a backend sent to the client, which a router could not deliver.
Bytes Sent4(uint8_t protocol, unsigned to_port) {
  return Ip4(kVip4, kClient4, protocol,
             protocol == kTcp ? Tcp(80, to_port, kAck, 0) : Udp(80, to_port, {}));
}

TEST_P(Packets, DeliversIcmpErrorsToTheBackendOfTheFlow) {
  const IpAddress router = A("203.0.113.1");
  const BalancerBackend old = Backend("10.1.0.1");
  Set(kVip4, {old});
  EXPECT_EQ(Destination(Syn4()), "10.1.0.1");
  EXPECT_EQ(Destination(Ack4()), "10.1.0.1");
  BalancerBackend draining = old;
  draining.draining = true;
  Set(kVip4, {draining, Backend("10.1.0.2")});
  for (const uint8_t type : {3, 11, 12}) {
    // Of a tracked flow; of one that is not: by the ring. The inner packet may have options.
    EXPECT_EQ(Destination(Ip4(router, kVip4, kIcmp, Icmp(type, 4, Sent4(kTcp, 1000)))), "10.1.0.1");
    EXPECT_EQ(Destination(Ip4(router, kVip4, kIcmp, Icmp(type, 4, Sent4(kTcp, 1001)))), "10.1.0.2");
    EXPECT_EQ(Destination(Ip4(router, kVip4, kIcmp,
                              Icmp(type, 1,
                                   Ip4(kVip4, kClient4, kTcp, Tcp(80, 1000, kAck, 0),
                                       {.options = Bytes(12, 1)})))),
              "10.1.0.1");
  }
  EXPECT_EQ(Count(WEFT_LB_ICMP_DELIVERED), 9u);
  // Quoted as little as RFC 792 allows.
  EXPECT_EQ(Destination(Ip4(router, kVip4, kIcmp, Icmp(3, 4, Cut(Sent4(kTcp, 1000), 0, 28)))),
            "10.1.0.1");

  Set(kVip6, {old});
  const Bytes sent6 = Ip6(kVip6, kClient6, kTcp, Tcp(80, 1000, kAck));
  EXPECT_EQ(Destination(Ip6(kClient6, kVip6, kTcp, Tcp(1000, 80, kSyn))), "10.1.0.1");
  EXPECT_EQ(Destination(Ip6(kClient6, kVip6, kTcp, Tcp(1000, 80, kAck))), "10.1.0.1");
  Set(kVip6, {draining, Backend("10.1.0.2")});
  for (const uint8_t type : {1, 2, 3, 4}) {
    EXPECT_EQ(Destination(Ip6(A("fd99::1"), kVip6, kIcmp6, Icmp(type, 0, sent6))), "10.1.0.1");
  }
}

TEST_P(Packets, DropsIcmpErrorsAboutNothingOfOurs) {
  Set(kVip4, {Backend("10.1.0.1")});
  Set(kVip6, {Backend("10.1.0.1")});
  Bytes fragment = Ip4(kVip4, kClient4, kTcp, Tcp(80, 1000, kAck), {.fragment = 8});
  Bytes version = Sent4(kTcp, 1000);
  version[0] = 0x65;
  Bytes header = Sent4(kTcp, 1000);
  header[0] = 0x43;
  const std::vector<std::pair<const char*, Bytes>> cases = {
      {"nothing", {}},
      {"half a header", Cut(Sent4(kTcp, 1000), 0, 12)},
      {"no ports", Cut(Sent4(kTcp, 1000), 0, 22)},
      {"another version", version},
      {"a header of 12 bytes", header},
      {"a later fragment", fragment},
      {"another protocol", Ip4(kVip4, kClient4, 47, Bytes(20))},
      {"another port", Ip4(kVip4, kClient4, kTcp, Tcp(81, 1000, kAck))},
      {"UDP, where TCP is the VIP", Sent4(kUdp, 1000)},
      {"from somebody else", Ip4(A("192.0.2.9"), kClient4, kTcp, Tcp(80, 1000, kAck))},
  };
  for (const auto& [name, about] : cases) {
    EXPECT_EQ(Run(Frame(Ip4(kClient4, kVip4, kIcmp, Icmp(3, 4, about)))).verdict, kDrop) << name;
  }
  EXPECT_EQ(Count(WEFT_LB_DROP_ICMP), cases.size());
  EXPECT_EQ(Run(Frame(Ip6(kClient6, kVip6, kIcmp6, Icmp(2, 0, Bytes(39))))).verdict, kDrop);
  EXPECT_EQ(
      Run(Frame(Ip6(kClient6, kVip6, kIcmp6, Icmp(2, 0, Sent4(kTcp, 1) + Bytes(40))))).verdict,
      kDrop);
  Set(kVip4, {});
  EXPECT_EQ(Run(Frame(Ip4(kClient4, kVip4, kIcmp, Icmp(3, 4, Sent4(kTcp, 1))))).verdict, kDrop);
}

TEST_P(Packets, AnswersWhatWouldNotFitAfterEncapsulation) {
  Set(kVip4, {Backend("10.1.0.1")});
  Set(kVip6, {Backend("fd00:1::1")});
  const Bytes fits = Ip4(kClient4, kVip4, kTcp, Tcp(1000, 80, kAck, 1440));
  ASSERT_EQ(fits.size(), 1480u);
  EXPECT_EQ(Destination(fits), "10.1.0.1");
  for (const unsigned fragment : {0x4000u, 0u}) {
    const Bytes big = Ip4(kClient4, kVip4, kTcp, Tcp(1000, 80, kAck, 1441), {.fragment = fragment});
    const Result answer = Run(Frame(big));
    ASSERT_EQ(answer.verdict, kSent);
    EXPECT_EQ(Cut(answer.frame, 0, 14), kRouterMac + kOwnMac + Bytes({8, 0}));
    const Bytes ip = Cut(answer.frame, 14, 20), icmp = Cut(answer.frame, 34);
    EXPECT_EQ(Sum(ip), 0xffffu);
    EXPECT_EQ(Get16(ip, 2), answer.frame.size() - 14);
    EXPECT_EQ(ip[9], kIcmp);
    EXPECT_EQ(Cut(ip, 12, 8), AddressBytes(kVip4) + AddressBytes(kClient4));
    EXPECT_EQ(Sum(icmp), 0xffffu);
    EXPECT_EQ(Cut(icmp, 0, 2), (Bytes{3, 4}));
    EXPECT_EQ(Get16(icmp, 6), 1480u);
    EXPECT_EQ(Cut(icmp, 8), Cut(big, 0, 128));
  }
  EXPECT_EQ(Destination(Ip6(kClient6, kVip6, kTcp, Tcp(1000, 80, kAck, 1400))), "fd00:1::1");
  const Bytes big6 = Ip6(kClient6, kVip6, kTcp, Tcp(1000, 80, kAck, 1401));
  const Result answer = Run(Frame(big6));
  ASSERT_EQ(answer.verdict, kSent);
  const Bytes ip = Cut(answer.frame, 14, 40), icmp = Cut(answer.frame, 54);
  EXPECT_EQ(Get16(ip, 4), icmp.size());
  EXPECT_EQ(Cut(ip, 8), AddressBytes(kVip6) + AddressBytes(kClient6));
  EXPECT_EQ(Sum(Cut(ip, 8) + icmp, static_cast<unsigned>(icmp.size()) + kIcmp6), 0xffffu);
  EXPECT_EQ(Cut(icmp, 0, 2), (Bytes{2, 0}));
  EXPECT_EQ(Get16(icmp, 6), 1460u);
  EXPECT_EQ(Cut(icmp, 8), Cut(big6, 0, 400));
  EXPECT_EQ(Count(WEFT_LB_TOO_BIG_ANSWERED), 3u);
  // The uplink's MTU may change.
  balancer->SetMtu(1600);
  EXPECT_EQ(Destination(big6), "fd00:1::1");
}

TEST_P(Packets, TakesMergedSegmentsForWhatTheyAreOnTheWire) {
  if (GetParam() != BalancerHook::kTc) GTEST_SKIP() << "XDP is before merging";
  Set(kVip4, {Backend("10.1.0.1")});
  const Bytes merged = Ip4(kClient4, kVip4, kTcp, Tcp(1000, 80, kAck, 2880));
  // It fits: no answer. A test run cannot say that it is TCP's merging, without which the kernel
  // refuses to encapsulate it (tests/bpf/balancer/path_test.cc sends real ones).
  EXPECT_EQ(Run(Frame(merged), 1440).verdict, kDrop);
  EXPECT_EQ(Count(WEFT_LB_DROP_ENCAP), 1u);
  const Result answer = Run(Frame(merged), 1441);
  EXPECT_EQ(answer.verdict, kSent);
  EXPECT_EQ(answer.frame.size(), 14u + 28 + 128);
}

TEST_P(Packets, AsksTheKernelForAnUnknownNextHop) {
  BalancerBackend backend = Backend("10.1.0.1");
  backend.next_hop.reset();
  BalancerBackend backend6 = Backend("fd00:1::1");
  backend6.next_hop.reset();
  Set(kVip4, {backend});
  Set(kVip6, {backend6});
  const Verdict wanted = GetParam() == BalancerHook::kTc ? kSent : kDrop;
  // tc leaves it to the redirect; XDP asks now, and in a test run there is no route.
  EXPECT_EQ(Run(Frame(Syn4())).verdict, wanted);
  EXPECT_EQ(Run(Frame(Ip6(kClient6, kVip6, kTcp, Tcp(1, 80, kSyn)))).verdict, wanted);
  EXPECT_EQ(Count(WEFT_LB_DROP_NO_ROUTE), wanted == kDrop ? 2u : 0u);
}

TEST_P(Packets, DrainingKeepsFlowsAndGoneMovesThem) {
  for (const IpAddress& vip : {kVip4, kVip6}) {
    const IpAddress client = vip.is_v4() ? kClient4 : kClient6;
    const auto packet = [&](unsigned port, uint8_t flags) {
      return Ip(client, vip, kTcp, Tcp(port, 80, flags));
    };
    BalancerBackend old = Backend("10.1.0.1");
    Set(vip, {old});
    for (unsigned port = 1; port <= 3; ++port) {
      EXPECT_EQ(Destination(packet(port, kSyn)), "10.1.0.1");
      if (port == 3) continue;
      EXPECT_EQ(Destination(packet(port, kAck)), "10.1.0.1");
    }
    old.draining = true;
    Set(vip, {old, Backend("10.1.0.2")});
    EXPECT_EQ(Destination(packet(1, kAck)), "10.1.0.1") << "established";
    EXPECT_EQ(Destination(packet(1, kSyn)), "10.1.0.1") << "a SYN within it may be forged";
    EXPECT_EQ(Destination(packet(3, kSyn)), "10.1.0.2") << "not established";
    EXPECT_EQ(Destination(packet(9, kSyn)), "10.1.0.2") << "new";
    EXPECT_EQ(Destination(packet(9, kAck)), "10.1.0.2");
    EXPECT_EQ(Destination(packet(2, kFin)), "10.1.0.1");
    EXPECT_EQ(Destination(packet(2, kAck)), "10.1.0.1") << "half closed";
    EXPECT_EQ(Destination(packet(2, kSyn)), "10.1.0.2") << "the port is used again";
    EXPECT_EQ(Destination(packet(1, kRst)), "10.1.0.1");
    EXPECT_EQ(Destination(packet(1, kSyn)), "10.1.0.2") << "after RST";
    Set(vip, {Backend("10.1.0.3")});
    EXPECT_EQ(Destination(packet(9, kAck)), "10.1.0.3") << "its backend is gone";
  }
  EXPECT_EQ(Count(WEFT_LB_FLOW_MOVED), 8u);
}

// Flows are per CPU; what spreads packets may change its mind.
TEST_P(Packets, AFlowThatComesToAnotherCpuKeepsItsBackend) {
  const auto on_cpu = [](int cpu) {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(cpu, &cpus);
    return sched_setaffinity(0, sizeof cpus, &cpus) == 0;
  };
  for (const IpAddress& vip : {kVip4, kVip6}) {
    const IpAddress client = vip.is_v4() ? kClient4 : kClient6;
    const auto packet = [&](unsigned port, uint8_t flags) {
      return Ip(client, vip, kTcp, Tcp(port, 80, flags));
    };
    BalancerBackend old = Backend("10.1.0.1");
    Set(vip, {old});
    EXPECT_EQ(Destination(packet(1, kSyn)), "10.1.0.1");
    EXPECT_EQ(Destination(packet(1, kAck)), "10.1.0.1");
    old.draining = true;
    Set(vip, {old, Backend("10.1.0.2")});
    if (!on_cpu(1)) GTEST_SKIP() << "one CPU";
    EXPECT_EQ(Destination(packet(2, kAck)), "10.1.0.2") << "nobody knows it";
    EXPECT_EQ(Destination(packet(1, kSyn)), "10.1.0.2") << "a new one";
    ASSERT_TRUE(on_cpu(0));
    EXPECT_EQ(Destination(packet(3, kSyn)), "10.1.0.2");
    EXPECT_EQ(Destination(packet(1, kAck)), "10.1.0.1");
  }
  balancer->ForgetFlows();
  BalancerBackend old = Backend("10.1.0.1");
  Set(kVip4, {old});
  EXPECT_EQ(Destination(Syn4()), "10.1.0.1");
  EXPECT_EQ(Destination(Ack4()), "10.1.0.1");
  old.draining = true;
  Set(kVip4, {old, Backend("10.1.0.2")});
  ASSERT_TRUE(on_cpu(1));
  EXPECT_EQ(Destination(Ack4()), "10.1.0.1") << "adopted from CPU 0";
  EXPECT_EQ(Destination(Ack4()), "10.1.0.1");
  EXPECT_EQ(balancer->Flows(), 2u);
  ASSERT_TRUE(on_cpu(0));
}

TEST_P(Packets, UdpFlowsStayWithTheirBackend) {
  Set(kVip4, {Backend("10.1.0.1")}, kUdp);
  const Bytes packet = Ip4(kClient4, kVip4, kUdp, Udp(1000, 80, Bytes(20)));
  EXPECT_EQ(Destination(packet), "10.1.0.1");
  BalancerBackend draining = Backend("10.1.0.1");
  draining.draining = true;
  Set(kVip4, {draining, Backend("10.1.0.2")}, kUdp);
  EXPECT_EQ(Destination(packet), "10.1.0.1");
  EXPECT_EQ(Destination(Ip4(kClient4, kVip4, kUdp, Udp(1001, 80, Bytes(20)))), "10.1.0.2");
}

TEST_P(Packets, NoFloodOfSynsEvictsAnEstablishedFlow) {
  // 64 buckets of 5: 320 places.
  const BalancerBackend old = Backend("10.1.0.1");
  for (const IpAddress& vip : {kVip4, kVip6}) {
    balancer->ForgetFlows();
    const IpAddress client = vip.is_v4() ? kClient4 : kClient6;
    const auto packet = [&](unsigned port, uint8_t flags) {
      return Ip(client, vip, kTcp, Tcp(port, 80, flags));
    };
    Set(vip, {old});
    for (unsigned port = 1; port <= 20; ++port) {
      EXPECT_EQ(Destination(packet(port, kSyn)), "10.1.0.1");
      EXPECT_EQ(Destination(packet(port, kAck)), "10.1.0.1");
    }
    BalancerBackend draining = old;
    draining.draining = true;
    Set(vip, {draining, Backend("10.1.0.2")});
    for (unsigned port = 100; port < 3100; ++port) {
      EXPECT_EQ(Destination(packet(port, kSyn)), "10.1.0.2");
    }
    for (unsigned port = 1; port <= 20; ++port) {
      EXPECT_EQ(Destination(packet(port, kAck)), "10.1.0.1") << port;
    }
  }
}

TEST_P(Packets, AFullBucketLeavesFlowsToTheRing) {
  Set(kVip4, {Backend("10.1.0.1"), Backend("10.1.0.2")});
  std::map<unsigned, std::string> backends;
  for (unsigned port = 1; port <= 1600; ++port) {
    backends[port] = Destination(Syn4(port));
    EXPECT_EQ(Destination(Ack4(port)), backends[port]);
    EXPECT_EQ(Destination(Ack4(port)), backends[port]);
  }
  EXPECT_GT(Count(WEFT_LB_FLOW_UNTRACKED), 0u);
  EXPECT_LE(balancer->Flows(), 320u);
  for (const auto& [port, backend] : backends) EXPECT_EQ(Destination(Ack4(port)), backend);
}

TEST_P(Packets, AffinityLeavesThePortOut) {
  BalancerVip vip{.address = {kVip4, 80}, .client_affinity = true};
  for (int i = 1; i <= 8; ++i) vip.backends.push_back(Backend("10.1.0." + std::to_string(i)));
  Set(vip);
  const std::string backend = Destination(Syn4(1));
  for (unsigned port = 2; port < 60; ++port) EXPECT_EQ(Destination(Syn4(port)), backend);
}

TEST_P(Packets, QuicGoesWhereTheConnectionIdSays) {
  BalancerVip vip{.address = {kVip4, 80}, .protocol = kUdp, .quic_config = 2};
  for (uint16_t i = 1; i <= 8; ++i) {
    vip.backends.push_back(Backend("10.1.0." + std::to_string(i)));
    vip.backends.back().quic_server_id = static_cast<uint16_t>(i * 200);
  }
  Set(vip);
  const auto send = [&](unsigned port, const Bytes& payload) {
    return Destination(Ip4(kClient4, kVip4, kUdp, Udp(port, 80, payload)));
  };
  const auto cid = [](unsigned config, unsigned server) {
    return Bytes{static_cast<uint8_t>(config << 5 | 7),
                 static_cast<uint8_t>(server >> 8),
                 static_cast<uint8_t>(server),
                 1,
                 2,
                 3,
                 4,
                 5};
  };
  const auto header = [&](uint8_t first, Bytes version, const Bytes& id) {
    return Bytes{first} + version + Bytes{static_cast<uint8_t>(id.size())} + id + Bytes(30);
  };
  const Bytes v1{0, 0, 0, 1};
  const Bytes v2{0x6b, 0x33, 0x43, 0xcf};
  const std::string ring = send(5000, Bytes(40));
  for (unsigned i = 1; i <= 8; ++i) {
    const std::string named = "10.1.0." + std::to_string(i);
    // From any port: the client may have moved.
    EXPECT_EQ(send(6000 + i, Bytes{0x40} + cid(2, i * 200) + Bytes(20)), named);
    EXPECT_EQ(send(6100 + i, header(0xe0, v1, cid(2, i * 200))), named) << "handshake";
    EXPECT_EQ(send(6200 + i, header(0xf0, v2, cid(2, i * 200))), named) << "handshake of v2";
    // What names nobody goes where its flow goes.
    EXPECT_EQ(send(5000, header(0xc0, v1, cid(2, i * 200))), ring) << "Initial";
    EXPECT_EQ(send(5000, header(0xd0, v1, cid(2, i * 200))), ring) << "0-RTT";
    EXPECT_EQ(send(5000, header(0xd0, v2, cid(2, i * 200))), ring) << "Initial of v2";
    EXPECT_EQ(send(5000, Bytes{0x40} + cid(3, i * 200) + Bytes(20)), ring) << "other configuration";
    EXPECT_EQ(send(5000, Bytes{0x40} + cid(7, i * 200) + Bytes(20)), ring) << "unroutable";
    EXPECT_EQ(send(5000, Bytes{0x40} + cid(2, i * 200 + 1) + Bytes(20)), ring) << "no such server";
    EXPECT_EQ(send(5000, Bytes{0x40} + cid(2, 60000) + Bytes(20)), ring) << "beyond the table";
    EXPECT_EQ(send(5000, header(0xe0, v1, {2 << 5, 0, 200})), ring) << "id too short";
    EXPECT_EQ(send(5000, Bytes{0x40} + Cut(cid(2, i * 200), 0, 6)), ring) << "cut short";
    EXPECT_EQ(send(5000, Cut(header(0xe0, v1, cid(2, i * 200)), 0, 11)), ring) << "cut short";
    EXPECT_EQ(send(5000, header(0xe0, {0, 0, 0, 0}, cid(2, i * 200))), ring) << "version 0";
  }
  EXPECT_EQ(Count(WEFT_LB_QUIC_ROUTED), 24u);
  // A draining server is named until it is gone.
  vip.backends[0].draining = true;
  Set(vip);
  EXPECT_EQ(send(7000, Bytes{0x40} + cid(2, 200) + Bytes(20)), "10.1.0.1");
  vip.backends.erase(vip.backends.begin());
  Set(vip);
  EXPECT_NE(send(7000, Bytes{0x40} + cid(2, 200) + Bytes(20)), "10.1.0.1");
}

TEST_P(Packets, KeepsVipsApartAndCountsEach) {
  Set(kVip4, {Backend("10.1.0.1")});
  Set(BalancerVip{.address = {kVip4, 81}, .backends = {Backend("10.1.0.2")}});
  Set(BalancerVip{.address = {A("192.0.2.5"), 80}, .backends = {Backend("10.1.0.3")}});
  const weft_lb_traffic before = balancer->Traffic({kVip4, 81}, kTcp);
  for (const uint8_t flags : {kSyn, kAck, kAck}) {
    EXPECT_EQ(Destination(Ip4(kClient4, kVip4, kTcp, Tcp(7, 80, flags))), "10.1.0.1");
    EXPECT_EQ(Destination(Ip4(kClient4, kVip4, kTcp, Tcp(7, 81, flags))), "10.1.0.2");
    EXPECT_EQ(Destination(Ip4(kClient4, A("192.0.2.5"), kTcp, Tcp(7, 80, flags))), "10.1.0.3");
  }
  const weft_lb_traffic after = balancer->Traffic({kVip4, 81}, kTcp);
  EXPECT_EQ(after.packets - before.packets, 3u);
  EXPECT_EQ(after.bytes - before.bytes, 3u * 44);
  EXPECT_EQ(after.flows - before.flows, 1u);
  ASSERT_TRUE(balancer->RemoveVip({kVip4, 81}, kTcp).ok());
  EXPECT_EQ(Run(Frame(Ip4(kClient4, kVip4, kTcp, Tcp(7, 81, kAck)))).verdict, kPass);
  EXPECT_EQ(Destination(Ack4()), "10.1.0.1");
}

// A place that is used again must not inherit what it was.
TEST_P(Packets, ManyChangesReuseEveryPlace) {
  for (int round = 0; round < 400; ++round) {
    const std::string address =
        "10.2." + std::to_string(round / 200) + "." + std::to_string(round % 200 + 1);
    std::vector<BalancerBackend> backends;
    for (int i = 0; i < 50; ++i) {
      backends.push_back(
          Backend("10.3." + std::to_string(round % 200) + "." + std::to_string(i + 1)));
    }
    backends.push_back(Backend(address));
    Set(kVip4, backends);
    EXPECT_NE(Destination(Syn4(static_cast<unsigned>(round + 1))), "");
    Set(kVip4, {Backend(address)});
    EXPECT_EQ(Destination(Ack4(static_cast<unsigned>(round + 1))), address);
  }
}

}  // namespace
}  // namespace weft::bpf
