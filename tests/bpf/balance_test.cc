// SPDX-License-Identifier: Apache-2.0
// Load balancing at connect with real sockets: weights, Maglev, affinity, draining, no endpoint, no
// room, and endpoints that change under connects.
#include <poll.h>

#include <atomic>
#include <cerrno>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "control/bpf/address.h"
#include "control/bpf/kernel_maps.h"
#include "tests/bpf/testbed.h"

namespace weft::bpf {
namespace {

constexpr uint16_t kPort = 8080;
constexpr int kServers = 6;
const SocketAddress kVip{*IpAddress::Parse("10.96.0.10"), 80};
const SocketAddress kOther{*IpAddress::Parse("10.96.0.11"), 80};

class BalanceTest : public testing::Test {
 protected:
  explicit BalanceTest(const char* name = "balance", uint32_t cells = 4096)
      : node_(name, [cells](KernelConfig& config) { config.sizes.cells = cells; }) {}

  void SetUp() override {
    node_.Enrol(client_pod_, WEFT_WL_PROXY_READY);
    node_.Enrol(server_pod_, WEFT_WL_PROXY_READY);
    for (int i = 0; i < kServers; ++i) {
      servers_.push_back(Listener(server_pod_, static_cast<uint16_t>(kPort + i)));
    }
    node_.Events();
  }

  ServiceBackend Server(int index, uint32_t weight = 1) {
    return {server_pod_.At(static_cast<uint16_t>(kPort + index)), weight};
  }
  ServiceConfig Service(const std::vector<int>& servers) {
    ServiceConfig service{.id = 5, .vips = {kVip}};
    for (const int index : servers) service.backends.push_back(Server(index));
    return service;
  }
  void Set(const ServiceConfig& service) {
    const absl::Status status = node_.kernel().SetService(service);
    ASSERT_TRUE(status.ok()) << status;
  }

  // Which server has a connection waiting; it is accepted. -1: none within 5 s.
  int WhoGotIt(UniqueFd* accepted = nullptr) {
    std::vector<pollfd> waiting;
    for (const UniqueFd& server : servers_) waiting.push_back({server.get(), POLLIN, 0});
    if (poll(waiting.data(), waiting.size(), 5000) < 1) return -1;
    for (size_t i = 0; i < waiting.size(); ++i) {
      if (waiting[i].revents == 0) continue;
      UniqueFd fd = Accept(servers_[i], Blocking::kYes);
      if (accepted != nullptr) *accepted = std::move(fd);
      return static_cast<int>(i);
    }
    return -1;
  }
  // One connect of the client, and who got it; -errno if it failed.
  int Ask(const SocketAddress& vip = kVip, Pod* from = nullptr) {
    const UniqueFd client =
        TcpSocket(from == nullptr ? client_pod_ : *from, AF_INET, Blocking::kYes);
    const int error = Connect(client, vip);
    return error != 0 ? -error : WhoGotIt();
  }
  std::map<int, int> AskOften(int times) {
    std::map<int, int> counts;
    for (int i = 0; i < times; ++i) ++counts[Ask()];
    return counts;
  }
  // Makes what is remembered of affinity older.
  void Age(uint64_t seconds) {
    const auto paths = PathsOf(node_.config().bpffs_root, node_.config().node);
    const auto map = OpenPinnedMap(*paths, "weft_affinity");
    ASSERT_TRUE(map.ok()) << map.status();
    const auto keys = Keys<weft_affinity_key>(*map);
    ASSERT_FALSE(keys.empty());
    for (const weft_affinity_key& key : keys) {
      weft_affinity value{};
      ASSERT_EQ(bpf_map_lookup_elem(map->get(), &key, &value), 0);
      value.used_ns -= seconds * 1000000000;
      ASSERT_EQ(bpf_map_update_elem(map->get(), &key, &value, BPF_EXIST), 0);
    }
  }

  Network network_;
  Pod& client_pod_ = network_.pod(0);
  Pod& server_pod_ = network_.pod(1);
  Node node_;
  std::vector<UniqueFd> servers_;
};

TEST_F(BalanceTest, WeightsHold) {
  ServiceConfig service{.id = 5, .vips = {kVip}, .backends = {Server(0, 1), Server(1, 3)}};
  Set(service);
  auto counts = AskOften(400);
  // 300 of 400 expected, deviation 8.7: beyond five of those about once in a million.
  EXPECT_NEAR(counts[1], 300, 44);
  EXPECT_EQ(counts[0] + counts[1], 400);
}

TEST_F(BalanceTest, MaglevGivesAClientOneEndpointAndKeepsItWhileOthersLeave) {
  ServiceConfig service = Service({0, 1, 2, 3});
  service.maglev = true;
  Set(service);
  const int mine = Ask();
  ASSERT_GE(mine, 0);
  EXPECT_EQ(AskOften(20), (std::map<int, int>{{mine, 20}}));
  // Another's leave moves two clients in a hundred; this one's address is fixed, so is the answer.
  std::erase_if(service.backends, [&](const ServiceBackend& backend) {
    return backend.address == Server((mine + 1) % 4).address;
  });
  Set(service);
  EXPECT_EQ(AskOften(20), (std::map<int, int>{{mine, 20}}));
}

TEST_F(BalanceTest, AffinityIsKeptWhileOthersComeAndGo) {
  ServiceConfig service = Service({0, 1, 2});
  service.affinity_s = 3600;
  Set(service);
  const int mine = Ask();
  ASSERT_GE(mine, 0);
  for (int round = 0; round < 20; ++round) {
    service.backends = {Server(mine)};
    for (int i = 0; i < kServers; ++i) {
      if (i != mine && (round + i) % 2 == 0) service.backends.push_back(Server(i));
    }
    Set(service);
    EXPECT_EQ(Ask(), mine) << round;
  }
}

TEST_F(BalanceTest, AffinityIsOfTheClientWorkload) {
  Pod& second = network_.pod(2);
  node_.Enrol(second, WEFT_WL_PROXY_READY);
  ServiceConfig service = Service({0});
  service.affinity_s = 3600;
  Set(service);
  EXPECT_EQ(Ask(), 0);
  service.backends = {Server(1), {Server(0).address, 1, false}};  // nothing new for 0
  Set(service);
  EXPECT_EQ(Ask(), 0) << "who had it keeps it";
  EXPECT_EQ(Ask(kVip, &second), 1) << "and others do not get it";
}

TEST_F(BalanceTest, AffinityRunsOutAndFailsOver) {
  ServiceConfig service = Service({0});
  service.affinity_s = 60;
  Set(service);
  EXPECT_EQ(Ask(), 0);
  service.backends = {Server(1), {Server(0).address, 1, false}};
  Set(service);
  Age(55);
  EXPECT_EQ(Ask(), 0);
  Age(55);  // the connect of before counts anew
  EXPECT_EQ(Ask(), 0);
  Age(61);
  EXPECT_EQ(Ask(), 1);
  service.backends = {Server(2)};  // 1 is gone
  Set(service);
  EXPECT_EQ(Ask(), 2);
  service.backends = {Server(1), {Server(2).address, 1, false}};
  Set(service);
  EXPECT_EQ(Ask(), 2) << "the new one is remembered";
}

TEST_F(BalanceTest, ManyFirstConnectsAtOnceAgree) {
  ServiceConfig service = Service({0, 1, 2, 3, 4, 5});
  service.affinity_s = 3600;
  for (uint32_t round = 0; round < 20; ++round) {
    service.id = 100 + round;  // nobody has affinity to it
    service.vips = {{kVip.ip, static_cast<uint16_t>(1000 + round)}};
    Set(service);
    std::vector<UniqueFd> clients;
    for (int i = 0; i < 8; ++i) {
      clients.push_back(TcpSocket(client_pod_, AF_INET, Blocking::kYes));
    }
    std::atomic<bool> go = false;
    std::vector<std::thread> threads;
    for (const UniqueFd& client : clients) {
      threads.emplace_back([&] {
        while (!go) std::this_thread::yield();
        EXPECT_EQ(Connect(client, service.vips[0]), 0);
      });
    }
    go = true;
    for (std::thread& thread : threads) thread.join();
    std::set<int> got;
    for (size_t i = 0; i < clients.size(); ++i) got.insert(WhoGotIt());
    EXPECT_EQ(got.size(), 1u) << round;
    EXPECT_FALSE(got.contains(-1));
  }
}

TEST_F(BalanceTest, WhatDrainsKeepsItsConnectionsAndGetsNoNewOnes) {
  Set(Service({0}));
  UniqueFd client = TcpSocket(client_pod_, AF_INET, Blocking::kYes);
  ASSERT_EQ(Connect(client, kVip), 0);
  UniqueFd accepted;
  ASSERT_EQ(WhoGotIt(&accepted), 0);
  Set(Service({1}));
  EXPECT_EQ(AskOften(30), (std::map<int, int>{{1, 30}}));
  SendAll(client, "still");
  EXPECT_EQ(ReceiveSome(accepted, 5), "still");
  SendAll(accepted, "here");
  EXPECT_EQ(ReceiveSome(client, 4), "here");
  EXPECT_EQ(PeerName(client), kVip);
}

TEST_F(BalanceTest, NoEndpointIsRefusedAtOnceWithAReason) {
  Set(Service({}));
  node_.Events();
  for (const Blocking blocking : {Blocking::kYes, Blocking::kNo}) {
    const UniqueFd client = TcpSocket(client_pod_, AF_INET, blocking);
    sockaddr_storage address{};
    const socklen_t length = kVip.ToSockaddr(AF_INET, &address);
    EXPECT_EQ(connect(client.get(), reinterpret_cast<sockaddr*>(&address), length), -1);
    EXPECT_EQ(errno, ECONNREFUSED) << "by connect() itself, not later";
    const weft_event event = node_.WaitEvent(WEFT_EVENT_CONNECT);
    EXPECT_EQ(event.reason, WEFT_R_NO_ENDPOINT);
    EXPECT_EQ(FromKernel(event.destination), kVip);
    EXPECT_EQ(event.source_workload, client_pod_.id);
  }
  EXPECT_EQ(node_.Count(WEFT_R_NO_ENDPOINT), 2u);
  Set(Service({3}));
  EXPECT_EQ(Ask(), 3);
  Set(Service({}));
  EXPECT_EQ(Ask(), -ECONNREFUSED);
}

TEST_F(BalanceTest, AnAdoptedNodeChangesNothingUntilItIsTold) {
  ServiceConfig service = Service({0, 1, 2});
  service.affinity_s = 3600;
  Set(service);
  const int mine = Ask();
  const uint32_t used = node_.kernel().GetServiceStats().cells_used;
  auto next = Kernel::Open(node_.config());
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(Ask(), mine);
  EXPECT_EQ((*next)->GetServiceStats().cells_used, used);
  ASSERT_TRUE((*next)->SetService(service).ok());
  EXPECT_EQ((*next)->GetServiceStats().cells_used, used) << "the same is no change";
  EXPECT_EQ(Ask(), mine);
  service.backends = {Server(4)};
  ASSERT_TRUE((*next)->SetService(service).ok());
  EXPECT_EQ(Ask(), 4);
  ASSERT_TRUE((*next)->RemoveService(service.id).ok());
  EXPECT_TRUE((*next)->Services().empty());
}

TEST_F(BalanceTest, AVipThatChangesItsServiceStaysWithTheNewOne) {
  Set(Service({0}));
  ServiceConfig other = Service({1});
  other.id = 6;
  Set(other);
  EXPECT_EQ(Ask(), 1);
  ASSERT_TRUE(node_.kernel().RemoveService(5).ok());
  EXPECT_EQ(Ask(), 1);
}

// Little memory, so that cells and slots are used again all the time.
class CrowdedTest : public BalanceTest {
 protected:
  CrowdedTest() : BalanceTest("crowded", 256) {}
};
class FullTest : public BalanceTest {
 protected:
  FullTest() : BalanceTest("full", 96) {}
};

// Servers 0 to 2 are one service's, 3 to 5 another's; a third comes and goes.
TEST_F(CrowdedTest, TwoHundredChangesUnderConnectsShowNoHoleAndNobodyElsesEndpoint) {
  ServiceConfig first = Service({0, 1, 2});
  ServiceConfig second{.id = 6, .vips = {kOther}, .backends = {Server(3)}};
  Set(first);
  Set(second);
  std::atomic<int> changes = 0, connects = 0;
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    std::mt19937 random(11);
    for (; changes < 200 && !stop; ++changes) {
      while (connects < changes * 20 && !stop) std::this_thread::yield();
      ServiceConfig& service = random() % 2 == 0 ? first : second;
      const int base = service.id == first.id ? 0 : 3;
      service.backends.clear();
      const uint32_t who = 1 + random() % 7;  // at least one of three
      for (int i = 0; i < 3; ++i) {
        if ((who >> i & 1) != 0) service.backends.push_back(Server(base + i, 1 + random() % 2));
      }
      const absl::Status set = node_.kernel().SetService(service);
      EXPECT_TRUE(set.ok()) << set;
      const uint32_t third = 7 + random() % 2;
      const ServiceConfig guest{.id = third,
                                .vips = {{kVip.ip, static_cast<uint16_t>(90 + third)}},
                                .backends = {Server(base == 0 ? 5 : 2)}};
      EXPECT_TRUE(node_.kernel().SetService(guest).ok());
      EXPECT_TRUE(node_.kernel().RemoveService(third).ok());
    }
  });
  int wrong = 0, failed = 0;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (changes < 200 && std::chrono::steady_clock::now() < deadline) {
    for (const bool is_first : {true, false}) {
      const int got = Ask(is_first ? kVip : kOther);
      ++connects;
      failed += got < 0;
      wrong += got >= 0 && (got < 3) != is_first;
    }
  }
  stop = true;
  writer.join();
  EXPECT_EQ(changes, 200);
  EXPECT_EQ(failed, 0) << "of " << connects;
  EXPECT_EQ(wrong, 0) << "of " << connects;
  EXPECT_GE(connects, 199 * 20);
  printf("200 changes under %d connects\n", connects.load());
}

TEST_F(FullTest, WithoutRoomAServiceKeepsItsEndpointsAndRecovers) {
  ServiceConfig first = Service({0, 1});  // 1 + 2 + 16 cells of 95
  Set(first);
  ServiceConfig big{.id = 6, .vips = {kOther}};
  for (int i = 0; i < kServers; ++i) big.backends.push_back(Server(i));
  Set(big);  // 1 + 6 + 64 cells
  EXPECT_EQ(node_.kernel().GetServiceStats().cells_used, 1u + 19 + 71);
  first.backends = {Server(2), Server(3)};
  EXPECT_TRUE(absl::IsResourceExhausted(node_.kernel().SetService(first)));
  ServiceConfig more{.id = 7, .vips = {{kVip.ip, 81}}, .backends = {Server(0), Server(1)}};
  EXPECT_TRUE(absl::IsResourceExhausted(node_.kernel().SetService(more)));
  EXPECT_EQ(node_.kernel().GetServiceStats().refused_full, 2u);
  EXPECT_EQ(node_.kernel().GetServiceStats().services, 2u);
  for (int i = 0; i < 20; ++i) {
    const int got = Ask();
    EXPECT_TRUE(got == 0 || got == 1) << got;
  }
  const auto listeners = node_.Listen(client_pod_);  // a VIP that the kernel does not know
  const UniqueFd client = TcpSocket(client_pod_, AF_INET, Blocking::kYes);
  ASSERT_EQ(Connect(client, more.vips[0]), 0);
  Accept(listeners.outbound, Blocking::kNo);
  big.backends.resize(1);
  EXPECT_TRUE(absl::IsResourceExhausted(node_.kernel().SetService(big)) ||
              node_.kernel().GetServiceStats().cells_used <= 96);
  ASSERT_TRUE(node_.kernel().RemoveService(6).ok());
  Set(first);
  Set(more);
  const int got = Ask();
  EXPECT_TRUE(got == 2 || got == 3) << got;
}

}  // namespace
}  // namespace weft::bpf
