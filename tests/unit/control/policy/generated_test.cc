// SPDX-License-Identifier: Apache-2.0
// Random policies, workloads and blocks: what was compiled, asked as the kernel asks it, must
// answer as a plain walk over the rules does.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "absl/strings/str_cat.h"
#include "tests/unit/control/policy/compiled.h"
#include "xds/model/authorization.h"

namespace weft::rules {
namespace {

using model::Authorization;
using model::NetworkPolicy;

constexpr int kWorlds = 1500;
constexpr int kStepsPerWorld = 3;  // the numbers of one compilation are used by the next
constexpr int kQuestionsPerStep = 60;

class World {
 public:
  explicit World(uint32_t seed) : random_(seed) {
    const int workloads = 3 + Below(10);
    for (int i = 0; i < workloads; ++i) AddWorkload(i);
    for (int step = Below(6); step > 0; --step) AddNetworkPolicy();
    for (int step = Below(5); step > 0; --step) AddAuthorization();
  }

  void Change() {
    snapshot_.network_policies.clear();
    snapshot_.authorizations.clear();
    for (int step = Below(6); step > 0; --step) AddNetworkPolicy();
    for (int step = Below(5); step > 0; --step) AddAuthorization();
  }

  int Below(int end) { return std::uniform_int_distribution<int>(0, end - 1)(random_); }
  bool Maybe(int percent) { return Below(100) < percent; }

  // In the universe where the workloads live, and a little beyond.
  IpAddress RandomIp() {
    if (Maybe(20)) return *IpAddress::Parse(absl::StrCat("fd00::", Below(3), ":", Below(6)));
    return *IpAddress::Parse(absl::StrCat("10.0.", Below(3), ".", Below(24)));
  }
  uint16_t RandomPort() {
    static constexpr uint16_t kUsual[] = {0, 1, 22, 80, 443, 8080, 8443, 65535};
    return Maybe(60) ? kUsual[Below(std::size(kUsual))] : static_cast<uint16_t>(Below(65536));
  }

  const model::Snapshot& snapshot() const { return snapshot_; }
  const std::vector<Subject>& subjects() const { return subjects_; }

 private:
  void AddWorkload(int i) {
    auto workload = std::make_shared<model::Workload>();
    workload->uid = absl::StrCat("pod", i);
    workload->name = workload->uid;
    workload->namespace_name = Maybe(50) ? "a" : "b";
    workload->service_account = absl::StrCat("sa", Below(3));
    workload->trust_domain = "td";
    workload->addresses = {*IpAddress::Parse(absl::StrCat("10.0.", i % 3, ".", i))};
    if (Maybe(30)) workload->addresses.push_back(*IpAddress::Parse(absl::StrCat("fd00::1:", i)));
    snapshot_.workloads[workload->uid] = workload;
    uids_.push_back(workload->uid);
    if (!Maybe(50)) return;
    subjects_.push_back({static_cast<uint32_t>(subjects_.size() + 1),
                         Maybe(95) ? workload->uid : "", workload->Identity(),
                         workload->addresses});
  }

  NetworkPolicy::Prefix RandomPrefix() {
    const IpAddress ip = RandomIp();
    return {ip, static_cast<uint32_t>(Maybe(10)    ? 0
                                      : ip.is_v4() ? 20 + Below(13)
                                                   : 100 + Below(29))};
  }

  NetworkPolicy::Block RandomBlock() {
    NetworkPolicy::Block block{.cidr = RandomPrefix()};
    for (int i = Below(3); i > 0; --i) {
      NetworkPolicy::Prefix hole = RandomPrefix();
      // Within it, as the manifest must have it.
      hole.length = std::max(hole.length, block.cidr.length);
      block.except.push_back(hole);
    }
    return block;
  }

  NetworkPolicy::Rule RandomRule(uint32_t index) {
    NetworkPolicy::Rule rule{.index = index};
    rule.any_peer = Maybe(15);
    for (int i = Below(4); i > 0 && !rule.any_peer; --i) {
      rule.workloads.push_back(Maybe(90) ? uids_[Below(static_cast<int>(uids_.size()))] : "gone");
    }
    for (int i = Below(3); i > 0 && !rule.any_peer; --i) rule.blocks.push_back(RandomBlock());
    rule.any_port = Maybe(25);
    for (int i = Below(4); i > 0 && !rule.any_port; --i) {
      uint16_t first = RandomPort(), last = Maybe(50) ? first : RandomPort();
      if (first > last) std::swap(first, last);
      rule.ports.push_back({static_cast<NetworkPolicy::Protocol>(Below(3)), first, last});
    }
    return rule;
  }

  void AddNetworkPolicy() {
    auto policy = std::make_shared<NetworkPolicy>();
    policy->namespace_name = "a";
    policy->name = absl::StrCat("np", snapshot_.network_policies.size());
    for (const std::string& uid : uids_) {
      if (Maybe(50)) policy->subjects.push_back(uid);
    }
    policy->isolates_ingress = Maybe(70);
    policy->isolates_egress = Maybe(50);
    for (int i = Below(4); i > 0; --i) {
      policy->ingress.push_back(RandomRule(static_cast<uint32_t>(policy->ingress.size())));
    }
    for (int i = Below(4); i > 0; --i) {
      policy->egress.push_back(RandomRule(static_cast<uint32_t>(policy->egress.size())));
    }
    snapshot_.network_policies[policy->Key()] = policy;
  }

  Authorization::Match RandomMatch() {
    Authorization::Match match;
    const auto account = [&] {
      return Authorization::ServiceAccount{Maybe(50) ? "a" : "b", absl::StrCat("sa", Below(3))};
    };
    const auto prefix = [&] {
      const NetworkPolicy::Prefix p = RandomPrefix();
      return Authorization::Prefix{p.address, p.length};
    };
    if (Maybe(40)) match.service_accounts.push_back(account());
    if (Maybe(15)) match.not_service_accounts.push_back(account());
    if (Maybe(30)) match.namespaces.push_back({Authorization::Text::Kind::kExact, "a"});
    if (Maybe(10)) match.not_principals.push_back({Authorization::Text::Kind::kSuffix, "sa1"});
    if (Maybe(30)) match.destination_ports.push_back(RandomPort());
    if (Maybe(15)) match.not_destination_ports.push_back(RandomPort());
    if (Maybe(25)) match.source_ips.push_back(prefix());
    if (Maybe(15)) match.not_source_ips.push_back(prefix());
    if (Maybe(10)) match.destination_ips.push_back(prefix());
    return match;
  }

  void AddAuthorization() {
    auto policy = std::make_shared<Authorization>();
    policy->namespace_name = Maybe(50) ? "a" : "b";
    policy->name = absl::StrCat("az", snapshot_.authorizations.size());
    policy->scope = static_cast<Authorization::Scope>(Below(3));
    policy->action = Maybe(50) ? Authorization::Action::kAllow : Authorization::Action::kDeny;
    policy->dry_run = Maybe(20);
    for (int group = Below(3); group > 0; --group) {
      policy->groups.emplace_back();
      for (int rule = Below(3); rule > 0; --rule) {
        policy->groups.back().emplace_back();
        for (int i = Below(3); i > 0; --i) policy->groups.back().back().push_back(RandomMatch());
      }
    }
    snapshot_.authorizations[policy->Key()] = policy;
    if (policy->scope != Authorization::Scope::kWorkload) return;
    for (auto& [uid, workload] : snapshot_.workloads) {
      if (!Maybe(40)) continue;
      auto copy = std::make_shared<model::Workload>(*workload);
      copy->authorization_policies = {Maybe(95) ? policy->Key() : "a/nowhere"};
      workload = copy;
    }
  }

  std::mt19937 random_;
  model::Snapshot snapshot_;
  std::vector<std::string> uids_;
  std::vector<Subject> subjects_;
};

// The plain walk.

const Subject* SubjectAt(const World& world, const IpAddress& ip) {
  for (const Subject& subject : world.subjects()) {
    if (std::ranges::count(subject.addresses, ip) > 0) return &subject;
  }
  return nullptr;
}

bool PeerMatches(const World& world, const NetworkPolicy::Rule& rule, const IpAddress& peer) {
  if (rule.any_peer) return true;
  for (const std::string& uid : rule.workloads) {
    auto found = world.snapshot().workloads.find(uid);
    if (found != world.snapshot().workloads.end() &&
        std::ranges::count(found->second->addresses, peer) > 0) {
      return true;
    }
  }
  for (const NetworkPolicy::Block& block : rule.blocks) {
    const auto within = [&](const NetworkPolicy::Prefix& p) {
      return peer.is_v4() == p.address.is_v4() && peer.InPrefix(p.address, p.length);
    };
    if (within(block.cidr) && std::ranges::none_of(block.except, within)) return true;
  }
  return false;
}

bool PortMatches(const NetworkPolicy::Rule& rule, uint8_t protocol, uint16_t port) {
  static constexpr NetworkPolicy::Protocol kProtocols[] = {
      NetworkPolicy::Protocol::kTcp, NetworkPolicy::Protocol::kUdp, NetworkPolicy::Protocol::kSctp};
  if (rule.any_port) return true;
  if (protocol == WEFT_PROTOCOL_OTHER) return false;
  return std::ranges::any_of(rule.ports, [&](const NetworkPolicy::Port& p) {
    return p.protocol == kProtocols[protocol - 1] && p.first <= port && port <= p.last;
  });
}

bool NetworkAllows(const World& world, const Subject& subject, bool egress, const IpAddress& peer,
                   uint8_t protocol, uint16_t port) {
  bool isolated = false;
  for (const auto& [key, policy] : world.snapshot().network_policies) {
    if (std::ranges::count(policy->subjects, subject.uid) == 0) continue;
    if (!(egress ? policy->isolates_egress : policy->isolates_ingress)) continue;
    isolated = true;
    for (const auto& rule : egress ? policy->egress : policy->ingress) {
      if (PeerMatches(world, rule, peer) && PortMatches(rule, protocol, port)) return true;
    }
  }
  return !isolated;
}

bool AuthorizationAllows(const World& world, const Subject& subject, const Subject& source,
                         const IpAddress& source_ip, const IpAddress& ip, uint16_t port) {
  const Applicable applicable =
      ApplicableTo(world.snapshot(), *world.snapshot().workloads.at(subject.uid));
  return model::Evaluate(applicable.policies, applicable.unknown_reference,
                         {.source_identity = source.identity,
                          .source_ip = source_ip,
                          .destination = {ip, port}})
      .allowed;
}

bool WalkAllows(const World& world, const Compiled& compiled, const Ask& ask) {
  const Subject* source = SubjectAt(world, ask.source);
  const Subject* destination = SubjectAt(world, ask.destination);
  // Network policy does not keep a workload from itself.
  const bool itself = source != nullptr && source == destination;
  if (itself && ask.protocol != WEFT_PROTOCOL_TCP) return true;
  if ((source != nullptr && source->uid.empty()) ||
      (destination != nullptr && destination->uid.empty())) {
    return false;
  }
  if (source != nullptr && !itself &&
      !NetworkAllows(world, *source, true, ask.destination, ask.protocol, ask.port)) {
    return false;
  }
  if (destination == nullptr) return true;
  if (!itself && !NetworkAllows(world, *destination, false, ask.source, ask.protocol, ask.port))
    return false;
  if (source == nullptr || ask.protocol != WEFT_PROTOCOL_TCP ||
      compiled.left_to_the_proxy.contains(destination->id)) {
    return true;
  }
  return AuthorizationAllows(world, *destination, *source, ask.source, ask.destination, ask.port);
}

TEST(Generated, TheCompiledAnswerIsThatOfAPlainWalk) {
  int asked = 0, allowed = 0, most_lengths = 0;
  for (uint32_t seed = 1; seed <= kWorlds; ++seed) {
    World world(seed);
    Numbers rules;
    CompilerNumbers numbers{.rules = rules};
    for (int step = 0; step < kStepsPerWorld; ++step) {
      const Compiled compiled = Compile(world.snapshot(), world.subjects(), numbers);
      for (const auto& [id, layers] : compiled.state.subjects) {
        for (const bpf::LayerState& layer : layers) {
          most_lengths = std::max(most_lengths, __builtin_popcount(layer.lengths));
        }
      }
      for (int i = 0; i < kQuestionsPerStep; ++i) {
        Ask ask{.port = world.RandomPort()};
        ask.protocol = static_cast<uint8_t>(1 + world.Below(4));
        if (world.Maybe(50)) ask.protocol = WEFT_PROTOCOL_TCP;
        if (ask.protocol == WEFT_PROTOCOL_OTHER) ask.port = 0;
        const auto end = [&] {
          const bool local = world.Maybe(60) && !world.subjects().empty();
          if (!local) return world.RandomIp();
          const auto& subjects = world.subjects();
          const auto& subject = subjects[world.Below(static_cast<int>(subjects.size()))];
          return subject.addresses[world.Below(static_cast<int>(subject.addresses.size()))];
        };
        ask.source = end();
        ask.destination = end();
        if (ask.source == ask.destination) continue;
        const Subject* source = SubjectAt(world, ask.source);
        const Subject* destination = SubjectAt(world, ask.destination);
        ask.source_subject = source != nullptr ? source->id : 0;
        ask.destination_subject = destination != nullptr ? destination->id : 0;
        // Only workloads of this node connect without the proxy.
        if (source == nullptr) ask.layers &= ~(1u << WEFT_LAYER_AUTHORIZATION);
        const bool walk = WalkAllows(world, compiled, ask);
        const weft_answer answer = AskCompiled(compiled.state, ask);
        ASSERT_EQ(answer.allowed != 0, walk)
            << "seed " << seed << " step " << step << " " << ask.source.ToString() << " -> "
            << ask.destination.ToString() << ":" << ask.port << " protocol " << int{ask.protocol}
            << ", layer " << answer.layer << ", rule " << rules.NameOf(answer.rule);
        // A denial has a name.
        if (!walk) {
          ASSERT_NE(rules.NameOf(answer.rule), "") << "seed " << seed;
        }
        ++asked;
        allowed += walk;
      }
      world.Change();
    }
  }
  RecordProperty("asked", asked);
  RecordProperty("allowed", allowed);
  std::cout << "seeds 1 to " << kWorlds << ": " << asked << " questions, " << allowed
            << " allowed, at most " << most_lengths << " lengths in a layer\n";
  EXPECT_GT(allowed, asked / 10);
  EXPECT_LT(allowed, asked * 9 / 10);
}

}  // namespace
}  // namespace weft::rules
