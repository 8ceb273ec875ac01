// SPDX-License-Identifier: Apache-2.0
// The balancer's pure parts on the host: parsing hostile bytes, flow buckets and their expiry, QUIC
// connection ids, hashes, outer headers.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <vector>

#include "bpf/tc/balancer_encap.h"
#include "bpf/tc/balancer_quic.h"

namespace {

weft_lb_config Config() {
  weft_lb_config config{};
  config.expiry[WEFT_LB_FLOW_NEW] = 10;
  config.expiry[WEFT_LB_FLOW_LIVE] = 1000;
  config.expiry[WEFT_LB_FLOW_CLOSING] = 20;
  config.expiry[WEFT_LB_FLOW_LIVE_DATAGRAM] = 50;
  return config;
}

TEST(BalancerFlowTest, ExpiresByStateAcrossTheClocksWrap) {
  const weft_lb_config config = Config();
  for (const uint32_t state : {0u, 1u, 2u, 3u}) {
    for (const uint16_t start : {uint16_t{100}, uint16_t{65530}}) {
      const uint32_t value = weft_lb_value(state, 5, start);
      const uint16_t last = static_cast<uint16_t>(start + config.expiry[state]);
      EXPECT_FALSE(weft_lb_expired(value, last, &config)) << state;
      EXPECT_TRUE(weft_lb_expired(value, static_cast<uint16_t>(last + 1), &config)) << state;
    }
  }
}

TEST(BalancerFlowTest, StatesFollowTheClientsPackets) {
  const uint32_t fresh = weft_lb_value(WEFT_LB_FLOW_NEW, 7, 1);
  const auto next = [](uint32_t value, uint32_t kind) {
    return weft_lb_value_state(weft_lb_next_value(value, kind, 2));
  };
  EXPECT_EQ(next(fresh, WEFT_LB_OPEN), WEFT_LB_FLOW_NEW);
  EXPECT_EQ(next(fresh, WEFT_LB_DATA), WEFT_LB_FLOW_LIVE);
  EXPECT_EQ(next(fresh, WEFT_LB_DATAGRAM), WEFT_LB_FLOW_LIVE_DATAGRAM);
  EXPECT_EQ(next(fresh, WEFT_LB_CLOSE), WEFT_LB_FLOW_CLOSING);
  const uint32_t closing = weft_lb_value(WEFT_LB_FLOW_CLOSING, 7, 1);
  EXPECT_EQ(next(closing, WEFT_LB_DATA), WEFT_LB_FLOW_CLOSING);
  EXPECT_EQ(weft_lb_value_backend(weft_lb_next_value(closing, WEFT_LB_DATA, 2)), 7u);
  EXPECT_EQ(static_cast<uint16_t>(weft_lb_next_value(closing, WEFT_LB_DATA, 2)), 2u);
}

TEST(BalancerFlowTest, KeepsByKindAndBackend) {
  const weft_lb_config config = Config();
  struct Case {
    uint32_t state;
    uint32_t kind;
    uint8_t backend;
    bool keeps;
  };
  const Case cases[] = {
      {WEFT_LB_FLOW_LIVE, WEFT_LB_DATA, WEFT_LB_ACTIVE, true},
      {WEFT_LB_FLOW_LIVE, WEFT_LB_DATA, WEFT_LB_DRAINING, true},
      {WEFT_LB_FLOW_LIVE, WEFT_LB_DATA, WEFT_LB_GONE, false},
      {WEFT_LB_FLOW_LIVE, WEFT_LB_OPEN, WEFT_LB_ACTIVE, true},
      {WEFT_LB_FLOW_LIVE, WEFT_LB_OPEN, WEFT_LB_DRAINING, true},
      {WEFT_LB_FLOW_NEW, WEFT_LB_OPEN, WEFT_LB_ACTIVE, true},
      {WEFT_LB_FLOW_NEW, WEFT_LB_OPEN, WEFT_LB_DRAINING, false},
      {WEFT_LB_FLOW_NEW, WEFT_LB_DATA, WEFT_LB_DRAINING, true},
      {WEFT_LB_FLOW_CLOSING, WEFT_LB_OPEN, WEFT_LB_ACTIVE, false},
      {WEFT_LB_FLOW_CLOSING, WEFT_LB_DATA, WEFT_LB_DRAINING, true},
      {WEFT_LB_FLOW_LIVE_DATAGRAM, WEFT_LB_DATAGRAM, WEFT_LB_DRAINING, true},
      {WEFT_LB_FLOW_NEW, WEFT_LB_DATAGRAM, WEFT_LB_GONE, false},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(weft_lb_keeps(weft_lb_value(c.state, 1, 100), 105, c.kind, c.backend, &config),
              c.keeps)
        << c.state << " " << c.kind << " " << int{c.backend};
    EXPECT_FALSE(weft_lb_keeps(weft_lb_value(c.state, 1, 100), 3000, c.kind, c.backend, &config));
  }
}

// A plain model of a bucket: newcomers arrive at random; no one who was ever live leaves before it
// has expired.
TEST(BalancerFlowTest, NewcomersNeverTakeALivePlace) {
  const weft_lb_config config = Config();
  std::mt19937 random(5);
  weft_lb_bucket4 bucket{};
  std::map<uint64_t, uint16_t> live;  // key: last packet
  uint16_t now = 65000;
  for (int step = 0; step < 200'000; ++step) {
    if (random() % 16 == 0) ++now;
    const uint64_t key = random() % 8 == 0 ? random() % 6 + 1 : random() + 100u;
    uint32_t way = weft_lb_find4(&bucket, key);
    if (way < WEFT_LB_WAYS && !weft_lb_expired(bucket.value[way], now, &config)) {
      bucket.value[way] = weft_lb_next_value(bucket.value[way], WEFT_LB_DATA, now);
      live[key] = now;
    } else {
      if (way == WEFT_LB_NO_WAY) way = weft_lb_place4(&bucket, now, &config);
      if (way == WEFT_LB_NO_WAY) continue;
      bucket.key[way] = key;
      bucket.value[way] = weft_lb_value(WEFT_LB_FLOW_NEW, 1, now);
      live.erase(key);
    }
    for (auto it = live.begin(); it != live.end();) {
      const bool expired = static_cast<uint16_t>(now - it->second) > config.expiry[1];
      if (!expired) {
        ASSERT_LT(weft_lb_find4(&bucket, it->first), WEFT_LB_NO_WAY) << step;
      }
      it = expired ? live.erase(it) : std::next(it);
    }
  }
}

TEST(BalancerFlowTest, PlacesByWillingness) {
  const weft_lb_config config = Config();
  weft_lb_bucket6 bucket{};
  for (uint32_t way = 0; way < WEFT_LB_WAYS; ++way) {
    bucket.key[way] = way + 1;
    bucket.value[way] = weft_lb_value(WEFT_LB_FLOW_LIVE, 1, 100);
  }
  EXPECT_EQ(weft_lb_place6(&bucket, 100, &config), WEFT_LB_NO_WAY);
  bucket.value[1] = weft_lb_value(WEFT_LB_FLOW_NEW, 1, 99);
  bucket.value[3] = weft_lb_value(WEFT_LB_FLOW_NEW, 1, 95);
  EXPECT_EQ(weft_lb_place6(&bucket, 100, &config), 3u) << "the one that is new longest";
  bucket.value[4] = weft_lb_value(WEFT_LB_FLOW_CLOSING, 1, 70);
  EXPECT_EQ(weft_lb_place6(&bucket, 100, &config), 4u) << "expired";
  bucket.key[2] = 0;
  EXPECT_EQ(weft_lb_place6(&bucket, 100, &config), 2u) << "free";
}

TEST(BalancerPacketTest, SurvivesAnyBytes) {
  std::mt19937 random(9);
  for (int round = 0; round < 200'000; ++round) {
    // Exactly as long as said: the sanitizer sees a read beyond. Even addresses, as in frames.
    const size_t size = random() % 120;
    std::vector<uint16_t> words((size + 1) / 2);
    for (uint16_t& word : words) word = static_cast<uint16_t>(random());
    uint8_t* bytes = reinterpret_cast<uint8_t*>(words.data());
    const bool v6 = random() % 2 == 0;
    if (size > 10 && random() % 8 != 0) {  // often a header that is looked into
      bytes[0] = v6 ? 0x60 : static_cast<uint8_t>(0x45 + random() % 3);
      if (v6) {
        bytes[4] = 0, bytes[5] = static_cast<uint8_t>(random() % 64);
        const uint8_t next[] = {0, 6, 17, 43, 44, 58, 60};
        bytes[6] = next[random() % 7];
      } else {
        bytes[2] = 0, bytes[3] = static_cast<uint8_t>(random() % 120);
        bytes[6] &= 0x60, bytes[7] = 0;
        const uint8_t protocol[] = {1, 6, 17};
        bytes[9] = protocol[random() % 3];
      }
    }
    weft_lb_packet packet{};
    uint8_t* end = bytes + size;
    const int parsed = v6 ? weft_lb_parse6(&packet, bytes, end, static_cast<uint32_t>(size))
                          : weft_lb_parse4(&packet, bytes, end, static_cast<uint32_t>(size));
    if (parsed == WEFT_LB_BAD_IP) continue;
    EXPECT_LE(packet.inner_bytes, size);
    if (parsed == WEFT_LB_NOT_L4 && packet.l4 + 8 <= end) {
      weft_lb_packet about{};
      if (weft_lb_parse_inner(&packet, end, &about)) {
        EXPECT_EQ(about.dst_lo, packet.dst_lo);
      }
    }
    if (parsed == WEFT_LB_PARSED && packet.part != WEFT_LB_LATER) {
      EXPECT_LE(packet.l4 + 8, end);
      (void)weft_lb_quic_server(packet.l4 + 8, end, 1);
    }
  }
}

TEST(BalancerPacketTest, KindsOfFlags) {
  EXPECT_EQ(weft_lb_kind_of_flags(0x02), WEFT_LB_OPEN);
  EXPECT_EQ(weft_lb_kind_of_flags(0xc2), WEFT_LB_OPEN) << "with ECN";
  EXPECT_EQ(weft_lb_kind_of_flags(0x12), WEFT_LB_DATA);
  EXPECT_EQ(weft_lb_kind_of_flags(0x10), WEFT_LB_DATA);
  EXPECT_EQ(weft_lb_kind_of_flags(0), WEFT_LB_DATA);
  EXPECT_EQ(weft_lb_kind_of_flags(0x11), WEFT_LB_CLOSE);
  EXPECT_EQ(weft_lb_kind_of_flags(0x04), WEFT_LB_CLOSE);
  EXPECT_EQ(weft_lb_kind_of_flags(0x06), WEFT_LB_CLOSE);
}

TEST(BalancerQuicTest, NamesServersOfItsConfigurationOnly) {
  const uint8_t short_header[] = {0x40, 0x67, 1, 2, 9, 9, 9, 9};
  const uint8_t* end = short_header + sizeof short_header;
  EXPECT_EQ(weft_lb_quic_server(short_header, end, 3), 0x102u);
  EXPECT_EQ(weft_lb_quic_server(short_header, end, 2), WEFT_LB_QUIC_NONE);
  EXPECT_EQ(weft_lb_quic_server(short_header, end - 1, 3), WEFT_LB_QUIC_NONE);
  const uint8_t unroutable[] = {0x40, 0xe7, 1, 2, 9, 9, 9, 9};
  EXPECT_EQ(weft_lb_quic_server(unroutable, unroutable + 8, 7), WEFT_LB_QUIC_NONE);
  for (const bool second : {false, true}) {
    for (uint8_t type = 0; type < 4; ++type) {
      std::vector<uint8_t> packet = {
          static_cast<uint8_t>(0xc0 | type << 4), 0, 0, 0, 1, 7, 0x67, 1, 2, 9, 9, 9, 9};
      if (second) packet[1] = 0x6b, packet[2] = 0x33, packet[3] = 0x43, packet[4] = 0xcf;
      const bool first = second ? type == 1 || type == 2 : type < 2;
      const uint8_t* past = packet.data() + packet.size();
      EXPECT_EQ(weft_lb_quic_server(packet.data(), past, 3), first ? WEFT_LB_QUIC_NONE : 0x102u);
      EXPECT_EQ(weft_lb_quic_server(packet.data(), past - 1, 3), WEFT_LB_QUIC_NONE);
      packet[5] = 6;
      EXPECT_EQ(weft_lb_quic_server(packet.data(), past, 3), WEFT_LB_QUIC_NONE);
    }
  }
}

TEST(BalancerHashTest, SpreadsFlowsOverBucketsAndRings) {
  std::vector<int> buckets(64), ring(101);
  for (uint32_t i = 0; i < 64'000; ++i) {
    const uint64_t key = (uint64_t{0x0a000000 + i / 100} << 32) | (i % 100) << 16 | 1;
    ++buckets[weft_lb_mix(key, 0x1234567890abcdef, 0xfedcba0987654321) & 63];
    ++ring[weft_lb_ring_at(101, weft_lb_ring_hash4(0x0a000000 + i / 100, i % 100, 0))];
  }
  for (const int count : buckets) EXPECT_NEAR(count, 1000, 200);
  for (const int count : ring) EXPECT_NEAR(count, 633, 150);
  EXPECT_EQ(weft_lb_ring_at(uint64_t{5000} << 32 | 251, ~0ull), 5250u);
  EXPECT_EQ(weft_lb_ring_at(uint64_t{5000} << 32 | 251, 0), 5000u);
}

TEST(BalancerEncapTest, ChecksumsOfOuterHeadersAreRight) {
  std::mt19937 random(2);
  for (int round = 0; round < 100'000; ++round) {
    weft_lb_config config{};
    config.source4 = static_cast<__u32>(random());
    config.source4_sum = weft_lb_source_sum(config.source4);
    weft_lb_backend backend{};
    backend.addr[3] = static_cast<__u32>(random());
    backend.encap = random() % 2 ? WEFT_LB_ENCAP_GUE : 0;
    backend.csum = weft_lb_backend_sum(backend.addr[3], weft_lb_outer_protocol(backend.encap, 0));
    weft_lb_ipv4 ip;
    weft_lb_write4(&ip, &config, &backend, backend.encap, random() % 2,
                   static_cast<uint8_t>(random()), random() % 1481 + 20);
    uint16_t words[10];
    memcpy(words, &ip, sizeof ip);
    uint32_t sum = 0;
    for (const uint16_t word : words) sum += word;
    EXPECT_EQ(weft_lb_fold(sum), 0);
  }
}

}  // namespace
