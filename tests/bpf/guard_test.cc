// SPDX-License-Identifier: Apache-2.0
// Ways round the mesh, from a pod that has every capability in its namespace: each is tried before
// the enrolment, where it must work (or the test would prove nothing), and after it, where not a
// byte may arrive. And packets that pretend, in both directions.
#include <bpf/bpf.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "bpf/guard.h"
#include "control/bpf/netns.h"
#include "proxy/base/reason.h"
#include "tests/bpf/guard_bed.h"

namespace weft::bpf {
namespace {

#ifndef IP_TRANSPARENT
#define IP_TRANSPARENT 19
#endif

constexpr uint16_t kPort = 8080;
const std::string kCanary = "weft-guard-canary-0123456789";
const IpAddress kStranger = *IpAddress::Parse("10.77.0.77");
const IpAddress kStranger6 = *IpAddress::Parse("fd77::77");
const Bytes kStrangerMac{2, 0, 0, 0, 0, 0x77};

Bytes Canary() { return Bytes(kCanary.begin(), kCanary.end()); }

// A segment that carries the canary.
Bytes TcpCanary(uint8_t flags = kAck | 8) { return Tcp(4000, kPort, flags, 0) + Canary(); }

void WaitCount(Node& node, weft_reason reason, uint64_t more_than) {
  for (int i = 0; i < 500 && node.Count(reason) <= more_than; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));  // polls a counter
  }
  EXPECT_GT(node.Count(reason), more_than) << "not counted as " << ReasonName(reason);
}

void SetSysctl(const UniqueFd& netns, const std::string& name, const std::string& value) {
  EXPECT_TRUE(InNetns(netns.get(),
                      [&] {
                        std::ofstream file("/proc/sys/" + name);
                        file << value << std::flush;
                        return file.good() ? absl::OkStatus() : absl::InternalError(name);
                      })
                  .ok())
      << name;
}

UniqueFd NewNetns() {
  UniqueFd fd;
  std::thread thread([&] {
    if (unshare(CLONE_NEWNET) == 0) fd = UniqueFd(open("/proc/thread-self/ns/net", O_RDONLY));
  });
  thread.join();
  EXPECT_TRUE(fd.ok());
  return fd;
}

// What an attack has to work with.
struct Scene {
  Pod& pod;      // under attack from inside
  Pod& outside;  // whom it wants to reach; not enrolled
};

struct Attack {
  const char* name;
  weft_reason reason;  // of the drop
  void (*send)(Scene& scene);
  Bytes marker = Canary();  // what the outside must never see
};

void SpoofedUdp(Scene& s, const IpAddress& from, const IpAddress& to, const Bytes& mac) {
  const Bytes packet = Ip(from, to, IPPROTO_UDP, Udp(4000, 53, Canary()));
  SendFrame(s.pod, FrameFrom(mac, from.is_v4() ? 0x0800 : 0x86dd, packet));
}

void BindForeignAndSend(Scene& s, bool transparent) {
  const UniqueFd fd = SocketIn(s.pod, AF_INET, SOCK_DGRAM, 0);
  const int one = 1;
  if (transparent) {
    ASSERT_EQ(setsockopt(fd.get(), SOL_IP, IP_TRANSPARENT, &one, sizeof one), 0) << strerror(errno);
  }
  sockaddr_storage address{};
  const socklen_t length = SocketAddress{kStranger, 4000}.ToSockaddr(AF_INET, &address);
  ASSERT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), length), 0) << strerror(errno);
  EXPECT_EQ(SendTo(fd, s.outside.At(53), kCanary), 0);
}

// A TCP connect of a program in a namespace that the pod made and bridged to its own link, under
// the pod's own MAC and address.
void ConnectFromBridgedNamespace(Scene& s) {
  const UniqueFd nested = NewNetns();
  const std::string mac = [&] {
    char text[18];
    const Bytes m = MacOf(s.pod);
    snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4],
             m[5]);
    return std::string(text);
  }();
  Ip(s.pod.netns,
     "link add br9 type bridge\nlink set br9 up\nlink add inner type veth peer name "
     "eth0 netns /proc/self/fd/" +
         std::to_string(nested.get()) +
         "\nlink set inner master br9\nlink set inner up\nlink set eth0 master br9\n");
  Ip(nested, "link set eth0 address " + mac + "\nlink set lo up\naddr add " + s.pod.v4.ToString() +
                 "/24 dev eth0\nlink set eth0 up\nneigh add " + s.outside.v4.ToString() +
                 " lladdr ff:ff:ff:ff:ff:ff dev eth0\n");
  ASSERT_TRUE(InNetns(nested.get(), [&] {
                const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
                sockaddr_storage from{}, to{};
                const socklen_t length = SocketAddress{s.pod.v4, 0x5a5a}.ToSockaddr(AF_INET, &from);
                SocketAddress{s.outside.v4, 0x5aa5}.ToSockaddr(AF_INET, &to);
                const int one = 1;
                setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
                if (bind(fd.get(), reinterpret_cast<sockaddr*>(&from), length) != 0 ||
                    (connect(fd.get(), reinterpret_cast<sockaddr*>(&to), length) != 0 &&
                     errno != EINPROGRESS)) {
                  return absl::InternalError(strerror(errno));
                }
                // The SYN has left; the reset at close() is a bare segment.
                return absl::OkStatus();
              }).ok());
  Ip(s.pod.netns, "link set eth0 nomaster\nlink del br9\nlink del inner\n");
}

void ForwardFromNestedNamespace(Scene& s) {
  const UniqueFd nested = NewNetns();
  Ip(s.pod.netns, "link add inner type veth peer name eth0 netns /proc/self/fd/" +
                      std::to_string(nested.get()) +
                      "\naddr add 192.168.9.1/24 dev inner\nlink set inner up\n");
  Ip(nested,
     "link set lo up\naddr add 192.168.9.2/24 dev eth0\nlink set eth0 up\nroute add "
     "default via 192.168.9.1\n");
  SetSysctl(s.pod.netns, "net/ipv4/ip_forward", "1");
  Pod inner;
  inner.netns = UniqueFd(dup(nested.get()));
  const UniqueFd fd = SocketIn(inner, AF_INET, SOCK_DGRAM, 0);
  EXPECT_EQ(SendTo(fd, s.outside.At(53), kCanary), 0);
}

const Bytes kNestedSyn{0x5a, 0x5a, 0x5a, 0xa5};

const std::vector<Attack>& Attacks() {
  static const std::vector<Attack> all{
      {"RawSocketWithItsOwnHeader", WEFT_R_UNSTAMPED,
       [](Scene& s) {
         SendRaw(s.pod, s.outside.v4, Ip4(s.pod.v4, s.outside.v4, IPPROTO_TCP, TcpCanary()));
       }},
      {"RawSocketOfTcp", WEFT_R_UNSTAMPED,
       [](Scene& s) {
         const UniqueFd fd = SocketIn(s.pod, AF_INET, SOCK_RAW, IPPROTO_TCP);
         const Bytes segment = TcpCanary();
         EXPECT_EQ(SendTo(fd, {s.outside.v4, 0}, std::string(segment.begin(), segment.end())), 0);
       }},
      // connect() of a raw socket must not stamp it.
      {"ConnectedRawSocketOfTcp", WEFT_R_UNSTAMPED,
       [](Scene& s) {
         const UniqueFd fd = SocketIn(s.pod, AF_INET, SOCK_RAW, IPPROTO_TCP);
         ASSERT_EQ(Connect(fd, {s.outside.v4, 0}), 0);
         const Bytes segment = TcpCanary();
         EXPECT_EQ(send(fd.get(), segment.data(), segment.size(), 0),
                   static_cast<ssize_t>(segment.size()));
       }},
      {"RawSocketBoundToTheDevice", WEFT_R_UNSTAMPED,
       [](Scene& s) {
         const UniqueFd fd = SocketIn(s.pod, AF_INET, SOCK_RAW, IPPROTO_TCP);
         ASSERT_EQ(setsockopt(fd.get(), SOL_SOCKET, SO_BINDTODEVICE, "eth0", 5), 0);
         const Bytes segment = TcpCanary(kSyn);
         EXPECT_EQ(SendTo(fd, {s.outside.v4, 0}, std::string(segment.begin(), segment.end())), 0);
       }},
      {"RawSocket6", WEFT_R_UNSTAMPED,
       [](Scene& s) {
         SendRaw(s.pod, s.outside.v6, Ip6(s.pod.v6, s.outside.v6, IPPROTO_TCP, TcpCanary()));
       }},
      {"PacketSocket", WEFT_R_UNSTAMPED,
       [](Scene& s) {
         SendFrame(s.pod, FrameFrom(MacOf(s.pod), 0x0800,
                                    Ip4(s.pod.v4, s.outside.v4, IPPROTO_TCP, TcpCanary())));
       }},
      {"PacketSocketWithAReset", WEFT_R_UNSTAMPED,
       [](Scene& s) {
         SendFrame(s.pod, FrameFrom(MacOf(s.pod), 0x0800,
                                    Ip4(s.pod.v4, s.outside.v4, IPPROTO_TCP, TcpCanary(kRst))));
       }},
      {"FragmentsOfTcp", WEFT_R_UNSTAMPED,
       [](Scene& s) {
         SendFrame(s.pod, FrameFrom(MacOf(s.pod), 0x0800,
                                    Ip4(s.pod.v4, s.outside.v4, IPPROTO_TCP, Canary() + Bytes(4),
                                        {.fragment = 3})));
       }},
      {"SpoofedAddress", WEFT_R_SPOOFED,
       [](Scene& s) { SpoofedUdp(s, kStranger, s.outside.v4, MacOf(s.pod)); }},
      {"SpoofedAddress6", WEFT_R_SPOOFED,
       [](Scene& s) { SpoofedUdp(s, kStranger6, s.outside.v6, MacOf(s.pod)); }},
      {"SpoofedMac", WEFT_R_SPOOFED,
       [](Scene& s) { SpoofedUdp(s, s.pod.v4, s.outside.v4, kStrangerMac); }},
      {"SpoofedArp", WEFT_R_SPOOFED,
       [](Scene& s) {
         SendFrame(s.pod, FrameFrom(MacOf(s.pod), 0x0806,
                                    Bytes{0, 1, 8, 0, 6, 4, 0, 2} + MacOf(s.pod) +
                                        AddressBytes(kStranger) + Bytes(6, 0xff) +
                                        AddressBytes(s.outside.v4) + Canary()));
       }},
      {"SpoofedNeighbourAdvertisement", WEFT_R_SPOOFED,
       [](Scene& s) {
         Bytes packet = Ip6(s.pod.v6, *IpAddress::Parse("ff02::1"), IPPROTO_ICMPV6,
                            Bytes{136, 0, 0, 0, 0x20, 0, 0, 0} + AddressBytes(kStranger6) +
                                Bytes{2, 1} + MacOf(s.pod));
         packet[7] = 255;
         SendFrame(s.pod, FrameFrom(MacOf(s.pod), 0x86dd, packet));
       },
       AddressBytes(kStranger6) + Bytes{2, 1}},
      {"SecondAddress", WEFT_R_SPOOFED,
       [](Scene& s) {
         Ip(s.pod.netns, "addr replace " + kStranger.ToString() + "/24 dev eth0\n");
         BindForeignAndSend(s, false);
       }},
      {"Transparent", WEFT_R_SPOOFED, [](Scene& s) { BindForeignAndSend(s, true); }},
      {"Vlan", WEFT_R_BAD_PACKET,
       [](Scene& s) {
         SendFrame(s.pod, FrameFrom(MacOf(s.pod), 0x8100,
                                    Bytes{0, 7, 8, 0} + Ip4(s.pod.v4, s.outside.v4, IPPROTO_UDP,
                                                            Udp(4000, 53, Canary()))));
       }},
      {"UnknownEthertype", WEFT_R_BAD_PACKET,
       [](Scene& s) { SendFrame(s.pod, FrameFrom(MacOf(s.pod), 0x88b5, Canary() + Bytes(30))); }},
      {"SourceRoute", WEFT_R_BAD_PACKET,
       [](Scene& s) {
         SendFrame(s.pod,
                   FrameFrom(MacOf(s.pod), 0x0800,
                             Ip4(s.pod.v4, s.outside.v4, IPPROTO_UDP, Udp(4000, 53, Canary()),
                                 {.options = {131, 7, 4, 10, 77, 0, 2, 0}})));
       }},
      {"ForwardedFromANestedNamespace", WEFT_R_SPOOFED, ForwardFromNestedNamespace},
      {"TcpOfABridgedNamespace", WEFT_R_UNSTAMPED, ConnectFromBridgedNamespace, kNestedSyn},
  };
  return all;
}

class Routes : public testing::TestWithParam<Attack> {
 protected:
  Network network_;
  Scene scene_{network_.pod(0), network_.pod(2)};
  Node node_{"guard"};
};

TEST_P(Routes, NoByteGetsOut) {
  const Attack& attack = GetParam();
  Observer observer(scene_.outside);
  attack.send(scene_);
  ASSERT_TRUE(observer.WaitFor(attack.marker)) << "the attack does not work at all";
  node_.Enrol(scene_.pod, WEFT_WL_PROXY_READY);
  node_.Events();
  observer.Forget();
  const uint64_t before = node_.Count(attack.reason);
  attack.send(scene_);
  WaitCount(node_, attack.reason, before);
  EXPECT_EQ(node_.WaitEvent(WEFT_EVENT_GUARD).source_workload, scene_.pod.id);
  // What the pod may send comes through, and came later.
  const UniqueFd honest = UdpSocket(scene_.pod, scene_.pod.At(4999));
  ASSERT_EQ(SendTo(honest, scene_.outside.At(4998), "honest"), 0);
  EXPECT_TRUE(observer.WaitFor({'h', 'o', 'n', 'e', 's', 't'}));
  EXPECT_FALSE(observer.Saw(attack.marker));
}

INSTANTIATE_TEST_SUITE_P(All, Routes, testing::ValuesIn(Attacks()),
                         [](const auto& test) { return test.param.name; });

class GuardTest : public testing::Test {
 protected:
  void SetUp() override {
    node_.Enrol(pod_, WEFT_WL_PROXY_READY);
    listeners_ = node_.Listen(pod_);
    node_.Events();
  }

  Network network_;
  Pod& pod_ = network_.pod(0);
  Pod& peer_ = network_.pod(1);
  Pod& outside_ = network_.pod(2);
  Node node_{"guard"};
  Node::Listeners listeners_;
};

// A connect is captured whatever the socket is bound to, so it never leaves by the veth.
TEST_F(GuardTest, BoundSocketsAreCapturedAllTheSame) {
  UniqueFd app = Listener(outside_, kPort);
  UniqueFd to_device = TcpSocket(pod_, AF_INET, Blocking::kNo);
  ASSERT_EQ(setsockopt(to_device.get(), SOL_SOCKET, SO_BINDTODEVICE, "eth0", 5), 0);
  UniqueFd to_address = TcpSocket(pod_, AF_INET, Blocking::kNo);
  sockaddr_storage address{};
  const socklen_t length = pod_.At(5151).ToSockaddr(AF_INET, &address);
  ASSERT_EQ(bind(to_address.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
  EXPECT_EQ(Connect(to_address, outside_.At(kPort)), 0);
  Accept(listeners_.outbound, Blocking::kNo);
  Connect(to_device, outside_.At(kPort));  // captured, or refused by its binding
  EXPECT_TRUE(NothingToAccept(app, 200));
  EXPECT_EQ(node_.Count(WEFT_R_UNSTAMPED), 0u);
}

// The SYN of a transparent socket would come from an address that is not the pod's.
TEST_F(GuardTest, ATransparentSocketOfTcpReachesNobody) {
  node_.Enrol(peer_, WEFT_WL_PROXY_READY);
  UniqueFd app = Listener(peer_, kPort);
  UniqueFd client = TcpSocket(pod_, AF_INET, Blocking::kNo);
  const int one = 1;
  ASSERT_EQ(setsockopt(client.get(), SOL_IP, IP_TRANSPARENT, &one, sizeof one), 0);
  sockaddr_storage address{};
  const socklen_t length = SocketAddress{kStranger, 5151}.ToSockaddr(AF_INET, &address);
  ASSERT_EQ(bind(client.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
  peer_.At(kPort).ToSockaddr(AF_INET, &address);
  ASSERT_EQ(connect(client.get(), reinterpret_cast<sockaddr*>(&address), length), -1);
  ASSERT_EQ(errno, EINPROGRESS);
  WaitCount(node_, WEFT_R_SPOOFED, 0);
  EXPECT_TRUE(NothingToAccept(app, 0));
}

// inbound.bpf.c trusts what comes from the pod's own addresses.
TEST_F(GuardTest, NobodyReachesThePodAsThePodItself) {
  Observer observer(pod_);
  const Bytes mac = MacOf(outside_);
  const IpAddress loopback = *IpAddress::Parse("127.0.0.1");
  const IpAddress loopback6 = *IpAddress::Parse("::1");
  for (const auto& [from, to] : {std::pair{pod_.v4, pod_.v4},
                                 {loopback, pod_.v4},
                                 {pod_.v6, pod_.v6},
                                 {loopback6, pod_.v6}}) {
    const uint64_t before = node_.Count(WEFT_R_SPOOFED);
    SendFrame(outside_, FrameFrom(mac, from.is_v4() ? 0x0800 : 0x86dd,
                                  bpf::Ip(from, to, IPPROTO_TCP, TcpCanary(kSyn))));
    WaitCount(node_, WEFT_R_SPOOFED, before);
  }
  SendFrame(outside_, FrameFrom(mac, 0x0800,
                                Ip4(outside_.v4, pod_.v4, IPPROTO_UDP,
                                    Udp(1, 2, {'h', 'o', 'n', 'e', 's', 't'}))));
  EXPECT_TRUE(observer.WaitFor({'h', 'o', 'n', 'e', 's', 't'}));
  EXPECT_FALSE(observer.Saw(Canary()));
}

// What the proxy sends from the pod's namespace, and what it accepted there.
TEST_F(GuardTest, OurOwnSocketsPass) {
  UniqueFd far = Listener(outside_, kPort);
  UniqueFd tunnel = node_.Stamped(pod_, WEFT_ROLE_TUNNEL, AF_INET);
  ASSERT_EQ(Connect(tunnel, outside_.At(kPort)), 0);
  UniqueFd far_end = Accept(far, Blocking::kNo);
  SendAll(tunnel, "out");
  EXPECT_EQ(ReceiveSome(far_end, 3), "out");
  for (const bool v6 : {false, true}) {
    UniqueFd caller = TcpSocket(outside_, v6 ? AF_INET6 : AF_INET, Blocking::kNo);
    const int family = v6 ? AF_INET6 : AF_INET;
    ASSERT_EQ(Connect(caller, v6 ? pod_.At6(kPort) : pod_.At(kPort), family), 0);
    UniqueFd accepted = Accept(listeners_.inbound, Blocking::kNo);
    SendAll(accepted, "answer");
    EXPECT_EQ(ReceiveSome(caller, 6), "answer");
  }
  EXPECT_EQ(node_.Count(WEFT_R_UNSTAMPED), 0u);
}

// A flood of drops is counted, but reported a few times a second.
TEST_F(GuardTest, AFloodDoesNotDrownTheEvents) {
  const Bytes frame =
      FrameFrom(kStrangerMac, 0x0800, Ip4(pod_.v4, outside_.v4, IPPROTO_UDP, Udp(1, 2, Canary())));
  const auto start = std::chrono::steady_clock::now();
  SendFrame(pod_, frame, 500);
  WaitCount(node_, WEFT_R_SPOOFED, 499);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  const double most = WEFT_GUARD_REPORTS * (took.count() + 2);
  EXPECT_LE(static_cast<double>(node_.Events().size()), most);
  EXPECT_LT(most, 500) << "too slow to tell";
}

// The very programs, fed with frames: BPF_PROG_TEST_RUN gives them a socket without a stamp.
TEST_F(GuardTest, ProgramsByTestRun) {
  const std::string folder = node_.config().bpffs_root + "/weft/" + node_.config().node;
  const UniqueFd guards(bpf_obj_get((folder + "/maps/weft_guards").c_str()));
  const uint32_t loopback = 1;  // the interface that a test run takes by default
  weft_guard own{};
  for (uint32_t key = 0, *last = nullptr; bpf_map_get_next_key(guards.get(), last, &key) == 0;
       last = &key) {
    ASSERT_EQ(bpf_map_lookup_elem(guards.get(), &key, &own), 0);
  }
  ASSERT_EQ(own.workload, pod_.id);
  ASSERT_EQ(bpf_map_update_elem(guards.get(), &loopback, &own, BPF_ANY), 0);
  const Bytes mac = MacOf(pod_);
  const auto tcp = [&](uint8_t flags, const Bytes& payload, bool sent) {
    return FrameFrom(mac, 0x0800,
                     Ip4(sent ? pod_.v4 : outside_.v4, sent ? outside_.v4 : pod_.v4, IPPROTO_TCP,
                         Tcp(1, 2, flags, 0) + payload));
  };
  struct {
    const char* name;
    const char* link;
    Bytes frame;
    int verdict;
  } const cases[] = {
      {"a bare ACK", "from", tcp(kAck, {}, true), -1},
      {"a reset", "from", tcp(kRst, {}, true), -1},
      {"a SYN", "from", tcp(kSyn, {}, true), 2},
      {"payload", "from", tcp(kAck, {'x'}, true), 2},
      {"a frame of nobody", "from", FrameFrom(mac, 0x9999, Bytes(40)), 2},
      {"TCP without a header", "from",
       FrameFrom(mac, 0x0800, Ip4(pod_.v4, outside_.v4, IPPROTO_TCP, {})), 2},
      {"TCP to the pod", "to", tcp(kSyn, {}, false), -1},
      {"the pod's own address", "to", tcp(kSyn, {}, true), 2},
      {"UDP", "from", FrameFrom(mac, 0x0800, Ip4(pod_.v4, outside_.v4, IPPROTO_UDP, Udp(1, 2, {}))),
       -1},
  };
  for (const auto& each : cases) {
    std::string pin;
    for (const auto& entry : std::filesystem::directory_iterator(folder + "/links")) {
      const std::string name = entry.path().filename();
      if (name.rfind(std::string("guard_") + each.link, 0) == 0) pin = entry.path();
    }
    const UniqueFd link(bpf_obj_get(pin.c_str()));
    bpf_link_info info{};
    uint32_t length = sizeof info;
    ASSERT_EQ(bpf_link_get_info_by_fd(link.get(), &info, &length), 0);
    const UniqueFd program(bpf_prog_get_fd_by_id(info.prog_id));
    bpf_test_run_opts options{};
    options.sz = sizeof options;
    options.data_in = each.frame.data();
    options.data_size_in = static_cast<uint32_t>(each.frame.size());
    ASSERT_EQ(bpf_prog_test_run_opts(program.get(), &options), 0) << each.name;
    EXPECT_EQ(static_cast<int>(options.retval), each.verdict) << each.name;
  }
}

TEST_F(GuardTest, IsFirstAtItsHooksAndLeavesNothing) {
  const auto attached = [&](bpf_attach_type type) {
    uint32_t ids[8] = {}, count = 0;
    EXPECT_TRUE(InNetns(pod_.host_netns, [&] {
                  struct bpf_prog_query_opts options{};
                  options.sz = sizeof options;
                  options.prog_ids = ids;
                  options.prog_cnt = 8;
                  const int index = static_cast<int>(if_nametoindex(pod_.host_end.c_str()));
                  EXPECT_EQ(bpf_prog_query_opts(index, type, &options), 0) << strerror(errno);
                  count = options.prog_cnt;
                  return absl::OkStatus();
                }).ok());
    return count;
  };
  EXPECT_EQ(attached(BPF_TCX_INGRESS), 1u);
  EXPECT_EQ(attached(BPF_TCX_EGRESS), 1u);
  node_.Enrol(pod_, WEFT_WL_PROXY_READY);  // again: adopted
  EXPECT_EQ(attached(BPF_TCX_INGRESS), 1u);
  ASSERT_TRUE(node_.kernel().DetachWorkload(pod_.cookie).ok());
  EXPECT_EQ(attached(BPF_TCX_INGRESS), 0u);
  EXPECT_EQ(attached(BPF_TCX_EGRESS), 0u);
}

std::vector<std::string> GuardLinks(const Node& node, uint64_t netns_cookie) {
  std::vector<std::string> all;
  const std::string folder = node.config().bpffs_root + "/weft/" + node.config().node + "/links";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    if (name.rfind("guard_", 0) == 0 && name.find(std::to_string(netns_cookie)) != name.npos) {
      all.push_back(name);
    }
  }
  std::ranges::sort(all);
  return all;
}

// A second interface of the pod is guarded as well; one that cannot be is refused, and named where
// the pod was guarded before.
TEST_F(GuardTest, EveryWayOutIsGuardedOrNamed) {
  Ip(network_.node(), "link add second type veth peer name eth1 netns /proc/self/fd/" +
                          std::to_string(pod_.netns.get()) + "\nlink set second up\n");
  auto guard = node_.kernel().GuardWorkload(pod_.cookie, pod_.host_netns);
  ASSERT_TRUE(guard.ok()) << guard.status();
  EXPECT_EQ(guard->interfaces.size(), 2u);
  EXPECT_EQ(GuardLinks(node_, pod_.cookie).size(), 4u);
  Ip(network_.node(), "link del second\n");
  guard = node_.kernel().GuardWorkload(pod_.cookie, pod_.host_netns);
  ASSERT_TRUE(guard.ok()) << guard.status();
  EXPECT_EQ(guard->interfaces.size(), 1u);
  EXPECT_EQ(guard->problem, "");
  const std::vector<std::string> links = GuardLinks(node_, pod_.cookie);
  EXPECT_EQ(links.size(), 2u);
  node_.EnrolUnguarded(peer_, WEFT_WL_PROXY_READY);
  for (const Pod* pod : {&pod_, &peer_}) {
    Ip(network_.node(), "link add mv0 link br0 netns /proc/self/fd/" +
                            std::to_string(pod->netns.get()) + " type macvlan\n");
  }
  guard = node_.kernel().GuardWorkload(pod_.cookie, pod_.host_netns);
  ASSERT_TRUE(guard.ok()) << guard.status();
  EXPECT_NE(guard->problem.find("mv0 (macvlan)"), std::string::npos) << guard->problem;
  guard = node_.kernel().GuardWorkload(peer_.cookie, peer_.host_netns);
  ASSERT_TRUE(absl::IsFailedPrecondition(guard.status())) << guard.status();
  EXPECT_NE(std::string(guard.status().message()).find("mv0 (macvlan)"), std::string::npos)
      << guard.status();
  // From a namespace that has not the other end nothing can be found.
  guard = node_.kernel().GuardWorkload(peer_.cookie, outside_.netns.get());
  EXPECT_TRUE(absl::IsFailedPrecondition(guard.status())) << guard.status();
  EXPECT_TRUE(GuardLinks(node_, peer_.cookie).empty());
  guard = node_.kernel().GuardWorkload(pod_.cookie, outside_.netns.get());
  ASSERT_TRUE(guard.ok()) << guard.status();
  EXPECT_NE(guard->problem, "");
  EXPECT_EQ(GuardLinks(node_, pod_.cookie), links);
}

// A pod that hides its interface from the next agent, under its guard, keeps that.
TEST_F(GuardTest, AHiddenInterfaceStaysGuarded) {
  Observer observer(outside_);
  const Bytes mac = MacOf(pod_);
  const std::vector<std::string> links = GuardLinks(node_, pod_.cookie);
  Pod nested;
  nested.netns = NewNetns();
  Ip(pod_.netns, "link set eth0 netns /proc/self/fd/" + std::to_string(nested.netns.get()) + "\n");
  Ip(nested.netns, "link set eth0 up\n");
  node_.Restart();
  node_.EnrolUnguarded(pod_, WEFT_WL_PROXY_READY);
  const auto guard = node_.kernel().GuardWorkload(pod_.cookie, pod_.host_netns);
  ASSERT_TRUE(guard.ok()) << guard.status();
  EXPECT_NE(guard->problem, "");
  EXPECT_EQ(GuardLinks(node_, pod_.cookie), links);
  const uint64_t before = node_.Count(WEFT_R_UNSTAMPED);
  SendFrame(nested, FrameFrom(mac, 0x0800, Ip4(pod_.v4, outside_.v4, IPPROTO_TCP, TcpCanary())));
  WaitCount(node_, WEFT_R_UNSTAMPED, before);
  EXPECT_FALSE(observer.Saw(Canary()));
}

// What the pod says of its interface is believed once.
TEST_F(GuardTest, AnotherMacIsNotBelievedLater) {
  Observer observer(outside_);
  Ip(pod_.netns, "link set eth0 down\nlink set eth0 address 02:00:00:00:00:77\nlink set eth0 up\n");
  node_.Restart();
  node_.EnrolUnguarded(pod_, WEFT_WL_PROXY_READY);
  const auto guard = node_.kernel().GuardWorkload(pod_.cookie, pod_.host_netns);
  ASSERT_TRUE(guard.ok()) << guard.status();
  const uint64_t before = node_.Count(WEFT_R_SPOOFED);
  Scene scene{pod_, outside_};
  SpoofedUdp(scene, pod_.v4, outside_.v4, kStrangerMac);
  WaitCount(node_, WEFT_R_SPOOFED, before);
  EXPECT_FALSE(observer.Saw(Canary()));
}

}  // namespace
}  // namespace weft::bpf
