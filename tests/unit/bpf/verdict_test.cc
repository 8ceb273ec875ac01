// SPDX-License-Identifier: Apache-2.0
// The decision at connect(), case by case: bpf/verdict.h compiled for the host.
#include "bpf/verdict.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>

namespace weft {
namespace {

weft_addr Address(const char* ip, uint16_t port) {
  weft_addr out{};
  in_addr v4{};
  if (inet_pton(AF_INET, ip, &v4) == 1) {
    weft_addr_v4(&out, v4.s_addr, htons(port));
  } else {
    uint32_t words[4];
    EXPECT_EQ(inet_pton(AF_INET6, ip, words), 1) << ip;
    weft_addr_v6(&out, words[0], words[1], words[2], words[3], htons(port));
  }
  return out;
}

weft_workload Workload(uint32_t flags) {
  weft_workload out{};
  out.id = 1;
  out.generation = 3;
  out.identity = 10;
  out.flags = flags;
  memcpy(out.ipv4, Address("10.0.0.1", 0).ip, sizeof out.ipv4);
  return out;
}

constexpr uint32_t kReady = WEFT_WL_PROXY_READY;
constexpr weft_peer kLocal{.netns_cookie = 5, .workload = 2, .identity = 20};

// What connect.bpf.c would have found; each test changes what it is about.
struct Found {
  weft_workload workload = Workload(kReady);
  weft_addr asked = Address("10.0.0.2", 80);
  weft_addr target = Address("10.0.0.2", 80);
  weft_service service{.id = 1};
  weft_peer peer = kLocal;
  weft_facts facts{.asked = &asked, .workload = &workload, .target = &target};

  weft_decision Decide() { return weft_decide(&facts); }
};

TEST(Decide, LoopbackAndOwnAddressAreNotOurs) {
  for (const char* ip : {"127.0.0.1", "127.9.9.9", "0.0.0.0", "::1", "::", "10.0.0.1"}) {
    Found found;
    found.asked = found.target = Address(ip, 80);
    EXPECT_EQ(found.Decide().action, WEFT_ACT_PASS) << ip;
    EXPECT_EQ(found.Decide().reason, WEFT_R_NOT_OURS) << ip;
  }
}

TEST(CapturesDns, OnlyTheWorkloadsResolverWhileAProxyIsThere) {
  const weft_addr resolver = Address("10.96.0.2", WEFT_PORT_RESOLVER);
  const weft_addr resolver6 = Address("fd00::2", WEFT_PORT_RESOLVER);
  weft_workload ready = Workload(kReady);
  EXPECT_TRUE(weft_captures_dns(&ready, resolver.ip, 1));
  EXPECT_FALSE(weft_captures_dns(&ready, resolver.ip, 0)) << "another server";
  EXPECT_FALSE(weft_captures_dns(&ready, resolver6.ip, 1)) << "no address to send it to";
  memcpy(ready.ipv6, Address("fd00::1", 0).ip, sizeof ready.ipv6);
  EXPECT_TRUE(weft_captures_dns(&ready, resolver6.ip, 1));
  for (const char* ip : {"10.0.0.1", "fd00::1", "127.0.0.53", "::1"}) {
    EXPECT_FALSE(weft_captures_dns(&ready, Address(ip, WEFT_PORT_RESOLVER).ip, 1)) << ip;
  }
  const weft_workload alone = Workload(WEFT_WL_SPLICE);
  EXPECT_FALSE(weft_captures_dns(&alone, resolver.ip, 1)) << "nobody would answer";
  EXPECT_TRUE(weft_may_be_dns(resolver.port_be));
  EXPECT_FALSE(weft_may_be_dns(htons(5353)));
}

TEST(Decide, ANullOwnAddressMatchesNothing) {
  Found found;  // the workload has no IPv6
  found.asked = found.target = Address("fd00::7", 80);
  EXPECT_EQ(found.Decide().action, WEFT_ACT_UNREACHABLE);
  memcpy(found.workload.ipv6, Address("fd00::1", 0).ip, 16);
  EXPECT_EQ(found.Decide().action, WEFT_ACT_PROXY);
}

TEST(Decide, UnknownAndRemoteGoToTheProxy) {
  Found found;
  EXPECT_EQ(found.Decide().action, WEFT_ACT_PROXY);
  found.peer.netns_cookie = 0;
  found.facts.peer = &found.peer;
  EXPECT_EQ(found.Decide().action, WEFT_ACT_PROXY);
  EXPECT_EQ(found.Decide().reason, WEFT_R_PROXIED);
}

TEST(Decide, WithoutAProxyItIsRefusedNeverPassed) {
  Found found;
  found.workload = Workload(0);
  EXPECT_EQ(found.Decide().action, WEFT_ACT_REFUSE);
  EXPECT_EQ(found.Decide().reason, WEFT_R_PROXY_GONE);
}

TEST(Decide, LocalPeersAreDirectEvenWithoutAProxy) {
  Found found;
  found.workload = Workload(0);
  found.facts.peer = &found.peer;
  EXPECT_EQ(found.Decide().action, WEFT_ACT_DIRECT);
  EXPECT_EQ(found.Decide().reason, WEFT_R_DIRECT);
}

TEST(Decide, L7InboundIsNeverDirect) {
  Found found;
  found.facts.peer = &found.peer;
  found.peer.wl_flags = WEFT_WL_L7_INBOUND;
  EXPECT_EQ(found.Decide().action, WEFT_ACT_PROXY);
}

TEST(Decide, OurPortsOfAnotherPodAreNeverDirect) {
  for (const uint16_t port :
       {WEFT_PORT_OUTBOUND, WEFT_PORT_INBOUND, WEFT_PORT_HBONE, WEFT_PORT_DNS}) {
    Found found;
    found.facts.peer = &found.peer;
    found.asked = found.target = Address("10.0.0.2", port);
    EXPECT_EQ(found.Decide().action, WEFT_ACT_PROXY) << port;
  }
}

constexpr uint32_t kEgress = 1u << WEFT_LAYER_EGRESS;
constexpr uint32_t kIngress = 1u << WEFT_LAYER_INGRESS;
constexpr uint32_t kAuthorization = 1u << WEFT_LAYER_AUTHORIZATION;

TEST(LayersAsked, BothEndsOfALocalConnectionAndTheSourceOfOthers) {
  Found found;
  EXPECT_EQ(weft_layers_asked(&found.facts, WEFT_ACT_PROXY), kEgress);
  found.facts.peer = &found.peer;
  EXPECT_EQ(weft_layers_asked(&found.facts, WEFT_ACT_DIRECT), kEgress | kIngress | kAuthorization);
  found.target = Address("10.0.0.2", WEFT_PORT_HBONE);
  EXPECT_EQ(weft_layers_asked(&found.facts, WEFT_ACT_PROXY), kEgress);
  found.target = Address("10.0.0.2", 80);
  found.peer.netns_cookie = 0;  // on another node
  EXPECT_EQ(weft_layers_asked(&found.facts, WEFT_ACT_PROXY), kEgress);
  found.facts.service = &found.service;
  EXPECT_EQ(weft_layers_asked(&found.facts, WEFT_ACT_PROXY), kEgress);
  found.service.flags = WEFT_SVC_L7;  // the proxy picks the endpoint
  EXPECT_EQ(weft_layers_asked(&found.facts, WEFT_ACT_PROXY), 0u);
  for (const uint32_t action :
       {WEFT_ACT_PASS, WEFT_ACT_DENY, WEFT_ACT_REFUSE, WEFT_ACT_UNREACHABLE}) {
    EXPECT_EQ(weft_layers_asked(&found.facts, action), 0u);
  }
}

TEST(LayersAsked, OfOurSockets) {
  const weft_addr app = Address("10.0.0.1", 80), hbone = Address("10.0.9.9", WEFT_PORT_HBONE);
  weft_peer peer{.flags = WEFT_PEER_HBONE};
  EXPECT_EQ(weft_stamped_layers_asked(WEFT_ROLE_TUNNEL, &hbone, &peer, nullptr), 0u);
  EXPECT_EQ(weft_stamped_layers_asked(WEFT_ROLE_TUNNEL, &app, &peer, nullptr), kEgress);
  EXPECT_EQ(weft_stamped_layers_asked(WEFT_ROLE_TUNNEL, &hbone, nullptr, nullptr), kEgress);
  peer.flags = 0;
  EXPECT_EQ(weft_stamped_layers_asked(WEFT_ROLE_TUNNEL, &hbone, &peer, nullptr), kEgress);
  weft_peer client{.workload = 3};
  EXPECT_EQ(weft_stamped_layers_asked(WEFT_ROLE_TO_APP, &app, nullptr, &client),
            kEgress | kIngress);
  client.workload = 0;
  EXPECT_EQ(weft_stamped_layers_asked(WEFT_ROLE_TO_APP, &app, nullptr, &client), kIngress);
  EXPECT_EQ(weft_stamped_layers_asked(WEFT_ROLE_TO_APP, &app, nullptr, nullptr), kIngress);
  EXPECT_EQ(weft_stamped_layers_asked(WEFT_ROLE_HOST, &app, nullptr, nullptr), 0u);
}

TEST(Deny, ReplacesTheWay) {
  weft_decision decision{WEFT_ACT_DIRECT, WEFT_R_DIRECT, 0, 1};
  weft_deny(&decision, 9, 0);
  EXPECT_EQ(decision.action, WEFT_ACT_DENY);
  EXPECT_EQ(decision.reason, WEFT_R_POLICY_DENIED);
  EXPECT_EQ(decision.rule, 9u);
  EXPECT_EQ(decision.splice, 0u);
  weft_deny(&decision, 0, 1);
  EXPECT_EQ(decision.reason, WEFT_R_POLICY_DEFAULT_DENIED);
}

TEST(OwnIp, OfTheFamilyIfThereIsOne) {
  weft_workload workload = Workload(0);
  EXPECT_EQ(weft_own_ip(&workload, Address("10.0.0.2", 0).ip), workload.ipv4);
  EXPECT_EQ(weft_own_ip(&workload, Address("fd00::2", 0).ip), workload.ipv4);
  memcpy(workload.ipv6, Address("fd00::1", 0).ip, 16);
  EXPECT_EQ(weft_own_ip(&workload, Address("fd00::2", 0).ip), workload.ipv6);
  memset(workload.ipv4, 0, sizeof workload.ipv4);
  EXPECT_EQ(weft_own_ip(&workload, Address("10.0.0.2", 0).ip), workload.ipv6);
}

TEST(Decide, Services) {
  Found found;
  found.asked = Address("10.96.0.1", 80);
  found.facts.service = &found.service;
  found.facts.picked = 1;
  found.facts.peer = &found.peer;
  EXPECT_EQ(found.Decide().action, WEFT_ACT_DIRECT);
  found.facts.peer = nullptr;  // the endpoint is elsewhere
  EXPECT_EQ(found.Decide().action, WEFT_ACT_PROXY);
  found.facts.picked = 0;
  EXPECT_EQ(found.Decide().action, WEFT_ACT_REFUSE);
  EXPECT_EQ(found.Decide().reason, WEFT_R_NO_ENDPOINT);
  found.service.flags = WEFT_SVC_L7;  // the proxy says 503 itself
  EXPECT_EQ(found.Decide().action, WEFT_ACT_PROXY);
}

TEST(Decide, AnEndpointOfTheOtherFamilyNeedsTheProxy) {
  Found found;
  found.asked = Address("10.96.0.1", 80);
  found.target = Address("fd00::2", 80);
  found.facts.service = &found.service;
  found.facts.picked = 1;
  found.facts.peer = &found.peer;
  EXPECT_EQ(found.Decide().action, WEFT_ACT_PROXY);
}

TEST(Decide, TheSpliceNeedsBothEnds) {
  Found found;
  found.facts.peer = &found.peer;
  EXPECT_EQ(found.Decide().splice, 0u);
  found.workload.flags |= WEFT_WL_SPLICE;
  EXPECT_EQ(found.Decide().splice, 0u);
  found.peer.wl_flags |= WEFT_WL_SPLICE;
  EXPECT_EQ(found.Decide().splice, 1u);
  found.facts.peer = nullptr;  // the proxy is always willing
  EXPECT_EQ(found.Decide().splice, 1u);
}

struct StampCase {
  const char* name;
  weft_role role;
  uint32_t workload, generation;
  const char* to;
  uint16_t port;
  uint32_t action;
};

class Stamp : public testing::TestWithParam<StampCase> {};

TEST_P(Stamp, KeepsToItsRole) {
  const StampCase& c = GetParam();
  const weft_workload workload = Workload(kReady);
  const weft_addr asked = Address(c.to, c.port);
  weft_sock stamp{};
  stamp.role = c.role;
  stamp.workload = c.workload;
  stamp.generation = c.generation;
  EXPECT_EQ(weft_decide_stamped(&stamp, &workload, &asked).action, c.action);
  if (c.role == WEFT_ROLE_TO_APP) {  // its workload has been released
    EXPECT_EQ(weft_decide_stamped(&stamp, nullptr, &asked).reason, WEFT_R_STAMP_MISUSE);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Table, Stamp,
    testing::Values(
        StampCase{"tunnel", WEFT_ROLE_TUNNEL, 1, 3, "10.9.9.9", 15008, WEFT_ACT_PASS},
        StampCase{"host", WEFT_ROLE_HOST, 0, 0, "10.9.9.9", 443, WEFT_ACT_PASS},
        StampCase{"to_app", WEFT_ROLE_TO_APP, 1, 3, "10.0.0.1", 80, WEFT_ACT_PASS},
        StampCase{"to_other", WEFT_ROLE_TO_APP, 1, 3, "10.0.0.2", 80, WEFT_ACT_DENY},
        StampCase{"to_loopback", WEFT_ROLE_TO_APP, 1, 3, "127.0.0.1", 80, WEFT_ACT_DENY},
        StampCase{"to_ourselves", WEFT_ROLE_TO_APP, 1, 3, "10.0.0.1", 15001, WEFT_ACT_DENY},
        StampCase{"other_workload", WEFT_ROLE_TO_APP, 2, 3, "10.0.0.1", 80, WEFT_ACT_DENY},
        StampCase{"old_generation", WEFT_ROLE_TO_APP, 1, 2, "10.0.0.1", 80, WEFT_ACT_DENY},
        StampCase{"listener", WEFT_ROLE_LISTENER, 1, 3, "10.0.0.1", 80, WEFT_ACT_DENY}),
    [](const auto& test) { return test.param.name; });

TEST(BindAllowed, OnlyListenersTakeOurPorts) {
  EXPECT_FALSE(weft_bind_allowed(WEFT_ROLE_NONE, htons(WEFT_PORT_OUTBOUND)));
  EXPECT_FALSE(weft_bind_allowed(WEFT_ROLE_APP, htons(WEFT_PORT_DNS)));
  EXPECT_FALSE(weft_bind_allowed(WEFT_ROLE_TUNNEL, htons(WEFT_PORT_HBONE)));
  EXPECT_TRUE(weft_bind_allowed(WEFT_ROLE_LISTENER, htons(WEFT_PORT_INBOUND)));
  EXPECT_TRUE(weft_bind_allowed(WEFT_ROLE_NONE, htons(8080)));
}

}  // namespace
}  // namespace weft
