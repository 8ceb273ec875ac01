// SPDX-License-Identifier: Apache-2.0
// An IP address with a port, as one plain value: 16 bytes, IPv4 mapped, port in host order.
// Hashable, comparable, no heap.
#pragma once
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace weft {

struct IpAddress {
  std::array<uint8_t, 16> bytes{};  // network order; IPv4 as ::ffff:a.b.c.d

  auto operator<=>(const IpAddress&) const = default;
  bool is_v4() const;
  bool is_loopback() const;     // 127.0.0.0/8 or ::1
  bool is_unspecified() const;  // 0.0.0.0 or ::
  // "10.0.0.1" or "fd00::1".
  std::string ToString() const;
  // Accepts what inet_pton does; nullopt otherwise.
  static std::optional<IpAddress> Parse(std::string_view text);
  // From 4 or 16 bytes in network order, as xDS carries them; nullopt for another size.
  static std::optional<IpAddress> FromBytes(std::span<const uint8_t> bytes);
  // True if the first `prefix_length` bits agree; the length counts in the address's own family
  // (10.0.0.0/8 is 8).
  bool InPrefix(const IpAddress& network, unsigned prefix_length) const;
};

struct SocketAddress {
  IpAddress ip;
  uint16_t port = 0;

  auto operator<=>(const SocketAddress&) const = default;
  // "10.0.0.1:80" or "[fd00::1]:80".
  std::string ToString() const;
  static std::optional<SocketAddress> Parse(std::string_view text);
  static std::optional<SocketAddress> FromSockaddr(const sockaddr* address, socklen_t length);
  // Fills `out` for a socket of `family` (AF_INET needs a v4 address; AF_INET6 maps it) and returns
  // the length, 0 if impossible.
  socklen_t ToSockaddr(int family, sockaddr_storage* out) const;
};

struct AddressHash {
  size_t operator()(const IpAddress& a) const noexcept {
    uint64_t parts[2];
    memcpy(parts, a.bytes.data(), sizeof parts);
    return (parts[0] * 0x9e3779b97f4a7c15ull) ^ (parts[1] * 0xc2b2ae3d27d4eb4full >> 7) ^ parts[1];
  }
  size_t operator()(const SocketAddress& a) const noexcept {
    return operator()(a.ip) * 31 + a.port;
  }
};

}  // namespace weft
