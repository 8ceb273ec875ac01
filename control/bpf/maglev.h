// SPDX-License-Identifier: Apache-2.0
// Weighted Maglev tables (Eisenbud et al., NSDI 2016, section 3.4): who gets which share of a ring,
// such that a change of the members moves few entries. Pure: a table depends on the set of members
// only, so every node of a fleet builds the same one. Thread: any.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace weft::bpf {

struct MaglevMember {
  uint64_t key = 0;     // who it is: distinct, the same on every node and in every build
  uint32_t weight = 1;  // 0: gets nothing
  uint16_t value = 0;   // what its entries hold
};

// The number of entries for so many equal shares (the sum of weights by the smallest weight): a
// prime of at least 100 entries a share as long as there is one. Few sizes on purpose: where the
// size changes, most entries move.
uint32_t MaglevSize(uint64_t shares);
uint64_t MaglevShares(std::span<const MaglevMember> members);

// `size` entries, a prime; empty if no member has weight.
std::vector<uint16_t> BuildMaglev(std::span<const MaglevMember> members, uint32_t size);

}  // namespace weft::bpf
