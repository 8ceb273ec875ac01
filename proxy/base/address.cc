// SPDX-License-Identifier: Apache-2.0
#include "proxy/base/address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>

namespace weft {
namespace {

constexpr std::array<uint8_t, 12> kMappedPrefix = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

IpAddress FromV4(const void* four_bytes) {
  IpAddress ip;
  std::copy(kMappedPrefix.begin(), kMappedPrefix.end(), ip.bytes.begin());
  memcpy(ip.bytes.data() + 12, four_bytes, 4);
  return ip;
}

}  // namespace

bool IpAddress::is_v4() const {
  return memcmp(bytes.data(), kMappedPrefix.data(), kMappedPrefix.size()) == 0;
}

bool IpAddress::is_loopback() const {
  if (is_v4()) return bytes[12] == 127;
  static constexpr std::array<uint8_t, 16> kLoopback = {0, 0, 0, 0, 0, 0, 0, 0,
                                                        0, 0, 0, 0, 0, 0, 0, 1};
  return bytes == kLoopback;
}

bool IpAddress::is_unspecified() const {
  const size_t begin = is_v4() ? 12 : 0;
  return std::all_of(bytes.begin() + begin, bytes.end(), [](uint8_t b) { return b == 0; });
}

std::string IpAddress::ToString() const {
  char text[INET6_ADDRSTRLEN] = "";
  if (is_v4()) {
    inet_ntop(AF_INET, bytes.data() + 12, text, sizeof text);
  } else {
    inet_ntop(AF_INET6, bytes.data(), text, sizeof text);
  }
  return text;
}

std::optional<IpAddress> IpAddress::Parse(std::string_view text) {
  // inet_pton wants a terminated string; an embedded zero would hide what follows it.
  char terminated[INET6_ADDRSTRLEN];
  if (text.empty() || text.size() >= sizeof terminated) return std::nullopt;
  if (text.find('\0') != std::string_view::npos) return std::nullopt;
  memcpy(terminated, text.data(), text.size());
  terminated[text.size()] = '\0';
  in_addr v4;
  if (inet_pton(AF_INET, terminated, &v4) == 1) return FromV4(&v4);
  IpAddress v6;
  if (inet_pton(AF_INET6, terminated, v6.bytes.data()) == 1) return v6;
  return std::nullopt;
}

std::optional<IpAddress> IpAddress::FromBytes(std::span<const uint8_t> bytes) {
  if (bytes.size() == 4) return FromV4(bytes.data());
  if (bytes.size() != 16) return std::nullopt;
  IpAddress ip;
  std::copy(bytes.begin(), bytes.end(), ip.bytes.begin());
  return ip;
}

bool IpAddress::InPrefix(const IpAddress& network, unsigned prefix_length) const {
  if (is_v4() != network.is_v4()) return false;
  const size_t begin = is_v4() ? 12 : 0;
  if (prefix_length > (bytes.size() - begin) * 8) return false;
  const size_t whole = prefix_length / 8;
  if (memcmp(bytes.data() + begin, network.bytes.data() + begin, whole) != 0) return false;
  const unsigned rest = prefix_length % 8;
  if (rest == 0) return true;
  const uint8_t mask = static_cast<uint8_t>(0xff << (8 - rest));
  return ((bytes[begin + whole] ^ network.bytes[begin + whole]) & mask) == 0;
}

std::string SocketAddress::ToString() const {
  if (ip.is_v4()) return ip.ToString() + ":" + std::to_string(port);
  return "[" + ip.ToString() + "]:" + std::to_string(port);
}

std::optional<SocketAddress> SocketAddress::Parse(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  std::string_view host = text.substr(0, colon);
  const std::string_view digits = text.substr(colon + 1);
  const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  // Without brackets a colon would be ambiguous; with them only IPv6 makes sense.
  if (bracketed != (host.find(':') != std::string_view::npos)) return std::nullopt;
  const std::optional<IpAddress> ip = IpAddress::Parse(host);
  SocketAddress out;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), out.port, 10);
  if (!ip || error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  out.ip = *ip;
  return out;
}

std::optional<SocketAddress> SocketAddress::FromSockaddr(const sockaddr* address,
                                                         socklen_t length) {
  if (address == nullptr || length < sizeof(sa_family_t)) return std::nullopt;
  SocketAddress out;
  if (address->sa_family == AF_INET && length >= sizeof(sockaddr_in)) {
    sockaddr_in in;
    memcpy(&in, address, sizeof in);
    out.ip = FromV4(&in.sin_addr);
    out.port = ntohs(in.sin_port);
    return out;
  }
  if (address->sa_family == AF_INET6 && length >= sizeof(sockaddr_in6)) {
    sockaddr_in6 in;
    memcpy(&in, address, sizeof in);
    memcpy(out.ip.bytes.data(), &in.sin6_addr, 16);
    out.port = ntohs(in.sin6_port);
    return out;
  }
  return std::nullopt;
}

socklen_t SocketAddress::ToSockaddr(int family, sockaddr_storage* out) const {
  memset(out, 0, sizeof *out);
  if (family == AF_INET && ip.is_v4()) {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = htons(port);
    memcpy(&in.sin_addr, ip.bytes.data() + 12, 4);
    memcpy(out, &in, sizeof in);
    return sizeof in;
  }
  if (family == AF_INET6) {
    sockaddr_in6 in{};
    in.sin6_family = AF_INET6;
    in.sin6_port = htons(port);
    memcpy(&in.sin6_addr, ip.bytes.data(), 16);
    memcpy(out, &in, sizeof in);
    return sizeof in;
  }
  return 0;
}

}  // namespace weft
