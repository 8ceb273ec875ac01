// SPDX-License-Identifier: Apache-2.0
// Real TCP through the balancer, in network namespaces: a client, the balancer's node, two
// backends, each on a veth of one bridge. The balancer's uplink is the only way to the VIP;
// backends have it on lo, take the outer headers off (decap.bpf.c) and answer the client directly.
//
//   client 10.78.0.1 ── bridge ── 10.78.0.2 balancer (tc or XDP on eth0)
//                         ├────── 10.78.0.11, .12 backends, VIP 10.79.0.1 and fd79::1 on lo
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <fstream>
#include <functional>
#include <thread>

#include "control/bpf/balancer.h"
#include "control/bpf/netns.h"
#include "control/bpf/pins.h"

extern "C" {
extern const char weft_bpf_decap[], weft_bpf_decap_end[];
}

namespace weft::bpf {
namespace {

constexpr int kPatienceMs = 5000;
constexpr uint16_t kPort = 8080;

IpAddress A(std::string_view text) { return IpAddress::Parse(text).value(); }

UniqueFd NewNetns() {
  UniqueFd fd;
  std::thread([&] {
    if (unshare(CLONE_NEWNET) != 0) return;
    fd = UniqueFd(open("/proc/thread-self/ns/net", O_RDONLY));  // inherited by ip
  }).join();
  EXPECT_TRUE(fd.ok()) << "unshare(CLONE_NEWNET): this test needs root";
  return fd;
}

void In(const UniqueFd& netns, const std::function<void()>& work) {
  const absl::Status status = InNetns(netns.get(), [&] {
    work();
    return absl::OkStatus();
  });
  ASSERT_TRUE(status.ok()) << status;
}

void IpBatch(const UniqueFd& netns, const std::string& lines) {
  const std::string path = "/tmp/bal-ip-" + std::to_string(getpid());
  std::ofstream(path) << lines;
  const pid_t pid = fork();
  if (pid == 0) {
    if (setns(netns.get(), CLONE_NEWNET) != 0) _exit(1);
    execlp("ip", "ip", "-batch", path.c_str(), nullptr);
    _exit(127);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  unlink(path.c_str());
  ASSERT_EQ(status, 0) << lines;
}

bool Ready(const UniqueFd& fd, short events) {
  pollfd poll_fd{fd.get(), events, 0};
  return poll(&poll_fd, 1, kPatienceMs) == 1;
}

// A backend: answers every connection with one letter, its name, then echoes.
class Backend {
 public:
  explicit Backend(char name) : name_(name), netns_(NewNetns()) {}
  ~Backend() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
    bpf_link__destroy(link_);
    bpf_object__close(object_);
  }
  const UniqueFd& netns() const { return netns_; }
  uint64_t Decapsulated(int kind) const { return reinterpret_cast<const uint64_t*>(counts_)[kind]; }
  void Start();

 private:
  void Decapsulate();
  void Accept(const UniqueFd& listener);
  void Echo(const UniqueFd& fd);

  char name_;
  UniqueFd netns_;
  std::atomic<bool> stop_ = false;
  UniqueFd listener_;
  std::vector<std::thread> threads_;
  bpf_object* object_ = nullptr;
  bpf_link* link_ = nullptr;
  void* counts_ = nullptr;
};

void Backend::Decapsulate() {
  object_ = bpf_object__open_mem(weft_bpf_decap,
                                 static_cast<size_t>(weft_bpf_decap_end - weft_bpf_decap), nullptr);
  ASSERT_NE(object_, nullptr);
  ASSERT_EQ(bpf_object__load(object_), 0);
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, object_) {
    size_t size = 0;
    counts_ = bpf_map__initial_value(map, &size);
  }
  ASSERT_NE(counts_, nullptr);
  link_ = bpf_program__attach_tcx(bpf_object__find_program_by_name(object_, "test_decap"),
                                  static_cast<int>(if_nametoindex("eth0")), nullptr);
  ASSERT_NE(link_, nullptr) << strerror(errno);
}

void Backend::Start() {
  In(netns_, [&] {
    Decapsulate();
    listener_ = UniqueFd(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_in6 any{};
    any.sin6_family = AF_INET6;
    any.sin6_port = htons(kPort);
    ASSERT_EQ(bind(listener_.get(), reinterpret_cast<sockaddr*>(&any), sizeof any), 0);
    ASSERT_EQ(listen(listener_.get(), 64), 0);
  });
  threads_.emplace_back([this] { Accept(listener_); });
}

void Backend::Accept(const UniqueFd& listener) {
  std::vector<std::thread> connections;
  while (!stop_) {
    pollfd poll_fd{listener.get(), POLLIN, 0};
    if (poll(&poll_fd, 1, 50) != 1) continue;
    auto fd = std::make_shared<UniqueFd>(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!fd->ok()) continue;
    connections.emplace_back([this, fd] { Echo(*fd); });
  }
  for (std::thread& connection : connections) connection.join();
}

void Backend::Echo(const UniqueFd& fd) {
  if (send(fd.get(), &name_, 1, MSG_NOSIGNAL) != 1) return;
  char buffer[65536];
  while (!stop_) {
    pollfd poll_fd{fd.get(), POLLIN, 0};
    if (poll(&poll_fd, 1, 50) != 1) continue;
    const ssize_t count = recv(fd.get(), buffer, sizeof buffer, 0);
    if (count <= 0) return;
    for (ssize_t done = 0; done < count;) {
      const ssize_t sent =
          send(fd.get(), buffer + done, static_cast<size_t>(count - done), MSG_NOSIGNAL);
      if (sent <= 0) return;
      done += sent;
    }
  }
}

struct Connection {
  UniqueFd fd;
  char backend = 0;
};

class Path : public testing::TestWithParam<BalancerHook> {
 protected:
  void SetUp() override;
  void Load(uint32_t mtu);
  BalancerBackend BackendAt(int index, bool v6, Encapsulation encapsulation) const;
  void SetVip(const IpAddress& vip, const std::vector<BalancerBackend>& backends) {
    const absl::Status status = balancer_->SetVip({.address = {vip, kPort}, .backends = backends});
    ASSERT_TRUE(status.ok()) << status;
  }
  Connection Connect(const IpAddress& vip);
  // Sends so many bytes and gets the same back.
  void Exchange(const Connection& connection, size_t bytes);

  UniqueFd bridge_ = NewNetns(), client_ = NewNetns(), node_ = NewNetns();
  Backend backends_[2] = {Backend('a'), Backend('b')};
  std::unique_ptr<Balancer> balancer_;
};

INSTANTIATE_TEST_SUITE_P(Hooks, Path,
                         testing::Values(BalancerHook::kTc, BalancerHook::kClsact,
                                         BalancerHook::kXdpGeneric),
                         [](const auto& hook) {
                           return hook.param == BalancerHook::kTc       ? "tcx"
                                  : hook.param == BalancerHook::kClsact ? "clsact"
                                                                        : "xdp_generic";
                         });

void Path::SetUp() {
  const UniqueFd* ends[] = {&client_, &node_, &backends_[0].netns(), &backends_[1].netns()};
  const int numbers[] = {1, 2, 11, 12};
  std::string lines = "link add br0 type bridge\nlink set br0 up\n";
  for (int i = 0; i < 4; ++i) {
    const std::string port = "balport" + std::to_string(i);
    lines += "link add " + port + " type veth peer name eth0 netns /proc/self/fd/" +
             std::to_string(ends[i]->get()) + "\nlink set " + port + " master br0\nlink set " +
             port + " up\n";
  }
  IpBatch(bridge_, lines);
  for (int i = 0; i < 4; ++i) {
    const std::string number = std::to_string(numbers[i]);
    IpBatch(*ends[i], "link set lo up\naddr add 10.78.0." + number +
                          "/24 dev eth0\naddr add fd78::" + number +
                          "/64 dev eth0 nodad\nlink set eth0 up\n");
  }
  IpBatch(client_, "route add 10.79.0.1 via 10.78.0.2\nroute add fd79::1 via fd78::2\n");
  for (Backend& backend : backends_) {
    IpBatch(backend.netns(), "addr add 10.79.0.1/32 dev lo\naddr add fd79::1/128 dev lo nodad\n");
    backend.Start();
  }
}

// The kernel passes segments of one connection through veth in one piece, which XDP takes for a
// packet that is too big; a NIC gives native XDP what was on the wire.
void Ethtool(const UniqueFd& netns, const char* interface, std::vector<ethtool_value> settings) {
  In(netns, [&] {
    const UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    for (ethtool_value& setting : settings) {
      ifreq request{};
      strcpy(request.ifr_name, interface);
      request.ifr_data = reinterpret_cast<char*>(&setting);
      ASSERT_EQ(ioctl(fd.get(), SIOCETHTOOL, &request), 0) << strerror(errno);
    }
  });
}

void Path::Load(uint32_t mtu) {
  if (GetParam() == BalancerHook::kXdpGeneric) {
    Ethtool(bridge_, "balport1", {{ETHTOOL_STSO, 0}, {ETHTOOL_SGSO, 0}});
  }
  BalancerConfig config;
  config.source4 = A("10.78.0.2");
  config.source6 = A("fd78::2");
  config.mtu = mtu;
  config.flow4_bits = config.flow6_bits = 8;
  absl::StatusOr<std::unique_ptr<Balancer>> balancer = Balancer::Load(config);
  ASSERT_TRUE(balancer.ok()) << balancer.status();
  balancer_ = std::move(*balancer);
  In(node_, [&] {
    const absl::Status attached =
        balancer_->Attach(static_cast<int>(if_nametoindex("eth0")), GetParam());
    ASSERT_TRUE(attached.ok()) << attached;
  });
}

BalancerBackend Path::BackendAt(int index, bool v6, Encapsulation encapsulation) const {
  BalancerBackend backend;
  backend.address = A((v6 ? "fd78::1" : "10.78.0.1") + std::to_string(index + 1));
  backend.encapsulation = encapsulation;
  MacAddress mac{};
  const absl::Status read = InNetns(backends_[index].netns().get(), [&] {
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ifreq request{};
    strcpy(request.ifr_name, "eth0");
    const int error = ioctl(fd, SIOCGIFHWADDR, &request);
    close(fd);
    if (error != 0) return ErrnoStatus(errno, "SIOCGIFHWADDR");
    memcpy(mac.data(), request.ifr_hwaddr.sa_data, mac.size());
    return absl::OkStatus();
  });
  EXPECT_TRUE(read.ok()) << read;
  backend.next_hop = mac;
  return backend;
}

Connection Path::Connect(const IpAddress& vip) {
  Connection out;
  In(client_, [&] {
    const int family = vip.is_v4() ? AF_INET : AF_INET6;
    out.fd = UniqueFd(socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_storage to{};
    const socklen_t length = SocketAddress{vip, kPort}.ToSockaddr(family, &to);
    (void)connect(out.fd.get(), reinterpret_cast<sockaddr*>(&to), length);
    EXPECT_TRUE(Ready(out.fd, POLLIN)) << "no answer from " << vip.ToString();
    EXPECT_EQ(recv(out.fd.get(), &out.backend, 1, 0), 1) << strerror(errno);
  });
  return out;
}

void Path::Exchange(const Connection& connection, size_t bytes) {
  std::string out(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) out[i] = static_cast<char>(i * 2654435761u >> 13);
  std::string in;
  size_t sent = 0;
  while (in.size() < bytes) {
    const short wanted = static_cast<short>(POLLIN | (sent < bytes ? POLLOUT : 0));
    ASSERT_TRUE(Ready(connection.fd, wanted)) << in.size() << " of " << bytes << " came back";
    const ssize_t count = sent == bytes ? 0
                                        : send(connection.fd.get(), out.data() + sent,
                                               std::min<size_t>(bytes - sent, 65536), MSG_NOSIGNAL);
    if (count > 0) sent += static_cast<size_t>(count);
    char buffer[65536];
    const ssize_t got = recv(connection.fd.get(), buffer, sizeof buffer, 0);
    ASSERT_TRUE(got > 0 || (got < 0 && errno == EAGAIN)) << strerror(errno);
    if (got > 0) in.append(buffer, static_cast<size_t>(got));
  }
  EXPECT_TRUE(in == out) << "other bytes came back";
}

// MTU of the whole network 1500: full segments do not fit after encapsulation, so the transfer
// works only if the client heeds "too big". The larger one needs no answer.
TEST_P(Path, EveryEncapsulationCarriesTcp) {
  for (const uint32_t mtu : {1500u, 1600u}) {
    Load(mtu);
    if (mtu == 1600) {
      const UniqueFd* const ends[] = {&node_, &backends_[0].netns(), &backends_[1].netns()};
      for (const UniqueFd* end : ends) {
        IpBatch(*end, "link set eth0 mtu 1600\n");
      }
      IpBatch(bridge_,
              "link set balport1 mtu 1600\nlink set balport2 mtu 1600\n"
              "link set balport3 mtu 1600\n");
      IpBatch(client_, "route flush cache\n");
    }
    for (const char* vip : {"10.79.0.1", "fd79::1"}) {
      for (const bool v6 : {false, true}) {
        for (const Encapsulation encapsulation : {Encapsulation::kIpip, Encapsulation::kGue}) {
          SCOPED_TRACE(std::string(vip) + (v6 ? " by IPv6" : " by IPv4") +
                       (encapsulation == Encapsulation::kGue ? " GUE" : " IPIP") + " mtu " +
                       std::to_string(mtu));
          const int kind = (v6 ? 1 : 0) + (encapsulation == Encapsulation::kGue ? 2 : 0) +
                           (A(vip).is_v4() ? 0 : 4);
          const uint64_t before = backends_[0].Decapsulated(kind);
          SetVip(A(vip), {BackendAt(0, v6, encapsulation)});
          const Connection connection = Connect(A(vip));
          EXPECT_EQ(connection.backend, 'a');
          Exchange(connection, 300'000);
          EXPECT_GT(backends_[0].Decapsulated(kind), before);
        }
      }
    }
    const auto counters = balancer_->Counters();
    EXPECT_EQ(counters[WEFT_LB_TOO_BIG_ANSWERED] > 0, mtu == 1500);
    EXPECT_EQ(counters[WEFT_LB_DROP_ENCAP], 0u);
    EXPECT_EQ(counters[WEFT_LB_DROP_TOO_BIG], 0u);
    balancer_.reset();
  }
}

// Connections run while their backend is drained, others come and go, and it is removed.
TEST_P(Path, EstablishedFlowsLiveThroughDraining) {
  Load(1500);
  const IpAddress vip = A("10.79.0.1");
  BalancerBackend a = BackendAt(0, false, Encapsulation::kIpip);
  const BalancerBackend b = BackendAt(1, false, Encapsulation::kGue);
  SetVip(vip, {a, b});
  std::vector<Connection> old;
  int of_a = 0;
  for (int i = 0; i < 24; ++i) {
    old.push_back(Connect(vip));
    of_a += old.back().backend == 'a';
  }
  EXPECT_GT(of_a, 0);
  EXPECT_LT(of_a, 24);
  std::atomic<bool> stop = false;
  std::atomic<uint64_t> exchanges = 0;
  std::thread load([&] {
    while (!stop) {
      for (const Connection& connection : old) Exchange(connection, 2000);
      ++exchanges;
    }
  });
  const auto under_load = [&] {
    const uint64_t from = exchanges;
    while (exchanges < from + 3 && !HasFatalFailure()) std::this_thread::yield();
  };
  under_load();
  a.draining = true;
  SetVip(vip, {a, b});
  for (int i = 0; i < 12; ++i) EXPECT_EQ(Connect(vip).backend, 'b') << "a drains";
  under_load();
  for (int round = 0; round < 20; ++round) {
    BalancerBackend other = b;
    other.weight = static_cast<uint32_t>(round + 1);
    SetVip(vip, {a, other});
  }
  under_load();
  stop = true;
  load.join();
  // The drained one's connections end; then it goes.
  std::erase_if(old, [](const Connection& connection) { return connection.backend == 'a'; });
  SetVip(vip, {b});
  for (const Connection& connection : old) Exchange(connection, 2000);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(Connect(vip).backend, 'b');
  EXPECT_GE(balancer_->Traffic({vip, kPort}, 6).flows, 24u + 12 + 4);
  // Detached: nobody answers for the VIP.
  In(node_, [&] { EXPECT_TRUE(balancer_->Detach(static_cast<int>(if_nametoindex("eth0"))).ok()); });
  const uint64_t packets = balancer_->Traffic({vip, kPort}, 6).packets;
  In(client_, [&] {
    const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_storage to{};
    const socklen_t length = SocketAddress{vip, kPort}.ToSockaddr(AF_INET, &to);
    EXPECT_NE(connect(fd.get(), reinterpret_cast<sockaddr*>(&to), length), 0);
  });
  EXPECT_EQ(balancer_->Traffic({vip, kPort}, 6).packets, packets);
}

// Without a configured next hop the kernel's routes and neighbours say where backends are.
TEST_P(Path, TheKernelKnowsTheNextHop) {
  Load(1500);
  IpBatch(node_, "link set lo up\n");
  In(node_, [&] {  // a neighbour entry each: XDP asks for it but cannot resolve one
    for (const char* address : {"10.78.0.11", "fd78::11"}) {
      const IpAddress ip = A(address);
      const int family = ip.is_v4() ? AF_INET : AF_INET6;
      const UniqueFd fd(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
      sockaddr_storage to{};
      const socklen_t length = SocketAddress{ip, kPort}.ToSockaddr(family, &to);
      EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&to), length), 0) << strerror(errno);
    }
    if (GetParam() == BalancerHook::kXdpGeneric) {
      // bpf_fib_lookup() refuses interfaces that do not forward.
      std::ofstream("/proc/sys/net/ipv4/conf/all/forwarding") << 1;
      std::ofstream("/proc/sys/net/ipv6/conf/all/forwarding") << 1;
    }
  });
  for (const char* vip : {"10.79.0.1", "fd79::1"}) {
    for (const bool v6 : {false, true}) {
      BalancerBackend backend = BackendAt(0, v6, Encapsulation::kIpip);
      backend.next_hop.reset();
      SetVip(A(vip), {backend});
      Exchange(Connect(A(vip)), 5000);
    }
  }
}

}  // namespace
}  // namespace weft::bpf
