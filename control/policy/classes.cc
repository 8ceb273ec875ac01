// SPDX-License-Identifier: Apache-2.0
#include "control/policy/classes.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace weft::rules {
namespace {

IpAddress Masked(const IpAddress& ip, uint32_t length) {
  IpAddress out = ip;
  for (uint32_t i = 0; i < 16; ++i) {
    const uint32_t bits = length > 8 * i ? std::min(length - 8 * i, 8u) : 0;
    out.bytes[i] = static_cast<uint8_t>(out.bytes[i] & (0xff00u >> bits));
  }
  return out;
}

bool Contains(const bpf::PolicyBlock& outer, const bpf::PolicyBlock& inner) {
  return outer.length <= inner.length && Masked(inner.address, outer.length) == outer.address;
}

void SortUnique(std::vector<uint32_t>* numbers) {
  std::ranges::sort(*numbers);
  numbers->erase(std::unique(numbers->begin(), numbers->end()), numbers->end());
}

}  // namespace

bpf::PolicyBlock BlockOf(const IpAddress& address, uint32_t own_family_length) {
  const uint32_t length =
      std::min(address.is_v4() ? own_family_length + 96 : own_family_length, 128u);
  return {Masked(address, length), length};
}

bool Contains(const bpf::PolicyBlock& block, const IpAddress& ip) {
  return Masked(ip, block.length) == block.address && block.address.is_v4() == ip.is_v4();
}

Classes::Classes(const model::Snapshot& snapshot, const std::vector<Subject>& subjects,
                 const std::vector<PeerRule>& rules,
                 const std::set<bpf::PolicyBlock>& source_prefixes, CompilerNumbers& numbers)
    : rules_(rules), source_prefixes_(source_prefixes), numbers_(numbers) {
  IndexRules();
  IndexBlocks();
  for (auto& [block, node] : nodes_) blocks[block] = Number("", node.rules, nullptr);
  NumberAddresses(snapshot, subjects);
}

void Classes::IndexRules() {
  for (uint32_t i = 0; i < rules_.size(); ++i) {
    const model::NetworkPolicy::Rule& rule = *rules_[i].rule;
    if (rule.any_peer) continue;
    for (const std::string& uid : rule.workloads) rules_of_uid_[uid].push_back(i);
    for (const model::NetworkPolicy::Block& block : rule.blocks) {
      const bpf::PolicyBlock cidr = BlockOf(block.cidr.address, block.cidr.length);
      std::vector<bpf::PolicyBlock> holes;
      for (const auto& except : block.except) {
        if (except.address.is_v4() != block.cidr.address.is_v4()) continue;
        holes.push_back(BlockOf(except.address, except.length));
      }
      if (std::ranges::any_of(holes, [&](const auto& hole) { return Contains(hole, cidr); })) {
        continue;  // nothing is left of it
      }
      // IPv4 lives in ::ffff:0:0/96, which is not what ::/0 means.
      const bpf::PolicyBlock all_v4 = BlockOf(*IpAddress::Parse("0.0.0.0"), 0);
      if (cidr.length < all_v4.length && Contains(cidr, all_v4)) holes.push_back(all_v4);
      const auto number = static_cast<uint32_t>(rule_of_block_.size());
      rule_of_block_.push_back(i);
      nodes_[cidr].adds.push_back(number);
      for (const bpf::PolicyBlock& hole : holes) {
        if (Contains(cidr, hole)) nodes_[hole].removes.push_back(number);
      }
    }
  }
}

// In the order of the map a block comes after those around it, so that a stack holds them.
void Classes::IndexBlocks() {
  struct Around {
    bpf::PolicyBlock block;
    std::vector<uint32_t> active;  // numbers of blocks
  };
  std::vector<Around> stack;
  for (auto& [block, node] : nodes_) {
    lengths_[block.length] = true;
    while (!stack.empty() && !Contains(stack.back().block, block)) stack.pop_back();
    std::vector<uint32_t> active = stack.empty() ? std::vector<uint32_t>() : stack.back().active;
    const std::set<uint32_t> gone(node.removes.begin(), node.removes.end());
    std::erase_if(active, [&](uint32_t number) { return gone.contains(number); });
    active.insert(active.end(), node.adds.begin(), node.adds.end());
    for (uint32_t number : active) node.rules.push_back(rule_of_block_[number]);
    SortUnique(&node.rules);
    stack.push_back({block, std::move(active)});
  }
}

uint32_t Classes::Number(const std::string& identity, std::vector<uint32_t> rules,
                         const IpAddress* local) {
  if (local == nullptr && rules.empty()) return WEFT_CLASS_WORLD;
  std::string name = identity;
  for (uint32_t rule : rules) absl::StrAppend(&name, "\n", rules_[rule].number);
  if (local != nullptr) {
    name += "\nlocal";
    for (const bpf::PolicyBlock& prefix : source_prefixes_) {
      if (Contains(prefix, *local)) {
        absl::StrAppend(&name, "\n", AbslView(prefix.address.ToString()), "/", prefix.length);
      }
    }
  }
  const uint32_t number = numbers_.first_class + numbers_.classes.Of(name);
  const auto [entry, added] = index_.try_emplace(number, all_.size());
  if (added) {
    Class made{.number = number, .rules = std::move(rules), .local = local != nullptr};
    made.identity = identity;
    if (local != nullptr) made.address = *local;
    all_.push_back(std::move(made));
  }
  return number;
}

std::vector<uint32_t> Classes::RulesAt(const std::string& uid, const IpAddress& ip) const {
  std::vector<uint32_t> rules;
  if (auto found = rules_of_uid_.find(uid); found != rules_of_uid_.end()) rules = found->second;
  for (uint32_t length = 129; length-- > 0;) {
    if (!lengths_[length]) continue;
    auto node = nodes_.find({Masked(ip, length), length});
    if (node == nodes_.end()) continue;
    rules.insert(rules.end(), node->second.rules.begin(), node->second.rules.end());
    break;
  }
  SortUnique(&rules);
  return rules;
}

const std::vector<uint32_t>& Classes::RulesAt(const IpAddress& ip) const {
  static const std::vector<uint32_t> none;
  if (auto known = addresses.find(ip); known != addresses.end()) {
    auto found = index_.find(known->second);
    return found == index_.end() ? none : all_[found->second].rules;
  }
  for (uint32_t length = 129; length-- > 0;) {
    if (!lengths_[length]) continue;
    auto node = nodes_.find({Masked(ip, length), length});
    if (node != nodes_.end()) return node->second.rules;
  }
  return none;
}

void Classes::NumberAddresses(const model::Snapshot& snapshot,
                              const std::vector<Subject>& subjects) {
  for (const auto& [uid, workload] : snapshot.workloads) {
    // Other addresses are what the blocks around them are.
    if (workload->host_network || !rules_of_uid_.contains(uid)) continue;
    for (const IpAddress& ip : workload->addresses) {
      addresses[ip] = Number("", RulesAt(uid, ip), nullptr);
    }
  }
  for (const Subject& subject : subjects) {
    for (const IpAddress& ip : subject.addresses) {
      addresses[ip] = Number(subject.identity, RulesAt(subject.uid, ip), &ip);
    }
  }
}

}  // namespace weft::rules
