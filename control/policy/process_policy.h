// SPDX-License-Identifier: Apache-2.0
// Private to control/policy: ProcessPolicy as entries of the kernel's maps. Destinations are told
// apart by the classes of network policy, whose rules these join; programs by the patterns of paths
// that match them. Every entry has the answer of all rules that match there, so that the kernel
// looks up and never walks. Thread: the caller's.
#pragma once
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "control/policy/classes.h"
#include "control/policy/ports.h"

namespace weft::rules {

class ProcessCompiler final {
 public:
  ProcessCompiler(const model::Snapshot& snapshot, const std::vector<Subject>& subjects,
                  CompilerNumbers& numbers)
      : snapshot_(snapshot), subjects_(subjects), numbers_(numbers) {}

  // Adds what rules say of destinations to `peers`. Once, before the classes are made.
  void Collect(std::vector<PeerRule>* peers);
  void Compile(const Classes& classes, const std::vector<L7Service>& services, Compiled* out);

 private:
  struct Rule {
    const model::ProcessPolicy::Rule* from = nullptr;
    uint32_t number = 0;  // in CompilerNumbers::rules
    uint32_t action = 0;  // weft_process_action
    int strength = 0;
    uint64_t arguments = 0;
    bool any_destination = true;
    uint32_t peer = 0;  // index of PeerRule, unless any_destination
    std::vector<NamedRange> ports;
    bool any_port = true;
  };
  using Rules = std::vector<const Rule*>;  // strongest first

  void CollectRule(const model::ProcessPolicy& policy, const model::ProcessPolicy::Rule& rule,
                   const std::vector<uint32_t>& subjects, std::vector<PeerRule>* peers);
  bool NumberArguments(const model::ProcessPolicy::Rule& from, const std::string& name, Rule* rule);
  void ClassPrograms(bpf::ProcessState* state);
  bool Matches(const Rule& rule, const std::vector<uint32_t>& patterns) const;
  bpf::ProcessChoices Choose(const Rules& rules);
  void CompileSubject(uint32_t subject, const Rules& rules, const Classes& classes,
                      const std::vector<L7Service>& services, bpf::ProcessState* state);
  void EmitConnects(uint32_t subject, uint32_t program, const Rules& rules, const Classes& classes,
                    bpf::ProcessState* state);
  void EmitPorts(bpf::ProcessRuleKey key, const Rules& rules, bpf::ProcessState* state);
  void EmitService(uint32_t subject, uint32_t program, const Rules& rules, const Classes& classes,
                   const L7Service& service, bpf::ProcessState* state);

  const model::Snapshot& snapshot_;
  const std::vector<Subject>& subjects_;
  CompilerNumbers& numbers_;
  std::deque<model::NetworkPolicy::Rule> destinations_;  // PeerRule points there
  std::deque<Rule> rules_;
  std::map<uint32_t, Rules> rules_of_;  // by subject
  std::map<std::string, uint32_t> patterns_;
  std::vector<std::vector<uint32_t>> programs_;  // class -> patterns that match, ascending
  std::map<std::string, std::vector<std::string>> uids_of_identity_;
  std::vector<std::string> problems_;
};

}  // namespace weft::rules
