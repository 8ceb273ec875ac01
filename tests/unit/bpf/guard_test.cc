// SPDX-License-Identifier: Apache-2.0
// What the guard makes of a packet, case by case: bpf/packet.h and bpf/guard.h compiled for the
// host, fed with bytes as a pod would send them.
#include "bpf/guard.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace weft {
namespace {

using Bytes = std::vector<uint8_t>;

const Bytes kMac{2, 0, 0, 0, 0, 1}, kOtherMac{2, 0, 0, 0, 0, 9}, kAll(6, 0xff);

Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Bytes Address(const std::string& text) {
  uint8_t out[16];
  const bool v6 = text.find(':') != std::string::npos;
  EXPECT_EQ(inet_pton(v6 ? AF_INET6 : AF_INET, text.c_str(), out), 1) << text;
  return Bytes(out, out + (v6 ? 16 : 4));
}

Bytes Be16(unsigned value) {
  return {static_cast<uint8_t>(value >> 8), static_cast<uint8_t>(value)};
}

Bytes Eth(unsigned type, const Bytes& payload, const Bytes& mac = kMac) {
  return kAll + mac + Be16(type) + payload;
}

struct V4 {
  std::string from = "10.0.0.1";
  std::string to = "10.0.0.2";
  unsigned fragment = 0;
  Bytes options = {};
};
Bytes Ip4(uint8_t protocol, const Bytes& payload, const V4& v = {}) {
  const size_t head = 20 + v.options.size();
  Bytes ip{static_cast<uint8_t>(0x40 | head / 4), 0};
  ip = ip + Be16(static_cast<unsigned>(head + payload.size())) + Be16(77) + Be16(v.fragment) +
       Bytes{64, protocol, 0, 0} + Address(v.from) + Address(v.to) + v.options;
  return Eth(0x0800, ip + payload);
}

struct V6 {
  std::string from = "fd00::1";
  std::string to = "fd00::2";
  uint8_t hop_limit = 64;
};
Bytes Ip6(uint8_t next, const Bytes& payload, const V6& v = {}) {
  Bytes ip{0x60, 0, 0, 0};
  ip = ip + Be16(static_cast<unsigned>(payload.size())) + Bytes{next, v.hop_limit} +
       Address(v.from) + Address(v.to);
  return Eth(0x86dd, ip + payload);
}

// The same frame with a length in IP's header that does not say the truth.
Bytes Shorten4(Bytes frame, uint8_t length) {
  frame[14 + 3] = length;
  return frame;
}
Bytes Shorten6(Bytes frame, uint8_t payload) {
  frame[14 + 5] = payload;
  return frame;
}

Bytes Tcp(uint8_t flags, size_t payload = 0) {
  Bytes out = Be16(1000) + Be16(80) + Bytes(8, 0) + Bytes{0x50, flags} + Bytes(6, 0);
  return out + Bytes(payload, 'x');
}
Bytes Udp() { return Be16(1000) + Be16(53) + Be16(12) + Be16(0) + Bytes(4, 'x'); }
Bytes Icmp(uint8_t type, const Bytes& rest = Bytes{0, 7, 0, 1}) {
  return Bytes{type, 0, 0, 0} + rest;
}
Bytes Arp(const std::string& sender, const Bytes& mac = kMac) {
  return Be16(1) + Be16(0x0800) + Bytes{6, 4} + Be16(1) + mac + Address(sender) + Bytes(6, 0) +
         Address("10.0.0.2");
}
Bytes Option(uint8_t type, const Bytes& mac) { return Bytes{type, 1} + mac; }
Bytes Nd(uint8_t type, const std::string& target, const Bytes& options) {
  return Icmp(type, Bytes(4, 0)) + Address(target) + options;
}
const V6 kNd{.hop_limit = 255};
const V6 kDad{.from = "::", .to = "ff02::1:ff00:1", .hop_limit = 255};

Bytes Packet(const Bytes& frame) { return Bytes(frame.begin() + 14, frame.end()); }

int Load(void* packet, uint32_t offset, void* to, uint32_t bytes) {
  const Bytes& frame = *static_cast<const Bytes*>(packet);
  if (offset > frame.size() || bytes > frame.size() - offset) return -1;
  memcpy(to, frame.data() + offset, bytes);
  return 0;
}

void SetIp(uint8_t* out, const std::string& text) {
  const Bytes raw = Address(text);
  if (raw.size() == 4) {
    weft_ip4_at(out, raw.data());
  } else {
    memcpy(out, raw.data(), 16);
  }
}

weft_guard Own() {
  weft_guard own{};
  own.workload = 1;
  own.generation = 3;
  SetIp(own.ipv4, "10.0.0.1");
  SetIp(own.ipv6, "fd00::1");
  SetIp(own.link_local, "fe80::1");
  memcpy(own.mac, kMac.data(), 6);
  return own;
}

std::string Verdict(Bytes frame, bool sent) {
  const weft_guard own = Own();
  weft_packet p{};
  if (weft_parse(&frame, Load, &p) != 0) return "unparsed";
  const weft_guarded guarded =
      sent ? weft_guard_from(&frame, Load, static_cast<uint32_t>(frame.size()), &p, &own)
           : weft_guard_to(&p, &own);
  switch (guarded.verdict) {
    case WEFT_GUARD_PASS:
      return "pass";
    case WEFT_GUARD_SOCKET:
      return "socket";
    case WEFT_GUARD_FLOW:
      return "flow";
    case WEFT_GUARD_FRAGMENT:
      return "fragment";
    case WEFT_GUARD_ICMP_ERROR:
      return "error";
    default:
      return guarded.reason == WEFT_R_SPOOFED ? "spoofed" : "bad";
  }
}

struct Case {
  const char* name;
  Bytes frame;
  const char* verdict;
};

const std::vector<Case>& FromPod() {
  static const std::vector<Case> all{
      {"Syn", Ip4(6, Tcp(WEFT_TCP_SYN)), "socket"},
      {"SynWithData", Ip4(6, Tcp(WEFT_TCP_SYN, 5)), "socket"},
      {"SynAck", Ip4(6, Tcp(WEFT_TCP_SYN | WEFT_TCP_ACK)), "pass"},
      {"SynAckWithData", Ip4(6, Tcp(WEFT_TCP_SYN | WEFT_TCP_ACK, 1)), "socket"},
      {"BareAck", Ip4(6, Tcp(WEFT_TCP_ACK)), "pass"},
      {"Reset", Ip4(6, Tcp(WEFT_TCP_RST)), "pass"},
      {"ResetWithData", Ip4(6, Tcp(WEFT_TCP_RST, 9)), "socket"},
      {"Fin", Ip4(6, Tcp(WEFT_TCP_FIN | WEFT_TCP_ACK)), "pass"},
      {"Data", Ip4(6, Tcp(WEFT_TCP_ACK, 1)), "socket"},
      {"DataWithoutFlags", Ip4(6, Tcp(0, 1)), "socket"},
      {"DataBeyondTheIpLength", Ip4(6, Tcp(WEFT_TCP_ACK)) + Bytes(3, 'x'), "socket"},
      {"Data6", Ip6(6, Tcp(WEFT_TCP_ACK, 1)), "socket"},
      {"Ack6", Ip6(6, Tcp(WEFT_TCP_ACK)), "pass"},
      {"TcpShort", Ip4(6, Bytes(13, 0)), "unparsed"},
      {"TcpHeaderTooSmall", Ip4(6, Be16(1) + Be16(2) + Bytes(8, 0) + Bytes{0x10, 2} + Bytes(6, 0)),
       "unparsed"},
      {"TcpFirstFragment", Ip4(6, Tcp(WEFT_TCP_ACK), {.fragment = 0x2000}), "socket"},
      {"TcpTinyFragment", Ip4(6, Bytes(8, 0), {.fragment = 0x2000}), "unparsed"},
      {"TcpLaterFragment", Ip4(6, Bytes(8, 'x'), {.fragment = 3}), "socket"},
      {"TcpLaterFragment6", Ip6(44, Bytes{6, 0, 0, 8, 0, 0, 0, 1} + Bytes(8, 'x')), "socket"},
      {"OtherMac", kAll + kOtherMac + Be16(0x0800) + Packet(Ip4(17, Udp())), "spoofed"},
      {"OtherAddress", Ip4(17, Udp(), {.from = "10.0.0.3"}), "spoofed"},
      {"OtherAddressTcp", Ip4(6, Tcp(WEFT_TCP_ACK), {.from = "10.0.0.3"}), "spoofed"},
      {"NoAddress", Ip4(17, Udp(), {.from = "0.0.0.0"}), "spoofed"},
      {"LoopbackAddress", Ip4(17, Udp(), {.from = "127.0.0.1"}), "spoofed"},
      {"OtherAddress6", Ip6(17, Udp(), {.from = "fd00::3"}), "spoofed"},
      {"OtherLinkLocal", Ip6(17, Udp(), {.from = "fe80::3"}), "spoofed"},
      {"OwnLinkLocal", Ip6(17, Udp(), {.from = "fe80::1"}), "flow"},
      {"MappedAddressOnTheWire", Ip6(17, Udp(), {.from = "::ffff:10.0.0.1"}), "unparsed"},
      {"MappedDestinationOnTheWire", Ip6(17, Udp(), {.to = "::ffff:10.0.0.1"}), "unparsed"},
      {"Udp", Ip4(17, Udp()), "flow"},
      {"UdpShort", Ip4(17, Bytes(7, 0)), "unparsed"},
      {"Udp6", Ip6(17, Udp()), "flow"},
      {"UdpFirstFragment", Ip4(17, Udp(), {.fragment = 0x2000}), "flow"},
      {"UdpLaterFragment", Ip4(17, Bytes(8, 'x'), {.fragment = 1}), "fragment"},
      {"UdpFirstFragment6", Ip6(44, Bytes{17, 0, 0, 1, 0, 0, 0, 1} + Udp() + Bytes(4)), "flow"},
      {"UdpLaterFragment6", Ip6(44, Bytes{17, 0, 0, 8, 0, 0, 0, 1} + Bytes(8, 'x')), "fragment"},
      {"FirstFragmentOfAnExtension6",
       Ip6(44, Bytes{60, 0, 0, 1, 0, 0, 0, 1} + Bytes{17, 0, 1, 4, 0, 0, 0, 0} + Udp()), "bad"},
      {"FirstFragmentWithoutPorts6", Shorten6(Ip6(44, Bytes{17, 0, 0, 1, 0, 0, 0, 1} + Udp()), 8),
       "bad"},
      {"FirstFragmentBeforeTheEnd6",
       Shorten6(Ip6(44, Bytes{17, 0, 0, 1, 0, 0, 0, 1} + Udp() + Bytes(8)), 20), "bad"},
      {"FirstFragmentBeyondTheEnd6", Shorten6(Ip6(44, Bytes{17, 0, 0, 1, 0, 0, 0, 1} + Udp()), 28),
       "bad"},
      {"FirstFragmentWithoutPorts", Shorten4(Ip4(17, Udp(), {.fragment = 0x2000}), 20), "bad"},
      {"LaterFragmentBeforeTheEnd", Shorten4(Ip4(17, Bytes(16, 'x'), {.fragment = 1}), 28), "bad"},
      {"Sctp", Ip4(132, Bytes(12, 0)), "flow"},
      {"Gre", Ip4(47, Bytes(20, 0)), "flow"},
      {"Echo", Ip4(1, Icmp(8)), "flow"},
      {"EchoReply", Ip4(1, Icmp(0)), "flow"},
      {"Unreachable", Ip4(1, Icmp(3) + Packet(Ip4(17, Udp()))), "error"},
      {"TooBig6", Ip6(58, Icmp(2) + Packet(Ip6(17, Udp()))), "error"},
      {"SourceRoute", Ip4(6, Tcp(WEFT_TCP_ACK), {.options = {131, 7, 4, 10, 0, 0, 9, 0}}), "bad"},
      {"OptionsWithUdp", Ip4(17, Udp(), {.options = {148, 4, 0, 0}}), "bad"},
      {"IgmpRouterAlert", Ip4(2, Bytes(8, 0), {.options = {148, 4, 0, 0}}), "flow"},
      {"RoutingHeader6", Ip6(43, Bytes{17, 0, 0, 0, 0, 0, 0, 0} + Udp()), "bad"},
      {"DestinationOptions6", Ip6(60, Bytes{17, 0, 1, 4, 0, 0, 0, 0} + Udp()), "flow"},
      {"TcpBehindOptions6", Ip6(60, Bytes{6, 0, 1, 4, 0, 0, 0, 0} + Tcp(WEFT_TCP_ACK, 1)),
       "socket"},
      {"ManyExtensions6",
       Ip6(60, Bytes{60, 0, 1, 4, 0, 0, 0, 0} + Bytes{60, 0, 1, 4, 0, 0, 0, 0} +
                   Bytes{60, 0, 1, 4, 0, 0, 0, 0} + Bytes{60, 0, 1, 4, 0, 0, 0, 0} +
                   Bytes{6, 0, 1, 4, 0, 0, 0, 0} + Tcp(WEFT_TCP_ACK, 1)),
       "bad"},
      {"IpVersionLies", Eth(0x0800, Packet(Ip6(6, Tcp(WEFT_TCP_ACK, 1)))), "unparsed"},
      {"Arp", Eth(0x0806, Arp("10.0.0.1")), "pass"},
      {"ArpProbe", Eth(0x0806, Arp("0.0.0.0")), "pass"},
      {"ArpForAnother", Eth(0x0806, Arp("10.0.0.3")), "spoofed"},
      {"ArpWithAnotherMac", Eth(0x0806, Arp("10.0.0.1", kOtherMac)), "spoofed"},
      {"ArpOfAnotherKind",
       Eth(0x0806, Be16(6) + Be16(0x0800) + Bytes{6, 4} + Be16(1) + kMac + Address("10.0.0.1") +
                       Bytes(10, 0)),
       "bad"},
      {"ArpShort", Eth(0x0806, Bytes(20, 0)), "unparsed"},
      {"Vlan", Eth(0x8100, Bytes(40, 0)), "bad"},
      {"Lldp", Eth(0x88cc, Bytes(40, 0)), "bad"},
      {"Short", Bytes(13, 0), "unparsed"},
      {"Solicit", Ip6(58, Nd(135, "fd00::2", Option(1, kMac)), kNd), "pass"},
      {"SolicitForAnother", Ip6(58, Nd(135, "fd00::2", Option(1, kOtherMac)), kNd), "spoofed"},
      {"SolicitFromAfar", Ip6(58, Nd(135, "fd00::2", Option(1, kMac))), "spoofed"},
      {"SolicitWithCargo", Ip6(58, Nd(135, "fd00::2", Option(1, kMac) + Bytes(5, 'x')), kNd),
       "spoofed"},
      {"SolicitWithLongOption", Ip6(58, Nd(135, "fd00::2", Bytes{14, 2} + Bytes(14, 'x')), kNd),
       "spoofed"},
      {"DuplicateDetection", Ip6(58, Nd(135, "fd00::1", Option(14, kMac)), kDad), "pass"},
      {"Advert", Ip6(58, Nd(136, "fd00::1", Option(2, kMac)), kNd), "pass"},
      {"AdvertForAnother", Ip6(58, Nd(136, "fd00::3", Option(2, kMac)), kNd), "spoofed"},
      {"AdvertWithAnotherMac", Ip6(58, Nd(136, "fd00::1", Option(2, kOtherMac)), kNd), "spoofed"},
      {"RouterSolicit",
       Ip6(58, Icmp(133, Bytes(4, 0)) + Option(1, kMac),
           {.from = "fe80::1", .to = "ff02::2", .hop_limit = 255}),
       "pass"},
      {"RouterAdvert", Ip6(58, Icmp(134, Bytes(12, 0)), {.from = "fe80::1", .hop_limit = 255}),
       "spoofed"},
      {"Redirect", Ip6(58, Icmp(137, Bytes(36, 0)), kNd), "spoofed"},
      {"ListenerReport",
       Ip6(0, Bytes{58, 0, 5, 2, 0, 0, 0, 0} + Icmp(143),
           {.from = "fe80::1", .to = "ff02::16", .hop_limit = 1}),
       "pass"},
      {"ListenerReportToSomebody", Ip6(58, Icmp(143), {.hop_limit = 1}), "spoofed"},
      {"NeighbourTypeInIpv4", Ip4(58, Nd(136, "fd00::3", Option(2, kMac))), "flow"},
  };
  return all;
}

const std::vector<Case>& ToPod() {
  static const std::vector<Case> all{
      {"Tcp", Ip4(6, Tcp(WEFT_TCP_SYN), {.from = "10.0.0.2", .to = "10.0.0.1"}), "pass"},
      {"TcpFragment", Ip4(6, Bytes(8, 0), {.from = "10.0.0.2", .fragment = 5}), "pass"},
      {"OwnAddress", Ip4(6, Tcp(WEFT_TCP_SYN)), "spoofed"},
      {"OwnAddress6", Ip6(6, Tcp(WEFT_TCP_SYN)), "spoofed"},
      {"OwnLinkLocal", Ip6(17, Udp(), {.from = "fe80::1"}), "spoofed"},
      {"Loopback", Ip4(6, Tcp(WEFT_TCP_SYN), {.from = "127.9.0.1"}), "spoofed"},
      {"Loopback6", Ip6(6, Tcp(WEFT_TCP_SYN), {.from = "::1"}), "spoofed"},
      {"Unspecified", Ip4(6, Tcp(WEFT_TCP_SYN), {.from = "0.0.0.0"}), "spoofed"},
      {"Unspecified6", Ip6(6, Tcp(WEFT_TCP_SYN), {.from = "::"}), "spoofed"},
      {"MappedOwn", Ip6(6, Tcp(WEFT_TCP_SYN), {.from = "::ffff:10.0.0.1"}), "unparsed"},
      {"Udp", Ip4(17, Udp(), {.from = "10.0.0.2"}), "flow"},
      {"LaterFragment", Ip4(17, Bytes(8, 0), {.from = "10.0.0.2", .fragment = 5}), "fragment"},
      {"PaddedLaterFragment",
       Ip4(17, Bytes(8, 0), {.from = "10.0.0.2", .fragment = 5}) + Bytes(18, 0), "fragment"},
      {"FirstFragmentOfAnExtension6",
       Ip6(44, Bytes{60, 0, 0, 1, 0, 0, 0, 1} + Bytes{17, 0, 1, 4, 0, 0, 0, 0} + Udp(),
           {.from = "fd00::2"}),
       "bad"},
      {"FirstFragmentWithoutPorts",
       Shorten4(Ip4(17, Udp(), {.from = "10.0.0.2", .fragment = 0x2000}), 20), "bad"},
      {"Echo6", Ip6(58, Icmp(128), {.from = "fd00::2"}), "flow"},
      {"Error", Ip4(1, Icmp(11) + Packet(Ip4(6, Tcp(0))), {.from = "10.0.0.254"}), "error"},
      {"Arp", Eth(0x0806, Arp("10.0.0.3")), "pass"},
      {"DuplicateDetection", Ip6(58, Nd(135, "fd00::3", {}), kDad), "pass"},
      {"RouterAdvert", Ip6(58, Icmp(134, Bytes(12, 0)), {.from = "fe80::9", .hop_limit = 255}),
       "pass"},
  };
  return all;
}

TEST(Guard, FromThePod) {
  for (const Case& each : FromPod())
    EXPECT_EQ(Verdict(each.frame, true), each.verdict) << each.name;
}

TEST(Guard, ToThePod) {
  for (const Case& each : ToPod()) EXPECT_EQ(Verdict(each.frame, false), each.verdict) << each.name;
}

weft_flow_key KeyOf(Bytes frame, bool sent) {
  const weft_guard own = Own();
  weft_packet p{};
  weft_flow_key key{};
  EXPECT_EQ(weft_parse(&frame, Load, &p), 0);
  weft_flow_key_of(&own, &p, sent, &key);
  return key;
}

bool Same(const weft_flow_key& a, const weft_flow_key& b) { return memcmp(&a, &b, sizeof a) == 0; }

TEST(Flow, AnAnswerIsOfTheSameFlow) {
  const Bytes answer = Be16(53) + Be16(1000) + Be16(12) + Be16(0);
  EXPECT_TRUE(Same(KeyOf(Ip4(17, Udp()), true),
                   KeyOf(Ip4(17, answer, {.from = "10.0.0.2", .to = "10.0.0.1"}), false)));
  EXPECT_TRUE(Same(KeyOf(Ip4(1, Icmp(8)), true),
                   KeyOf(Ip4(1, Icmp(0), {.from = "10.0.0.2", .to = "10.0.0.1"}), false)));
}

// Else a pod that pings would let itself be pinged.
TEST(Flow, AnEchoTheOtherWayIsAnotherFlow) {
  EXPECT_FALSE(Same(KeyOf(Ip4(1, Icmp(8)), true),
                    KeyOf(Ip4(1, Icmp(8), {.from = "10.0.0.2", .to = "10.0.0.1"}), false)));
  EXPECT_FALSE(Same(KeyOf(Ip4(1, Icmp(13)), true),
                    KeyOf(Ip4(1, Icmp(13), {.from = "10.0.0.2", .to = "10.0.0.1"}), false)));
}

TEST(Flow, AnErrorIsOfTheFlowThatItQuotes) {
  const weft_guard own = Own();
  Bytes error = Ip4(1, Icmp(3) + Packet(Ip4(17, Udp())), {.from = "10.0.0.254", .to = "10.0.0.1"});
  weft_packet p{}, quoted{};
  weft_flow_key key{};
  ASSERT_EQ(weft_parse(&error, Load, &p), 0);
  ASSERT_EQ(weft_parse_quoted(&error, Load, &p, &quoted), 0);
  weft_flow_key_of(&own, &quoted, 1, &key);
  EXPECT_TRUE(Same(key, KeyOf(Ip4(17, Udp()), true)));
}

// A stamp lets out what its own socket made, and only to where its socket was let connect.
TEST(Guard, AStampLetsOutItsOwnSocketsPackets) {
  const weft_guard own = Own();
  weft_sock stamp{};
  stamp.role = WEFT_ROLE_APP;
  stamp.workload = own.workload;
  stamp.generation = own.generation;
  weft_flow flow{};
  SetIp(flow.local.ip, "10.0.0.1");
  SetIp(flow.remote.ip, "10.0.0.2");
  flow.local.port_be = htons(1000);
  flow.remote.port_be = htons(80);
  const auto lets = [&](Bytes frame) {
    weft_packet p{};
    EXPECT_EQ(weft_parse(&frame, Load, &p), 0);
    return weft_stamp_lets(&stamp, &own, &p, &flow) != 0;
  };
  const Bytes data = Ip4(6, Tcp(WEFT_TCP_ACK, 5));
  EXPECT_TRUE(lets(data));
  EXPECT_FALSE(lets(Ip4(6, Tcp(WEFT_TCP_ACK, 5), {.to = "10.0.0.3"})));
  EXPECT_FALSE(lets(Ip4(6, Tcp(WEFT_TCP_ACK, 5), {.from = "10.0.0.9"})));
  EXPECT_FALSE(lets(Ip6(6, Tcp(WEFT_TCP_ACK, 5))));
  EXPECT_FALSE(lets(Ip4(6, Tcp(WEFT_TCP_ACK, 5), {.fragment = 0x2000})));
  EXPECT_FALSE(lets(Ip4(6, Tcp(WEFT_TCP_ACK, 5), {.fragment = 1})));
  for (__be16* port : {&flow.local.port_be, &flow.remote.port_be}) {
    const __be16 before = std::exchange(*port, htons(81));
    EXPECT_FALSE(lets(data));
    *port = before;
  }
  stamp.pid = 5;  // it connected
  EXPECT_FALSE(lets(data));
  stamp.verdict = WEFT_R_DIRECT;
  EXPECT_FALSE(lets(data));
  stamp.peer = flow.remote;
  EXPECT_TRUE(lets(data));
  stamp.picked = flow.remote;
  SetIp(stamp.peer.ip, "10.0.0.77");  // a service's address
  EXPECT_TRUE(lets(data));
  stamp.picked.port_be = htons(81);
  EXPECT_FALSE(lets(data));
  stamp.picked = flow.remote;
  stamp.verdict = WEFT_R_PROXIED;
  EXPECT_FALSE(lets(data));
  stamp.role = WEFT_ROLE_TUNNEL;
  EXPECT_TRUE(lets(data));
  stamp.generation += 1;
  EXPECT_FALSE(lets(data));
  stamp.generation -= 1;
  stamp.workload = 0;
  EXPECT_FALSE(lets(data));
}

TEST(Flow, Verdicts) {
  constexpr uint64_t kSecond = 1'000'000'000;
  struct {
    const char* name;
    weft_flow_state state;
    uint64_t seconds;
    bool sent;
    uint32_t verdict;
  } const cases[] = {
      {"fresh", {.epoch = 5}, 1, true, WEFT_FLOW_PASSES},
      {"its answer", {.epoch = 5}, 1, false, WEFT_FLOW_PASSES},
      {"old", {.epoch = 5}, 31, true, WEFT_FLOW_UNKNOWN},
      {"old but answered", {.epoch = 5, .answered = 1}, 31, true, WEFT_FLOW_PASSES},
      {"very old", {.epoch = 5, .answered = 1}, 181, true, WEFT_FLOW_UNKNOWN},
      {"policy changed", {.epoch = 4}, 1, true, WEFT_FLOW_CHANGED},
      {"denied", {.epoch = 5, .denied = 1}, 1, true, WEFT_FLOW_DENIED},
      {"denied, the other side begins", {.epoch = 5, .denied = 1}, 1, false, WEFT_FLOW_UNKNOWN},
      {"denied under another policy", {.epoch = 4, .denied = 1}, 1, true, WEFT_FLOW_UNKNOWN},
      {"denied to the remote",
       {.epoch = 5, .by_remote = 1, .denied = 1},
       1,
       false,
       WEFT_FLOW_DENIED},
  };
  for (const auto& each : cases) {
    EXPECT_EQ(weft_flow_verdict_of(&each.state, each.seconds * kSecond, 5, each.sent), each.verdict)
        << each.name;
  }
  EXPECT_EQ(weft_flow_verdict_of(nullptr, 0, 5, 1), WEFT_FLOW_UNKNOWN);
}

}  // namespace
}  // namespace weft
