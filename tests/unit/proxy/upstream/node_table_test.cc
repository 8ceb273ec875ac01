// SPDX-License-Identifier: Apache-2.0
#include "proxy/upstream/node_table.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <thread>
#include <vector>

namespace weft::upstream {
namespace {

SocketAddress Address(uint16_t port) { return {*IpAddress::Parse("10.0.0.1"), port}; }

std::unique_ptr<NodeTable> Small(uint32_t workers = 2) {
  auto table = NodeTable::Create({.workers = workers, .clusters = 4, .endpoints = 4});
  EXPECT_TRUE(table.ok()) << table.status();
  return std::move(*table);
}

TEST(NodeTable, AdmissionNeverExceedsTheLimitAcrossThreads) {
  auto table = Small();
  ClusterRow& row = table->cluster(table->AcquireCluster("c"));
  constexpr uint32_t kLimit = 7;
  std::atomic<uint32_t> inside{0}, most{0}, admitted{0}, refused{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20000; ++i) {
        if (!TryAdmit(row, Limit::kRequests, kLimit)) {
          ++refused;
          continue;
        }
        const uint32_t now = ++inside;
        uint32_t seen = most.load();
        while (seen < now && !most.compare_exchange_weak(seen, now)) {
        }
        ++admitted;
        --inside;
        Release(row, Limit::kRequests);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_LE(most.load(), kLimit);
  EXPECT_EQ(admitted + refused, 160000u);
  EXPECT_EQ(row.in_use[2].load(), 0u);
  EXPECT_EQ(row.overflows[2].load(), refused.load());
}

TEST(NodeTable, ExactlyTheLimitIsAdmittedWhenNobodyLeaves) {
  auto table = Small();
  ClusterRow& row = table->cluster(table->AcquireCluster("c"));
  std::atomic<uint32_t> admitted{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) admitted += TryAdmit(row, Limit::kConnections, 1024);
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(admitted.load(), 1024u);
  EXPECT_EQ(row.in_use[0].load(), 1024u);
  EXPECT_EQ(row.overflows[0].load(), 8000u - 1024u);
}

TEST(NodeTable, RowsAreSharedByNameAndZeroedWhenFree) {
  auto table = Small();
  const uint32_t a = table->AcquireCluster("a");
  EXPECT_EQ(table->AcquireCluster("a"), a);
  const uint32_t e = table->AcquireEndpoint(a, Address(1));
  EXPECT_EQ(table->AcquireEndpoint(a, Address(1)), e);
  EXPECT_NE(table->AcquireEndpoint(a, Address(2)), e);
  Bump(table->cell(e, 1).total);
  table->ReleaseEndpoint(e);
  EXPECT_EQ(table->FindEndpoint(a, Address(1)), e);
  EXPECT_EQ(table->cells(e)[1].total.load(), 1u);
  table->ReleaseEndpoint(e);
  EXPECT_EQ(table->FindEndpoint(a, Address(1)), std::nullopt);
  EXPECT_EQ(table->AcquireEndpoint(a, Address(3)), e);
  EXPECT_EQ(table->cells(e)[1].total.load(), 0u);
}

TEST(NodeTable, AFullTableSharesRowZeroAndSaysSo) {
  auto table = Small();
  const uint32_t a = table->AcquireCluster("a");
  for (uint16_t port = 1; port <= 3; ++port)
    EXPECT_NE(table->AcquireEndpoint(a, Address(port)), 0u);
  EXPECT_EQ(table->AcquireEndpoint(a, Address(4)), 0u);
  EXPECT_EQ(table->full(), 1u);
}

TEST(NodeTable, OtherProcessesReadAndCannotWrite) {
  auto table = Small();
  const uint32_t a = table->AcquireCluster("a");
  Admit(table->cluster(a), Limit::kPending);
  auto view = NodeTableView::Open(table->fd(), 1);
  ASSERT_TRUE(view.ok()) << view.status();
  EXPECT_STREQ((*view)->cluster(a).name, "a");
  EXPECT_EQ((*view)->cluster(a).in_use[1].load(), 1u);
  EXPECT_EQ(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, table->fd(), 0), MAP_FAILED);
  EXPECT_FALSE(NodeTableView::Open(table->fd(), 2).ok());  // of a process that is gone
}

TEST(NodeTable, ADescriptorThatIsNoSegmentIsRefused) {
  const int fd = memfd_create("x", MFD_ALLOW_SEALING);
  EXPECT_FALSE(NodeTableView::Open(fd, 1).ok());
  EXPECT_FALSE(NodeTable::Adopt(fd).ok());  // closes it
}

}  // namespace
}  // namespace weft::upstream
