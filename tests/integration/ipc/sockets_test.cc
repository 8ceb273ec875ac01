// SPDX-License-Identifier: Apache-2.0
// weft-sockets' server with its real clients, in network namespaces of the test's own. Needs root.
// The kernel maps are a list here (tests/bpf has the real ones).
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <optional>
#include <thread>

#include "control/sockets/server.h"
#include "proxy/ipc/fd_passing.h"
#include "proxy/ipc/remote_sockets.h"
#include "proxy/ipc/sockets_control.h"
#include "proxy/net/dial.h"
#include "proxy/net/listen.h"
#include "tests/support/run_task.h"

namespace weft::sockets {
namespace {

using test::TaskRunner;

#ifndef SIOCGSKNS
#define SIOCGSKNS 0x894C
#endif

uint64_t NetnsOfSocket(int fd) {
  const int ns = ioctl(fd, SIOCGSKNS);
  const uint64_t inode = NetnsInode(ns);
  close(ns);
  return inode;
}

class FakeStamper final : public Stamper {
 public:
  struct Stamped {
    weft_role role;
    uint32_t workload, generation;
  };
  absl::Status Stamp(int fd, weft_role role, uint32_t workload, uint32_t generation) override {
    if (fail) return absl::NotFoundError("no map");
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address);
    EXPECT_EQ(v6->sin6_port, 0) << "stamped after bind";
    stamps.push_back({role, workload, generation});
    return absl::OkStatus();
  }
  absl::Status PutListener(uint32_t workload, uint16_t port, int) override {
    listeners.emplace_back(workload, port);
    return absl::OkStatus();
  }
  absl::Status RemoveListener(uint32_t workload, uint16_t port) override {
    std::erase(listeners, std::pair<uint32_t, uint16_t>(workload, port));
    return absl::OkStatus();
  }
  std::vector<Stamped> stamps;
  std::vector<std::pair<uint32_t, uint16_t>> listeners;
  std::atomic<bool> fail = false;
};

// A namespace with loopback up, held by a descriptor.
int NewNetns() {
  int fd = -1;
  std::thread([&fd] {
    if (unshare(CLONE_NEWNET) != 0) return;
    const int control = socket(AF_INET, SOCK_DGRAM, 0);
    ifreq request{};
    strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    ioctl(control, SIOCSIFFLAGS, &request);
    close(control);
    fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  }).join();
  return fd;
}

class SocketsTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(geteuid(), 0u) << "needs root: it enters network namespaces";
    path_ = testing::TempDir() + "weft_net_sockets_" + std::to_string(getpid());
    const int listener = ipc::ListenPackets(path_, 0600);
    ASSERT_GE(listener, 0);
    auto netns = NetnsSockets::Create();
    ASSERT_TRUE(netns.ok());
    server_ = std::make_unique<Server>(std::move(*netns), stamper_, listener, control_uid_);
    home_ = NetnsInode(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
    for (int& fd : netns_) {
      fd = NewNetns();
      ASSERT_GE(fd, 0);
    }
    thread_ = std::thread([this] {
      while (!stop_) server_->Turn(10);
    });
    auto control = ipc::SocketsControl::Connect(path_);
    ASSERT_TRUE(control.ok()) << control.status().ToString();
    control_.emplace(std::move(*control));
  }
  void TearDown() override {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
    for (const int fd : netns_) close(fd);
    unlink(path_.c_str());
  }
  std::unique_ptr<ipc::RemoteSocketSource> Proxy(uint32_t tenant) {
    auto fd = control_->NewChannel(tenant);
    EXPECT_TRUE(fd.ok()) << fd.status().ToString();
    return std::make_unique<ipc::RemoteSocketSource>(runner_.executor(), *fd);
  }

  uint32_t control_uid_ = 0;
  std::string path_;
  FakeStamper stamper_;
  std::unique_ptr<Server> server_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
  std::optional<ipc::SocketsControl> control_;
  int netns_[2] = {-1, -1};
  uint64_t home_ = 0;
  TaskRunner runner_;
};

Task<void> Take(net::SocketSource& source, net::SocketRequest request,
                net::SocketSource::Result& out) {
  auto result = co_await source.Take(request);
  out = result;
}
Task<void> TakeListeners(net::SocketSource& source, uint32_t workload, uint32_t generation,
                         std::vector<int>& out) {
  auto result = co_await source.Listeners(workload, generation);
  out = result;
}

TEST_F(SocketsTest, SocketsAreBornInTheWorkload) {
  ASSERT_TRUE(control_->AddWorkload(5, 100, 1, netns_[0]).ok());
  ASSERT_TRUE(control_->AddWorkload(6, 100, 1, netns_[1]).ok());
  ASSERT_TRUE(control_->AddWorkload(6, 100, 1, netns_[1]).ok());  // harmless
  EXPECT_EQ(*control_->CountWorkloads(), 2u);
  auto proxy = Proxy(1);
  struct Case {
    net::SocketKind kind;
    uint32_t workload;
    int family;
    uint64_t netns;
    weft_role role;
  };
  const std::vector<Case> cases = {
      {net::SocketKind::kToApp, 5, AF_INET, NetnsInode(netns_[0]), WEFT_ROLE_TO_APP},
      {net::SocketKind::kTunnel, 6, AF_INET6, NetnsInode(netns_[1]), WEFT_ROLE_TUNNEL},
      {net::SocketKind::kHost, 0, AF_INET, home_, WEFT_ROLE_HOST},
  };
  for (const Case& test : cases) {
    net::SocketSource::Result result;
    stamper_.stamps.clear();
    runner_.Run(Take(
        *proxy,
        {.kind = test.kind, .workload = test.workload, .generation = 100, .family = test.family},
        result));
    ASSERT_GE(result.fd, 0);
    EXPECT_EQ(NetnsOfSocket(result.fd), test.netns);
    EXPECT_NE(fcntl(result.fd, F_GETFL) & O_NONBLOCK, 0);
    EXPECT_EQ(fcntl(result.fd, F_GETFD), FD_CLOEXEC);
    ASSERT_EQ(stamper_.stamps.size(), 32u);
    EXPECT_EQ(stamper_.stamps[0].role, test.role);
    EXPECT_EQ(stamper_.stamps[0].workload, test.workload);
    EXPECT_EQ(stamper_.stamps[0].generation, test.workload == 0 ? 0u : 100u);
    close(result.fd);
  }
}

Task<void> ConnectTo(net::SocketSource& source, asio::any_io_executor executor, const char* ip,
                     uint16_t port, Reason& out) {
  const auto address = IpAddress::Parse(ip);
  const int family = address->is_v4() ? AF_INET : AF_INET6;
  auto socket = co_await source.Take(
      {.kind = net::SocketKind::kToApp, .workload = 5, .generation = 100, .family = family});
  auto connected = co_await net::ConnectFd(executor, socket.fd, {*address, port},
                                           std::chrono::milliseconds(1000));
  out = connected.reason;
}

TEST_F(SocketsTest, ListenersOutliveTheProxy) {
  ASSERT_TRUE(control_->AddWorkload(5, 100, 1, netns_[0]).ok());
  auto proxy = Proxy(1);
  std::vector<int> first;
  runner_.Run(TakeListeners(*proxy, 5, 100, first));
  ASSERT_EQ(first.size(), 5u);
  const uint16_t ports[] = {WEFT_PORT_OUTBOUND, WEFT_PORT_INBOUND, WEFT_PORT_HBONE, WEFT_PORT_DNS,
                            WEFT_PORT_DNS};
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(net::LocalAddress(first[static_cast<size_t>(i)]).port, ports[i]);
    EXPECT_EQ(NetnsOfSocket(first[static_cast<size_t>(i)]), NetnsInode(netns_[0]));
    close(first[static_cast<size_t>(i)]);
  }
  EXPECT_EQ(stamper_.listeners.size(), 2u);
  proxy.reset();  // the proxy dies
  auto successor = Proxy(1);
  for (const char* ip : {"127.0.0.1", "::1"}) {  // connects queue meanwhile, on both families
    Reason reason = WEFT_R_INTERNAL_ERROR;
    runner_.Run(ConnectTo(*successor, runner_.executor(), ip, WEFT_PORT_HBONE, reason));
    EXPECT_EQ(reason, WEFT_R_NONE) << ip;
  }
  std::vector<int> second;
  runner_.Run(TakeListeners(*successor, 5, 100, second));
  ASSERT_EQ(second.size(), 5u);
  int queued = 0;
  for (int fd; (fd = accept4(second[2], nullptr, nullptr, SOCK_CLOEXEC)) >= 0; ++queued) close(fd);
  EXPECT_EQ(queued, 2);
  for (const int fd : second) close(fd);
  ASSERT_TRUE(control_->RemoveWorkload(5).ok());
  EXPECT_TRUE(stamper_.listeners.empty());
  Reason reason = WEFT_R_NONE;
  runner_.Run(ConnectTo(*successor, runner_.executor(), "127.0.0.1", WEFT_PORT_HBONE, reason));
  EXPECT_EQ(reason, WEFT_R_CONNECT_FAILED);
}

TEST_F(SocketsTest, ATenantHasItsOwnWorkloadsOnly) {
  ASSERT_TRUE(control_->AddWorkload(5, 100, 1, netns_[0]).ok());
  auto other = Proxy(2);
  std::vector<int> listeners;
  runner_.Run(TakeListeners(*other, 5, 100, listeners));
  EXPECT_TRUE(listeners.empty());
  net::SocketSource::Result result;
  runner_.Run(
      Take(*other,
           {.kind = net::SocketKind::kToApp, .workload = 5, .generation = 100, .family = AF_INET},
           result));
  EXPECT_EQ(result.fd, -1);
  auto owner = Proxy(1);
  for (const uint32_t generation : {99u, 101u, 0u}) {
    runner_.Run(Take(*owner,
                     {.kind = net::SocketKind::kToApp,
                      .workload = 5,
                      .generation = generation,
                      .family = AF_INET},
                     result));
    EXPECT_EQ(result.fd, -1) << generation;
  }
  runner_.Run(
      Take(*owner,
           {.kind = net::SocketKind::kToApp, .workload = 5, .generation = 100, .family = AF_INET},
           result));
  EXPECT_GE(result.fd, 0);
  close(result.fd);
  EXPECT_TRUE(other->alive());
}

TEST_F(SocketsTest, AnUnstampedSocketIsNeverGiven) {
  ASSERT_TRUE(control_->AddWorkload(5, 100, 1, netns_[0]).ok());
  auto proxy = Proxy(1);
  stamper_.fail = true;
  net::SocketSource::Result result;
  runner_.Run(Take(*proxy, {.kind = net::SocketKind::kHost, .family = AF_INET}, result));
  EXPECT_EQ(result.fd, -1);
  std::vector<int> listeners;
  runner_.Run(TakeListeners(*proxy, 5, 100, listeners));
  EXPECT_TRUE(listeners.empty());
  stamper_.fail = false;
  runner_.Run(TakeListeners(*proxy, 5, 100, listeners));
  EXPECT_EQ(listeners.size(), 5u);
  for (const int fd : listeners) close(fd);
}

// One raw request on a tenant channel; the answer's errno, or -1 if the channel ended.
int Raw(int fd, const ipc::SocketsRequest& request, size_t size = sizeof(ipc::SocketsRequest)) {
  uint8_t bytes[64] = {};
  memcpy(bytes, &request, sizeof request);
  if (ipc::SendPacket(fd, {bytes, size}) != 0) return -1;
  uint8_t buffer[100];
  ipc::ReceivedPacket packet = ipc::ReceivePacket(fd, buffer);
  for (const int received : packet.fds) close(received);
  ipc::SocketsAnswer answer;
  if (packet.error != 0 || packet.bytes != sizeof answer) return -1;
  memcpy(&answer, buffer, sizeof answer);
  return answer.error;
}

TEST_F(SocketsTest, HostileRequests) {
  ASSERT_TRUE(control_->AddWorkload(5, 100, 1, netns_[0]).ok());
  auto channel = control_->NewChannel(1);
  ASSERT_TRUE(channel.ok());
  using ipc::SocketsOp;
  for (const SocketsOp op :
       {SocketsOp::kAddWorkload, SocketsOp::kRemoveWorkload, SocketsOp::kNewChannel,
        SocketsOp::kListWorkloads, static_cast<SocketsOp>(0), static_cast<SocketsOp>(77)}) {
    EXPECT_EQ(Raw(*channel, {.op = op, .workload = 5, .generation = 100, .tenant = 2}), EPERM);
  }
  EXPECT_EQ(Raw(*channel, {.op = SocketsOp::kHost, .family = AF_UNIX, .count = 1}), EINVAL);
  EXPECT_EQ(Raw(*channel, {.op = SocketsOp::kHost, .family = AF_INET, .count = 0}), EINVAL);
  EXPECT_EQ(Raw(*channel, {.op = SocketsOp::kHost, .family = AF_INET, .count = 33}), EINVAL);
  EXPECT_EQ(Raw(*channel, {.op = SocketsOp::kToApp,
                           .workload = 5,
                           .generation = 100,
                           .family = AF_PACKET,
                           .count = 1}),
            EINVAL);
  EXPECT_EQ(Raw(*channel, {.op = SocketsOp::kHost, .family = AF_INET, .count = 32}), 0);
  EXPECT_EQ(Raw(*channel, {.op = SocketsOp::kHost, .family = AF_INET, .count = 1}, 31),
            -1);  // ends this channel only
  close(*channel);
  for (const size_t size : {1u, 33u, 64u}) {
    channel = control_->NewChannel(1);
    ASSERT_TRUE(channel.ok());
    EXPECT_EQ(Raw(*channel, {}, size), -1);
    close(*channel);
  }
  channel = control_->NewChannel(1);
  EXPECT_EQ(Raw(*channel, {.version = 1, .op = SocketsOp::kHost, .family = AF_INET, .count = 1}),
            -1);
  close(*channel);
  EXPECT_EQ(*control_->CountWorkloads(), 1u);
  EXPECT_FALSE(control_->AddWorkload(7, 1, 1, STDERR_FILENO).ok());  // no namespace
  EXPECT_FALSE(control_->AddWorkload(0, 1, 1, netns_[0]).ok());
  EXPECT_FALSE(control_->RemoveWorkload(99).ok());
}

TEST_F(SocketsTest, ANewGenerationReplacesTheOld) {
  ASSERT_TRUE(control_->AddWorkload(5, 100, 1, netns_[0]).ok());
  ASSERT_TRUE(control_->AddWorkload(5, 101, 1, netns_[1]).ok());
  EXPECT_EQ(*control_->CountWorkloads(), 1u);
  auto proxy = Proxy(1);
  std::vector<int> listeners;
  runner_.Run(TakeListeners(*proxy, 5, 100, listeners));
  EXPECT_TRUE(listeners.empty());
  runner_.Run(TakeListeners(*proxy, 5, 101, listeners));
  ASSERT_EQ(listeners.size(), 5u);
  EXPECT_EQ(NetnsOfSocket(listeners[0]), NetnsInode(netns_[1]));
  for (const int fd : listeners) close(fd);
}

class SocketsOfAnotherUser : public SocketsTest {
 protected:
  SocketsOfAnotherUser() { control_uid_ = 4242; }
  void SetUp() override {
    path_ = testing::TempDir() + "weft_net_sockets_" + std::to_string(getpid());
    auto netns = NetnsSockets::Create();
    server_ = std::make_unique<Server>(std::move(*netns), stamper_, ipc::ListenPackets(path_, 0600),
                                       control_uid_);
    thread_ = std::thread([this] {
      while (!stop_) server_->Turn(10);
    });
  }
};

TEST_F(SocketsOfAnotherUser, TheControlSocketIsItsOwn) {
  auto control = ipc::SocketsControl::Connect(path_);
  ASSERT_TRUE(control.ok());
  EXPECT_FALSE(control->CountWorkloads().ok());
  EXPECT_FALSE(control->NewChannel(1).ok());
}

}  // namespace
}  // namespace weft::sockets
