// SPDX-License-Identifier: Apache-2.0
// Stamps put to another use, from a pod that has every capability in its namespace: packets that
// are rewritten after a stamped socket made them, and stamped sockets that are used again. Each
// attack is tried before the enrolment too, where it must work (or the test would prove nothing).
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "control/bpf/netns.h"
#include "tests/bpf/guard_bed.h"

extern "C" {
extern const char weft_bpf_pod[], weft_bpf_pod_end[];
}

namespace weft::bpf {
namespace {

#ifndef IP_TRANSPARENT
#define IP_TRANSPARENT 19
#endif

constexpr uint16_t kPort = 8080;
constexpr uint16_t kOtherPort = 0x5aa5;
const std::string kCanary = "weft-stamp-canary-0123456789";

Bytes Canary() { return Bytes(kCanary.begin(), kCanary.end()); }

// pod.bpf.c at the pod's own eth0, for as long as this lives.
class PodPrograms {
 public:
  explicit PodPrograms(const Pod& pod) {
    object_ = bpf_object__open_mem(weft_bpf_pod,
                                   static_cast<size_t>(weft_bpf_pod_end - weft_bpf_pod), nullptr);
    EXPECT_EQ(bpf_object__load(object_), 0);
    size_t size = 0;
    words_ = static_cast<Words*>(
        bpf_map__initial_value(bpf_object__find_map_by_name(object_, ".bss"), &size));
    EXPECT_GE(size, sizeof(Words));
    EXPECT_TRUE(InNetns(pod.netns.get(), [&] {
                  const int eth0 = static_cast<int>(if_nametoindex("eth0"));
                  for (const char* name : {"weft_rewrite", "weft_adopt"}) {
                    links_.push_back(bpf_program__attach_tcx(
                        bpf_object__find_program_by_name(object_, name), eth0, nullptr));
                    EXPECT_NE(links_.back(), nullptr) << strerror(errno);
                  }
                  return absl::OkStatus();
                }).ok());
  }
  ~PodPrograms() {
    for (bpf_link* link : links_) bpf_link__destroy(link);
    bpf_object__close(object_);
  }
  PodPrograms(const PodPrograms&) = delete;
  PodPrograms& operator=(const PodPrograms&) = delete;

  // From now on, TCP that leaves has `patch` at `at` of its frame, and goes to every MAC.
  void Rewrite(uint32_t at, const Bytes& patch) {
    memcpy(words_->patch, patch.data(), patch.size());
    words_->at = at;
    std::atomic_ref(words_->bytes).store(static_cast<uint32_t>(patch.size()));
  }
  void RewriteNothing() { std::atomic_ref(words_->bytes).store(0); }
  // From now on, SYNs that come over IPv4 are for that listener.
  void Adopt(const Pod& pod, uint16_t port) {
    memcpy(&words_->ip, pod.v4.bytes.data() + 12, 4);
    words_->port = port;
  }
  uint32_t rewritten() const { return std::atomic_ref(words_->rewritten).load(); }
  uint32_t adopted() const { return std::atomic_ref(words_->adopted).load(); }

 private:
  struct Words {  // the programs' .bss
    uint32_t at, bytes;
    uint8_t patch[16];
    uint32_t rewritten, adopted;
    uint32_t ip, port;
  };
  bpf_object* object_ = nullptr;
  std::vector<bpf_link*> links_;
  Words* words_ = nullptr;
};

// Waits for a counter that other threads of the kernel move.
template <typename Condition>
bool Within5s(Condition condition) {
  for (int i = 0; i < 500; ++i) {
    if (condition()) return true;
    poll(nullptr, 0, 10);
  }
  return condition();
}

struct Rewriting {
  const char* name;
  bool v6;
  uint32_t at;
  Bytes (*patch)(Network& network);
};

constexpr uint32_t kEth = 14, kTcp4 = kEth + 20, kTcp6 = kEth + 40;
Bytes OtherPort(Network&) { return {kOtherPort >> 8, kOtherPort & 0xff}; }

const Rewriting kRewritings[] = {
    {"Destination", false, kEth + 16, [](Network& n) { return AddressBytes(n.pod(2).v4); }},
    {"DestinationPort", false, kTcp4 + 2, OtherPort},
    {"SourcePort", false, kTcp4, OtherPort},
    // The first fragment of something: its rest could be anything.
    {"Fragment", false, kEth + 6, [](Network&) { return Bytes{0x20, 0}; }},
    {"Destination6", true, kEth + 24, [](Network& n) { return AddressBytes(n.pod(2).v6); }},
    {"DestinationPort6", true, kTcp6 + 2, OtherPort},
    {"SourcePort6", true, kTcp6, OtherPort},
};

class Rewritten : public testing::TestWithParam<Rewriting> {
 protected:
  // What the pod's connection carries, rewritten, arrives with `marker` or does not.
  void Attack(bool works, Node* node) {
    const Rewriting& how = GetParam();
    Pod& pod = network_.pod(0);
    Pod& peer = network_.pod(1);
    const int family = how.v6 ? AF_INET6 : AF_INET;
    UniqueFd server = Listener(peer, kPort);
    UniqueFd client = TcpSocket(pod, family, Blocking::kNo);
    ASSERT_EQ(Connect(client, how.v6 ? peer.At6(kPort) : peer.At(kPort), family), 0);
    const UniqueFd accepted = Accept(server, Blocking::kNo);
    SendAll(client, "honest");
    ASSERT_EQ(ReceiveSome(accepted, 6), "honest");
    Observer observer(network_.pod(2));
    PodPrograms programs(pod);
    programs.Rewrite(how.at, how.patch(network_));
    const uint64_t dropped = node != nullptr ? node->Count(WEFT_R_UNSTAMPED) : 0;
    SendAll(client, kCanary);
    if (works) {
      EXPECT_TRUE(observer.WaitFor(Canary())) << "the attack does not work at all";
      return;
    }
    EXPECT_TRUE(Within5s([&] { return node->Count(WEFT_R_UNSTAMPED) > dropped; }));
    EXPECT_GT(programs.rewritten(), 0u);
    programs.RewriteNothing();
    EXPECT_EQ(ReceiveSome(accepted, kCanary.size()), kCanary) << "sent again, as it should be";
    EXPECT_FALSE(observer.Saw(Canary()));
  }
  Network network_;
};

TEST_P(Rewritten, NoPacketLeavesButTheSockets) {
  Attack(true, nullptr);
  Node node("stamp");
  node.Enrol(network_.pod(0), WEFT_WL_PROXY_READY);
  node.Enrol(network_.pod(1), WEFT_WL_PROXY_READY);
  Attack(false, &node);
}

INSTANTIATE_TEST_SUITE_P(All, Rewritten, testing::ValuesIn(kRewritings),
                         [](const auto& test) { return test.param.name; });

// Sockets of the pod that have, or had, a stamp.
struct Used {
  const char* name;
  bool before;  // made before the enrolment
  UniqueFd (*make)(const Pod& pod, const Pod& peer);
};

void ListenAgain(const UniqueFd& fd, const Pod& pod) {
  sockaddr nowhere{};
  nowhere.sa_family = AF_UNSPEC;
  ASSERT_EQ(connect(fd.get(), &nowhere, sizeof nowhere), 0) << strerror(errno);
  sockaddr_storage address{};
  const socklen_t length = pod.At(kOtherPort).ToSockaddr(AF_INET, &address);
  ASSERT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), length), 0) << strerror(errno);
  ASSERT_EQ(listen(fd.get(), 8), 0);
}

UniqueFd ConnectThenListen(const Pod& pod, const Pod& peer) {
  const UniqueFd server = Listener(peer, kPort);
  UniqueFd fd = TcpSocket(pod, AF_INET, Blocking::kNo);
  EXPECT_EQ(Connect(fd, peer.At(kPort)), 0);
  Accept(server, Blocking::kNo);
  ListenAgain(fd, pod);
  return fd;
}

UniqueFd AcceptThenListen(const Pod& pod, const Pod& peer) {
  const UniqueFd server = Listener(pod, kPort, AF_INET);
  const UniqueFd client = TcpSocket(peer, AF_INET, Blocking::kNo);
  EXPECT_EQ(Connect(client, pod.At(kPort)), 0);
  UniqueFd fd = Accept(server, Blocking::kNo);
  ListenAgain(fd, pod);
  return fd;
}

const Used kUsed[] = {
    {"ListenerOfBefore", true,
     [](const Pod& pod, const Pod&) { return Listener(pod, kOtherPort, AF_INET); }},
    {"ConnectedBefore", true, ConnectThenListen},
    {"Connected", false, ConnectThenListen},
    {"Accepted", false, AcceptThenListen},
};

class UsedAgain : public testing::TestWithParam<Used> {};

// An accomplice outside connects; the pod's own program leads its SYN past sk_lookup to a listener
// that has a stamp. What that accepts must not be able to answer.
TEST_P(UsedAgain, AcceptsNothingThatMaySend) {
  Network network;
  Pod& pod = network.pod(0);
  Pod& peer = network.pod(1);
  Pod& outside = network.pod(2);
  Node node("stamp");
  UniqueFd listener;
  if (GetParam().before) listener = GetParam().make(pod, peer);
  node.Enrol(pod, WEFT_WL_PROXY_READY);
  node.Enrol(peer, WEFT_WL_PROXY_READY);
  if (!GetParam().before) listener = GetParam().make(pod, peer);
  PodPrograms programs(pod);
  programs.Adopt(pod, kOtherPort);
  Observer observer(outside);
  const UniqueFd accomplice = TcpSocket(outside, AF_INET, Blocking::kNo);
  ASSERT_EQ(Connect(accomplice, pod.At(kOtherPort)), 0);
  const UniqueFd accepted = Accept(listener, Blocking::kNo);
  EXPECT_GT(programs.adopted(), 0u) << "the attack does not work at all";
  const uint64_t dropped = node.Count(WEFT_R_UNSTAMPED);
  SendAll(accepted, kCanary);
  EXPECT_TRUE(Within5s([&] { return node.Count(WEFT_R_UNSTAMPED) > dropped; }));
  EXPECT_FALSE(observer.Saw(Canary()));
}

INSTANTIATE_TEST_SUITE_P(All, UsedAgain, testing::ValuesIn(kUsed),
                         [](const auto& test) { return test.param.name; });

// connect(0.0.0.0) goes to the address that the socket is bound to, here one that is not the pod's:
// a connection to there, not to itself.
TEST(Stamp, NowhereIsWhereTheSocketIsBound) {
  Network network;
  Pod& pod = network.pod(0);
  Node node("stamp");
  node.Enrol(pod, WEFT_WL_PROXY_READY);
  node.Events();
  const UniqueFd fd = TcpSocket(pod, AF_INET, Blocking::kNo);
  const int one = 1;
  ASSERT_EQ(setsockopt(fd.get(), SOL_IP, IP_TRANSPARENT, &one, sizeof one), 0);
  const IpAddress foreign = network.pod(2).v4;
  sockaddr_storage address{};
  const socklen_t length = SocketAddress{foreign, 4001}.ToSockaddr(AF_INET, &address);
  ASSERT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), length), 0) << strerror(errno);
  SocketAddress{*IpAddress::Parse("0.0.0.0"), kPort}.ToSockaddr(AF_INET, &address);
  connect(fd.get(), reinterpret_cast<sockaddr*>(&address), length);
  const weft_event event = node.WaitEvent(WEFT_EVENT_CONNECT);
  EXPECT_EQ(memcmp(event.destination.ip, foreign.bytes.data(), 16), 0);
  EXPECT_EQ(event.reason, static_cast<uint32_t>(WEFT_R_PROXIED));
}

// A socket that stayed without a stamp gets none when the next agent looks at the pod again.
TEST(Stamp, ARestartStampsNothing) {
  Network network;
  Pod& pod = network.pod(0);
  Node node("stamp");
  UniqueFd before = Listener(pod, kPort);
  node.EnrolUnguarded(pod, WEFT_WL_PROXY_READY);
  auto first = node.kernel().GuardWorkload(pod.cookie, pod.host_netns);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->stamped, 1u);
  const UniqueFd after = Listener(pod, kOtherPort);
  node.Restart();
  node.EnrolUnguarded(pod, WEFT_WL_PROXY_READY);
  auto again = node.kernel().GuardWorkload(pod.cookie, pod.host_netns);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->stamped, 0u);
  EXPECT_EQ(again->problem, "");
}

}  // namespace
}  // namespace weft::bpf
