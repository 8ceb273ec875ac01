// SPDX-License-Identifier: Apache-2.0
// What outlives what: the agent's death, adoption by a second one, another ABI, two nodes on one
// kernel, and that nothing stays.
#include <bpf/bpf.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <thread>

#include "control/bpf/probe.h"
#include "tests/bpf/testbed.h"

namespace weft::bpf {
namespace {

constexpr uint16_t kPort = 8080;
constexpr uint32_t kFlags = WEFT_WL_PROXY_READY | WEFT_WL_SPLICE;

WorkloadConfig WorkloadOf(const Pod& pod) {
  return {.id = pod.id,
          .generation = kGeneration,
          .identity = IdentityOf(pod),
          .flags = kFlags,
          .ipv4 = pod.v4,
          .ipv6 = pod.v6};
}

TEST(Life, TheAgentsDeathChangesNothingForDirectConnections) {
  Network network;
  Pod& a = network.pod(0);
  Pod& b = network.pod(1);
  KernelConfig config = Node::ConfigOf("death");
  ASSERT_TRUE(MountBpffs(config.bpffs_root).ok());
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t agent = fork();
  if (agent == 0) {
    auto kernel = Kernel::Open(config);
    bool ok = kernel.ok();
    PolicyState policy;
    for (const Pod* pod : {&a, &b}) {
      policy.subjects[pod->id] = {};
      policy.classes[pod->v4] = ClassOf(*pod);
    }
    ok = ok && (*kernel)->ApplyPolicy(policy).status.ok();
    for (const Pod* pod : {&a, &b}) {
      ok = ok && (*kernel)->AttachWorkload(pod->netns.get(), WorkloadOf(*pod)).ok() &&
           (*kernel)
               ->SetPeer(pod->v4, {.netns_cookie = pod->cookie,
                                   .workload = pod->id,
                                   .identity = IdentityOf(*pod),
                                   .workload_flags = kFlags})
               .ok();
    }
    const char answer = ok ? 'y' : 'n';
    if (write(ready[1], &answer, 1) != 1) _exit(1);
    pause();
    _exit(0);
  }
  char answer = 0;
  ASSERT_EQ(read(ready[0], &answer, 1), 1);
  ASSERT_EQ(answer, 'y');
  UniqueFd server = Listener(b, kPort);
  UniqueFd old_client = TcpSocket(a, AF_INET, Blocking::kNo);
  ASSERT_EQ(Connect(old_client, b.At(kPort)), 0);
  UniqueFd old_server = Accept(server, Blocking::kNo);
  SendAll(old_client, "before");
  EXPECT_EQ(ReceiveSome(old_server, 6), "before");

  ASSERT_EQ(kill(agent, SIGKILL), 0);
  int status = 0;
  ASSERT_EQ(waitpid(agent, &status, 0), agent);
  ASSERT_TRUE(WIFSIGNALED(status));

  SendAll(old_client, "after");
  EXPECT_EQ(ReceiveSome(old_server, 5), "after");
  for (int i = 0; i < 20; ++i) {
    UniqueFd client = TcpSocket(a, AF_INET, Blocking::kYes);
    ASSERT_EQ(Connect(client, b.At(kPort)), 0);
    UniqueFd accepted = Accept(server, Blocking::kYes);
    SendAll(client, "new");
    EXPECT_EQ(ReceiveSome(accepted, 3), "new");
  }
  // And what is not direct is still captured, never passed: there is no listener, so it is refused.
  UniqueFd captured = TcpSocket(a, AF_INET, Blocking::kYes);
  EXPECT_EQ(Connect(captured, {*IpAddress::Parse("203.0.113.9"), 443}), ECONNREFUSED);

  Node next("death");  // adopts; its end unloads
  EXPECT_TRUE(next.kernel().adopted());
  EXPECT_EQ(next.kernel().Workloads().size(), 2u);
  EXPECT_EQ(next.kernel().Peers().size(), 2u);
  SendAll(old_client, "adopted");
  EXPECT_EQ(ReceiveSome(old_server, 7), "adopted");
}

TEST(Life, ASecondOpenAdoptsWithoutAGap) {
  Network network;
  Pod& a = network.pod(0);
  Pod& b = network.pod(1);
  Node node("adopt");
  node.Enrol(a, kFlags);
  node.Enrol(b, kFlags);
  ASSERT_TRUE(node.kernel()
                  .SetService({.id = 3,
                               .vips = {{*IpAddress::Parse("10.96.0.1"), 80}},
                               .backends = {b.At(kPort), b.At(kPort + 1)}})
                  .ok());
  SubjectState state;
  state[WEFT_LAYER_INGRESS] = {.says = WEFT_SAYS_DENY, .lengths = 1u << 0};
  node.policy().entries[{b.id, ClassOf(a), 0, 0, WEFT_PROTOCOL_TCP, WEFT_LAYER_INGRESS}] = {
      .says = WEFT_SAYS_ALLOW, .rule = 2};
  node.Permit(b, state);
  UniqueFd server = Listener(b, kPort);
  // Connections are made all the while; each one must be direct.
  std::atomic<bool> stop = false;
  std::atomic<int> made = 0, failed = 0;
  std::thread clients([&] {
    while (!stop) {
      UniqueFd client = TcpSocket(a, AF_INET, Blocking::kYes);
      if (Connect(client, b.At(kPort)) != 0) ++failed;
      UniqueFd accepted = Accept(server, Blocking::kYes);
      SendAll(client, "x");
      if (ReceiveSome(accepted, 1) != "x") ++failed;
      ++made;
    }
  });
  for (int i = 0; i < 5; ++i) {
    KernelConfig config = node.config();
    config.sizes.addresses *= 2;  // another configuration: the maps keep their sizes
    auto second = Kernel::Open(config);
    ASSERT_TRUE(second.ok()) << second.status();
    EXPECT_TRUE((*second)->adopted());
    EXPECT_EQ((*second)->Services(), std::vector<uint32_t>{3});
    // It finds the policy in force, and brings the same in force again without touching it.
    const PolicyAnswer answer =
        (*second)->AskPolicy({.destination_subject = b.id, .source = a.v4, .port = kPort});
    EXPECT_TRUE(answer.allowed());
    EXPECT_EQ(answer.layers[WEFT_LAYER_INGRESS].rule, 2u);
    EXPECT_EQ((*second)->ApplyPolicy(node.policy()).touched, 0u);
    EXPECT_EQ((*second)->highest_class(), ClassOf(b));
    for (Pod* pod : {&a, &b}) {
      EXPECT_TRUE((*second)->AttachWorkload(pod->netns.get(), WorkloadOf(*pod)).ok());
    }
    ASSERT_TRUE((*second)->RemoveService(3).ok());  // it knows what the first one wrote
    ASSERT_TRUE(
        (*second)->SetService({.id = 3, .vips = {b.At(80)}, .backends = {b.At(kPort)}}).ok());
  }
  const int during = made;
  while (made < during + 5) std::this_thread::yield();
  stop = true;
  clients.join();
  EXPECT_EQ(failed, 0);
  EXPECT_EQ(node.Count(WEFT_R_DIRECT), static_cast<uint64_t>(made));
  EXPECT_EQ(node.Count(WEFT_R_NOT_ADMITTED), 0u);
}

TEST(Life, AnotherAbiIsRefusedByNumber) {
  Node node("abi");
  PinPaths paths = *PathsOf(node.config().bpffs_root, node.config().node);
  UniqueFd config_fd(bpf_obj_get((paths.maps + "/weft_config").c_str()));
  const uint32_t zero = 0;
  const weft_config other{99, 1};
  ASSERT_EQ(bpf_map_update_elem(config_fd.get(), &zero, &other, BPF_ANY), 0);
  auto kernel = Kernel::Open(node.config());
  ASSERT_FALSE(kernel.ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(kernel.status()));
  const std::string text = kernel.status().ToString();
  EXPECT_NE(text.find("ABI 99"), std::string::npos) << text;
  EXPECT_NE(text.find("ABI " + std::to_string(WEFT_ABI)), std::string::npos) << text;
  auto sockets = SocketMaps::Open(node.config().bpffs_root, node.config().node);
  EXPECT_TRUE(absl::IsFailedPrecondition(sockets.status()));
}

TEST(Life, UnloadLeavesNothing) {
  KernelConfig config;
  {
    Node node("gone");
    config = node.config();
    Network network;
    node.Enrol(network.pod(0), kFlags);
    EXPECT_TRUE(std::filesystem::exists(config.bpffs_root + "/weft/" + config.node));
    Node other("stays");  // keeps the bpffs
    ASSERT_TRUE(node.kernel().Unload().ok());
    EXPECT_FALSE(std::filesystem::exists(config.bpffs_root + "/weft/" + config.node));
    auto sockets = SocketMaps::Open(config.bpffs_root, config.node);
    EXPECT_TRUE(absl::IsNotFound(sockets.status())) << sockets.status();
    EXPECT_TRUE(Kernel::UnloadNode(config.bpffs_root, config.node).ok());  // again: nothing there
  }
  EXPECT_FALSE(std::filesystem::exists(config.bpffs_root));
}

TEST(Life, BadInputIsNamed) {
  KernelConfig config = Node::ConfigOf("bad");
  config.node = "../etc";
  EXPECT_TRUE(absl::IsInvalidArgument(Kernel::Open(config).status()));
  config = Node::ConfigOf("bad");
  config.sockets_cgroup = "/tmp/no-cgroup";
  EXPECT_TRUE(absl::IsInvalidArgument(Kernel::Open(config).status()));
  EXPECT_TRUE(absl::IsNotFound(SocketMaps::Open("/tmp", "nobody").status()));
}

TEST(TwoNodes, BytesBetweenThemAreNeverSpliced) {
  Network network;
  Pod& a = network.pod(0);
  Pod& b = network.pod(1);
  Node one("one");
  Node two("two");
  one.Enrol(a, kFlags);
  two.Enrol(b, kFlags);
  Node::Listeners listeners_b = two.Listen(b);
  // One is told, wrongly, that b is a workload of its own: it admits in its maps, not in two's.
  one.Announce(b, kFlags);
  UniqueFd app = Listener(b, kPort);
  UniqueFd client = TcpSocket(a, AF_INET, Blocking::kNo);
  ASSERT_EQ(Connect(client, b.At(kPort)), 0);
  UniqueFd accepted = Accept(listeners_b.inbound, Blocking::kNo);  // not the app
  EXPECT_TRUE(NothingToAccept(app, 0));
  for (int i = 0; i < 50; ++i) {
    SendAll(client, "ping");
    EXPECT_EQ(ReceiveSome(accepted, 4), "ping");
    SendAll(accepted, "pong");
    EXPECT_EQ(ReceiveSome(client, 4), "pong");
  }
  EXPECT_EQ(one.kernel().GetSpliceStats().messages, 0u);
  EXPECT_EQ(two.kernel().GetSpliceStats().inserted, 0u);
  EXPECT_EQ(two.kernel().GetSpliceStats().messages, 0u);
}

TEST(TwoNodes, EachActsOnItsOwnWorkloadsAndStampsOnly) {
  Network network;
  Pod& a = network.pod(0);
  Pod& b = network.pod(1);
  Node one("one");
  Node two("two");
  one.Enrol(a, kFlags);
  two.Enrol(b, kFlags);
  Node::Listeners listeners_a = one.Listen(a);
  Node::Listeners listeners_b = two.Listen(b);
  const SocketAddress elsewhere{*IpAddress::Parse("203.0.113.9"), 443};
  for (const auto& [pod, listeners] : {std::pair<Pod&, Node::Listeners&>{a, listeners_a},
                                       std::pair<Pod&, Node::Listeners&>{b, listeners_b}}) {
    UniqueFd client = TcpSocket(pod, AF_INET, Blocking::kNo);
    ASSERT_EQ(Connect(client, elsewhere), 0);
    EXPECT_EQ(PeerName(client), elsewhere);
    UniqueFd accepted = Accept(listeners.outbound, Blocking::kNo);
    weft_original original{};
    socklen_t length = sizeof original;
    EXPECT_EQ(getsockopt(accepted.get(), WEFT_SOL, WEFT_SO_ORIGINAL, &original, &length), 0)
        << strerror(errno);
    SendAll(client, "x");
    EXPECT_EQ(ReceiveSome(accepted, 1), "x");
  }
  EXPECT_EQ(one.Count(WEFT_R_PROXIED), 1u);
  EXPECT_EQ(two.Count(WEFT_R_PROXIED), 1u);
  // A stamp of two's means nothing to one: its socket in a's netns is an app's socket there.
  UniqueFd foreign = two.Stamped(a, WEFT_ROLE_TUNNEL, AF_INET);
  ASSERT_EQ(Connect(foreign, elsewhere), 0);
  Accept(listeners_a.outbound, Blocking::kNo);
}

TEST(Probe, FindsTheCgroupAndTheBpffs) {
  const absl::StatusOr<std::string> root = FindCgroup2Root();
  ASSERT_TRUE(root.ok());
  EXPECT_TRUE(std::filesystem::exists(*root + "/cgroup.procs"));
  EXPECT_FALSE(IsBpffs("/tmp"));
}

TEST(Probe, EveryFeatureIsTriedAndExplained) {
  const std::vector<Feature> features = ProbeFeatures("/tmp");
  EXPECT_GE(features.size(), 12u);
  for (const Feature& feature : features) {
    printf("%-14s %-3s %s\n", feature.name.c_str(), feature.present ? "yes" : "no",
           feature.detail.c_str());
    EXPECT_FALSE(feature.consequence.empty()) << feature.name;
    EXPECT_FALSE(feature.remedy.empty()) << feature.name;
    if (feature.name == "bpffs") {
      EXPECT_FALSE(feature.present);  // /tmp is none
    } else if (feature.required) {
      EXPECT_TRUE(feature.present) << feature.name << ": " << feature.detail;
    }
  }
}

}  // namespace
}  // namespace weft::bpf
