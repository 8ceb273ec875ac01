// SPDX-License-Identifier: Apache-2.0
// DNS of an enrolled pod: captured to 15053 if it goes to the pod's own resolver and a proxy is
// there, answered under the resolver's address, and left alone in every other case.
#include <netinet/in.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "control/bpf/address.h"
#include "control/bpf/netns.h"
#include "tests/bpf/testbed.h"

namespace weft::bpf {
namespace {

constexpr uint16_t kDns = 53;

UniqueFd UdpSocket(const Pod& pod, int family) {
  UniqueFd fd;
  const absl::Status made = InNetns(pod.netns.get(), [&] {
    fd = UniqueFd(socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    return absl::OkStatus();
  });
  EXPECT_TRUE(made.ok() && fd.ok());
  return fd;
}

int Bind(const UniqueFd& fd, const SocketAddress& to, int family) {
  sockaddr_storage address{};
  const socklen_t length = to.ToSockaddr(family, &address);
  return bind(fd.get(), reinterpret_cast<sockaddr*>(&address), length) == 0 ? 0 : errno;
}

// A server on every address of the pod.
UniqueFd Server(const Pod& pod, uint16_t port) {
  UniqueFd fd = UdpSocket(pod, AF_INET6);
  EXPECT_EQ(Bind(fd, {IpAddress{}, port}, AF_INET6), 0);
  return fd;
}

int SendTo(const UniqueFd& fd, const std::string& bytes, const SocketAddress& to, int family) {
  sockaddr_storage address{};
  const socklen_t length = to.ToSockaddr(family, &address);
  const ssize_t n = sendto(fd.get(), bytes.data(), bytes.size(), 0,
                           reinterpret_cast<sockaddr*>(&address), length);
  return n == static_cast<ssize_t>(bytes.size()) ? 0 : errno;
}

struct Received {
  std::string bytes;
  SocketAddress from;
};
Received Receive(const UniqueFd& fd) {
  Received received;
  if (!WaitFor(fd, POLLIN)) return received;
  char buffer[512];
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  const ssize_t n =
      recvfrom(fd.get(), buffer, sizeof buffer, 0, reinterpret_cast<sockaddr*>(&address), &length);
  if (n < 0) return received;
  received.bytes.assign(buffer, static_cast<size_t>(n));
  received.from = SocketAddress::FromSockaddr(reinterpret_cast<sockaddr*>(&address), length)
                      .value_or(SocketAddress{});
  return received;
}

class DatagramTest : public testing::Test {
 protected:
  void SetUp() override {
    node_.Enrol(pod_, WEFT_WL_PROXY_READY);
    SetResolvers(WEFT_WL_PROXY_READY);
    proxy_ = UdpSocket(pod_, AF_INET6);
    ASSERT_TRUE(
        node_.sockets().Stamp(proxy_.get(), {WEFT_ROLE_LISTENER, pod_.id, kGeneration}).ok());
    ASSERT_EQ(Bind(proxy_, {IpAddress{}, WEFT_PORT_DNS}, AF_INET6), 0);
    node_.Events();
  }
  void SetResolvers(uint32_t flags) {
    const absl::Status set = node_.kernel().SetWorkload(
        pod_.cookie, {.id = pod_.id,
                      .generation = kGeneration,
                      .identity = IdentityOf(pod_),
                      .flags = flags,
                      .ipv4 = pod_.v4,
                      .ipv6 = pod_.v6,
                      .resolvers = {resolver_pod_.v4, resolver_pod_.v6}});
    ASSERT_TRUE(set.ok()) << set;
  }

  Network network_;
  Pod& pod_ = network_.pod(0);
  Pod& resolver_pod_ = network_.pod(1);
  Pod& other_ = network_.pod(2);
  Node node_{"datagram"};
  UniqueFd resolver_ = Server(resolver_pod_, kDns);
  UniqueFd proxy_;
};

struct Case {
  const char* name;
  int family;
  bool v6;         // of the resolver
  bool connected;  // as glibc, Go and c-ares do; musl does not
  bool bound;
};

std::vector<Case> Cases() {
  std::vector<Case> all;
  for (const bool connected : {false, true}) {
    for (const bool bound : {false, true}) {
      all.push_back({"IPv4", AF_INET, false, connected, bound});
      all.push_back({"IPv6", AF_INET6, true, connected, bound});
      all.push_back({"IPv4 mapped", AF_INET6, false, connected, bound});
    }
  }
  return all;
}

// Each case on the same node: to load one takes longer than all of them.
TEST_F(DatagramTest, TheProxyIsAskedAndTheResolverAnswers) {
  for (const Case& c : Cases()) {
    SCOPED_TRACE(std::string(c.name) + (c.connected ? ", connected" : "") +
                 (c.bound ? ", bound" : ""));
    const SocketAddress asked{c.v6 ? resolver_pod_.v6 : resolver_pod_.v4, kDns};
    const IpAddress own = c.v6 ? pod_.v6 : pod_.v4;
    UniqueFd client = UdpSocket(pod_, c.family);
    if (c.bound) {
      ASSERT_EQ(Bind(client, {own, 0}, c.family), 0);
    }
    if (c.connected) {
      ASSERT_EQ(Connect(client, asked, c.family), 0);
      EXPECT_EQ(PeerName(client), asked);
      SendAll(client, "query");
    } else {
      ASSERT_EQ(SendTo(client, "query", asked, c.family), 0) << strerror(errno);
    }
    const Received query = Receive(proxy_);
    EXPECT_EQ(query.bytes, "query");
    EXPECT_EQ(query.from, (SocketAddress{own, SocketName(client).port}));
    ASSERT_EQ(SendTo(proxy_, "answer", query.from, AF_INET6), 0);
    const Received answer = Receive(client);
    EXPECT_EQ(answer.bytes, "answer");
    EXPECT_EQ(answer.from, asked);
    if (c.connected) {
      EXPECT_EQ(PeerName(client), asked);
    }
    EXPECT_TRUE(NothingToAccept(resolver_, 0)) << "the resolver was asked too";
  }
}

// What reaches `server` untouched, with the sender that the pod has.
void ExpectUntouched(const Pod& from, const UniqueFd& server, const SocketAddress& to, int line) {
  for (const bool connected : {false, true}) {
    const int family = to.ip.is_v4() ? AF_INET : AF_INET6;
    UniqueFd client = UdpSocket(from, family);
    if (connected) {
      ASSERT_EQ(Connect(client, to, family), 0) << line;
      EXPECT_EQ(PeerName(client), to) << line;
      SendAll(client, "plain");
    } else {
      ASSERT_EQ(SendTo(client, "plain", to, family), 0) << line;
    }
    const Received query = Receive(server);
    EXPECT_EQ(query.bytes, "plain") << line;
    EXPECT_EQ(query.from.ip, to.ip.is_v4() ? from.v4 : from.v6) << line;
    ASSERT_EQ(SendTo(server, "answer", query.from, AF_INET6), 0) << line;
    const Received answer = Receive(client);
    EXPECT_EQ(answer.bytes, "answer") << line;
    EXPECT_EQ(answer.from, to) << line;
  }
}

TEST_F(DatagramTest, OtherServersAndOtherPortsAreLeftAlone) {
  UniqueFd other_dns = Server(other_, kDns);
  UniqueFd other_port = Server(resolver_pod_, 5353);
  for (const bool v6 : {false, true}) {
    ExpectUntouched(pod_, other_dns, {v6 ? other_.v6 : other_.v4, kDns}, __LINE__);
    ExpectUntouched(pod_, other_port, {v6 ? resolver_pod_.v6 : resolver_pod_.v4, 5353}, __LINE__);
  }
  EXPECT_TRUE(NothingToAccept(proxy_, 0));
}

TEST_F(DatagramTest, APodThatIsNotEnrolledIsUntouched) {
  ExpectUntouched(other_, resolver_, {resolver_pod_.v4, kDns}, __LINE__);
  ExpectUntouched(other_, resolver_, {resolver_pod_.v6, kDns}, __LINE__);
}

TEST_F(DatagramTest, WithoutAProxyTheResolverIsAsked) {
  SetResolvers(0);
  ExpectUntouched(pod_, resolver_, {resolver_pod_.v4, kDns}, __LINE__);
  ExpectUntouched(pod_, resolver_, {resolver_pod_.v6, kDns}, __LINE__);
}

TEST_F(DatagramTest, AfterTheReleaseTheResolverIsAsked) {
  ASSERT_TRUE(node_.kernel().DetachWorkload(pod_.cookie).ok());
  ExpectUntouched(pod_, resolver_, {resolver_pod_.v4, kDns}, __LINE__);
  // Enrolled anew, without resolvers: nothing is left of those before.
  node_.Enrol(pod_, WEFT_WL_PROXY_READY);
  ExpectUntouched(pod_, resolver_, {resolver_pod_.v4, kDns}, __LINE__);
}

// A restart of the agent finds the resolvers in the map and takes away those that are gone.
TEST_F(DatagramTest, ResolversAreReplaced) {
  const absl::Status set = node_.kernel().SetWorkload(pod_.cookie, {.id = pod_.id,
                                                                    .generation = kGeneration,
                                                                    .identity = IdentityOf(pod_),
                                                                    .flags = WEFT_WL_PROXY_READY,
                                                                    .ipv4 = pod_.v4,
                                                                    .ipv6 = pod_.v6,
                                                                    .resolvers = {other_.v4}});
  ASSERT_TRUE(set.ok()) << set;
  ExpectUntouched(pod_, resolver_, {resolver_pod_.v4, kDns}, __LINE__);
  UniqueFd client = UdpSocket(pod_, AF_INET);
  ASSERT_EQ(SendTo(client, "query", {other_.v4, kDns}, AF_INET), 0);
  EXPECT_EQ(Receive(proxy_).bytes, "query");
}

// What the proxy forwards must not come back to it.
TEST_F(DatagramTest, AStampedSocketReachesTheResolver) {
  const SocketAddress asked{resolver_pod_.v4, kDns};
  UniqueFd forwarder = UdpSocket(pod_, AF_INET);
  ASSERT_TRUE(
      node_.sockets().Stamp(forwarder.get(), {WEFT_ROLE_TUNNEL, pod_.id, kGeneration}).ok());
  ASSERT_EQ(Connect(forwarder, asked), 0);
  EXPECT_EQ(PeerName(forwarder), asked);
  SendAll(forwarder, "query");
  const Received query = Receive(resolver_);
  EXPECT_EQ(query.bytes, "query");
  EXPECT_EQ(query.from.ip, pod_.v4) << "the pod's address, for its network policy";
}

TEST_F(DatagramTest, OnlyOurSocketsHavePort15053) {
  for (const int family : {AF_INET, AF_INET6}) {
    UniqueFd thief = UdpSocket(pod_, family);
    const int one = 1;
    setsockopt(thief.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(thief.get(), SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    EXPECT_EQ(Bind(thief, {family == AF_INET ? pod_.v4 : pod_.v6, WEFT_PORT_DNS}, family), EPERM);
    EXPECT_EQ(node_.WaitEvent(WEFT_EVENT_BIND).reason, WEFT_R_STAMP_MISUSE);
  }
}

// From outside it is no open resolver: refused, as if nobody listened.
TEST_F(DatagramTest, Port15053AnswersThePodItselfAlone) {
  for (const bool v6 : {false, true}) {
    const int family = v6 ? AF_INET6 : AF_INET;
    UniqueFd stranger = UdpSocket(other_, family);
    ASSERT_EQ(Connect(stranger, {v6 ? pod_.v6 : pod_.v4, WEFT_PORT_DNS}, family), 0);
    SendAll(stranger, "query");
    ASSERT_TRUE(WaitFor(stranger, POLLIN)) << "no ICMP error";
    char byte;
    EXPECT_EQ(recv(stranger.get(), &byte, 1, 0), -1);
    EXPECT_EQ(errno, ECONNREFUSED);
    EXPECT_TRUE(NothingToAccept(proxy_, 0));
    UniqueFd own = UdpSocket(pod_, family);
    ASSERT_EQ(SendTo(own, "own", {v6 ? pod_.v6 : pod_.v4, WEFT_PORT_DNS}, family), 0);
    EXPECT_EQ(Receive(proxy_).bytes, "own");
  }
}

TEST_F(DatagramTest, ASocketThatTurnsToSomebodyElseShowsThem) {
  UniqueFd other_server = Server(other_, 9000);
  UniqueFd client = UdpSocket(pod_, AF_INET);
  ASSERT_EQ(Connect(client, {resolver_pod_.v4, kDns}), 0);
  EXPECT_EQ(PeerName(client), (SocketAddress{resolver_pod_.v4, kDns}));
  ASSERT_EQ(Connect(client, {other_.v4, 9000}), 0);
  EXPECT_EQ(PeerName(client), (SocketAddress{other_.v4, 9000}));
  SendAll(client, "hello");
  EXPECT_EQ(Receive(other_server).bytes, "hello");
}

// One socket for both resolvers, as musl has it: each answer comes from one of those asked.
TEST_F(DatagramTest, AnUnconnectedSocketMayAskSeveralResolvers) {
  UniqueFd client = UdpSocket(pod_, AF_INET6);
  const SocketAddress asked[] = {{resolver_pod_.v4, kDns}, {resolver_pod_.v6, kDns}};
  for (const SocketAddress& to : asked) {
    ASSERT_EQ(SendTo(client, "query", to, AF_INET6), 0);
  }
  for (int i = 0; i < 2; ++i) {
    const Received query = Receive(proxy_);
    ASSERT_EQ(SendTo(proxy_, "answer", query.from, AF_INET6), 0);
    EXPECT_EQ(Receive(client).from, asked[1]);
  }
}

TEST_F(DatagramTest, TcpToTheResolverIsCapturedToo) {
  UniqueFd listener = node_.Stamped(pod_, WEFT_ROLE_LISTENER, AF_INET6);
  ASSERT_EQ(Bind(listener, {IpAddress{}, WEFT_PORT_DNS}, AF_INET6), 0);
  ASSERT_EQ(listen(listener.get(), 8), 0);
  for (const bool v6 : {false, true}) {
    const int family = v6 ? AF_INET6 : AF_INET;
    const SocketAddress asked{v6 ? resolver_pod_.v6 : resolver_pod_.v4, kDns};
    UniqueFd client = TcpSocket(pod_, family, Blocking::kNo);
    ASSERT_EQ(Connect(client, asked, family), 0);
    EXPECT_EQ(PeerName(client), asked);
    UniqueFd accepted = Accept(listener, Blocking::kNo);
    weft_original original{};
    socklen_t length = sizeof original;
    ASSERT_EQ(getsockopt(accepted.get(), WEFT_SOL, WEFT_SO_ORIGINAL, &original, &length), 0);
    EXPECT_EQ(FromKernel(original.dst), asked);
    SendAll(client, "query");
    EXPECT_EQ(ReceiveSome(accepted, 5), "query");
  }
  // Without a proxy TCP is refused, as all of the pod's is: only the proxy may carry it.
  SetResolvers(0);
  UniqueFd client = TcpSocket(pod_, AF_INET, Blocking::kNo);
  EXPECT_EQ(Connect(client, {resolver_pod_.v4, kDns}), ECONNREFUSED);
}

}  // namespace
}  // namespace weft::bpf
