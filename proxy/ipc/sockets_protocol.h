// SPDX-License-Identifier: Apache-2.0
// What weft-proxy (and weft-agent) say to weft-sockets: one fixed-size request, one fixed-size
// answer with descriptors by SCM_RIGHTS, over SOCK_SEQPACKET. Two kinds of channel:
//  - a tenant channel: one end was given to a proxy at its start. It may ask for sockets of its
//  tenant's workloads only.
//  - the control channel, /run/weft/NAME/sockets.sock, root only: enrols workloads and makes tenant
//  channels.
// Answers come in the order of the requests. Every message is one packet; a packet of another size
// ends the channel.
#pragma once
#include <cstdint>

namespace weft::ipc {

inline constexpr uint32_t kSocketsVersion = 2;
inline constexpr int kMaxSocketsPerAnswer = 32;

enum class SocketsOp : uint32_t {
  // Tenant channel.
  // workload -> 5 dual-stack, non-blocking sockets: listening at 15001, 15006, 15008 and 15053, and
  // bound to 15053 UDP
  kListeners = 1,
  kTunnel = 2,    // workload, family, count -> unconnected TCP sockets in its netns, role TUNNEL
  kToApp = 3,     // workload, family, count -> the same, role TO_APP
  kHost = 4,      // family, count -> unconnected TCP sockets in the node's netns, role HOST
  kDatagram = 5,  // workload, family, count -> unconnected UDP sockets in its netns, role TUNNEL
  // Control channel.
  kAddWorkload =
      16,  // workload, generation, tenant, one descriptor: its netns. Repeating it is harmless
  kRemoveWorkload = 17,  // workload
  kNewChannel = 18,      // tenant -> one descriptor: the proxy's end of a new tenant channel
  kListWorkloads = 19,   // -> count in the answer's `value`; for adoption after an agent restart
};

struct SocketsRequest {
  uint32_t version = kSocketsVersion;
  SocketsOp op{};
  uint32_t id = 0;        // echoed
  uint32_t workload = 0;  // struct weft_workload.id
  uint32_t generation = 0;
  uint32_t tenant = 0;  // number the agent gave the tenant
  int32_t family = 0;   // AF_INET or AF_INET6
  uint32_t count = 0;   // 1..kMaxSocketsPerAnswer
};
static_assert(sizeof(SocketsRequest) == 32);

struct SocketsAnswer {
  uint32_t version = kSocketsVersion;
  uint32_t id = 0;
  int32_t error = 0;   // errno; 0: ok
  uint32_t count = 0;  // descriptors that come with this packet
  uint64_t value = 0;
};
static_assert(sizeof(SocketsAnswer) == 24);

}  // namespace weft::ipc
