// SPDX-License-Identifier: Apache-2.0
// balance.h over cells of the test's own: what is picked, what is kept, and that nothing outside
// the service's pool can be.
#include "bpf/balance.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <array>
#include <map>
#include <vector>

namespace {

constexpr uint32_t kFirst = 7;  // the pool does not begin at 0
constexpr uint32_t kService = 3;
constexpr uint64_t kSecond = 1000000000;

weft_addr Address(uint32_t host, uint16_t port) {
  weft_addr out;
  weft_addr_v4(&out, htonl(0x0a000000 | host), htons(port));
  return out;
}

// A pool of `backends` endpoints 10.0.0.N:80 with this ring.
struct Pool {
  std::vector<weft_cell> cells = std::vector<weft_cell>(kFirst, weft_cell{});

  Pool(uint32_t backends, const std::vector<uint16_t>& ring, uint32_t flags = 0,
       uint32_t affinity_s = 0) {
    weft_cell cell{};
    cell.pool.service = kService;
    cell.pool.flags = flags;
    cell.pool.backends = backends;
    cell.pool.ring = static_cast<uint32_t>(ring.size());
    cell.pool.affinity_s = affinity_s;
    cells.push_back(cell);
    for (uint32_t i = 0; i < backends; ++i) {
      cell = weft_cell{};
      cell.backend.addr = Address(i, 80);
      cell.backend.flags = WEFT_BACKEND_SERVES;
      cells.push_back(cell);
    }
    for (size_t i = 0; i < ring.size(); i += WEFT_RING_IN_CELL) {
      cell = weft_cell{};
      for (size_t j = 0; j < WEFT_RING_IN_CELL && i + j < ring.size(); ++j) {
        cell.ring[j] = ring[i + j];
      }
      cells.push_back(cell);
    }
  }
  static const weft_cell* Find(void* self, uint32_t at) {
    auto& cells = static_cast<Pool*>(self)->cells;
    return at < cells.size() ? &cells[at] : nullptr;
  }
};

struct Asked {
  weft_addr client = Address(99, 0);
  weft_addr vip = Address(200, 443);
  weft_throw ask{.first = kFirst, .service = kService, .client = client.ip, .vip = &vip};

  // The index, -1: none.
  int Throw(Pool& pool) {
    weft_pick pick{};
    const weft_pool* head = weft_pool_of(&ask, &pool, Pool::Find);
    if (head == nullptr || !weft_throw_ring(&ask, head, &pool, Pool::Find, &pick)) return -1;
    EXPECT_TRUE(weft_ip_equal(pick.addr.ip, Address(pick.index, 80).ip));
    return static_cast<int>(pick.index);
  }
  int Keep(Pool& pool, const weft_affinity& known) {
    weft_pick pick{};
    const weft_pool* head = weft_pool_of(&ask, &pool, Pool::Find);
    if (head == nullptr || !weft_keep_backend(&ask, head, &known, &pool, Pool::Find, &pick)) {
      return -1;
    }
    return static_cast<int>(pick.index);
  }
};

std::vector<uint16_t> Turns(uint16_t backends, size_t size) {
  std::vector<uint16_t> ring(size);
  for (size_t i = 0; i < size; ++i) ring[i] = static_cast<uint16_t>(i % backends);
  return ring;
}

TEST(Balance, EveryEntryOfTheRingHasTheSameChance) {
  constexpr uint32_t kEntries = 127;
  std::vector<uint16_t> ring(kEntries);
  for (uint16_t i = 0; i < kEntries; ++i) ring[i] = i;
  Pool pool(kEntries, ring);
  Asked asked;
  std::array<int, kEntries> counts{};
  constexpr uint32_t kThrows = 1u << 20;
  for (uint32_t i = 0; i < kThrows; ++i) {
    asked.ask.random = i * (UINT32_MAX / kThrows + 1);  // the whole range in even steps
    const int index = asked.Throw(pool);
    ASSERT_GE(index, 0);
    ++counts[static_cast<size_t>(index)];
  }
  for (const int count : counts) EXPECT_NEAR(count, kThrows / kEntries, 1);
  asked.ask.random = UINT32_MAX;
  EXPECT_EQ(asked.Throw(pool), static_cast<int>(kEntries) - 1);
}

TEST(Balance, NoPoolNoRingAndAnothersPoolAreNoEndpoint) {
  Pool pool(2, Turns(2, 127));
  Asked asked;
  asked.ask.first = 0;
  EXPECT_EQ(asked.Throw(pool), -1);
  asked.ask.first = 100000;
  EXPECT_EQ(asked.Throw(pool), -1);
  asked = {};
  asked.ask.client = asked.client.ip;
  asked.ask.vip = &asked.vip;
  asked.ask.service = kService + 1;
  EXPECT_EQ(asked.Throw(pool), -1);
  asked.ask.service = kService;
  EXPECT_GE(asked.Throw(pool), 0);
  Pool empty(2, {});
  EXPECT_EQ(asked.Throw(empty), -1);
}

TEST(Balance, ABrokenRingNamesNobody) {
  Asked asked;
  Pool beyond(2, std::vector<uint16_t>(127, 9));
  EXPECT_EQ(asked.Throw(beyond), -1);
  Pool hole(2, std::vector<uint16_t>(127, 1));
  hole.cells[kFirst + 2].backend.flags = 0;
  EXPECT_EQ(asked.Throw(hole), -1);
}

TEST(Balance, MaglevGoesByTheClientAndTheVipAlone) {
  Pool pool(16, Turns(16, 1021), WEFT_POOL_MAGLEV);
  std::map<int, int> by_client, by_vip;
  for (uint32_t host = 0; host < 16000; ++host) {
    Asked asked;
    asked.client = Address(host, 0);
    const int first = asked.Throw(pool);
    asked.ask.random = host * 2654435761u;
    EXPECT_EQ(asked.Throw(pool), first);
    ++by_client[first];
    asked.client = Address(1, 0);
    asked.vip = Address(host, 80);
    ++by_vip[asked.Throw(pool)];
  }
  // Chi-square with 15 degrees of freedom: beyond 37.7 once in a thousand.
  for (const auto* counts : {&by_client, &by_vip}) {
    double chi = 0;
    ASSERT_EQ(counts->size(), 16u);
    for (const auto& [index, count] : *counts) chi += (count - 1000.0) * (count - 1000.0) / 1000.0;
    EXPECT_LT(chi, 37.7);
  }
}

TEST(Affinity, IsKeptUntilItsTimeHasRunOut) {
  Pool pool(4, Turns(4, 127), 0, 10);
  Asked asked;
  asked.ask.now_ns = 100 * kSecond;
  weft_affinity known{.addr = Address(2, 80), .index = 2, .used_ns = 90 * kSecond};
  EXPECT_EQ(asked.Keep(pool, known), 2);
  known.used_ns -= 1;
  EXPECT_EQ(asked.Keep(pool, known), -1);
  known.used_ns = 100 * kSecond + 5;  // another CPU, just now
  EXPECT_EQ(asked.Keep(pool, known), 2);
  asked.ask.now_ns = 90000 * kSecond;
  pool.cells[kFirst].pool.affinity_s = 86400;  // beyond 32 bits of nanoseconds
  known.used_ns = asked.ask.now_ns - 86400 * kSecond;
  EXPECT_EQ(asked.Keep(pool, known), 2);
}

TEST(Affinity, FailsOverWhereTheEndpointIsNoLongerThatOne) {
  Pool pool(4, Turns(4, 127), 0, 10);
  Asked asked;
  const weft_affinity known{.addr = Address(2, 80), .index = 2, .used_ns = 0};
  EXPECT_EQ(asked.Keep(pool, known), 2);
  for (const weft_affinity& other :
       {weft_affinity{.addr = Address(2, 81), .index = 2},  // another port
        weft_affinity{.addr = Address(3, 80), .index = 2},  // the index is another's by now
        weft_affinity{.addr = Address(2, 80), .index = 3},  // half of one, half of another
        weft_affinity{.addr = Address(2, 80), .index = 4},
        weft_affinity{.addr = Address(2, 80), .index = UINT32_MAX}, weft_affinity{}}) {
    EXPECT_NE(asked.Keep(pool, other), 2);
  }
  pool.cells[kFirst + 1 + 2].backend.flags = 0;
  EXPECT_EQ(asked.Keep(pool, known), -1);
}

}  // namespace
