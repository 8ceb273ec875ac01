// SPDX-License-Identifier: Apache-2.0
// Rings as they are written, thrown by the header that the kernel uses.
#include "control/bpf/balance_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "bpf/balance.h"
#include "control/bpf/address.h"

namespace weft::bpf {
namespace {

using Cells = std::vector<weft_cell>;

SocketAddress At(uint32_t host, uint16_t port = 80) {
  const uint8_t bytes[] = {10, 0, static_cast<uint8_t>(host >> 8), static_cast<uint8_t>(host)};
  return {*IpAddress::FromBytes(bytes), port};
}

ServiceConfig Service(uint32_t backends) {
  ServiceConfig service{.id = 5};
  for (uint32_t i = 0; i < backends; ++i) service.backends.push_back(At(i));
  return service;
}

// Cell 0 is nobody's, so that the pool has a number.
Cells Build(const ServiceConfig& service, const Cells& before = {}) {
  auto pool = BuildPool(service, std::span(before).subspan(before.empty() ? 0 : 1));
  EXPECT_TRUE(pool.ok()) << pool.status();
  Cells cells(1, weft_cell{});
  if (pool.ok()) cells.insert(cells.end(), pool->begin(), pool->end());
  return cells;
}

const weft_cell* Find(void* cells, uint32_t at) {
  auto& all = *static_cast<Cells*>(cells);
  return at < all.size() ? &all[at] : nullptr;
}

// Whom a client gets; nullopt: nobody.
std::optional<SocketAddress> Throw(Cells& cells, uint32_t random, uint32_t client = 1) {
  const weft_addr own = ToKernel(At(client, 0));
  const weft_addr vip = ToKernel(*SocketAddress::Parse("10.96.0.1:80"));
  const weft_throw ask{.first = 1, .service = 5, .client = own.ip, .vip = &vip, .random = random};
  weft_pick pick{};
  const weft_pool* pool = weft_pool_of(&ask, &cells, Find);
  if (pool == nullptr || !weft_throw_ring(&ask, pool, &cells, Find, &pick)) return std::nullopt;
  return FromKernel(pick.addr);
}

std::map<SocketAddress, double> Shares(Cells& cells, int throws = 200000) {
  std::mt19937 random(1);
  std::map<SocketAddress, double> shares;
  for (int i = 0; i < throws; ++i) {
    const auto picked = Throw(cells, random(), static_cast<uint32_t>(i));
    if (picked) shares[*picked] += 1.0 / throws;
  }
  return shares;
}

TEST(BalancePool, WeightsHoldWithinAFewPerCent) {
  for (const bool maglev : {false, true}) {
    ServiceConfig service{.id = 5, .maglev = maglev};
    service.backends = {{At(1), 1}, {At(2), 2}, {At(3), 5}, {At(4), 12}};
    Cells cells = Build(service);
    // Of 20 parts; a client of Maglev is one throw, and their addresses repeat after 65536.
    const auto shares = Shares(cells, maglev ? 65536 : 200000);
    for (const ServiceBackend& backend : service.backends) {
      const double want = backend.weight / 20.0;
      EXPECT_NEAR(shares.at(backend.address) / want, 1.0, 0.05)
          << backend.address.ToString() << (maglev ? " maglev" : " random");
    }
  }
}

TEST(BalancePool, EqualWeightsAreEvenByChiSquare) {
  constexpr uint32_t kBackends = 50;
  Cells cells = Build(Service(kBackends));
  constexpr int kThrows = 50000;
  const auto shares = Shares(cells, kThrows);
  ASSERT_EQ(shares.size(), kBackends);
  double chi = 0;
  for (const auto& [address, share] : shares) {
    const double off = share * kThrows - kThrows / kBackends;
    chi += off * off / (kThrows / kBackends);
  }
  // 49 degrees of freedom: beyond 85.4 once in a thousand; the ring's own 1 % adds at most 5.
  EXPECT_LT(chi, 90.4);
}

TEST(BalancePool, WhenOneOfNLeavesFewOtherClientsMove) {
  for (const uint32_t backends : {3u, 10u, 40u}) {
    ServiceConfig service = Service(backends);
    service.maglev = true;
    Cells before = Build(service);
    const SocketAddress leaves = service.backends[backends / 2].address;
    std::erase_if(service.backends, [&](const ServiceBackend& b) { return b.address == leaves; });
    Cells after = Build(service, before);
    ASSERT_EQ(before[1].pool.ring, after[1].pool.ring) << "a ring of another size moves everybody";
    int had_it = 0, moved = 0;
    constexpr int kClients = 20000;
    for (uint32_t client = 0; client < kClients; ++client) {
      const auto was = Throw(before, 0, client);
      const auto is = Throw(after, 0, client);
      ASSERT_TRUE(was && is);
      EXPECT_NE(*is, leaves);
      had_it += *was == leaves;
      moved += *was != leaves && *was != *is;
    }
    EXPECT_NEAR(had_it, kClients / backends, kClients / backends / 4.0);
    EXPECT_LT(moved, kClients * 3 / 100) << backends;  // who need not
  }
}

TEST(BalancePool, EndpointsKeepTheirIndexWhileOthersComeAndGo) {
  std::mt19937 random(7);
  ServiceConfig service = Service(8);
  Cells cells = Build(service);
  for (int round = 0; round < 200; ++round) {
    std::map<SocketAddress, uint32_t> index;
    for (uint32_t i = 0; i < cells[1].pool.backends; ++i) {
      const weft_backend& backend = cells[2 + i].backend;
      if (backend.flags != 0) index[FromKernel(backend.addr)] = i;
    }
    ASSERT_EQ(index.size(), service.backends.size());
    service.backends.erase(service.backends.begin() + random() % service.backends.size());
    service.backends.insert(service.backends.begin() + random() % service.backends.size(),
                            At(100 + round));
    const Cells next = Build(service, cells);
    for (const ServiceBackend& backend : service.backends) {
      const auto had = index.find(backend.address);
      if (had == index.end()) continue;
      ASSERT_EQ(FromKernel(next[2 + had->second].backend.addr), backend.address);
    }
    EXPECT_EQ(next[1].pool.backends, 8u) << "holes are filled";
    cells = next;
  }
}

TEST(BalancePool, WhoGetsNothingNewIsInNoRingButKeepsWhoHasIt) {
  ServiceConfig service{.id = 5, .affinity_s = 60};
  service.backends = {{At(1), 1, true}, {At(2), 9, false}};
  Cells cells = Build(service);
  const auto shares = Shares(cells, 1000);
  ASSERT_EQ(shares.size(), 1u);
  EXPECT_TRUE(shares.contains(At(1)));
  EXPECT_EQ(cells[1].pool.backends, 2u);
  EXPECT_EQ(cells[1].pool.affinity_s, 60u);
}

TEST(BalancePool, NobodyIsNoPoolAndTooManyAreRefused) {
  EXPECT_EQ(BuildPool(Service(0), {})->size(), 0u);
  ServiceConfig weightless{.id = 5, .backends = {{At(1), 0}}};
  EXPECT_EQ(BuildPool(weightless, {})->size(), 0u);
  ServiceConfig many{.id = 5};
  for (uint32_t i = 0; i < 65536; ++i) many.backends.push_back(At(i));
  EXPECT_TRUE(absl::IsResourceExhausted(BuildPool(many, {}).status()));
}

TEST(BalancePool, TheRingGrowsWithTheShares) {
  EXPECT_EQ(PoolRingSize(1), 127u);
  EXPECT_EQ(PoolRingSize(10), 1021u);
  EXPECT_EQ(PoolRingSize(100), 16381u);
  EXPECT_EQ(PoolRingSize(1u << 30), 65521u);
  const Cells cells = Build(Service(10));
  EXPECT_EQ(cells[1].pool.ring, 1021u);
  EXPECT_EQ(cells.size() - 1, 1 + 10 + 64u);  // 2.4 KB for ten endpoints
  EXPECT_EQ(CellsOf(cells[1].pool), cells.size() - 1);
}

TEST(BalancePool, TheRingKeepsASizeThatIsStillFit) {
  Cells cells = Build(Service(3));
  EXPECT_EQ(cells[1].pool.ring, 509u);
  cells = Build(Service(2), cells);
  EXPECT_EQ(cells[1].pool.ring, 509u);
  cells = Build(Service(100), cells);
  EXPECT_EQ(cells[1].pool.ring, 16381u);
  cells = Build(Service(2), cells);
  EXPECT_EQ(cells[1].pool.ring, 251u);
}

TEST(CellSpace, AgainstAPlainModel) {
  constexpr uint32_t kCells = 300;
  CellSpace space(kCells);
  std::vector<bool> taken(kCells);
  taken[0] = true;
  std::vector<std::pair<uint32_t, uint32_t>> mine;
  std::mt19937 random(3);
  const auto longest_gap = [&] {
    uint32_t best = 0, run = 0;
    for (const bool t : taken) best = std::max(best, run = t ? 0 : run + 1);
    return best;
  };
  for (int step = 0; step < 5000; ++step) {
    if (random() % 2 == 0 || mine.empty()) {
      const uint32_t count = 1 + random() % 40;
      const auto first = space.Take(count);
      ASSERT_EQ(first.has_value(), longest_gap() >= count);
      if (!first) continue;
      for (uint32_t i = *first; i < *first + count; ++i) {
        ASSERT_FALSE(taken[i]);
        taken[i] = true;
      }
      mine.emplace_back(*first, count);
    } else {
      std::swap(mine[random() % mine.size()], mine.back());
      const auto [first, count] = mine.back();
      mine.pop_back();
      space.Give(first, count);
      std::fill_n(taken.begin() + first, count, false);
    }
    ASSERT_EQ(space.used(), std::count(taken.begin(), taken.end(), true));
  }
}

TEST(CellSpace, ClaimsWhatAnEarlierAgentHad) {
  CellSpace space(100);
  EXPECT_TRUE(space.Claim(10, 5));
  EXPECT_FALSE(space.Claim(14, 1));
  EXPECT_FALSE(space.Claim(0, 1));
  EXPECT_FALSE(space.Claim(95, 6));
  EXPECT_FALSE(space.Claim(20, UINT64_MAX - 5));
  EXPECT_TRUE(space.Claim(95, 5));
  EXPECT_EQ(space.used(), 11u);
}

}  // namespace
}  // namespace weft::bpf
