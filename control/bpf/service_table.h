// SPDX-License-Identifier: Apache-2.0
// Private to control/bpf: the services of a node in the kernel's maps. A change makes a new pool
// beside the one that counts and takes effect by one store; what no longer counts is used again
// only after a grace period, which is waited for when memory is needed and not before. The state is
// read back from the maps after an adoption. Thread: the agent's. Owns two mappings.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "control/bpf/balance_pool.h"
#include "control/bpf/kernel_maps.h"
#include "control/bpf/service_config.h"

namespace weft::bpf {

// The memory of a BPF_F_MMAPABLE array.
class ArrayMapping final {
 public:
  static absl::StatusOr<ArrayMapping> Create(const UniqueFd& map);
  ArrayMapping() = default;
  ArrayMapping(ArrayMapping&& other) noexcept;
  ArrayMapping& operator=(ArrayMapping&& other) noexcept;
  ~ArrayMapping();
  uint32_t entries() const { return entries_; }
  template <typename T>
  T* As() const {
    return static_cast<T*>(memory_);
  }

 private:
  void* memory_ = nullptr;
  size_t bytes_ = 0;
  uint32_t entries_ = 0;
};

class ServiceTable final {
 public:
  // Borrows the maps.
  static absl::StatusOr<std::unique_ptr<ServiceTable>> Create(const KernelMaps& maps);
  // ResourceExhausted: all is as before.
  absl::Status Set(const ServiceConfig& service);
  absl::Status Remove(uint32_t id);
  std::vector<uint32_t> Ids() const;
  ServiceStats stats() const;

 private:
  struct Written {
    uint32_t slot = 0;
    uint32_t first = 0, count = 0;           // cells of the pool that counts; 0: none
    std::map<SocketAddress, uint32_t> vips;  // with the flags that were written
  };
  using Cells = std::span<const weft_cell>;

  ServiceTable(const KernelMaps& maps, ArrayMapping pools, ArrayMapping cells);
  absl::Status Adopt();
  absl::StatusOr<uint32_t> TakeSlot();
  absl::Status SwitchPool(Written& written, Cells cells);
  absl::Status WriteVip(const SocketAddress& vip, uint32_t id, uint32_t flags);
  absl::Status DropVip(const SocketAddress& vip, uint32_t id);
  Cells CellsNow(const Written& written) const;
  void StorePool(uint32_t slot, uint32_t first);
  // Waits until no program can still read what was retired, and makes it free.
  absl::Status Settle();
  bool has_retired() const { return !retired_cells_.empty() || !retired_slots_.empty(); }

  const KernelMaps& maps_;
  ArrayMapping pools_, cells_;
  CellSpace space_;
  std::map<uint32_t, Written> written_;       // by id
  std::map<SocketAddress, uint32_t> owners_;  // VIP -> id
  std::vector<uint32_t> free_slots_, retired_slots_;
  std::vector<std::pair<uint32_t, uint32_t>> retired_cells_;
  // An entry of weft_services was removed or replaced: the kernel gives its memory to the next one
  // at once, under a program that may still read it.
  bool entries_freed_ = false;
  uint64_t refused_full_ = 0;
};

}  // namespace weft::bpf
