// SPDX-License-Identifier: Apache-2.0
// VIPs and backends in plain memory: what the programs would find there after, and during, changes.
#include "control/bpf/balancer_tables.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "bpf/tc/balancer_flow.h"
#include "bpf/tc/balancer_hash.h"

namespace weft::bpf {
namespace {

IpAddress A(std::string_view text) { return IpAddress::Parse(text).value(); }

class VipTableTest : public testing::Test {
 protected:
  explicit VipTableTest(uint32_t chunks = 8)
      : rings_(chunks * WEFT_LB_CHUNK), table_(Memory(), true, true) {}
  BalancerMemoryMap Memory() {
    return {tables_.get(), rings_, flows4_, flows6_, fragments_, [this] {
              ++graces_;
              return grace_;
            }};
  }
  // As the programs look a VIP up.
  uint32_t Find(const SocketAddress& address, uint8_t protocol = 6) const {
    const uint32_t service = weft_lb_service(htons(address.port), protocol);
    __u64 words[2];
    memcpy(words, address.ip.bytes.data(), sizeof words);
    const __u32 v4 = static_cast<__u32>(words[1] >> 32);
    const __u64 hash = address.ip.is_v4() ? weft_lb_vip_hash4(v4, service)
                                          : weft_lb_vip_hash6(words[0], words[1], service);
    return weft_lb_find_vip(tables_.get(), hash, words[0], words[1], service);
  }
  std::set<std::string> RingOf(const SocketAddress& address, uint8_t protocol = 6) const {
    std::set<std::string> out;
    const weft_lb_vip& vip = tables_->vips[Find(address, protocol)];
    for (uint32_t i = 0; i < static_cast<uint32_t>(vip.ring); ++i) {
      const weft_lb_backend& backend = tables_->backends[rings_[(vip.ring >> 32) + i]];
      EXPECT_EQ(backend.state, WEFT_LB_ACTIVE);
      IpAddress ip;
      memcpy(ip.bytes.data(), backend.addr, 16);
      out.insert(ip.ToString());
    }
    return out;
  }
  static BalancerVip Vip(std::string_view address, std::vector<std::string> backends,
                         uint16_t port = 80) {
    BalancerVip vip{.address = {A(address), port}};
    for (const std::string& backend : backends) vip.backends.push_back({.address = A(backend)});
    return vip;
  }

  std::unique_ptr<weft_lb_tables> tables_ = std::make_unique<weft_lb_tables>();
  std::vector<uint16_t> rings_;
  std::vector<weft_lb_bucket4> flows4_ = std::vector<weft_lb_bucket4>(4);
  std::vector<weft_lb_bucket6> flows6_ = std::vector<weft_lb_bucket6>(4);
  std::vector<weft_lb_fragment> fragments_ = std::vector<weft_lb_fragment>(4);
  int graces_ = 0;
  absl::Status grace_;
  VipTable table_;
};

using Strings = std::set<std::string>;

TEST_F(VipTableTest, FindsWhatIsSetAndNothingElse) {
  const BalancerVip a = Vip("192.0.2.1", {"10.0.0.1", "10.0.0.2"});
  const BalancerVip b = Vip("2001:db8::1", {"fd00::1"}, 443);
  ASSERT_TRUE(table_.Set(a).ok());
  ASSERT_TRUE(table_.Set(b).ok());
  EXPECT_EQ(RingOf(a.address), (Strings{"10.0.0.1", "10.0.0.2"}));
  EXPECT_EQ(RingOf(b.address), Strings{"fd00::1"});
  EXPECT_EQ(Find({A("192.0.2.1"), 81}), 0u);
  EXPECT_EQ(Find(a.address, 17), 0u);
  EXPECT_NE(Find({A("192.0.2.1"), 0}, 0), 0u) << "the address itself";
  ASSERT_TRUE(table_.Remove(a.address, 6).ok());
  ASSERT_TRUE(table_.Remove(a.address, 6).ok()) << "again";
  EXPECT_EQ(Find(a.address), 0u);
  EXPECT_EQ(Find({A("192.0.2.1"), 0}, 0), 0u);
  EXPECT_EQ(RingOf(b.address), Strings{"fd00::1"});
}

TEST_F(VipTableTest, DrainingLeavesTheRingAndKeepsTheBackend) {
  BalancerVip vip = Vip("192.0.2.1", {"10.0.0.1", "10.0.0.2"});
  ASSERT_TRUE(table_.Set(vip).ok());
  const uint16_t index_of_first = [&] {
    const uint64_t ring = tables_->vips[Find(vip.address)].ring;
    for (uint32_t i = 0;; ++i) {
      const uint16_t index = rings_[(ring >> 32) + i];
      if (tables_->backends[index].addr[3] == htonl(0x0a000001)) return index;
    }
  }();
  vip.backends[0].draining = true;
  ASSERT_TRUE(table_.Set(vip).ok());
  EXPECT_EQ(RingOf(vip.address), Strings{"10.0.0.2"});
  EXPECT_EQ(tables_->backends[index_of_first].state, WEFT_LB_DRAINING);
  vip.backends[0].draining = false;
  ASSERT_TRUE(table_.Set(vip).ok());
  EXPECT_EQ(tables_->backends[index_of_first].state, WEFT_LB_ACTIVE);
  vip.backends.erase(vip.backends.begin());
  ASSERT_TRUE(table_.Set(vip).ok());
  EXPECT_EQ(tables_->backends[index_of_first].state, WEFT_LB_GONE);
}

TEST_F(VipTableTest, ARingIsNeverWrittenWhereAVipPoints) {
  const BalancerVip vip = Vip("192.0.2.1", {"10.0.0.1", "10.0.0.2", "10.0.0.3"});
  ASSERT_TRUE(table_.Set(vip).ok());
  const uint64_t old = tables_->vips[Find(vip.address)].ring;
  const std::vector<uint16_t> before(rings_.begin() + static_cast<long>(old >> 32),
                                     rings_.begin() + static_cast<long>((old >> 32) + 4093));
  ASSERT_TRUE(table_.Set(Vip("192.0.2.1", {"10.0.0.3"})).ok());
  const uint64_t now = tables_->vips[Find(vip.address)].ring;
  EXPECT_NE(now >> 32, old >> 32);
  EXPECT_TRUE(
      std::equal(before.begin(), before.end(), rings_.begin() + static_cast<long>(old >> 32)))
      << "a program may still be reading it";
  EXPECT_EQ(graces_, 0) << "there was room";
  // 8 chunks, 2 a ring: the fourth change must wait for readers of the first.
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(table_.Set(vip).ok());
  EXPECT_EQ(graces_, 1);
}

TEST_F(VipTableTest, AReusedIndexIsNamedByNoFlow) {
  BalancerVip vip = Vip("192.0.2.1", {"10.0.0.1"});
  ASSERT_TRUE(table_.Set(vip).ok());
  const uint32_t index = rings_[tables_->vips[Find(vip.address)].ring >> 32];
  const uint32_t vip_index = Find(vip.address);
  flows4_[1].key[2] = 0x0100000000500000 | vip_index;
  flows4_[1].value[2] = weft_lb_value(WEFT_LB_FLOW_LIVE, index, 7);
  flows6_[2].key[3] = vip_index;
  flows6_[2].value[3] = weft_lb_value(WEFT_LB_FLOW_LIVE, index, 7);
  fragments_[0].backend = index;
  ASSERT_TRUE(table_.Set(Vip("192.0.2.1", {"10.0.0.2"})).ok());
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(table_.Set(Vip("192.0.2.1", {"10.0.0.2"})).ok());
  ASSERT_GE(graces_, 1);
  EXPECT_EQ(weft_lb_value_backend(flows4_[1].value[2]), 0u);
  EXPECT_EQ(weft_lb_value_backend(flows6_[2].value[3]), 0u);
  EXPECT_EQ(fragments_[0].backend, 0u);
  EXPECT_EQ(flows4_[1].key[2] & (WEFT_LB_VIPS - 1), vip_index) << "the VIP is still there";
  ASSERT_TRUE(table_.Remove(vip.address, 6).ok());
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(table_.Set(Vip("192.0.2.9", {"10.0.0.2"})).ok());
  EXPECT_EQ(flows4_[1].key[2], 0u);
  EXPECT_EQ(flows6_[2].key[3], 0u);
}

TEST_F(VipTableTest, FullOrRefusedChangesNothing) {
  BalancerVip vip = Vip("192.0.2.1", {"10.0.0.1"});
  ASSERT_TRUE(table_.Set(vip).ok());
  BalancerVip larger = Vip("192.0.2.1", {"10.0.0.2"});
  larger.ring_entries = 65521;
  EXPECT_EQ(table_.Set(larger).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(RingOf(vip.address), Strings{"10.0.0.1"});
  grace_ = absl::UnavailableError("no grace");
  EXPECT_EQ(table_.Set(larger).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(RingOf(vip.address), Strings{"10.0.0.1"});
  EXPECT_EQ(table_.Set(Vip("192.0.2.7", {})).code(), absl::StatusCode::kOk);

  const auto refused = [&](const BalancerVip& bad) {
    return table_.Set(bad).code() == absl::StatusCode::kInvalidArgument;
  };
  EXPECT_TRUE(refused(Vip("192.0.2.1", {"10.0.0.1", "10.0.0.1"})));
  EXPECT_TRUE(refused(Vip("192.0.2.1", {"0.0.0.0"})));
  EXPECT_TRUE(refused(Vip("192.0.2.1", {"10.0.0.1"}, 0)));
  EXPECT_TRUE(refused(Vip("::", {"10.0.0.1"})));
  vip.protocol = 132;
  EXPECT_TRUE(refused(vip));
  vip.protocol = 6;
  vip.quic_config = 1;
  EXPECT_TRUE(refused(vip)) << "QUIC is UDP";
  vip.protocol = 17;
  EXPECT_FALSE(refused(vip));
  vip.quic_config = 7;
  EXPECT_TRUE(refused(vip));
  vip.quic_config.reset();
  vip.ring_entries = 4096;
  EXPECT_TRUE(refused(vip)) << "not a prime";
  vip.ring_entries = 0;
  vip.backends[0].weight = 0;
  EXPECT_TRUE(refused(vip));
  vip.backends[0].weight = 1;
  vip.backends[0].quic_server_id = 2048;
  EXPECT_TRUE(refused(vip));
  VipTable only_v4(Memory(), true, false);
  EXPECT_EQ(only_v4.Set(Vip("192.0.2.1", {"fd00::1"})).code(), absl::StatusCode::kInvalidArgument);
}

class ManyVipsTest : public VipTableTest {
 protected:
  ManyVipsTest() : VipTableTest(2300) {}
};

// Random changes against a plain map of what should be there.
TEST_F(ManyVipsTest, AgreesWithAPlainModel) {
  std::mt19937 random(3);
  std::map<SocketAddress, Strings> model;
  for (int step = 0; step < 3000; ++step) {
    const SocketAddress address{A("192.0.2." + std::to_string(random() % 60 + 1)),
                                static_cast<uint16_t>(random() % 5 + 1)};
    if (random() % 3 == 0) {
      ASSERT_TRUE(table_.Remove(address, 6).ok());
      model.erase(address);
    } else {
      BalancerVip vip{.address = address, .ring_entries = 251};
      Strings backends;
      for (unsigned i = random() % 4; i > 0; --i) {
        backends.insert("10.0.0." + std::to_string(random() % 9 + 1));
      }
      for (const std::string& backend : backends) vip.backends.push_back({.address = A(backend)});
      ASSERT_TRUE(table_.Set(vip).ok()) << step;
      model[address] = backends;
    }
    if (step % 100 != 99) continue;
    for (int host = 1; host <= 60; ++host) {
      bool any = false;
      for (uint16_t port = 1; port <= 5; ++port) {
        const SocketAddress one{A("192.0.2." + std::to_string(host)), port};
        ASSERT_EQ(Find(one) != 0, model.contains(one)) << one.ToString() << " step " << step;
        if (model.contains(one)) {
          ASSERT_EQ(RingOf(one), model[one]);
        }
        any = any || model.contains(one);
      }
      ASSERT_EQ(Find({A("192.0.2." + std::to_string(host)), 0}, 0) != 0, any);
    }
  }
  EXPECT_EQ(table_.ring_bytes(), [&] {
    uint64_t rings = 0;
    for (const auto& [address, backends] : model) rings += !backends.empty();
    return rings * WEFT_LB_CHUNK * 2;
  }());
}

TEST_F(ManyVipsTest, HoldsAsManyVipsAsItSays) {
  int set = 0;
  for (int i = 0; i < WEFT_LB_VIPS; ++i) {
    const std::string address = "198.18." + std::to_string(i / 200) + "." + std::to_string(i % 200);
    if (!table_.Set(Vip(address, {"10.0.0.1"})).ok()) break;
    ++set;
  }
  // One entry for each address, one for each of its ports.
  EXPECT_EQ(set, (WEFT_LB_VIPS - 1) / 2);
  EXPECT_EQ(table_.Set(Vip("198.19.0.1", {"10.0.0.1"})).code(),
            absl::StatusCode::kResourceExhausted);
  ASSERT_TRUE(table_.Remove({A("198.18.0.7"), 80}, 6).ok());
  EXPECT_TRUE(table_.Set(Vip("198.19.0.1", {"10.0.0.1"})).ok());
}

}  // namespace
}  // namespace weft::bpf
