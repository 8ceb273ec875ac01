// SPDX-License-Identifier: Apache-2.0
// Private to control/policy: which NetworkPolicy rules concern this node, and the classes that they
// tell apart. Thread: the caller's.
#pragma once
#include <string>
#include <unordered_map>
#include <vector>

#include "control/policy/compile.h"

namespace weft::rules {

// A rule of a policy that selects a workload of this node.
struct PeerRule {
  const model::NetworkPolicy::Rule* rule = nullptr;
  uint32_t number = 0;  // in CompilerNumbers::rules
};

struct Class {
  uint32_t number = 0;
  std::vector<uint32_t> rules;  // indices of PeerRule, ascending
  // Of a workload of this node: one address that has this class, for authorization.
  bool local = false;
  std::string identity;
  IpAddress address;
};

class Classes final {
 public:
  Classes(const model::Snapshot& snapshot, const std::vector<Subject>& subjects,
          const std::vector<PeerRule>& rules, const std::set<bpf::PolicyBlock>& source_prefixes,
          CompilerNumbers& numbers);
  const std::vector<Class>& all() const { return all_; }  // without the world
  // Of whoever has this address: indices of PeerRule, ascending.
  const std::vector<uint32_t>& RulesAt(const IpAddress& ip) const;
  std::map<IpAddress, uint32_t> addresses;
  std::map<bpf::PolicyBlock, uint32_t> blocks;

 private:
  struct Node {
    std::vector<uint32_t> adds, removes;  // blocks that begin or are excepted here
    std::vector<uint32_t> rules;          // that match here, ascending
  };
  void IndexRules();
  void IndexBlocks();
  uint32_t Number(const std::string& identity, std::vector<uint32_t> rules, const IpAddress* local);
  void NumberAddresses(const model::Snapshot& snapshot, const std::vector<Subject>& subjects);
  std::vector<uint32_t> RulesAt(const std::string& uid, const IpAddress& ip) const;

  const std::vector<PeerRule>& rules_;
  const std::set<bpf::PolicyBlock>& source_prefixes_;
  CompilerNumbers& numbers_;
  std::unordered_map<std::string, std::vector<uint32_t>> rules_of_uid_;
  std::vector<uint32_t> rule_of_block_;
  std::map<bpf::PolicyBlock, Node> nodes_;
  std::array<bool, 129> lengths_{};
  std::vector<Class> all_;
  std::unordered_map<uint32_t, size_t> index_;  // number -> index of all_
};

// The network address, in 128 bits.
bpf::PolicyBlock BlockOf(const IpAddress& address, uint32_t own_family_length);
// Of the same family, too.
bool Contains(const bpf::PolicyBlock& block, const IpAddress& ip);

}  // namespace weft::rules
