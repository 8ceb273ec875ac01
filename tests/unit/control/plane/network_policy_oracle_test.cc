// SPDX-License-Identifier: Apache-2.0
// Random pods and NetworkPolicies as manifests -> what the agent gets over the wire, against a
// plain reading of the Kubernetes API text ("the pod is isolated if a policy selects it ... allowed
// is what some rule of those policies allows") of the same random values. The two share no code:
// the oracle never sees a parsed object.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "control/plane/translate.h"
#include "tests/unit/control/plane/manifests.h"
#include "xds/decode/decode.h"
#include "xds/server/encode.h"

namespace weft::plane {
namespace {

using Pairs = std::map<std::string, std::string>;

struct Requirement {
  std::string key, op;
  std::vector<std::string> values;
};
struct Selector {
  Pairs labels;
  std::vector<Requirement> requirements;
};
struct Net {
  std::string text;
  IpAddress address;
  unsigned length = 0;
};
struct Peer {
  std::optional<Selector> pods, namespaces;
  std::optional<Net> cidr;
  std::vector<Net> except;
};
struct PortRule {
  std::string protocol;  // empty: not written
  int port = 0, end = 0;
  std::string name;
};
struct Rule {
  std::vector<Peer> peers;
  std::vector<PortRule> ports;
};
struct Policy {
  std::string name, space;
  Selector pods;
  std::vector<std::string> types;
  std::vector<Rule> ingress, egress;
};
struct Pod {
  std::string name, space;
  Pairs labels;
  std::vector<std::string> addresses;
  bool host_network = false, finished = false;
  struct Named {
    std::string name, protocol;
    int port;
  };
  std::vector<Named> ports;
  std::string Uid() const { return "Kubernetes//Pod/" + space + "/" + name; }
};
struct World {
  std::map<std::string, Pairs> spaces;  // those with an object
  std::vector<Pod> pods;
  std::vector<Policy> policies;
};
// One end of a connection: a pod, or somebody outside.
struct End {
  const Pod* pod = nullptr;
  IpAddress address;
};
struct Call {
  End from, to;
  std::string protocol;
  int port = 0;
};

// ---- Making ----

class Maker {
 public:
  explicit Maker(uint64_t seed) : random_(seed) {}

  World Make() {
    World world;
    for (const char* name : {"red", "green", "blue"}) {
      if (Below(4) > 0) world.spaces[name] = RandomLabels();
    }
    const int pods = 4 + Below(8);
    for (int i = 0; i < pods; ++i) world.pods.push_back(RandomPod(i));
    const int policies = 1 + Below(4);
    for (int i = 0; i < policies; ++i) world.policies.push_back(RandomPolicy(i));
    return world;
  }
  Call RandomCall(const World& world) {
    Call call;
    call.from = RandomEnd(world);
    call.to = RandomEnd(world);
    call.protocol = Pick({"TCP", "TCP", "UDP", "SCTP"});
    call.port = std::stoi(Pick({"53", "80", "81", "443", "8080", "9090", "5353"}));
    return call;
  }

 private:
  int Below(int n) { return static_cast<int>(random_() % static_cast<uint64_t>(n)); }
  std::string Pick(std::initializer_list<const char*> from) {
    return from.begin()[Below(static_cast<int>(from.size()))];
  }
  Pairs RandomLabels() {
    Pairs labels;
    if (Below(4) > 0) labels["app"] = Pick({"a", "b", "c"});
    if (Below(2) == 0) labels["tier"] = Pick({"x", "y"});
    if (Below(5) == 0) labels["x.io/flag"] = "";
    return labels;
  }
  Pod RandomPod(int i) {
    Pod pod{.name = "p" + std::to_string(i), .space = Pick({"red", "green", "blue"})};
    pod.labels = RandomLabels();
    pod.addresses.push_back("10.0." + std::to_string(Below(4)) + "." + std::to_string(i + 1));
    if (Below(2) == 0) pod.addresses.push_back("fd00::" + std::to_string(i + 1));
    pod.host_network = Below(10) == 0;
    pod.finished = Below(12) == 0;
    if (Below(3) > 0) pod.ports.push_back({"http", "TCP", Below(2) == 0 ? 8080 : 9090});
    if (Below(4) == 0) pod.ports.push_back({"http", "TCP", 80});  // of a second container
    if (Below(3) == 0) pod.ports.push_back({"dns", "UDP", Below(2) == 0 ? 53 : 5353});
    if (Below(4) == 0) pod.ports.push_back({"dns", "TCP", 53});
    return pod;
  }
  Selector RandomSelector(bool of_namespace) {
    Selector selector;
    if (Below(4) == 0) return selector;
    if (of_namespace && Below(2) == 0) {
      selector.labels["kubernetes.io/metadata.name"] = Pick({"red", "green", "blue"});
      return selector;
    }
    if (Below(2) == 0) selector.labels["app"] = Pick({"a", "b", "c"});
    if (Below(4) == 0) selector.labels["tier"] = Pick({"x", "y"});
    while (Below(3) == 0) {
      Requirement each{
          Pick({"app", "tier", "x.io/flag"}), Pick({"In", "NotIn", "Exists", "DoesNotExist"}), {}};
      if (each.op == "In" || each.op == "NotIn") {
        each.values.push_back(Pick({"a", "b", "x"}));
        if (Below(2) == 0) each.values.push_back(Pick({"c", "y"}));
      }
      selector.requirements.push_back(each);
    }
    return selector;
  }
  static Net Cidr(const std::string& address, unsigned length) {
    return {address + "/" + std::to_string(length), *IpAddress::Parse(address), length};
  }
  Peer RandomPeer() {
    Peer peer;
    switch (Below(5)) {
      case 0:
        peer.pods = RandomSelector(false);
        break;
      case 1:
        peer.namespaces = RandomSelector(true);
        break;
      case 2:
        peer.pods = RandomSelector(false);
        peer.namespaces = RandomSelector(true);
        break;
      case 3:
        peer.cidr = Below(2) == 0 ? Cidr("10.0.0.0", 16) : Cidr("10.0.1.7", 23);
        while (Below(3) == 0) {
          peer.except.push_back(Cidr("10.0." + std::to_string(Below(2)) + ".0", 24 + Below(6)));
        }
        break;
      default:
        peer.cidr = Below(2) == 0 ? Cidr("fd00::", 16) : Cidr("0.0.0.0", 0);
    }
    return peer;
  }
  PortRule RandomPort() {
    PortRule port{.protocol = Pick({"", "TCP", "UDP", "SCTP", "TCP"})};
    switch (Below(4)) {
      case 0:
        port.name = Pick({"http", "dns", "none"});
        break;
      case 1:
        port.port = 50 + Below(40);
        port.end = port.port + Below(400);
        break;
      case 2:
        port.port = std::stoi(Pick({"80", "53", "8080", "443"}));
        break;
      default:
        break;
    }
    return port;
  }
  Rule RandomRule() {
    Rule rule;
    while (Below(3) > 0) rule.peers.push_back(RandomPeer());
    while (Below(2) > 0) rule.ports.push_back(RandomPort());
    return rule;
  }
  Policy RandomPolicy(int i) {
    Policy policy{.name = "n" + std::to_string(i), .space = Pick({"red", "green", "blue"})};
    policy.pods = RandomSelector(false);
    if (Below(3) > 0) policy.types.push_back(Pick({"Ingress", "Egress"}));
    if (!policy.types.empty() && Below(3) == 0) {
      policy.types = {"Ingress", "Egress"};
    }
    while (Below(2) > 0) policy.ingress.push_back(RandomRule());
    while (Below(2) > 0) policy.egress.push_back(RandomRule());
    return policy;
  }
  End RandomEnd(const World& world) {
    if (Below(5) == 0) {
      return {nullptr, *IpAddress::Parse(
                           Pick({"10.0.0.200", "10.0.1.200", "8.8.8.8", "fd00::99", "fe00::1"}))};
    }
    const Pod& pod = world.pods[static_cast<size_t>(Below(static_cast<int>(world.pods.size())))];
    const auto& text =
        pod.addresses[static_cast<size_t>(Below(static_cast<int>(pod.addresses.size())))];
    return {&pod, *IpAddress::Parse(text)};
  }

  std::mt19937_64 random_;
};

// ---- Writing ----

std::string Quoted(const std::string& text) { return "\"" + text + "\""; }

std::string Text(const Pairs& pairs) {
  std::string out = "{";
  for (const auto& [key, value] : pairs)
    out += (out == "{" ? "" : ", ") + key + ": " + Quoted(value);
  return out + "}";
}

std::string Text(const Selector& selector) {
  std::string out = "{matchExpressions: [";
  for (size_t i = 0; i < selector.requirements.size(); ++i) {
    const Requirement& each = selector.requirements[i];
    out += (i == 0 ? "{key: " : ", {key: ") + each.key + ", operator: " + each.op + ", values: [";
    for (size_t j = 0; j < each.values.size(); ++j) out += (j == 0 ? "" : ", ") + each.values[j];
    out += "]}";
  }
  return out + "], matchLabels: " + Text(selector.labels) + "}";
}

std::string Text(const Peer& peer) {
  std::string out;
  const auto add = [&](const std::string& part) { out += (out.empty() ? "" : ", ") + part; };
  if (peer.pods.has_value()) add("podSelector: " + Text(*peer.pods));
  if (peer.namespaces.has_value()) add("namespaceSelector: " + Text(*peer.namespaces));
  if (peer.cidr.has_value()) {
    std::string except;
    for (const Net& each : peer.except) except += (except.empty() ? "" : ", ") + Quoted(each.text);
    add("ipBlock: {cidr: " + Quoted(peer.cidr->text) + ", except: [" + except + "]}");
  }
  return "{" + out + "}";
}

std::string Text(const PortRule& port) {
  std::string out;
  const auto add = [&](const std::string& part) { out += (out.empty() ? "" : ", ") + part; };
  if (!port.protocol.empty()) add("protocol: " + port.protocol);
  if (!port.name.empty()) add("port: " + port.name);
  if (port.port > 0) add("port: " + std::to_string(port.port));
  if (port.end > 0) add("endPort: " + std::to_string(port.end));
  return "{" + out + "}";
}

std::string Text(const std::vector<Rule>& rules, const char* direction) {
  std::string out = "[";
  for (const Rule& rule : rules) {
    out += out == "[" ? "{" : ", {";
    out += std::string(direction) + ": [";
    for (size_t i = 0; i < rule.peers.size(); ++i)
      out += (i == 0 ? "" : ", ") + Text(rule.peers[i]);
    out += "], ports: [";
    for (size_t i = 0; i < rule.ports.size(); ++i)
      out += (i == 0 ? "" : ", ") + Text(rule.ports[i]);
    out += "]}";
  }
  return out + "]";
}

std::string Text(const Pod& pod) {
  std::string ports, addresses;
  for (const auto& each : pod.ports) {
    // Each of a container of its own: one container names a port once.
    ports += "    - {name: c, ports: [{name: " + each.name + ", protocol: " + each.protocol +
             ", containerPort: " + std::to_string(each.port) + "}]}\n";
  }
  for (const std::string& each : pod.addresses) {
    addresses += (addresses.empty() ? "{ip: " : ", {ip: ") + Quoted(each) + "}";
  }
  return "apiVersion: v1\nkind: Pod\nmetadata: {name: " + pod.name + ", namespace: " + pod.space +
         ", labels: " + Text(pod.labels) +
         "}\nspec:\n  hostNetwork: " + (pod.host_network ? "true" : "false") +
         "\n  containers:\n    - {name: first}\n" + ports + "status: {podIPs: [" + addresses +
         "], phase: " + (pod.finished ? "Succeeded" : "Running") + "}\n---\n";
}

std::string Text(const World& world) {
  std::string out;
  for (const auto& [name, labels] : world.spaces) {
    out += "apiVersion: v1\nkind: Namespace\nmetadata: {name: " + name +
           ", labels: " + Text(labels) + "}\n---\n";
  }
  for (const Pod& pod : world.pods) out += Text(pod);
  for (const Policy& policy : world.policies) {
    std::string types;
    for (const std::string& type : policy.types) types += (types.empty() ? "" : ", ") + type;
    out +=
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: " + policy.name +
        ", namespace: " + policy.space + "}\nspec:\n  podSelector: " + Text(policy.pods) +
        (types.empty() ? "" : "\n  policyTypes: [" + types + "]") +
        "\n  ingress: " + Text(policy.ingress, "from") +
        "\n  egress: " + Text(policy.egress, "to") + "\n---\n";
  }
  return out;
}

// ---- Kubernetes, as its API text says ----

class Oracle {
 public:
  explicit Oracle(const World& world) : world_(world) {}

  bool MayEnter(const Call& call) const { return Judge(call, true); }
  bool MayLeave(const Call& call) const { return Judge(call, false); }

 private:
  static bool IsPod(const End& end) {
    return end.pod != nullptr && !end.pod->host_network && !end.pod->finished;
  }
  static bool Selects(const Selector& selector, const Pairs& labels) {
    for (const auto& [key, value] : selector.labels) {
      if (!labels.contains(key) || labels.at(key) != value) return false;
    }
    for (const Requirement& each : selector.requirements) {
      const bool has = labels.contains(each.key);
      const bool in =
          has && std::count(each.values.begin(), each.values.end(), labels.at(each.key)) > 0;
      if (each.op == "In" && !in) return false;
      if (each.op == "NotIn" && in) return false;
      if (each.op == "Exists" && !has) return false;
      if (each.op == "DoesNotExist" && has) return false;
    }
    return true;
  }
  Pairs SpaceLabels(const std::string& name) const {
    Pairs labels;
    if (world_.spaces.contains(name)) labels = world_.spaces.at(name);
    labels["kubernetes.io/metadata.name"] = name;
    return labels;
  }
  static bool IsIn(const IpAddress& ip, const Net& net) {
    return ip.is_v4() == net.address.is_v4() && ip.InPrefix(net.address, net.length);
  }
  bool IsPeer(const Peer& peer, const Policy& policy, const End& end) const {
    if (peer.cidr.has_value()) {
      if (!IsIn(end.address, *peer.cidr)) return false;
      for (const Net& each : peer.except) {
        if (IsIn(end.address, each)) return false;
      }
      return true;
    }
    if (!IsPod(end)) return false;
    if (peer.namespaces.has_value()) {
      if (!Selects(*peer.namespaces, SpaceLabels(end.pod->space))) return false;
    } else if (end.pod->space != policy.space) {
      return false;
    }
    return !peer.pods.has_value() || Selects(*peer.pods, end.pod->labels);
  }
  static bool IsPort(const PortRule& port, const Call& call) {
    const std::string protocol = port.protocol.empty() ? "TCP" : port.protocol;
    if (protocol != call.protocol) return false;
    if (!port.name.empty()) {  // of the pod that is called
      if (!IsPod(call.to)) return false;
      for (const auto& each : call.to.pod->ports) {
        if (each.name == port.name && each.protocol == protocol && each.port == call.port)
          return true;
      }
      return false;
    }
    if (port.port == 0) return true;
    return call.port >= port.port && call.port <= std::max(port.port, port.end);
  }
  bool Judge(const Call& call, bool ingress) const {
    const End& subject = ingress ? call.to : call.from;
    const End& other = ingress ? call.from : call.to;
    if (!IsPod(subject)) return true;
    bool isolated = false;
    for (const Policy& policy : world_.policies) {
      if (policy.space != subject.pod->space || !Selects(policy.pods, subject.pod->labels))
        continue;
      bool affects = ingress || !policy.egress.empty();
      if (!policy.types.empty()) {
        affects = std::count(policy.types.begin(), policy.types.end(),
                             ingress ? "Ingress" : "Egress") > 0;
      }
      if (!affects) continue;
      isolated = true;
      for (const Rule& rule : ingress ? policy.ingress : policy.egress) {
        bool peer = rule.peers.empty(), port = rule.ports.empty();
        for (const Peer& each : rule.peers) peer |= IsPeer(each, policy, other);
        for (const PortRule& each : rule.ports) port |= IsPort(each, call);
        if (peer && port) return true;
      }
    }
    return !isolated;
  }

  const World& world_;
};

// ---- What was sent, as xds/model/network_policy.h says ----

bool Sent(const std::vector<model::NetworkPolicy>& policies, const Call& call, bool ingress) {
  using Protocol = model::NetworkPolicy::Protocol;
  const End& subject = ingress ? call.to : call.from;
  const End& other = ingress ? call.from : call.to;
  const Protocol protocol = call.protocol == "TCP"   ? Protocol::kTcp
                            : call.protocol == "UDP" ? Protocol::kUdp
                                                     : Protocol::kSctp;
  const auto has = [](const std::vector<std::string>& uids, const End& end) {
    return end.pod != nullptr && std::count(uids.begin(), uids.end(), end.pod->Uid()) > 0;
  };
  const auto in = [&](const model::NetworkPolicy::Prefix& prefix) {
    return other.address.is_v4() == prefix.address.is_v4() &&
           other.address.InPrefix(prefix.address, prefix.length);
  };
  bool isolated = false;
  for (const auto& policy : policies) {
    if (!(ingress ? policy.isolates_ingress : policy.isolates_egress)) continue;
    if (!has(policy.subjects, subject)) continue;
    isolated = true;
    for (const auto& rule : ingress ? policy.ingress : policy.egress) {
      bool peer = rule.any_peer || has(rule.workloads, other), port = rule.any_port;
      for (const auto& block : rule.blocks) {
        peer |= in(block.cidr) && std::none_of(block.except.begin(), block.except.end(), in);
      }
      for (const auto& each : rule.ports) {
        port |= each.protocol == protocol && call.port >= each.first && call.port <= each.last;
      }
      if (peer && port) return true;
    }
  }
  return !isolated;
}

std::vector<model::NetworkPolicy> OverTheWire(const std::vector<model::NetworkPolicy>& policies) {
  std::vector<model::NetworkPolicy> out;
  for (const model::NetworkPolicy& policy : policies) {
    const xds::Encoded encoded = xds::Encode(policy);
    auto decoded = xds::DecodeResource(encoded.type_url, encoded.bytes);
    EXPECT_TRUE(decoded.ok()) << decoded.status();
    if (!decoded.ok()) continue;
    EXPECT_EQ(decoded->name, encoded.name);
    out.push_back(*std::get<std::shared_ptr<const model::NetworkPolicy>>(decoded->resource));
    EXPECT_EQ(out.back(), policy);
  }
  return out;
}

TEST(NetworkPolicyOracle, TranslationAgreesWithTheApisText) {
  constexpr int kWorlds = 400;
  constexpr int kCallsEach = 40;
  int allowed = 0, denied = 0, split = 0;
  for (int seed = 1; seed <= kWorlds; ++seed) {
    Maker maker(static_cast<uint64_t>(seed));
    const World world = maker.Make();
    const std::string text = Text(world);
    LoadResult loaded = Load(text);
    ASSERT_EQ(Texts(loaded.problems), std::vector<std::string>()) << text;
    Problems problems;
    const Configuration config = Translate(loaded.set, {}, &problems);
    const auto policies = OverTheWire(config.network_policies);
    std::set<std::string> keys;
    for (const auto& each : policies) {
      EXPECT_TRUE(keys.insert(each.Key()).second) << each.Key();
      for (const auto* rules : {&each.ingress, &each.egress}) {
        std::set<uint32_t> indices;  // by which the agent knows the rules
        for (const auto& rule : *rules) EXPECT_TRUE(indices.insert(rule.index).second);
      }
    }
    for (const auto& each : policies) split += each.name.find('~') != std::string::npos;
    const Oracle oracle(world);
    for (int i = 0; i < kCallsEach; ++i) {
      const Call call = maker.RandomCall(world);
      for (const bool ingress : {true, false}) {
        const bool expected = ingress ? oracle.MayEnter(call) : oracle.MayLeave(call);
        ++(expected ? allowed : denied);
        ASSERT_EQ(Sent(policies, call, ingress), expected)
            << "seed " << seed << (ingress ? ", ingress: " : ", egress: ")
            << (call.from.pod ? call.from.pod->Uid() : "outside") << " "
            << call.from.address.ToString() << " -> "
            << (call.to.pod ? call.to.pod->Uid() : "outside") << " " << call.to.address.ToString()
            << " " << call.protocol << " " << call.port << "\n"
            << text;
      }
    }
  }
  printf("%d questions: %d allowed, %d denied; %d parts by named port\n", allowed + denied, allowed,
         denied, split);
  // Cases where everything is allowed or denied would compare nothing.
  EXPECT_GT(allowed, 2000);
  EXPECT_GT(denied, 2000);
  EXPECT_GT(split, 50);
}

}  // namespace
}  // namespace weft::plane
