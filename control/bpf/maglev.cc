// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/maglev.h"

#include <algorithm>

#include "bpf/tc/balancer_hash.h"

namespace weft::bpf {
namespace {

constexpr uint32_t kSizes[] = {4093, 16381, 65521};
constexpr uint64_t kEntriesPerShare = 100;  // the paper's: shares differ by 1 % at most
constexpr uint64_t kOffsetSeed = 0x243f6a8885a308d3;
constexpr uint64_t kSkipSeed = 0x13198a2e03707344;

// A member's walk through the table: every entry once, in an order of its own.
struct Turn {
  const MaglevMember* member;
  uint64_t next;
  uint64_t skip;
  uint64_t taken = 0;
};

}  // namespace

uint32_t MaglevSize(uint64_t shares) {
  for (const uint32_t size : kSizes) {
    if (shares * kEntriesPerShare <= size) return size;
  }
  return kSizes[std::size(kSizes) - 1];
}

uint64_t MaglevShares(std::span<const MaglevMember> members) {
  uint64_t sum = 0;
  uint64_t least = 0;
  for (const MaglevMember& member : members) {
    sum += member.weight;
    if (member.weight != 0 && (least == 0 || member.weight < least)) least = member.weight;
  }
  return least == 0 ? 0 : (sum + least - 1) / least;
}

std::vector<uint16_t> BuildMaglev(std::span<const MaglevMember> members, uint32_t size) {
  std::vector<Turn> turns;
  uint64_t heaviest = 0;
  for (const MaglevMember& member : members) {
    if (member.weight == 0) continue;
    turns.push_back({&member, weft_lb_mix(member.key, kOffsetSeed, WEFT_LB_MIX_A) % size,
                     weft_lb_mix(member.key, kSkipSeed, WEFT_LB_MIX_A) % (size - 1) + 1});
    heaviest = std::max<uint64_t>(heaviest, member.weight);
  }
  if (turns.empty()) return {};
  std::sort(turns.begin(), turns.end(),
            [](const Turn& a, const Turn& b) { return a.member->key < b.member->key; });
  std::vector<uint16_t> table(size);
  std::vector<bool> filled(size);
  uint32_t left = size;
  // In round r a member of weight w has taken r * w / heaviest entries: the heaviest one a round.
  for (uint64_t round = 1;; ++round) {
    for (Turn& turn : turns) {
      if (turn.taken * heaviest >= round * turn.member->weight) continue;
      while (filled[turn.next]) turn.next = (turn.next + turn.skip) % size;
      filled[turn.next] = true;
      table[turn.next] = turn.member->value;
      ++turn.taken;
      if (--left == 0) return table;
    }
  }
}

}  // namespace weft::bpf
