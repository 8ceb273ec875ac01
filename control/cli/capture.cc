// SPDX-License-Identifier: Apache-2.0
#include "control/cli/capture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>
#include <vector>

namespace weft::cli {
namespace {

constexpr int kReceiveBufferBytes = 32 << 20;  // a burst of bulk data must not be dropped
constexpr size_t kIp6HeaderBytes = 40;         // also the least that IPv4 with TCP has
constexpr size_t kFrameBytes = 128 << 10;  // veth hands over unsegmented packets of up to 64 KiB

uint16_t Be16(const uint8_t* p) { return static_cast<uint16_t>(p[0] << 8 | p[1]); }
uint32_t Be32(const uint8_t* p) { return uint32_t{Be16(p)} << 16 | Be16(p + 2); }

// Opens the packet socket inside the namespace, on a thread that then ends.
int OpenInNamespace(const std::string& netns, const std::string& device, int* error) {
  int fd = -1;
  std::thread opener([&] {
    const int ns = open(("/run/netns/" + netns).c_str(), O_RDONLY | O_CLOEXEC);
    if (ns < 0 || setns(ns, CLONE_NEWNET) != 0) {
      *error = errno;
      if (ns >= 0) close(ns);
      return;
    }
    close(ns);
    // All protocols: a socket for one protocol sees only what arrives, not what leaves.
    fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_ALL));
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(if_nametoindex(device.c_str()));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBufferBytes, sizeof kReceiveBufferBytes);
    if (fd < 0 || address.sll_ifindex == 0 ||
        bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
      *error = errno;
      if (fd >= 0) close(fd);
      fd = -1;
    }
  });
  opener.join();
  return fd;
}

// The TCP segment of an IP packet and its addresses; empty: not TCP, or not whole.
std::span<const uint8_t> TcpOf(std::span<const uint8_t> ip, bool v4, IpAddress* from,
                               IpAddress* to) {
  const size_t header = v4 ? (ip[0] & 15u) * 4 : kIp6HeaderBytes;
  const size_t announced = v4 ? Be16(&ip[2]) : kIp6HeaderBytes + Be16(&ip[4]);
  // IPv6 extension headers do not occur between our own nodes.
  const uint8_t protocol = v4 ? ip[9] : ip[6];
  if (protocol != IPPROTO_TCP || header < 20 || ip.size() < header + 20) return {};
  // A packet of more than 64 KiB announces 0 (IPv4) or no payload (IPv6).
  if (announced >= header + 20 && announced < ip.size()) ip = ip.first(announced);
  *from = *IpAddress::FromBytes(v4 ? ip.subspan(12, 4) : ip.subspan(8, 16));
  *to = *IpAddress::FromBytes(v4 ? ip.subspan(16, 4) : ip.subspan(24, 16));
  return ip.subspan(header);
}

}  // namespace

bool TlsRecordCheck::Feed(std::span<const uint8_t> bytes) {
  while (!broken_ && !bytes.empty()) {
    if (record_left_ > 0) {
      const size_t n = std::min(record_left_, bytes.size());
      record_left_ -= n;
      bytes = bytes.subspan(n);
      continue;
    }
    header_[header_bytes_++] = bytes[0];
    bytes = bytes.subspan(1);
    if (header_bytes_ < sizeof header_) continue;
    header_bytes_ = 0;
    record_left_ = Be16(header_ + 3);
    // RFC 8446 5.1: types 20 to 23, legacy version 3.x, at most 2^14 + 256 bytes.
    broken_ = header_[0] < 20 || header_[0] > 23 || header_[1] != 3 || record_left_ > 16640;
  }
  return !broken_;
}

void FrameCounter::Count(std::span<const uint8_t> frame) {
  if (frame.size() < 14 + kIp6HeaderBytes) return;  // 14: Ethernet
  const uint16_t type = Be16(&frame[12]);
  if (type != ETH_P_IP && type != ETH_P_IPV6) return;
  IpAddress from, to;
  const std::span<const uint8_t> tcp = TcpOf(frame.subspan(14), type == ETH_P_IP, &from, &to);
  if (!tcp.empty()) CountTcp(from, to, tcp);
}

void FrameCounter::CountTcp(const IpAddress& from, const IpAddress& to,
                            std::span<const uint8_t> tcp) {
  const size_t tcp_header = (tcp[12] >> 4) * 4u;
  if (tcp_header < 20 || tcp.size() < tcp_header) return;
  const Key key{{from, Be16(&tcp[0])}, {to, Be16(&tcp[2])}};
  const uint32_t sequence = Be32(&tcp[4]);
  constexpr uint8_t kSyn = 2;
  Stream& stream = streams_[key];
  if ((tcp[13] & kSyn) != 0) {
    stream = Stream{.next_sequence = sequence + 1, .complete = true};
  }
  if (tcp.size() > tcp_header) CountPayload(stream, key, sequence, tcp.subspan(tcp_header));
}

void FrameCounter::CountPayload(Stream& stream, const Key& key, uint32_t sequence,
                                std::span<const uint8_t> payload) {
  ++counts.packets;
  counts.bytes += payload.size();
  const std::string_view text(reinterpret_cast<const char*>(payload.data()), payload.size());
  if (!canary_.empty() && text.find(canary_) != std::string_view::npos) ++counts.canary_packets;
  const auto ahead = static_cast<int32_t>(sequence - stream.next_sequence);
  if (stream.complete && ahead < 0) {
    // Sent again; what was already checked is skipped.
    const size_t known = std::min<size_t>(payload.size(), static_cast<size_t>(-int64_t{ahead}));
    counts.tls_bytes += stream.clear ? 0 : known;
    counts.clear_bytes += stream.clear ? known : 0;
    payload = payload.subspan(known);
    if (payload.empty()) return;
  } else if (ahead > 0) {
    stream.complete = false;  // a hole: record boundaries are lost
  }
  if (!stream.complete) {
    counts.unknown_bytes += payload.size();
    return;
  }
  stream.next_sequence += static_cast<uint32_t>(payload.size()) + (ahead > 0 ? ahead : 0);
  stream.clear = stream.clear || !stream.tls.Feed(payload);
  if (!stream.clear) {
    counts.tls_bytes += payload.size();
    return;
  }
  counts.clear_bytes += payload.size();
  counts.clear_stream = absl::StrCat(key.first.ToString(), " > ", key.second.ToString());
}

Capture::Capture(int fd, int stop_fd, std::string canary)
    : fd_(fd), stop_fd_(stop_fd), frame_(kFrameBytes), counter_(std::move(canary)), thread_([this] {
        ReadLoop();
      }) {}

absl::StatusOr<std::unique_ptr<Capture>> Capture::Start(const std::string& netns,
                                                        const std::string& device,
                                                        std::string canary) {
  int error = 0;
  const int fd = OpenInNamespace(netns, device, &error);
  if (fd < 0) return ErrnoStatus(error, "packet socket on " + device + " in " + netns);
  const int stop_fd = eventfd(0, EFD_CLOEXEC);
  if (stop_fd < 0) {
    close(fd);
    return ErrnoStatus(errno, "eventfd");
  }
  return std::unique_ptr<Capture>(new Capture(fd, stop_fd, std::move(canary)));
}

Capture::~Capture() {
  const uint64_t one = 1;
  while (write(stop_fd_, &one, sizeof one) < 0 && errno == EINTR) {
  }
  thread_.join();
  close(fd_);
  close(stop_fd_);
}

// With mutex_ held.
void Capture::Drain() {
  ssize_t n;
  while ((n = recv(fd_, frame_.data(), frame_.size(), MSG_DONTWAIT)) > 0) {
    counter_.Count({frame_.data(), static_cast<size_t>(n)});
  }
}

void Capture::ReadLoop() {
  for (;;) {
    pollfd fds[2] = {{fd_, POLLIN, 0}, {stop_fd_, POLLIN, 0}};
    if (poll(fds, 2, -1) < 0 && errno != EINTR) return;
    if (fds[1].revents != 0) return;
    std::lock_guard lock(mutex_);
    Drain();
  }
}

CaptureCounts Capture::counts() {
  std::lock_guard lock(mutex_);
  Drain();  // the thread may be behind: what was on the wire before this call counts
  tpacket_stats stats{};
  socklen_t length = sizeof stats;
  // Reading resets the kernel's counter.
  if (getsockopt(fd_, SOL_PACKET, PACKET_STATISTICS, &stats, &length) == 0) {
    counter_.counts.dropped += stats.tp_drops;
  }
  return counter_.counts;
}

}  // namespace weft::cli
