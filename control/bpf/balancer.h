// SPDX-License-Identifier: Apache-2.0
// The user-space half of the kernel's L4 balancer (bpf/tc/balancer.bpf.c): loads it, attaches it to
// an uplink, keeps VIPs and their backends, reads the counters. Thread: one, the caller's; packets
// are balanced meanwhile. Owns programs, maps and links: with the object, balancing ends.
#pragma once
#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bpf/tc/balancer_abi.h"
#include "proxy/base/address.h"
#include "proxy/base/status.h"

namespace weft::bpf {

// kTc: tcx, or clsact where the kernel has no tcx (before 6.6). Generic XDP sees merged segments
// where the kernel merges them (GRO): for tests.
enum class BalancerHook { kTc, kClsact, kXdpGeneric, kXdpNative };
enum class Encapsulation : uint8_t { kIpip, kGue };
using MacAddress = std::array<uint8_t, 6>;

// Known by address, encapsulation and port of GUE: another of these is another backend.
struct BalancerBackend {
  IpAddress address;  // either family, whatever the VIP's
  uint32_t weight = 1;
  Encapsulation encapsulation = Encapsulation::kIpip;
  uint16_t gue_port = 6080;
  bool draining = false;  // keeps its flows, gets no new ones
  // Where frames to it leave to. Without: the kernel's routes and neighbours, asked per packet.
  std::optional<MacAddress> next_hop;
  std::optional<uint16_t> quic_server_id;  // below 2048; distinct in a VIP
};

struct BalancerVip {
  SocketAddress address;
  uint8_t protocol = 6;                // TCP, or 17: UDP
  bool client_affinity = false;        // all flows of a client address to one backend
  std::optional<uint8_t> quic_config;  // 0 to 6: connection ids of this configuration name backends
  uint32_t ring_entries = 0;           // a prime; 0: by the number of backends (MaglevSize)
  std::vector<BalancerBackend> backends;
};

struct BalancerConfig {
  IpAddress source4;  // outer source addresses; backends of a family without one are refused
  IpAddress source6;
  uint32_t mtu = 1500;          // of the uplink
  uint32_t flow4_bits = 17;     // log2 of buckets (64 bytes, 5 flows) per CPU: 8 MiB, 655 360 flows
  uint32_t flow6_bits = 15;     // log2 of buckets (128 bytes, 5 flows) per CPU
  uint32_t ring_chunks = 4160;  // of 4 KiB, for all rings: 16 MiB
  uint64_t ring_seed = 0;       // the same on every node that serves the same VIPs
  std::chrono::seconds expiry_new{60};
  std::chrono::seconds expiry_tcp{3600};
  std::chrono::seconds expiry_closing{60};
  std::chrono::seconds expiry_udp{120};
  std::chrono::seconds expiry_fragment{15};
};

struct BalancerMemory {  // bytes
  uint64_t rings = 0;    // in use now
  uint64_t ring_space = 0;
  uint64_t tables = 0;
  uint64_t flows = 0;  // all CPUs
  uint64_t counters = 0;
};

class Balancer final {
 public:
  // Verifies and loads the programs. Needs CAP_BPF and CAP_NET_ADMIN.
  static absl::StatusOr<std::unique_ptr<Balancer>> Load(const BalancerConfig& config);
  ~Balancer();

  // In the caller's network namespace; once per interface.
  absl::Status Attach(int ifindex, BalancerHook hook);
  absl::Status Detach(int ifindex);

  // Adds a VIP or replaces what it was. New flows see the old backends or the new ones, never a
  // mixture; flows of backends that stay, or drain, stay. InvalidArgument names what is wrong;
  // ResourceExhausted says what is full; nothing has changed then.
  absl::Status SetVip(const BalancerVip& vip);
  absl::Status RemoveVip(const SocketAddress& address, uint8_t protocol);  // OK if there is none
  void SetMtu(uint32_t mtu);

  // Sums over all CPUs. Zero for a VIP that is not there.
  weft_lb_traffic Traffic(const SocketAddress& address, uint8_t protocol) const;
  std::array<uint64_t, WEFT_LB_REASON_MAX> Counters() const;
  BalancerMemory Memory() const;
  // Flows in the connection tables, expired ones included.
  uint64_t Flows() const;
  // Forgets all flows and fragments (tests and benchmarks; packets are then picked anew).
  void ForgetFlows();

  // For BPF_PROG_TEST_RUN.
  int ProgramFd(BalancerHook hook) const;
  // Instructions that the verifier walked through to accept each program.
  uint32_t VerifiedInstructions(BalancerHook hook) const;

 private:
  struct State;
  explicit Balancer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace weft::bpf
