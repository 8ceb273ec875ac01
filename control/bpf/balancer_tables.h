// SPDX-License-Identifier: Apache-2.0
// VIPs, backends and rings in the memory that the balancer's programs read while it is written:
// what is filled first and published by which single store, and when a place may be used again.
// Knows no kernel: unit tests give it plain memory. Thread: one. Borrows the memory.
#pragma once
#include <compare>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "control/bpf/balancer.h"

namespace weft::bpf {

// First fit over chunks of WEFT_LB_CHUNK ring entries. What is released is free only after
// Reclaim(): programs may still read it until a grace period has passed.
class RingSpace final {
 public:
  explicit RingSpace(uint32_t chunks) : chunks_(chunks, kFree) {}
  std::optional<uint32_t> Allocate(uint32_t entries);  // the offset of the first entry
  void Release(uint32_t offset, uint32_t entries);
  void Reclaim();
  uint64_t used_bytes() const;

 private:
  enum Use : uint8_t { kFree, kUsed, kReleased };
  static uint32_t ChunksOf(uint32_t entries) {
    return (entries + WEFT_LB_CHUNK - 1) / WEFT_LB_CHUNK;
  }
  std::vector<Use> chunks_;
};

// Numbers 1 to `end` - 1, each used again only after Reclaim().
class IndexSpace final {
 public:
  explicit IndexSpace(uint32_t end) : end_(end) {}
  std::optional<uint32_t> Allocate();
  void Release(uint32_t index) { released_.push_back(index); }
  const std::vector<uint32_t>& released() const { return released_; }
  void Reclaim();

 private:
  uint32_t end_;
  uint32_t next_ = 1;
  std::vector<uint32_t> free_;
  std::vector<uint32_t> released_;
};

struct BalancerMemoryMap {
  weft_lb_tables* tables = nullptr;
  std::span<uint16_t> rings;
  std::span<weft_lb_bucket4> flows4;
  std::span<weft_lb_bucket6> flows6;
  std::span<weft_lb_fragment> fragments;
  // Returns once every program that ran when it was called has ended.
  std::function<absl::Status()> grace;
};

class VipTable final {
 public:
  VipTable(const BalancerMemoryMap& memory, bool has_source4, bool has_source6);
  absl::Status Set(const BalancerVip& vip);
  absl::Status Remove(const SocketAddress& address, uint8_t protocol);
  // 0: there is none.
  uint32_t IndexOf(const SocketAddress& address, uint8_t protocol) const;
  uint64_t ring_bytes() const { return rings_.used_bytes(); }

 private:
  struct Service {
    SocketAddress address;
    uint8_t protocol = 0;
    auto operator<=>(const Service&) const = default;
  };
  struct BackendKey {
    IpAddress address;
    Encapsulation encapsulation = Encapsulation::kIpip;
    uint16_t gue_port = 0;
    auto operator<=>(const BackendKey&) const = default;
  };
  struct Block {  // of rings_; 0 entries: none
    uint32_t offset = 0;
    uint32_t entries = 0;
    uint64_t word() const { return uint64_t{offset} << 32 | entries; }
  };
  struct Entry {
    uint32_t index = 0;
    Block ring;
    Block servers;
    std::map<BackendKey, uint32_t> backends;
  };
  struct AddressEntry {
    uint32_t index = 0;
    uint32_t services = 0;
  };
  static BackendKey KeyOf(const BalancerBackend& backend);

  absl::Status Check(const BalancerVip& vip) const;
  absl::Status CheckBackend(const BalancerVip& vip, const BalancerBackend& backend) const;
  // Makes the released places free: a grace period, and no flow that names them is left.
  absl::Status Reclaim();
  absl::StatusOr<uint32_t> NewIndex(IndexSpace& space, const char* what);
  absl::StatusOr<Block> NewBlock(uint32_t entries);
  void FreeBlock(const Block& block);
  absl::StatusOr<std::map<BackendKey, uint32_t>> PlaceBackends(const BalancerVip& vip,
                                                               const Entry& old);
  absl::StatusOr<Block> WriteRing(const BalancerVip& vip,
                                  const std::map<BackendKey, uint32_t>& backends);
  absl::StatusOr<Block> WriteServers(const BalancerVip& vip,
                                     const std::map<BackendKey, uint32_t>& backends);
  void WriteBackend(uint32_t index, const BalancerBackend& backend);
  absl::Status Switch(const BalancerVip& vip, const Service& service, Entry& entry);
  absl::Status Publish(const Service& service, uint32_t index);
  void Withdraw(const Service& service, uint32_t index);
  absl::Status AddAddress(const IpAddress& address);
  void DropAddress(const IpAddress& address);

  BalancerMemoryMap memory_;
  bool has_source4_;
  bool has_source6_;
  RingSpace rings_;
  IndexSpace backend_indices_{WEFT_LB_BACKENDS};
  IndexSpace vip_indices_{WEFT_LB_VIPS};
  std::map<Service, Entry> vips_;
  std::map<IpAddress, AddressEntry> addresses_;
};

}  // namespace weft::bpf
