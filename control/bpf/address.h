// SPDX-License-Identifier: Apache-2.0
// Between the addresses of C++ (proxy/base/address.h) and those of the kernel maps (bpf/abi.h): the
// only place in user space.
#pragma once
#include <arpa/inet.h>

#include <cstring>

#include "bpf/abi.h"
#include "proxy/base/address.h"

namespace weft::bpf {

inline weft_ip ToKernel(const IpAddress& ip) {
  weft_ip out{};
  memcpy(out.ip, ip.bytes.data(), sizeof out.ip);
  return out;
}

inline weft_addr ToKernel(const SocketAddress& address) {
  weft_addr out{};
  memcpy(out.ip, address.ip.bytes.data(), sizeof out.ip);
  out.port_be = htons(address.port);
  return out;
}

inline IpAddress FromKernel(const weft_ip& ip) {
  IpAddress out;
  memcpy(out.bytes.data(), ip.ip, sizeof ip.ip);
  return out;
}

// All zero (":: port 0") is the kernel's way to say "none".
inline SocketAddress FromKernel(const weft_addr& address) {
  SocketAddress out;
  memcpy(out.ip.bytes.data(), address.ip, sizeof address.ip);
  out.port = ntohs(address.port_be);
  return out;
}

}  // namespace weft::bpf
