// SPDX-License-Identifier: Apache-2.0
// ProcessPolicy, compiled and then asked as the kernel asks (bpf/process.h over the entries),
// against a plain walk over the rules, in generated worlds.
#include <gtest/gtest.h>

#include <random>

#include "absl/strings/str_cat.h"
#include "bpf/process.h"
#include "tests/unit/control/policy/compiled.h"

namespace weft::rules {
namespace {

using model::ProcessPolicy;
using Action = ProcessPolicy::Action;

int FindIn(void* maps, const weft_rule_key* key, __u64 arguments, weft_process_answer* out) {
  const auto& rules = static_cast<const bpf::ProcessState*>(maps)->rules;
  auto found = rules.find(
      {key->subject, key->program, key->class_number, key->port, key->length, key->asks});
  if (found == rules.end()) return 0;
  weft_rules value{};
  for (size_t i = 0; i < found->second.size(); ++i) {
    const bpf::ProcessChoice& choice = found->second[i];
    value.v[i] = {choice.arguments, choice.action, choice.rule};
  }
  weft_choose(&value, arguments, out);
  return 1;
}

// As the kernel's trie does it: the longest of the prefixes.
uint32_t ProgramIn(const bpf::ProcessState& state, const std::string& path) {
  const std::string bytes = path + '\0';
  uint32_t found = WEFT_PROGRAM_OTHER;
  size_t longest = 0;
  for (const auto& [prefix, number] : state.programs) {
    if (!bytes.starts_with(prefix) || prefix.size() < longest) continue;
    longest = prefix.size();
    found = number;
  }
  return found;
}

struct Program {
  std::string path;
  std::vector<std::string> arguments;
};

class World {
 public:
  explicit World(uint32_t seed) : random_(seed) {
    for (int i = 0; i < 4; ++i) {
      auto workload = std::make_shared<model::Workload>();
      workload->uid = absl::StrCat("pod", i);
      workload->namespace_name = "a";
      workload->service_account = absl::StrCat("sa", i % 3);
      workload->trust_domain = "td";
      workload->addresses = {*IpAddress::Parse(absl::StrCat("10.0.0.", i))};
      snapshot_.workloads[workload->uid] = workload;
      if (i < 2) {
        subjects_.push_back({static_cast<uint32_t>(i + 1), workload->uid, workload->Identity(),
                             workload->addresses});
      }
    }
    for (int n = Below(4); n > 0; --n) AddPolicy(n);
    services_ = {{.id = 3, .endpoints = {{Ip(2), 80}, {Ip(3), 443}}}, {.id = 4}};
  }

  int Below(int end) { return std::uniform_int_distribution<int>(0, end - 1)(random_); }
  static IpAddress Ip(int i) { return *IpAddress::Parse(absl::StrCat("10.0.0.", i)); }
  IpAddress RandomIp() { return Ip(Below(6)); }
  uint16_t RandomPort() {
    static constexpr uint16_t kPorts[] = {0, 79, 80, 81, 443, 8080, 65535};
    return kPorts[Below(std::size(kPorts))];
  }
  Program RandomProgram() {
    static const char* const kPaths[] = {"/bin/a", "/bin/ab", "/bin/b", "/usr/bin/a", "/x", "/bin"};
    Program out{.path = kPaths[Below(std::size(kPaths))]};
    for (int n = Below(4); n > 0; --n) out.arguments.push_back(absl::StrCat("-", Below(4)));
    return out;
  }

  model::Snapshot snapshot_;
  std::vector<Subject> subjects_;
  std::vector<L7Service> services_;

 private:
  std::vector<std::string> Some(std::vector<std::string> all, int most) {
    std::vector<std::string> out;
    for (int n = Below(most + 1); n > 0; --n) out.push_back(all[Below(int(all.size()))]);
    return out;
  }
  void AddPolicy(int number) {
    auto policy = std::make_shared<ProcessPolicy>();
    policy->namespace_name = "a";
    policy->name = absl::StrCat("p", number);
    policy->subjects = Some({"pod0", "pod1"}, 2);
    policy->enforce = Below(4) != 0;
    const std::vector<std::string> paths = {"/bin/a", "/bin/a*", "/bin/*", "/usr/bin/a", "/bin/b"};
    for (int n = Below(5); n > 0; --n) {
      ProcessPolicy::Rule rule{.name = absl::StrCat("r", n)};
      if (Below(2) == 0) rule.binaries = Some(paths, 3);
      if (Below(3) == 0) rule.not_binaries = Some(paths, 2);
      if (Below(3) == 0) rule.arguments = Some({"-0", "-1", "-2"}, 2);
      rule.connects = Below(4) != 0;
      rule.action = static_cast<Action>(Below(3));
      if (rule.connects) {
        if (Below(2) == 0) rule.destinations = Some({"pod0", "pod1", "pod2", "pod3"}, 2);
        if (Below(3) == 0) rule.identities = {absl::StrCat("spiffe://td/ns/a/sa/sa", Below(3))};
        if (Below(3) == 0) rule.blocks = {{.cidr = {Ip(0), 30}, .except = {{Ip(Below(4)), 32}}}};
        for (int p = Below(3); p > 0; --p) {
          const uint16_t a = RandomPort(), b = RandomPort();
          rule.ports.push_back({.first = std::min(a, b), .last = std::max(a, b)});
        }
      }
      policy->rules.push_back(rule);
    }
    snapshot_.process_policies[policy->Key()] = policy;
  }
  std::mt19937 random_;
};

bool PathMatches(const std::string& path, const std::vector<std::string>& patterns) {
  return std::ranges::any_of(patterns, [&](const std::string& pattern) {
    if (pattern.ends_with('*')) return path.starts_with(pattern.substr(0, pattern.size() - 1));
    return path == pattern;
  });
}

bool DestinationMatches(const model::Snapshot& snapshot, const ProcessPolicy::Rule& rule,
                        const SocketAddress& to) {
  const bool port = rule.ports.empty() || std::ranges::any_of(rule.ports, [&](const auto& range) {
                      return range.first <= to.port && to.port <= range.last;
                    });
  if (!port) return false;
  if (rule.destinations.empty() && rule.identities.empty() && rule.blocks.empty()) return true;
  for (const auto& [uid, workload] : snapshot.workloads) {
    if (std::ranges::count(workload->addresses, to.ip) == 0) continue;
    if (std::ranges::count(rule.destinations, uid) > 0) return true;
    if (std::ranges::count(rule.identities, workload->Identity()) > 0) return true;
  }
  return std::ranges::any_of(rule.blocks, [&](const model::NetworkPolicy::Block& block) {
    if (!Contains(BlockOf(block.cidr.address, block.cidr.length), to.ip)) return false;
    return std::ranges::none_of(block.except, [&](const auto& except) {
      return Contains(BlockOf(except.address, except.length), to.ip);
    });
  });
}

// The strongest action of all that match. Nullptr endpoints: at exec.
uint32_t Walk(const model::Snapshot& snapshot, const std::string& uid, const Program& program,
              const std::vector<SocketAddress>* endpoints) {
  uint32_t strongest = WEFT_PROCESS_PASS;
  for (const auto& [key, policy] : snapshot.process_policies) {
    if (std::ranges::count(policy->subjects, uid) == 0) continue;
    for (const ProcessPolicy::Rule& rule : policy->rules) {
      if (rule.connects != (endpoints != nullptr)) continue;
      if (!rule.binaries.empty() && !PathMatches(program.path, rule.binaries)) continue;
      if (PathMatches(program.path, rule.not_binaries)) continue;
      const bool has_all = std::ranges::all_of(rule.arguments, [&](const std::string& argument) {
        return std::ranges::count(program.arguments, argument) > 0;
      });
      if (!has_all) continue;
      const bool everywhere = rule.destinations.empty() && rule.identities.empty() &&
                              rule.blocks.empty() && rule.ports.empty();
      const bool matches = endpoints == nullptr || everywhere ||
                           std::ranges::any_of(*endpoints, [&](const SocketAddress& to) {
                             return DestinationMatches(snapshot, rule, to);
                           });
      if (!matches) continue;
      uint32_t action = rule.action == Action::kLog    ? WEFT_PROCESS_LOG
                        : rule.action == Action::kKill ? WEFT_PROCESS_KILL
                        : rule.connects                ? WEFT_PROCESS_DENY
                                                       : WEFT_PROCESS_KILL;
      if (!policy->enforce) action = WEFT_PROCESS_LOG;
      strongest = std::max(strongest, action);
    }
  }
  return strongest;
}

uint32_t AskOf(const Compiled& compiled, const CompilerNumbers& numbers, uint32_t subject,
               const Program& program, uint8_t asks, uint32_t class_number, uint16_t port) {
  const bpf::ProcessState& state = compiled.state.processes;
  auto watch = state.watches.find(subject);
  if (watch == state.watches.end()) return WEFT_PROCESS_PASS;
  weft_process_question q{};
  q.subject = subject;
  q.program = ProgramIn(state, program.path);
  q.asks = asks;
  q.class_number = class_number;
  q.port = port;
  for (size_t bit = 0; bit < state.arguments.size(); ++bit) {
    EXPECT_EQ(numbers.arguments.NameOf(static_cast<uint32_t>(bit + 1)), state.arguments[bit]);
    const bool has = std::ranges::count(program.arguments, state.arguments[bit]) > 0;
    q.arguments |= uint64_t{has} << bit;
  }
  const weft_watch value{watch->second.flags, watch->second.lengths, 0};
  weft_process_answer answer{};
  weft_judge_process(&q, &value, const_cast<bpf::ProcessState*>(&state), FindIn, &answer);
  return answer.action;
}

TEST(ProcessPolicy, CompiledAnswersAreThoseOfAWalkOverTheRules) {
  int asked = 0, said = 0;
  for (uint32_t seed = 0; seed < 300; ++seed) {
    World world(seed);
    Numbers rules;
    CompilerNumbers numbers{.rules = rules};
    const Compiled compiled = Compile(world.snapshot_, world.subjects_, numbers, world.services_);
    ASSERT_TRUE(compiled.problems.empty());
    for (int i = 0; i < 150; ++i) {
      const Subject& subject = world.subjects_[size_t(world.Below(2))];
      const Program program = world.RandomProgram();
      const SocketAddress to{world.RandomIp(), world.RandomPort()};
      const std::vector<SocketAddress> there = {to};
      const uint32_t connect = AskOf(compiled, numbers, subject.id, program, WEFT_ASKS_CONNECT,
                                     ClassIn(compiled.state, to.ip), to.port);
      ASSERT_EQ(connect, Walk(world.snapshot_, subject.uid, program, &there))
          << "seed " << seed << " " << program.path << " to " << to.ToString();
      ASSERT_EQ(AskOf(compiled, numbers, subject.id, program, WEFT_ASKS_EXEC, 0, 0),
                Walk(world.snapshot_, subject.uid, program, nullptr))
          << "seed " << seed << " " << program.path;
      for (const L7Service& service : world.services_) {
        ASSERT_EQ(AskOf(compiled, numbers, subject.id, program, WEFT_ASKS_SERVICE, service.id, 0),
                  Walk(world.snapshot_, subject.uid, program, &service.endpoints))
            << "seed " << seed << " " << program.path << " service " << service.id;
      }
      asked += 4;
      said += connect != WEFT_PROCESS_PASS;
    }
  }
  printf("%d questions, %d connects with an answer\n", asked, said);
  EXPECT_GT(said, 3000);
}

TEST(ProcessPolicy, MoreArgumentsThanBitsAreSaid) {
  World world(0);
  world.snapshot_.process_policies.clear();
  auto policy = std::make_shared<ProcessPolicy>();
  policy->namespace_name = "a";
  policy->name = "p";
  policy->subjects = {"pod0"};
  for (int i = 0; i < 65; ++i) {
    ProcessPolicy::Rule rule{.name = absl::StrCat("r", i), .connects = true};
    rule.binaries = {absl::StrCat("/bin/", i)};
    rule.arguments = {absl::StrCat("-", i)};
    rule.action = i % 2 == 0 ? Action::kDeny : Action::kKill;
    policy->rules.push_back(rule);
  }
  world.snapshot_.process_policies[policy->Key()] = policy;
  Numbers rules;
  CompilerNumbers numbers{.rules = rules};
  const Compiled compiled = Compile(world.snapshot_, world.subjects_, numbers);
  ASSERT_EQ(compiled.problems.size(), 1u);
  EXPECT_NE(compiled.problems[0].find("a/p r64"), std::string::npos) << compiled.problems[0];
  // What would deny does, whatever the arguments.
  EXPECT_EQ(AskOf(compiled, numbers, 1, {"/bin/64", {}}, WEFT_ASKS_CONNECT, 0, 80),
            uint32_t{WEFT_PROCESS_DENY});
  EXPECT_EQ(AskOf(compiled, numbers, 1, {"/bin/62", {}}, WEFT_ASKS_CONNECT, 0, 80),
            uint32_t{WEFT_PROCESS_PASS});
}

}  // namespace
}  // namespace weft::rules
