// SPDX-License-Identifier: Apache-2.0
// The pool of a service (bpf/abi.h, struct weft_pool) as cells, and who may lie where in
// weft_cells. Pure; tests/unit/control/bpf. Thread: the agent's.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "bpf/abi.h"
#include "control/bpf/service_config.h"
#include "proxy/base/status.h"

namespace weft::bpf {

// Entries for so many equal shares (MaglevShares): the smallest of a few primes that has 100 a
// share, as long as there is one. Few sizes, because most entries move where the size changes.
uint32_t PoolRingSize(uint64_t shares);

// Head, backends, ring; the ring keeps a size that is still fit (up to five times what is needed).
// An endpoint that was in `before` (cells of the pool that counts; may be empty) keeps its index,
// because affinity names endpoints by it. Empty if there is no endpoint.
absl::StatusOr<std::vector<weft_cell>> BuildPool(const ServiceConfig& service,
                                                 std::span<const weft_cell> before);
// How many cells the pool has whose head this is.
uint64_t CellsOf(const weft_pool& head);

// Which cells are taken. Cell 0 is nobody's: its number means "no pool".
class CellSpace final {
 public:
  explicit CellSpace(uint32_t cells);
  // The smallest gap that has room; nullopt: there is none.
  std::optional<uint32_t> Take(uint32_t count);
  // Takes these cells; false if one is taken or does not exist.
  bool Claim(uint32_t first, uint64_t count);
  void Give(uint32_t first, uint32_t count);
  uint32_t used() const { return used_; }

 private:
  std::map<uint32_t, uint32_t> free_;  // first -> count; neighbours are one
  uint32_t used_ = 1;
};

}  // namespace weft::bpf
