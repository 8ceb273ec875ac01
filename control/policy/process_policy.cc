// SPDX-License-Identifier: Apache-2.0
#include "control/policy/process_policy.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace weft::rules {
namespace {

using model::ProcessPolicy;
using Action = ProcessPolicy::Action;

constexpr size_t kMaxArguments = 64;  // bits

// What the trie is told: an exact path ends with its zero.
std::string BytesOf(const std::string& pattern) {
  if (pattern.ends_with('*')) return pattern.substr(0, pattern.size() - 1);
  return pattern + '\0';
}

const char* NameOf(Action action) {
  switch (action) {
    case Action::kLog:
      return "Log";
    case Action::kDeny:
      return "Deny";
    case Action::kKill:
      return "Kill";
  }
  return "";
}

bool Has(const std::vector<uint32_t>& sorted, uint32_t value) {
  return std::ranges::binary_search(sorted, value);
}

}  // namespace

// False: there is no bit left. A rule that denies does so without them then, others do nothing.
bool ProcessCompiler::NumberArguments(const ProcessPolicy::Rule& from, const std::string& name,
                                      Rule* rule) {
  for (const std::string& argument : from.arguments) {
    const uint32_t number = numbers_.arguments.Of(argument);
    if (number <= kMaxArguments) {
      rule->arguments |= uint64_t{1} << (number - 1);
      continue;
    }
    const bool denies = rule->action == WEFT_PROCESS_DENY;
    problems_.push_back(absl::StrCat(name, ": more than ", kMaxArguments,
                                     " arguments are asked for on this node; the rule ",
                                     denies ? "denies without looking at them" : "does nothing"));
    rule->arguments = 0;
    return denies;
  }
  return true;
}

void ProcessCompiler::CollectRule(const ProcessPolicy& policy, const ProcessPolicy::Rule& from,
                                  const std::vector<uint32_t>& subjects,
                                  std::vector<PeerRule>* peers) {
  Rule rule{.from = &from};
  std::string name = absl::StrCat("ProcessPolicy ", policy.Key(), " ", from.name);
  rule.action = from.action == Action::kLog    ? WEFT_PROCESS_LOG
                : from.action == Action::kKill ? WEFT_PROCESS_KILL
                : from.connects                ? WEFT_PROCESS_DENY
                                               : WEFT_PROCESS_KILL;  // nothing denies an exec
  rule.strength = static_cast<int>(rule.action) + (rule.action == WEFT_PROCESS_LOG ? 0 : 1);
  if (!policy.enforce && rule.action != WEFT_PROCESS_LOG) {
    absl::StrAppend(&name, " (monitor, ", NameOf(from.action), ")");
    rule.action = WEFT_PROCESS_LOG;
    rule.strength = WEFT_PROCESS_LOG + 1;
  }
  if (!NumberArguments(from, name, &rule)) return;
  rule.number = numbers_.rules.Of(name);
  for (const auto* list : {&from.binaries, &from.not_binaries}) {
    for (const std::string& pattern : *list) {
      patterns_.try_emplace(pattern, static_cast<uint32_t>(patterns_.size()));
    }
  }
  rule.any_port = from.ports.empty();
  for (const model::NetworkPolicy::Port& port : from.ports) {
    if (port.protocol != model::NetworkPolicy::Protocol::kTcp || port.first > port.last) continue;
    rule.ports.push_back({port.first, port.last, rule.number});
  }
  rule.any_destination =
      from.destinations.empty() && from.identities.empty() && from.blocks.empty();
  if (from.connects && !rule.any_destination) {
    model::NetworkPolicy::Rule& destination = destinations_.emplace_back();
    destination.workloads = from.destinations;
    for (const std::string& identity : from.identities) {
      const auto& uids = uids_of_identity_[identity];
      destination.workloads.insert(destination.workloads.end(), uids.begin(), uids.end());
    }
    destination.blocks = from.blocks;
    rule.peer = static_cast<uint32_t>(peers->size());
    // Classes are known by the numbers of their rules, so that no two may share one.
    const uint32_t place = numbers_.rules.Of(absl::StrCat(name, " #", &from - policy.rules.data()));
    peers->push_back({&destination, place});
  }
  rules_.push_back(std::move(rule));
  for (uint32_t id : subjects) rules_of_[id].push_back(&rules_.back());
}

void ProcessCompiler::Collect(std::vector<PeerRule>* peers) {
  if (snapshot_.process_policies.empty()) return;
  std::map<std::string, uint32_t> id_of;
  for (const Subject& subject : subjects_) {
    if (!subject.uid.empty()) id_of[subject.uid] = subject.id;
  }
  for (const auto& [uid, workload] : snapshot_.workloads) {
    uids_of_identity_[workload->Identity()].push_back(uid);
  }
  // In the order of their names: which rule is named must not change by itself.
  std::map<std::string, const ProcessPolicy*> policies;
  for (const auto& [key, policy] : snapshot_.process_policies) policies[key] = policy.get();
  for (const auto& [key, policy] : policies) {
    std::vector<uint32_t> ids;
    for (const std::string& uid : policy->subjects) {
      if (auto found = id_of.find(uid); found != id_of.end()) ids.push_back(found->second);
    }
    if (ids.empty()) continue;
    for (const ProcessPolicy::Rule& rule : policy->rules) CollectRule(*policy, rule, ids, peers);
  }
  for (auto& [id, rules] : rules_of_) {
    std::ranges::stable_sort(rules, std::greater(), &Rule::strength);
  }
}

// One class for each set of patterns that match together; 0 is the empty set.
void ProcessCompiler::ClassPrograms(bpf::ProcessState* state) {
  std::map<std::vector<uint32_t>, uint32_t> numbers = {{{}, WEFT_PROGRAM_OTHER}};
  programs_ = {{}};
  for (const auto& [pattern, index] : patterns_) {
    const std::string bytes = BytesOf(pattern);
    std::vector<uint32_t> matching;
    for (const auto& [other, other_index] : patterns_) {
      if (bytes.starts_with(BytesOf(other))) matching.push_back(other_index);
    }
    std::ranges::sort(matching);
    const auto [entry, added] =
        numbers.try_emplace(matching, static_cast<uint32_t>(programs_.size()));
    if (added) programs_.push_back(matching);
    state->programs[bytes] = entry->second;
  }
}

bool ProcessCompiler::Matches(const Rule& rule, const std::vector<uint32_t>& patterns) const {
  const auto matches = [&](const std::string& pattern) {
    return Has(patterns, patterns_.at(pattern));
  };
  if (!rule.from->binaries.empty() && std::ranges::none_of(rule.from->binaries, matches)) {
    return false;
  }
  return std::ranges::none_of(rule.from->not_binaries, matches);
}

bpf::ProcessChoices ProcessCompiler::Choose(const Rules& rules) {
  bpf::ProcessChoices out;
  for (const Rule* rule : rules) {
    const bool hidden = std::ranges::any_of(out, [&](const bpf::ProcessChoice& stronger) {
      return (stronger.arguments & ~rule->arguments) == 0;
    });
    if (hidden) continue;
    if (out.size() == WEFT_CHOICES) {
      problems_.push_back(absl::StrCat(std::string(numbers_.rules.NameOf(rule->number)),
                                       ": more than ", WEFT_CHOICES,
                                       " sets of arguments are asked for at once; the rule is "
                                       "not in force there"));
      break;
    }
    out.push_back({rule->arguments, rule->action, rule->number});
  }
  return out;
}

void ProcessCompiler::EmitPorts(bpf::ProcessRuleKey key, const Rules& rules,
                                bpf::ProcessState* state) {
  Rules everywhere;
  std::set<uint32_t> edges = {0, 65536};
  for (const Rule* rule : rules) {
    if (rule->any_port) everywhere.push_back(rule);
    for (const NamedRange& range : rule->ports) {
      edges.insert(range.first);
      edges.insert(uint32_t{range.last} + 1);
    }
  }
  const bpf::ProcessChoices others = Choose(everywhere);
  uint32_t& lengths = state->watches[key.subject].lengths;
  state->rules[key] = others;  // where the search ends, also if it says nothing
  lengths |= 1;
  for (auto edge = edges.begin(); std::next(edge) != edges.end(); ++edge) {
    const auto first = static_cast<uint16_t>(*edge);
    const auto last = static_cast<uint16_t>(*std::next(edge) - 1);
    Rules here;
    for (const Rule* rule : rules) {
      const bool covers =
          rule->any_port || std::ranges::any_of(rule->ports, [&](const NamedRange& range) {
            return range.first <= first && last <= range.last;
          });
      if (covers) here.push_back(rule);
    }
    const bpf::ProcessChoices choices = Choose(here);
    if (choices == others) continue;
    for (const PortPrefix& prefix : PrefixesOf(first, last)) {
      key.port = prefix.port;
      key.length = prefix.length;
      state->rules[key] = choices;
      lengths |= 1u << prefix.length;
    }
  }
}

void ProcessCompiler::EmitConnects(uint32_t subject, uint32_t program, const Rules& rules,
                                   const Classes& classes, bpf::ProcessState* state) {
  Rules anywhere;
  for (const Rule* rule : rules) {
    if (rule->any_destination) anywhere.push_back(rule);
  }
  bpf::ProcessRuleKey key{.subject = subject, .program = program, .asks = WEFT_ASKS_CONNECT};
  key.class_number = WEFT_CLASS_ANY;
  if (!anywhere.empty()) EmitPorts(key, anywhere, state);
  if (anywhere.size() == rules.size()) return;
  for (const Class& destination : classes.all()) {
    Rules here;
    for (const Rule* rule : rules) {
      if (rule->any_destination || Has(destination.rules, rule->peer)) here.push_back(rule);
    }
    if (here.size() == anywhere.size()) continue;
    key.class_number = destination.number;
    EmitPorts(key, here, state);
  }
}

// Which endpoint the proxy will pick is not known: a rule matches if it matches one of them.
void ProcessCompiler::EmitService(uint32_t subject, uint32_t program, const Rules& rules,
                                  const Classes& classes, const L7Service& service,
                                  bpf::ProcessState* state) {
  Rules here;
  for (const Rule* rule : rules) {
    const bool matches = std::ranges::any_of(service.endpoints, [&](const SocketAddress& endpoint) {
      if (!rule->any_destination && !Has(classes.RulesAt(endpoint.ip), rule->peer)) {
        return false;
      }
      return rule->any_port || std::ranges::any_of(rule->ports, [&](const NamedRange& range) {
               return range.first <= endpoint.port && endpoint.port <= range.last;
             });
    });
    // A service without endpoints is nobody yet: only what holds for everybody.
    if (matches || (rule->any_destination && rule->any_port)) here.push_back(rule);
  }
  if (here.empty()) return;
  state->rules[{.subject = subject,
                .program = program,
                .class_number = service.id,
                .asks = WEFT_ASKS_SERVICE}] = Choose(here);
}

void ProcessCompiler::CompileSubject(uint32_t subject, const Rules& rules, const Classes& classes,
                                     const std::vector<L7Service>& services,
                                     bpf::ProcessState* state) {
  bpf::ProcessWatch& watch = state->watches[subject];
  for (uint32_t program = 0; program < programs_.size(); ++program) {
    Rules connects, execs;
    for (const Rule* rule : rules) {
      if (!Matches(*rule, programs_[program])) continue;
      (rule->from->connects ? connects : execs).push_back(rule);
    }
    if (!execs.empty()) {
      watch.flags |= WEFT_WATCH_EXEC;
      watch.lengths |= 1;
      state->rules[{.subject = subject, .program = program, .asks = WEFT_ASKS_EXEC}] =
          Choose(execs);
    }
    if (connects.empty()) continue;
    watch.flags |= WEFT_WATCH_CONNECT;
    EmitConnects(subject, program, connects, classes, state);
    for (const L7Service& service : services) {
      EmitService(subject, program, connects, classes, service, state);
    }
  }
}

void ProcessCompiler::Compile(const Classes& classes, const std::vector<L7Service>& services,
                              Compiled* out) {
  bpf::ProcessState& state = out->state.processes;
  ClassPrograms(&state);
  for (const auto& [subject, rules] : rules_of_) {
    CompileSubject(subject, rules, classes, services, &state);
  }
  for (uint32_t n = 1; n <= numbers_.arguments.size() && n <= kMaxArguments; ++n) {
    state.arguments.emplace_back(numbers_.arguments.NameOf(n));
  }
  std::ranges::sort(problems_);
  problems_.erase(std::unique(problems_.begin(), problems_.end()), problems_.end());
  out->problems = std::move(problems_);
}

}  // namespace weft::rules
