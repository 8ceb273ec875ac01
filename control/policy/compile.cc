// SPDX-License-Identifier: Apache-2.0
#include "control/policy/compile.h"

#include <algorithm>
#include <unordered_map>

#include "absl/strings/str_cat.h"
#include "control/policy/authorization.h"
#include "control/policy/classes.h"
#include "control/policy/ports.h"
#include "control/policy/process_policy.h"

namespace weft::rules {
namespace {

using model::NetworkPolicy;

// One direction of the NetworkPolicies that select one workload.
struct Isolation {
  std::vector<uint32_t> rules;  // indices of PeerRule
  std::string policies;         // their names, for the default's rule
};
using Isolations = std::array<Isolation, 2>;  // by layer: egress, ingress

uint8_t ToKernel(NetworkPolicy::Protocol protocol) {
  switch (protocol) {
    case NetworkPolicy::Protocol::kTcp:
      return WEFT_PROTOCOL_TCP;
    case NetworkPolicy::Protocol::kUdp:
      return WEFT_PROTOCOL_UDP;
    case NetworkPolicy::Protocol::kSctp:
      return WEFT_PROTOCOL_SCTP;
  }
  return WEFT_PROTOCOL_OTHER;
}

const char* DirectionName(uint32_t layer) {
  return layer == WEFT_LAYER_EGRESS ? "egress" : "ingress";
}

class Compiler {
 public:
  Compiler(const model::Snapshot& snapshot, const std::vector<Subject>& subjects,
           CompilerNumbers& numbers, const std::vector<L7Service>& services)
      : snapshot_(snapshot), subjects_(subjects), numbers_(numbers), services_(services) {}

  Compiled Run() {
    out_.state.full_rule = numbers_.rules.Of("a kernel map of policy is full");
    CollectRules();
    ProcessCompiler processes(snapshot_, subjects_, numbers_);
    processes.Collect(&rules_);
    for (const Subject& subject : subjects_) CollectAuthorization(subject);
    Classes classes(snapshot_, subjects_, rules_, source_prefixes_, numbers_);
    classes_of_rule_.resize(rules_.size());
    for (const Class& one : classes.all()) {
      for (uint32_t rule : one.rules) classes_of_rule_[rule].push_back(one.number);
    }
    for (const Subject& subject : subjects_) CompileSubject(subject, classes.all());
    processes.Compile(classes, services_, &out_);
    out_.state.processes.full_rule = out_.state.full_rule;
    out_.state.classes = std::move(classes.addresses);
    out_.state.blocks = std::move(classes.blocks);
    return std::move(out_);
  }

 private:
  void CollectRules();
  void CollectRules(const NetworkPolicy& policy, uint32_t layer,
                    const std::vector<NetworkPolicy::Rule>& rules,
                    const std::vector<uint32_t>& subjects);
  void CollectAuthorization(const Subject& subject);
  void CompileSubject(const Subject& subject, const std::vector<Class>& classes);
  bpf::LayerState CompileNetwork(uint32_t subject, uint32_t layer, const Isolation& isolation);
  void Emit(uint32_t subject, uint32_t layer, uint32_t class_number,
            const std::vector<uint32_t>& rules, uint32_t* lengths);

  const model::Snapshot& snapshot_;
  const std::vector<Subject>& subjects_;
  CompilerNumbers& numbers_;
  const std::vector<L7Service>& services_;
  Compiled out_;
  std::vector<PeerRule> rules_;
  std::unordered_map<uint32_t, Isolations> isolations_;  // by subject's id
  std::unordered_map<uint32_t, Applicable> applicable_;
  std::set<bpf::PolicyBlock> source_prefixes_;
  std::vector<std::vector<uint32_t>> classes_of_rule_;
};

void Compiler::CollectRules(const NetworkPolicy& policy, uint32_t layer,
                            const std::vector<NetworkPolicy::Rule>& rules,
                            const std::vector<uint32_t>& subjects) {
  const std::string key = policy.Key();
  const auto first = static_cast<uint32_t>(rules_.size());
  for (const NetworkPolicy::Rule& rule : rules) {
    const std::string name =
        absl::StrCat("NetworkPolicy ", key, " ", DirectionName(layer), "[", rule.index, "]");
    rules_.push_back({&rule, numbers_.rules.Of(name)});
  }
  for (uint32_t id : subjects) {
    Isolation& isolation = isolations_[id][layer];
    isolation.policies += (isolation.policies.empty() ? "" : ",") + key;
    for (uint32_t i = first; i < rules_.size(); ++i) isolation.rules.push_back(i);
  }
}

void Compiler::CollectRules() {
  std::unordered_map<std::string, uint32_t> id_of;
  for (const Subject& subject : subjects_) {
    if (!subject.uid.empty()) id_of[subject.uid] = subject.id;
  }
  // In the order of their names: which rule is named must not change by itself.
  std::map<std::string, const NetworkPolicy*> policies;
  for (const auto& [key, policy] : snapshot_.network_policies) policies[key] = policy.get();
  for (const auto& [key, policy] : policies) {
    std::vector<uint32_t> ids;
    for (const std::string& uid : policy->subjects) {
      if (auto found = id_of.find(uid); found != id_of.end()) ids.push_back(found->second);
    }
    if (ids.empty()) continue;
    if (policy->isolates_egress) CollectRules(*policy, WEFT_LAYER_EGRESS, policy->egress, ids);
    if (policy->isolates_ingress) CollectRules(*policy, WEFT_LAYER_INGRESS, policy->ingress, ids);
  }
}

void Compiler::CollectAuthorization(const Subject& subject) {
  auto workload = snapshot_.workloads.find(subject.uid);
  if (workload == snapshot_.workloads.end()) return;
  Applicable applicable = ApplicableTo(snapshot_, *workload->second);
  const auto note = [&](const std::vector<model::Authorization::Prefix>& prefixes) {
    for (const auto& prefix : prefixes) {
      source_prefixes_.insert(BlockOf(prefix.address, prefix.length));
    }
  };
  ForEachMatch(applicable, [&](const model::Authorization::Match& match) {
    note(match.source_ips);
    note(match.not_source_ips);
  });
  applicable_[subject.id] = std::move(applicable);
}

void Compiler::Emit(uint32_t subject, uint32_t layer, uint32_t class_number,
                    const std::vector<uint32_t>& rules, uint32_t* lengths) {
  const auto put = [&](uint8_t protocol, PortPrefix prefix, int length_bit, uint32_t rule) {
    const bpf::PolicyKey key{subject, class_number, prefix.port, prefix.length, protocol, layer};
    out_.state.entries[key] = {.says = WEFT_SAYS_ALLOW, .rule = rule};
    *lengths |= 1u << length_bit;
  };
  std::map<uint8_t, std::vector<NamedRange>> ranges;  // by protocol
  for (uint32_t i : rules) {
    if (rules_[i].rule->any_port) {
      put(WEFT_PROTOCOL_ANY, {}, WEFT_LENGTH_ANY, rules_[i].number);
      return;  // nothing can be added to it
    }
    for (const NetworkPolicy::Port& port : rules_[i].rule->ports) {
      if (port.first > port.last) continue;
      ranges[ToKernel(port.protocol)].push_back({port.first, port.last, rules_[i].number});
    }
  }
  for (const auto& [protocol, list] : ranges) {
    for (const NamedRange& range : Partition(list)) {
      for (const PortPrefix& prefix : PrefixesOf(range.first, range.last)) {
        put(protocol, prefix, prefix.length, range.rule);
      }
    }
  }
}

bpf::LayerState Compiler::CompileNetwork(uint32_t subject, uint32_t layer,
                                         const Isolation& isolation) {
  bpf::LayerState state;
  if (isolation.policies.empty()) return state;
  state.says = WEFT_SAYS_DENY;
  state.rule = numbers_.rules.Of(absl::StrCat("NetworkPolicy ", isolation.policies, " ",
                                              DirectionName(layer), " (no rule matches)"));
  std::map<uint32_t, std::vector<uint32_t>> rules_of_class;
  for (uint32_t rule : isolation.rules) {
    if (rules_[rule].rule->any_peer) rules_of_class[WEFT_CLASS_ANY].push_back(rule);
    for (uint32_t number : classes_of_rule_[rule]) rules_of_class[number].push_back(rule);
  }
  for (const auto& [number, rules] : rules_of_class) {
    Emit(subject, layer, number, rules, &state.lengths);
  }
  return state;
}

void Compiler::CompileSubject(const Subject& subject, const std::vector<Class>& classes) {
  bpf::SubjectState& state = out_.state.subjects[subject.id];
  auto applicable = applicable_.find(subject.id);
  if (applicable == applicable_.end()) {  // nobody can say what selects it
    const uint32_t rule = numbers_.rules.Of("the control plane does not know this workload");
    state.fill({.says = WEFT_SAYS_DENY, .rule = rule});
    return;
  }
  for (const uint32_t layer : {WEFT_LAYER_EGRESS, WEFT_LAYER_INGRESS}) {
    auto isolation = isolations_.find(subject.id);
    if (isolation == isolations_.end()) break;
    state[layer] = CompileNetwork(subject.id, layer, isolation->second[layer]);
  }
  if (LooksAtDestinations(applicable->second) && subject.addresses.size() > 1) {
    out_.left_to_the_proxy.insert(subject.id);
    return;
  }
  state[WEFT_LAYER_AUTHORIZATION] =
      CompileAuthorization(subject, applicable->second, classes, numbers_.rules, &out_.state);
}

}  // namespace

Compiled Compile(const model::Snapshot& snapshot, const std::vector<Subject>& subjects,
                 CompilerNumbers& numbers, const std::vector<L7Service>& services) {
  return Compiler(snapshot, subjects, numbers, services).Run();
}

}  // namespace weft::rules
