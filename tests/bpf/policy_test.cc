// SPDX-License-Identifier: Apache-2.0
// Policy on real sockets: compiled from the model as the agent does, in force at once, and for live
// connections too.
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <thread>

#include <bpf/bpf.h>

#include "control/bpf/address.h"
#include "control/bpf/pins.h"
#include "control/policy/compile.h"
#include "tests/bpf/testbed.h"

namespace weft::bpf {
namespace {

using model::Authorization;
using model::NetworkPolicy;
using Clock = std::chrono::steady_clock;

constexpr uint16_t kPort = 8080;
constexpr uint32_t kFlags = WEFT_WL_PROXY_READY | WEFT_WL_SPLICE;

NetworkPolicy::Port Tcp(uint16_t first, uint16_t last) {
  return {NetworkPolicy::Protocol::kTcp, first, last};
}

class PolicyTest : public testing::Test {
 protected:
  void SetUp() override {
    for (int i = 0; i < 3; ++i) {
      Pod& pod = network_.pod(i);
      auto workload = std::make_shared<model::Workload>();
      workload->uid = Uid(pod);
      workload->namespace_name = "demo";
      workload->service_account = "sa" + std::to_string(pod.id);
      workload->trust_domain = "td";
      workload->addresses = {pod.v4, pod.v6};
      snapshot_.workloads[workload->uid] = workload;
      subjects_.push_back({pod.id, workload->uid, workload->Identity(), workload->addresses});
      node_.Enrol(pod, kFlags);
    }
    server_ = Listener(server_pod_, kPort);
    other_ = Listener(other_pod_, kPort);
    node_.Events();
  }

  static std::string Uid(const Pod& pod) { return "pod" + std::to_string(pod.id); }

  NetworkPolicy& AddPolicy(const std::string& name, const Pod& subject) {
    auto policy = std::make_shared<NetworkPolicy>();
    policy->namespace_name = "demo";
    policy->name = name;
    policy->subjects = {Uid(subject)};
    snapshot_.network_policies[policy->Key()] = policy;
    return *policy;
  }
  Authorization& AddAuthorization(const std::string& name, const Pod& subject,
                                  Authorization::Action action, const std::string& account) {
    auto policy = std::make_shared<Authorization>();
    policy->namespace_name = "demo";
    policy->name = name;
    policy->action = action;
    policy->scope = Authorization::Scope::kWorkload;
    Authorization::Match match;
    match.service_accounts = {{"demo", account}};
    policy->groups = {{{match}}};
    snapshot_.authorizations[policy->Key()] = policy;
    auto workload = std::make_shared<model::Workload>(*snapshot_.workloads[Uid(subject)]);
    workload->authorization_policies.push_back(policy->Key());
    snapshot_.workloads[Uid(subject)] = workload;
    return *policy;
  }

  PolicyState Compiled() { return rules::Compile(snapshot_, subjects_, numbers_).state; }
  PolicyReport Apply() {
    PolicyReport report = node_.kernel().ApplyPolicy(Compiled());
    EXPECT_TRUE(report.status.ok()) << report.status;
    return report;
  }

  int TryConnect(const Pod& from, const SocketAddress& to) {
    const int family = to.ip.is_v4() ? AF_INET : AF_INET6;
    UniqueFd client = TcpSocket(from, family, Blocking::kYes);
    return Connect(client, to, family);
  }
  std::string RuleOf(const weft_event& event) {
    return std::string(rule_numbers_.NameOf(event.rule));
  }

  Network network_;
  Pod& client_pod_ = network_.pod(0);
  Pod& server_pod_ = network_.pod(1);
  Pod& other_pod_ = network_.pod(2);
  Node node_{"policy", [](KernelConfig& config) { config.sizes.classes = 32768; }};
  UniqueFd server_, other_;
  model::Snapshot snapshot_;
  std::vector<rules::Subject> subjects_;
  rules::Numbers rule_numbers_;
  rules::CompilerNumbers numbers_{.rules = rule_numbers_};
};

TEST_F(PolicyTest, IngressAllowsItsPeersAndPortRangesInBothFamilies) {
  NetworkPolicy& policy = AddPolicy("in", server_pod_);
  policy.isolates_ingress = true;
  policy.ingress = {
      {.index = 0, .workloads = {Uid(client_pod_)}, .ports = {Tcp(8079, 8081), Tcp(9000, 9000)}}};
  Apply();
  UniqueFd edges[] = {Listener(server_pod_, 8079), Listener(server_pod_, 8081),
                      Listener(server_pod_, 8078), Listener(server_pod_, 8082),
                      Listener(server_pod_, 9000)};
  for (const uint16_t port : {8079, 8080, 8081, 9000}) {
    EXPECT_EQ(TryConnect(client_pod_, server_pod_.At(port)), 0) << port;
    EXPECT_EQ(TryConnect(client_pod_, server_pod_.At6(port)), 0) << port;
  }
  for (const uint16_t port : {8078, 8082}) {
    EXPECT_EQ(TryConnect(client_pod_, server_pod_.At(port)), EPERM) << port;
    EXPECT_EQ(TryConnect(client_pod_, server_pod_.At6(port)), EPERM) << port;
  }
  node_.Events();
  EXPECT_EQ(TryConnect(other_pod_, server_pod_.At(kPort)), EPERM);
  const weft_event event = node_.WaitEvent(WEFT_EVENT_CONNECT);
  EXPECT_EQ(event.reason, WEFT_R_POLICY_DEFAULT_DENIED);
  EXPECT_EQ(RuleOf(event), "NetworkPolicy demo/in ingress (no rule matches)");
  EXPECT_EQ(TryConnect(server_pod_, other_pod_.At(kPort)), 0);  // egress is not its business
}

TEST_F(PolicyTest, EgressByBlocksWithExceptions) {
  NetworkPolicy& policy = AddPolicy("out", client_pod_);
  policy.isolates_egress = true;
  policy.egress = {
      {.index = 0,
       .blocks = {{.cidr = {*IpAddress::Parse("10.77.0.0"), 24}, .except = {{other_pod_.v4, 32}}}},
       .any_port = true}};
  Apply();
  EXPECT_EQ(TryConnect(client_pod_, server_pod_.At(kPort)), 0);
  EXPECT_EQ(TryConnect(client_pod_, other_pod_.At(kPort)), EPERM);
  EXPECT_EQ(TryConnect(client_pod_, server_pod_.At6(kPort)), EPERM);  // another family
  EXPECT_EQ(TryConnect(other_pod_, server_pod_.At(kPort)), 0);
  // Beyond the node: by the proxy, if policy lets it go there.
  Node::Listeners proxy = node_.Listen(client_pod_);
  EXPECT_EQ(TryConnect(client_pod_, {*IpAddress::Parse("10.77.0.200"), 443}), 0);
  EXPECT_EQ(TryConnect(client_pod_, {*IpAddress::Parse("192.0.2.1"), 443}), EPERM);
}

TEST_F(PolicyTest, DenyBeatsAllowAndADryRunIsReported) {
  AddAuthorization("allow", server_pod_, Authorization::Action::kAllow, "sa1");
  Apply();
  EXPECT_EQ(TryConnect(client_pod_, server_pod_.At(kPort)), 0);
  EXPECT_EQ(TryConnect(other_pod_, server_pod_.At(kPort)), EPERM);
  Authorization& deny = AddAuthorization("deny", server_pod_, Authorization::Action::kDeny, "sa1");
  deny.dry_run = true;
  Apply();
  node_.Events();
  EXPECT_EQ(TryConnect(client_pod_, server_pod_.At(kPort)), 0);
  const weft_event audit = node_.WaitEvent(WEFT_EVENT_AUDIT);
  EXPECT_EQ(audit.reason, WEFT_R_POLICY_AUDITED);
  EXPECT_EQ(RuleOf(audit), "demo/deny (dry run, DENY)");
  deny.dry_run = false;
  Apply();
  EXPECT_EQ(TryConnect(client_pod_, server_pod_.At(kPort)), EPERM);
  const weft_event event = node_.WaitEvent(WEFT_EVENT_CONNECT);
  EXPECT_EQ(event.reason, WEFT_R_POLICY_DENIED);
  EXPECT_EQ(RuleOf(event), "demo/deny");
}

TEST_F(PolicyTest, WithoutASubjectNothingIsAllowed) {
  PolicyState state = Compiled();
  state.subjects.erase(server_pod_.id);
  ASSERT_TRUE(node_.kernel().ApplyPolicy(state).status.ok());
  EXPECT_EQ(TryConnect(client_pod_, server_pod_.At(kPort)), EPERM);
  EXPECT_EQ(TryConnect(server_pod_, client_pod_.At(kPort)), EPERM);
  state = Compiled();
  state.classes.erase(client_pod_.v4);  // policy cannot tell who it is
  ASSERT_TRUE(node_.kernel().ApplyPolicy(state).status.ok());
  EXPECT_EQ(TryConnect(client_pod_, server_pod_.At(kPort)), EPERM);
  Apply();
  EXPECT_EQ(TryConnect(client_pod_, server_pod_.At(kPort)), 0);
}

TEST_F(PolicyTest, OurOwnSocketsAreAskedForTheirWorkloads) {
  NetworkPolicy& in = AddPolicy("in", server_pod_);
  in.isolates_ingress = true;
  in.ingress = {{.index = 0,
                 .blocks = {{.cidr = {*IpAddress::Parse("192.0.2.0"), 24}}},
                 .ports = {Tcp(kPort, kPort)}}};
  NetworkPolicy& out = AddPolicy("out", server_pod_);
  out.isolates_egress = true;
  out.egress = {{.index = 0, .workloads = {Uid(other_pod_)}, .ports = {Tcp(kPort, kPort)}}};
  Apply();
  const auto to_app = [&](const char* client) {
    UniqueFd fd = node_.Stamped(server_pod_, WEFT_ROLE_TO_APP, AF_INET);
    const weft_addr shown = ToKernel(SocketAddress{*IpAddress::Parse(client), 5});
    EXPECT_EQ(setsockopt(fd.get(), WEFT_SOL, WEFT_SO_CLIENT, &shown, sizeof shown), 0);
    return Connect(fd, server_pod_.At(kPort));
  };
  EXPECT_EQ(to_app("192.0.2.9"), 0);
  EXPECT_EQ(to_app("198.51.100.1"), EPERM);
  Node::Listeners proxy = node_.Listen(other_pod_);
  // Plain sockets that leave for the workload.
  UniqueFd allowed = node_.Stamped(server_pod_, WEFT_ROLE_TUNNEL, AF_INET);
  EXPECT_EQ(Connect(allowed, other_pod_.At(kPort)), 0);
  UniqueFd denied = node_.Stamped(server_pod_, WEFT_ROLE_TUNNEL, AF_INET);
  EXPECT_EQ(Connect(denied, client_pod_.At(kPort)), EPERM);
  EXPECT_EQ(RuleOf(node_.WaitEvent(WEFT_EVENT_CONNECT)),
            "NetworkPolicy demo/out egress (no rule matches)");
  // Streams of a tunnel.
  const auto permitted = [&](const SocketAddress& to) {
    const weft_addr destination = ToKernel(to);
    const int set =
        setsockopt(allowed.get(), WEFT_SOL, WEFT_SO_PERMIT, &destination, sizeof destination);
    EXPECT_TRUE(set == 0 || errno == EPERM) << strerror(errno);
    return set == 0;
  };
  EXPECT_TRUE(permitted(other_pod_.At(kPort)));
  EXPECT_FALSE(permitted(other_pod_.At(kPort + 1)));
  EXPECT_FALSE(permitted(client_pod_.At(kPort)));
}

// What is there when a connection has been cut: an error at once, not a wait.
bool IsBroken(const UniqueFd& fd, Clock::time_point until) {
  while (Clock::now() < until) {
    pollfd waiting{fd.get(), POLLIN, 0};
    poll(&waiting, 1, 10);
    char byte = 0;
    const ssize_t got = recv(fd.get(), &byte, 1, MSG_DONTWAIT);
    if (got < 0 && errno != EAGAIN) return true;
  }
  return false;
}

class Cut : public PolicyTest, public testing::WithParamInterface<bool> {};

TEST_P(Cut, ALiveFlowEndsWithinASecondAtBothEnds) {
  const Blocking blocking = GetParam() ? Blocking::kNo : Blocking::kYes;
  // Two connections: the first teaches the splice that these programs do not block.
  UniqueFd first = TcpSocket(client_pod_, AF_INET, blocking);
  ASSERT_EQ(Connect(first, server_pod_.At(kPort)), 0);
  UniqueFd first_accepted = Accept(server_, blocking);
  node_.Events();
  while (const auto again = node_.kernel().RunDueLateInsertions()) {
    std::this_thread::sleep_for(*again);
  }
  UniqueFd client = TcpSocket(client_pod_, AF_INET, blocking);
  ASSERT_EQ(Connect(client, server_pod_.At(kPort)), 0);
  UniqueFd accepted = Accept(server_, blocking);
  const uint64_t spliced = node_.kernel().GetSpliceStats().messages;
  SendAll(client, "ping");
  ASSERT_EQ(ReceiveSome(accepted, 4), "ping");
  EXPECT_EQ(node_.kernel().GetSpliceStats().messages > spliced, GetParam());
  UniqueFd bystander = TcpSocket(other_pod_, AF_INET, Blocking::kYes);
  ASSERT_EQ(Connect(bystander, server_pod_.At(kPort)), 0);
  UniqueFd bystander_accepted = Accept(server_, Blocking::kYes);

  NetworkPolicy& policy = AddPolicy("in", server_pod_);
  policy.isolates_ingress = true;
  policy.ingress = {{.index = 0, .workloads = {Uid(other_pod_)}, .any_port = true}};
  const Clock::time_point start = Clock::now();
  const PolicyReport report = Apply();
  const auto cut = node_.kernel().CutDenied(report.changed);
  ASSERT_TRUE(cut.ok()) << cut.status();
  EXPECT_GT(cut->destroyed, 0u);
  EXPECT_TRUE(IsBroken(client, start + std::chrono::seconds(1)));
  EXPECT_TRUE(IsBroken(accepted, start + std::chrono::seconds(1)));
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start);
  printf("cut after %d ms\n", static_cast<int>(took.count()));
  const weft_event event = node_.WaitEvent(WEFT_EVENT_CUT);
  EXPECT_EQ(event.reason, WEFT_R_POLICY_DEFAULT_DENIED);
  EXPECT_EQ(RuleOf(event), "NetworkPolicy demo/in ingress (no rule matches)");
  EXPECT_EQ(FromKernel(event.destination), server_pod_.At(kPort));
  // What is still allowed lives on.
  SendAll(bystander, "alive");
  EXPECT_EQ(ReceiveSome(bystander_accepted, 5), "alive");
}

INSTANTIATE_TEST_SUITE_P(Both, Cut, testing::Bool(),
                         [](const auto& test) { return test.param ? "Spliced" : "Plain"; });

TEST_F(PolicyTest, AConnectionToTheProxyIsCutByItsEgress) {
  Node::Listeners proxy = node_.Listen(client_pod_);
  const SocketAddress outside{*IpAddress::Parse("192.0.2.1"), 443};
  UniqueFd client = TcpSocket(client_pod_, AF_INET, Blocking::kYes);
  ASSERT_EQ(Connect(client, outside), 0);
  UniqueFd accepted = Accept(proxy.outbound, Blocking::kNo);
  AddPolicy("out", client_pod_).isolates_egress = true;
  const PolicyReport report = Apply();
  ASSERT_TRUE(node_.kernel().CutDenied(report.changed).ok());
  const Clock::time_point until = Clock::now() + std::chrono::seconds(1);
  EXPECT_TRUE(IsBroken(client, until));
  EXPECT_TRUE(IsBroken(accepted, until));
  EXPECT_EQ(FromKernel(node_.WaitEvent(WEFT_EVENT_CUT).destination), outside);
}

// Connections that are being made at the very moment of the change: none that was allowed by the
// old policy is left afterwards.
TEST_F(PolicyTest, NoConnectionSlipsThroughAChange) {
  const PolicyState open = Compiled();
  AddPolicy("in", server_pod_).isolates_ingress = true;
  const PolicyState closed = Compiled();
  int made = 0, asked_again = 0;
  for (int round = 0; round < 60; ++round) {
    ASSERT_TRUE(node_.kernel().ApplyPolicy(open).status.ok());
    std::atomic<bool> stop = false;
    std::vector<UniqueFd> clients, accepted;
    std::thread connecting([&] {
      while (!stop && clients.size() < 2000) {
        clients.push_back(TcpSocket(client_pod_, AF_INET, Blocking::kYes));
        if (Connect(clients.back(), server_pod_.At(kPort)) == 0) {
          accepted.push_back(Accept(server_, Blocking::kYes));
        } else {
          clients.pop_back();
        }
      }
    });
    while (node_.Count(WEFT_R_DIRECT) < static_cast<uint64_t>(made + 5)) std::this_thread::yield();
    const PolicyReport report = node_.kernel().ApplyPolicy(closed);
    ASSERT_TRUE(report.status.ok());
    ASSERT_TRUE(node_.kernel().CutDenied(report.changed).ok());
    stop = true;
    connecting.join();
    node_.Events();
    const auto due = node_.kernel().CutDue();
    ASSERT_TRUE(due.ok());
    asked_again += static_cast<int>(due->asked);
    for (const UniqueFd& client : clients) {
      char byte = 0;
      ASSERT_EQ(recv(client.get(), &byte, 1, MSG_DONTWAIT), -1);
      ASSERT_NE(errno, EAGAIN) << "a connection lives on";
    }
    made = static_cast<int>(node_.Count(WEFT_R_DIRECT));
  }
  printf("%d connections, %d asked again\n", made, asked_again);
}

// Set A: the client's egress denies, the server's ingress allows. Set B: the other way round. Both
// deny; only a mix of the two lets a connection through.
class HalfPolicy : public PolicyTest {
 protected:
  PolicyState Set(bool a) { return Set(a, a); }
  PolicyState Set(bool out_of_a, bool in_of_a) {
    snapshot_.network_policies.clear();
    NetworkPolicy& out = AddPolicy("out", client_pod_);
    out.isolates_egress = true;
    out.egress = {
        {.index = 0, .workloads = {Uid(out_of_a ? other_pod_ : server_pod_)}, .any_port = true}};
    NetworkPolicy& in = AddPolicy("in", server_pod_);
    in.isolates_ingress = true;
    in.ingress = {
        {.index = 0, .workloads = {Uid(in_of_a ? client_pod_ : other_pod_)}, .any_port = true}};
    return Compiled();
  }
  // Connects all the while; returns (tried, came through).
  template <typename Flip>
  std::pair<int, int> ConnectDuring(Flip flip) {
    std::atomic<bool> stop = false;
    std::atomic<int> tried = 0, through = 0, wrong = 0;
    std::thread clients([&] {
      while (!stop) {
        const int error = TryConnect(client_pod_, server_pod_.At(kPort));
        ++tried;
        through += error == 0;
        if (error == 0) Accept(server_, Blocking::kYes);
        wrong += error != 0 && error != EPERM;
      }
    });
    flip();
    const int after = tried;
    while (tried < after + 10) std::this_thread::yield();
    stop = true;
    clients.join();
    EXPECT_EQ(wrong, 0);
    return {tried, through};
  }
};

TEST_F(HalfPolicy, NoConnectSeesAMixOfTwoPolicies) {
  const PolicyState a = Set(true), b = Set(false);
  ASSERT_TRUE(node_.kernel().ApplyPolicy(a).status.ok());
  const auto [tried, through] = ConnectDuring([&] {
    for (int i = 0; i < 200; ++i) {
      ASSERT_TRUE(node_.kernel().ApplyPolicy(i % 2 == 0 ? b : a).status.ok());
    }
  });
  printf("200 changes, %d connects, %d came through\n", tried, through);
  EXPECT_EQ(through, 0);
  EXPECT_GT(tried, 1000);
}

TEST_F(HalfPolicy, TheTestSeesAMixIfThereIsOne) {
  // The same change in two batches: for a moment the client's half is new, the server's old.
  const PolicyState a = Set(true), b = Set(false), mixed = Set(false, true);
  ASSERT_TRUE(node_.kernel().ApplyPolicy(a).status.ok());
  const auto [tried, through] = ConnectDuring([&] {
    for (int i = 0; i < 40; ++i) {
      ASSERT_TRUE(node_.kernel().ApplyPolicy(mixed).status.ok());
      ASSERT_TRUE(node_.kernel().ApplyPolicy(i % 2 == 0 ? b : a).status.ok());
    }
  });
  printf("%d connects, %d came through a mix\n", tried, through);
  EXPECT_GT(through, 0);
}

TEST_F(PolicyTest, AChangeOfOneRuleTouchesFewEntries) {
  NetworkPolicy& policy = AddPolicy("in", server_pod_);
  policy.isolates_ingress = true;
  for (uint32_t i = 0; i < 1000; ++i) {
    NetworkPolicy::Rule rule{.index = i, .ports = {Tcp(uint16_t(1000 + i), uint16_t(1000 + i))}};
    rule.blocks = {{.cidr = {*IpAddress::Parse("10.9." + std::to_string(i / 250) + "." +
                                               std::to_string(i % 250)),
                             32}}};
    policy.ingress.push_back(rule);
  }
  EXPECT_GT(Apply().touched, 2000u);
  EXPECT_EQ(Apply().touched, 0u);
  policy.ingress[500].ports = {Tcp(80, 80)};
  EXPECT_EQ(Apply().touched, 2u);  // one entry goes, one comes
  policy.ingress[501].blocks[0].cidr.address = *IpAddress::Parse("10.10.0.1");
  EXPECT_LE(Apply().touched, 2u);  // the block moves, its class and entries stay
}

TEST_F(PolicyTest, AFullMapClosesTheSubjectAndRecovers) {
  Node small("full", [](KernelConfig& config) { config.sizes.policies = 8; });
  for (Pod* pod : {&client_pod_, &server_pod_}) {
    ASSERT_TRUE(node_.kernel().DetachWorkload(pod->cookie).ok());
    small.Enrol(*pod, kFlags);
  }
  EXPECT_EQ(TryConnect(client_pod_, server_pod_.At(kPort)), 0);
  NetworkPolicy& policy = AddPolicy("in", server_pod_);
  policy.isolates_ingress = true;
  policy.ingress = {{.index = 0, .workloads = {Uid(client_pod_)}}};
  for (uint16_t i = 0; i < 20; ++i) {
    policy.ingress[0].ports.push_back(Tcp(uint16_t(kPort + 2 * i), uint16_t(kPort + 2 * i)));
  }
  const PolicyReport full = small.kernel().ApplyPolicy(Compiled());
  EXPECT_TRUE(absl::IsResourceExhausted(full.status)) << full.status;
  EXPECT_EQ(full.closed, std::set<uint32_t>{server_pod_.id});
  EXPECT_EQ(TryConnect(client_pod_, server_pod_.At(kPort)), EPERM);  // though its entry had room
  EXPECT_EQ(RuleOf(small.WaitEvent(WEFT_EVENT_CONNECT)), "a kernel map of policy is full");
  EXPECT_EQ(TryConnect(server_pod_, client_pod_.At(kPort)), EPERM);
  policy.ingress[0].ports.resize(2);
  const PolicyReport again = small.kernel().ApplyPolicy(Compiled());
  EXPECT_TRUE(again.status.ok()) << again.status;
  EXPECT_TRUE(again.closed.empty());
  EXPECT_EQ(TryConnect(client_pod_, server_pod_.At(kPort)), 0);
}

// An agent that dies between writing a change and storing its epoch leaves versions that are not in
// force; the next agent's change, which has that same epoch, must not bring them in force.
TEST_F(PolicyTest, WhatADeadAgentHadNotFinishedIsVoid) {
  NetworkPolicy& policy = AddPolicy("in", server_pod_);
  policy.isolates_ingress = true;
  policy.ingress = {{.index = 0, .workloads = {Uid(client_pod_)}, .ports = {Tcp(kPort, kPort)}}};
  Apply();
  const auto paths = PathsOf(node_.config().bpffs_root, node_.config().node);
  ASSERT_TRUE(paths.ok());
  auto entries = OpenPinnedMap(*paths, "weft_policy");
  auto epoch_map = OpenPinnedMap(*paths, "weft_epoch");
  ASSERT_TRUE(entries.ok() && epoch_map.ok());
  const uint32_t zero = 0;
  uint64_t epoch = 0;
  ASSERT_EQ(bpf_map_lookup_elem(epoch_map->get(), &zero, &epoch), 0);
  // Half of a change: the entry in force shall go, and one for the other pod is new.
  weft_policy_key key{}, added{};
  ASSERT_EQ(bpf_map_get_next_key(entries->get(), nullptr, &key), 0);
  weft_policy value{};
  ASSERT_EQ(bpf_map_lookup_elem(entries->get(), &key, &value), 0);
  const int spare = value.from[0] <= epoch ? 1 : 0;
  value.from[spare] = epoch + 1;
  value.v[spare] = {WEFT_SAYS_ABSENT, 0, 0};
  ASSERT_EQ(bpf_map_update_elem(entries->get(), &key, &value, BPF_ANY), 0);
  added = key;
  added.class_number = Compiled().classes.at(other_pod_.v4);
  value = {.from = {epoch + 1, WEFT_NEVER}};
  value.v[0] = {WEFT_SAYS_ALLOW, 1, 0};
  ASSERT_EQ(bpf_map_update_elem(entries->get(), &added, &value, BPF_ANY), 0);

  auto next = Kernel::Open(node_.config());
  ASSERT_TRUE(next.ok()) << next.status();
  const auto check = [&] {
    EXPECT_EQ(TryConnect(client_pod_, server_pod_.At(kPort)), 0);
    EXPECT_EQ(TryConnect(other_pod_, server_pod_.At(kPort)), EPERM);
  };
  check();
  AddPolicy("unrelated", other_pod_).isolates_ingress = true;
  EXPECT_TRUE((*next)->ApplyPolicy(Compiled()).status.ok());
  check();
  uint64_t now = 0;
  ASSERT_EQ(bpf_map_lookup_elem(epoch_map->get(), &zero, &now), 0);
  EXPECT_EQ(now, epoch + 1);
}

double MedianConnectUs(const std::function<void()>& connect, int times) {
  std::vector<double> took;
  for (int i = 0; i < times; ++i) {
    const Clock::time_point start = Clock::now();
    connect();
    took.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
  std::ranges::nth_element(took, took.begin() + times / 2);
  return took[static_cast<size_t>(times) / 2];
}

TEST_F(PolicyTest, TheCostDoesNotGrowWithTheRules) {
  const auto with_rules = [&](int rules) {
    snapshot_.network_policies.clear();
    NetworkPolicy& policy = AddPolicy("in", server_pod_);
    policy.isolates_ingress = true;
    for (int i = 0; i + 1 < rules; ++i) {
      NetworkPolicy::Rule rule{.index = uint32_t(i)};
      rule.blocks = {{.cidr = {*IpAddress::Parse("10." + std::to_string(100 + i / 60000) + "." +
                                                 std::to_string(i / 250 % 250) + "." +
                                                 std::to_string(i % 250)),
                               32}}};
      rule.ports = {Tcp(uint16_t(10000 + i), uint16_t(10000 + i))};
      policy.ingress.push_back(rule);
    }
    policy.ingress.push_back(
        {.index = uint32_t(rules), .workloads = {Uid(client_pod_)}, .ports = {Tcp(kPort, kPort)}});
    return Compiled();
  };
  const PolicyState few = with_rules(10), many = with_rules(10000);
  const auto connect = [&] {
    UniqueFd client = TcpSocket(client_pod_, AF_INET, Blocking::kYes);
    EXPECT_EQ(Connect(client, server_pod_.At(kPort)), 0);
    Accept(server_, Blocking::kYes);
  };
  std::vector<double> ratios;
  for (int round = 0; round < 9; ++round) {
    ASSERT_TRUE(node_.kernel().ApplyPolicy(few).status.ok());
    MedianConnectUs(connect, 20);
    const double with_few = MedianConnectUs(connect, 200);
    ASSERT_TRUE(node_.kernel().ApplyPolicy(many).status.ok());
    MedianConnectUs(connect, 20);
    const double with_many = MedianConnectUs(connect, 200);
    ratios.push_back(with_many / with_few);
    printf("round %d: %.1f us with 10 rules, %.1f us with 10 000\n", round, with_few, with_many);
    node_.Events();
  }
  std::ranges::sort(ratios);
  printf("median ratio %.3f (%.3f to %.3f)\n", ratios[4], ratios.front(), ratios.back());
  RecordProperty("ratio", std::to_string(ratios[4]));
  EXPECT_LT(ratios[4], 1.1);
}

}  // namespace
}  // namespace weft::bpf
