// SPDX-License-Identifier: Apache-2.0
// Ethernet frames for tests of the balancer: made, and taken apart again. Thread: the test's.
#pragma once
#include <arpa/inet.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "proxy/base/address.h"

namespace weft::bpf {

using Bytes = std::vector<uint8_t>;

inline void Put16(Bytes& out, size_t at, unsigned value) {
  out.at(at) = static_cast<uint8_t>(value >> 8);
  out.at(at + 1) = static_cast<uint8_t>(value);
}
inline unsigned Get16(const Bytes& in, size_t at) {
  return static_cast<unsigned>(in.at(at) << 8 | in.at(at + 1));
}
inline Bytes Cut(const Bytes& in, size_t from, size_t count = SIZE_MAX) {
  from = std::min(from, in.size());
  return Bytes(in.begin() + static_cast<long>(from),
               in.begin() + static_cast<long>(from + std::min(count, in.size() - from)));
}
inline Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// The ones' complement sum of 16-bit words; 0xffff over something whose checksum is right.
inline unsigned Sum(const Bytes& bytes, unsigned sum = 0) {
  for (size_t i = 0; i < bytes.size(); i += 2) {
    sum += static_cast<unsigned>(bytes[i]) << 8 | (i + 1 < bytes.size() ? bytes[i + 1] : 0u);
  }
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return sum;
}

inline const Bytes kOwnMac{2, 0, 0, 0, 0, 2};
inline const Bytes kRouterMac{2, 0, 0, 0, 0, 3};

inline Bytes AddressBytes(const IpAddress& ip) {
  return ip.is_v4() ? Bytes(ip.bytes.begin() + 12, ip.bytes.end())
                    : Bytes(ip.bytes.begin(), ip.bytes.end());
}

struct Ip4Fields {
  unsigned tos = 0;
  unsigned id = 0;
  unsigned fragment = 0x4000;
  Bytes options;
};

inline Bytes Ip4(const IpAddress& from, const IpAddress& to, uint8_t protocol, const Bytes& payload,
                 const Ip4Fields& fields = {}) {
  Bytes head(20);
  head[0] = static_cast<uint8_t>(0x45 + fields.options.size() / 4);
  head[1] = static_cast<uint8_t>(fields.tos);
  Put16(head, 2, static_cast<unsigned>(20 + fields.options.size() + payload.size()));
  Put16(head, 4, fields.id);
  Put16(head, 6, fields.fragment);
  head[8] = 63;
  head[9] = protocol;
  memcpy(head.data() + 12, from.bytes.data() + 12, 4);
  memcpy(head.data() + 16, to.bytes.data() + 12, 4);
  head = head + fields.options;
  Put16(head, 10, 0xffff - Sum(head));
  return head + payload;
}

inline Bytes Ip6(const IpAddress& from, const IpAddress& to, uint8_t next, const Bytes& payload,
                 unsigned traffic_class = 0) {
  Bytes head(40);
  head[0] = static_cast<uint8_t>(0x60 | traffic_class >> 4);
  head[1] = static_cast<uint8_t>(traffic_class << 4);
  Put16(head, 4, static_cast<unsigned>(payload.size()));
  head[6] = next;
  head[7] = 63;
  memcpy(head.data() + 8, from.bytes.data(), 16);
  memcpy(head.data() + 24, to.bytes.data(), 16);
  return head + payload;
}

// By the family of the addresses.
inline Bytes Ip(const IpAddress& from, const IpAddress& to, uint8_t protocol,
                const Bytes& payload) {
  return to.is_v4() ? Ip4(from, to, protocol, payload) : Ip6(from, to, protocol, payload);
}

constexpr uint8_t kSyn = 0x02, kAck = 0x10, kFin = 0x11, kRst = 0x04;

inline Bytes Tcp(unsigned from, unsigned to, uint8_t flags, size_t payload = 4) {
  Bytes out(20 + payload, 'x');
  std::fill(out.begin(), out.begin() + 20, uint8_t{0});
  Put16(out, 0, from);
  Put16(out, 2, to);
  out[12] = 0x50;
  out[13] = flags;
  return out;
}

inline Bytes Udp(unsigned from, unsigned to, const Bytes& payload) {
  Bytes head(8);
  Put16(head, 0, from);
  Put16(head, 2, to);
  Put16(head, 4, static_cast<unsigned>(8 + payload.size()));
  return head + payload;
}

// An ICMP (v6) message: 8 bytes and what it is about. Its checksum is not of interest here.
inline Bytes Icmp(uint8_t type, uint8_t code, const Bytes& about) {
  Bytes head(8);
  head[0] = type;
  head[1] = code;
  return head + about;
}

inline Bytes Frame(const Bytes& packet) {
  const Bytes type = packet.at(0) >> 4 == 4 ? Bytes{8, 0} : Bytes{0x86, 0xdd};
  return kOwnMac + kRouterMac + type + packet;
}

}  // namespace weft::bpf
