// SPDX-License-Identifier: Apache-2.0
#include "tests/bpf/guard_bed.h"

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "control/bpf/netns.h"

namespace weft::bpf {
namespace {

constexpr int kPatienceMs = 5000;
constexpr size_t kFrameBytes = 70000;
using Clock = std::chrono::steady_clock;

int MillisecondsTo(Clock::time_point end) {
  return static_cast<int>(std::max<int64_t>(
      0, std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count()));
}

sockaddr_ll Eth0(const Pod& pod, uint16_t protocol) {
  sockaddr_ll address{};
  EXPECT_TRUE(InNetns(pod.netns.get(), [&] {
                address.sll_ifindex = static_cast<int>(if_nametoindex("eth0"));
                return absl::OkStatus();
              }).ok());
  EXPECT_NE(address.sll_ifindex, 0);
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(protocol);
  address.sll_halen = ETH_ALEN;
  return address;
}

}  // namespace

UniqueFd SocketIn(const Pod& pod, int family, int type, int protocol) {
  UniqueFd fd;
  EXPECT_TRUE(InNetns(pod.netns.get(), [&] {
                fd = UniqueFd(socket(family, type | SOCK_CLOEXEC, protocol));
                return absl::OkStatus();
              }).ok());
  EXPECT_TRUE(fd.ok()) << strerror(errno);
  return fd;
}

Observer::Observer(const Pod& pod)
    : fd_(SocketIn(pod, AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(ETH_P_ALL))) {
  const sockaddr_ll address = Eth0(pod, ETH_P_ALL);
  EXPECT_EQ(bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
}

void Observer::Drain() {
  Bytes frame(kFrameBytes);
  for (;;) {
    sockaddr_ll from{};
    socklen_t length = sizeof from;
    const ssize_t got = recvfrom(fd_.get(), frame.data(), frame.size(), 0,
                                 reinterpret_cast<sockaddr*>(&from), &length);
    if (got < 0) return;
    if (from.sll_pkttype == PACKET_OUTGOING) continue;
    frames_.emplace_back(frame.begin(), frame.begin() + got);
  }
}

bool Observer::Saw(const Bytes& marker) {
  Drain();
  return std::ranges::any_of(
      frames_, [&](const Bytes& frame) { return !std::ranges::search(frame, marker).empty(); });
}

bool Observer::WaitFor(const Bytes& marker) {
  const auto end = Clock::now() + std::chrono::milliseconds(kPatienceMs);
  while (!Saw(marker)) {
    pollfd waiting{fd_.get(), POLLIN, 0};
    if (poll(&waiting, 1, MillisecondsTo(end)) <= 0) return false;
  }
  return true;
}

void Observer::Forget() {
  Drain();
  frames_.clear();
}

Bytes MacOf(const Pod& pod) {
  const UniqueFd fd = SocketIn(pod, AF_INET, SOCK_DGRAM, 0);
  ifreq request{};
  strcpy(request.ifr_name, "eth0");
  EXPECT_EQ(ioctl(fd.get(), SIOCGIFHWADDR, &request), 0);
  const auto* mac = reinterpret_cast<const uint8_t*>(request.ifr_hwaddr.sa_data);
  return Bytes(mac, mac + ETH_ALEN);
}

Bytes FrameFrom(const Bytes& mac, unsigned type, const Bytes& packet) {
  return Bytes(ETH_ALEN, 0xff) + mac +
         Bytes{static_cast<uint8_t>(type >> 8), static_cast<uint8_t>(type)} + packet;
}

void SendFrame(const Pod& pod, const Bytes& frame, int times) {
  const UniqueFd fd = SocketIn(pod, AF_PACKET, SOCK_RAW, 0);
  const sockaddr_ll to = Eth0(pod, ETH_P_IP);
  for (int i = 0; i < times; ++i) {
    ASSERT_EQ(sendto(fd.get(), frame.data(), frame.size(), 0,
                     reinterpret_cast<const sockaddr*>(&to), sizeof to),
              static_cast<ssize_t>(frame.size()))
        << strerror(errno);
  }
}

void SendRaw(const Pod& pod, const IpAddress& to, const Bytes& packet) {
  const int family = to.is_v4() ? AF_INET : AF_INET6;
  const UniqueFd fd = SocketIn(pod, family, SOCK_RAW, IPPROTO_RAW);
  sockaddr_storage address{};
  const socklen_t length = SocketAddress{to, 0}.ToSockaddr(family, &address);
  EXPECT_EQ(sendto(fd.get(), packet.data(), packet.size(), 0, reinterpret_cast<sockaddr*>(&address),
                   length),
            static_cast<ssize_t>(packet.size()))
      << strerror(errno);
}

UniqueFd UdpSocket(const Pod& pod, const SocketAddress& bound) {
  const int family = bound.ip.is_v4() ? AF_INET : AF_INET6;
  UniqueFd fd = SocketIn(pod, family, SOCK_DGRAM, 0);
  sockaddr_storage address{};
  const socklen_t length = bound.ToSockaddr(family, &address);
  EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), length), 0) << strerror(errno);
  return fd;
}

int SendTo(const UniqueFd& fd, const SocketAddress& to, const std::string& bytes) {
  sockaddr_storage address{};
  const socklen_t length = to.ToSockaddr(to.ip.is_v4() ? AF_INET : AF_INET6, &address);
  const ssize_t sent = sendto(fd.get(), bytes.data(), bytes.size(), 0,
                              reinterpret_cast<sockaddr*>(&address), length);
  return sent == static_cast<ssize_t>(bytes.size()) ? 0 : errno;
}

std::string ReceiveFrom(const UniqueFd& fd, SocketAddress* from, int milliseconds) {
  pollfd waiting{fd.get(), POLLIN, 0};
  if (poll(&waiting, 1, milliseconds) != 1) return "";
  std::string bytes(kFrameBytes, '\0');
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  const ssize_t got = recvfrom(fd.get(), bytes.data(), bytes.size(), MSG_DONTWAIT,
                               reinterpret_cast<sockaddr*>(&address), &length);
  if (got < 0) return "";
  bytes.resize(static_cast<size_t>(got));
  if (from != nullptr) {
    *from = SocketAddress::FromSockaddr(reinterpret_cast<sockaddr*>(&address), length)
                .value_or(SocketAddress{});
  }
  return bytes;
}

bool Ping(const Pod& from, const IpAddress& to, int milliseconds) {
  const bool v4 = to.is_v4();
  const int family = v4 ? AF_INET : AF_INET6;
  const UniqueFd fd =
      SocketIn(from, family, SOCK_RAW, v4 ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6});
  static uint16_t next_id = 100;
  const uint16_t id = ++next_id;
  Bytes request{static_cast<uint8_t>(v4 ? 8 : 128), 0, 0, 0, static_cast<uint8_t>(id >> 8),
                static_cast<uint8_t>(id),           0, 1};
  const Bytes reply{static_cast<uint8_t>(v4 ? 0 : 129), 0};
  const Bytes tail(request.begin() + 4, request.end());
  if (v4) Put16(request, 2, 0xffff - Sum(request));  // IPv6's is the kernel's
  sockaddr_storage address{};
  const socklen_t length = SocketAddress{to, 0}.ToSockaddr(family, &address);
  EXPECT_EQ(sendto(fd.get(), request.data(), request.size(), 0,
                   reinterpret_cast<sockaddr*>(&address), length),
            static_cast<ssize_t>(request.size()))
      << strerror(errno);
  const auto end = Clock::now() + std::chrono::milliseconds(milliseconds);
  for (;;) {
    pollfd waiting{fd.get(), POLLIN, 0};
    if (poll(&waiting, 1, MillisecondsTo(end)) != 1) return false;
    uint8_t answer[1500];
    const ssize_t got = recv(fd.get(), answer, sizeof answer, MSG_DONTWAIT);
    const ssize_t head = v4 ? 20 : 0;
    if (got >= head + 8 && std::equal(reply.begin(), reply.end(), answer + head) &&
        std::equal(tail.begin(), tail.end(), answer + head + 4)) {
      return true;
    }
  }
}

}  // namespace weft::bpf
