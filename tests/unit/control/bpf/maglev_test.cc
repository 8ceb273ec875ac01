// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/maglev.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

namespace weft::bpf {
namespace {

// The paper's pseudo code with weights, written down plainly: whole permutations, turn by turn.
std::vector<uint16_t> Reference(std::vector<MaglevMember> members, uint32_t size) {
  std::erase_if(members, [](const MaglevMember& member) { return member.weight == 0; });
  if (members.empty()) return {};
  std::sort(members.begin(), members.end(),
            [](const MaglevMember& a, const MaglevMember& b) { return a.key < b.key; });
  uint32_t heaviest = 0;
  for (const MaglevMember& member : members) heaviest = std::max(heaviest, member.weight);
  // A table of one member alone says in which order it takes entries: that of its permutation.
  const auto mix = [](uint64_t x, uint64_t add) {
    x = (x ^ add) * 0x9e3779b97f4a7c15u;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    return x ^ (x >> 32);
  };
  std::vector<std::vector<uint32_t>> permutations;
  for (const MaglevMember& member : members) {
    const uint64_t offset = mix(member.key, 0x243f6a8885a308d3) % size;
    const uint64_t skip = mix(member.key, 0x13198a2e03707344) % (size - 1) + 1;
    std::vector<uint32_t> permutation;
    for (uint64_t j = 0; j < size; ++j) {
      permutation.push_back(static_cast<uint32_t>((offset + j * skip) % size));
    }
    permutations.push_back(std::move(permutation));
  }
  std::vector<int> owner(size, -1);
  std::vector<uint64_t> taken(members.size());
  std::vector<size_t> next(members.size());
  uint32_t filled = 0;
  for (uint64_t round = 1; filled < size; ++round) {
    for (size_t i = 0; i < members.size() && filled < size; ++i) {
      const double due = static_cast<double>(round) * members[i].weight / heaviest;
      if (static_cast<double>(taken[i]) >= due) continue;
      while (owner[permutations[i][next[i]]] >= 0) ++next[i];
      owner[permutations[i][next[i]]] = static_cast<int>(i);
      ++taken[i];
      ++filled;
    }
  }
  std::vector<uint16_t> out;
  for (const int i : owner) out.push_back(members[static_cast<size_t>(i)].value);
  return out;
}

std::vector<MaglevMember> Members(int count, uint32_t weight = 1) {
  std::mt19937_64 random(7);
  std::vector<MaglevMember> out;
  for (int i = 0; i < count; ++i) out.push_back({random(), weight, static_cast<uint16_t>(i + 1)});
  return out;
}

double Moved(const std::vector<uint16_t>& a, const std::vector<uint16_t>& b) {
  size_t moved = 0;
  for (size_t i = 0; i < a.size(); ++i) moved += a[i] != b[i];
  return static_cast<double>(moved) / static_cast<double>(a.size());
}

TEST(MaglevTest, AgreesWithThePlainAlgorithm) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 60; ++round) {
    const uint32_t size = std::vector<uint32_t>{2, 7, 251, 1021}[random() % 4];
    std::vector<MaglevMember> members;
    const size_t count = random() % 20;
    for (size_t i = 0; i < count; ++i) {
      // Powers of two: the reference's quotients are then exact.
      const uint32_t weight = random() % 8 == 0 ? 0 : 1u << random() % 5;
      members.push_back({random(), weight, static_cast<uint16_t>(i + 1)});
    }
    EXPECT_EQ(BuildMaglev(members, size), Reference(members, size)) << "round " << round;
  }
}

TEST(MaglevTest, OrderDoesNotMatter) {
  std::vector<MaglevMember> members = Members(17);
  const std::vector<uint16_t> table = BuildMaglev(members, 4093);
  std::reverse(members.begin(), members.end());
  EXPECT_EQ(BuildMaglev(members, 4093), table);
}

TEST(MaglevTest, SharesFollowWeights) {
  std::vector<MaglevMember> members = Members(10, 2);
  members[3].weight = 6;
  members[4].weight = 0;
  std::map<uint16_t, int> entries;
  for (const uint16_t value : BuildMaglev(members, 16381)) ++entries[value];
  const double unit = 16381.0 / (8 * 2 + 6);
  for (const MaglevMember& member : members) {
    EXPECT_NEAR(entries[member.value], unit * member.weight, 2) << member.value;
  }
}

TEST(MaglevTest, AChangeMovesLittleMoreThanItMust) {
  for (const int count : {4, 16, 40}) {
    std::vector<MaglevMember> members = Members(count);
    const std::vector<uint16_t> before = BuildMaglev(members, 4093);
    const double share = 1.0 / count;
    members.pop_back();
    EXPECT_LT(Moved(before, BuildMaglev(members, 4093)), share + 0.03) << count << " less one";
    members = Members(count + 1);
    EXPECT_LT(Moved(before, BuildMaglev(members, 4093)), share + 0.03) << count << " and one";
  }
}

TEST(MaglevTest, SizesAreByShares) {
  EXPECT_EQ(MaglevSize(0), 4093u);
  EXPECT_EQ(MaglevSize(40), 4093u);
  EXPECT_EQ(MaglevSize(41), 16381u);
  EXPECT_EQ(MaglevSize(164), 65521u);
  EXPECT_EQ(MaglevSize(1 << 20), 65521u);
  std::vector<MaglevMember> members = Members(3, 10);
  members[0].weight = 25;
  EXPECT_EQ(MaglevShares(members), 5u);  // 45 / 10, rounded up
  EXPECT_EQ(MaglevShares({}), 0u);
}

TEST(MaglevTest, NobodyGivesAnEmptyTable) {
  EXPECT_TRUE(BuildMaglev({}, 251).empty());
  EXPECT_TRUE(BuildMaglev(Members(3, 0), 251).empty());
}

}  // namespace
}  // namespace weft::bpf
