// SPDX-License-Identifier: Apache-2.0
// Policy that changes in the middle of a connect(): after it was asked, before the walk that
// follows a change can find the socket. The socket itself says so once it can be found
// (weft_check_epoch), and is asked again.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <thread>

#include "control/bpf/pins.h"
#include "control/bpf/probe.h"
#include "tests/bpf/testbed.h"

extern "C" {
extern const char weft_bpf_hold[], weft_bpf_hold_end[];
}

namespace weft::bpf {
namespace {

using Clock = std::chrono::steady_clock;
constexpr uint16_t kPort = 8080;

// hold.bpf.c, attached for as long as this lives.
class Hold {
 public:
  explicit Hold(uint64_t netns_cookie) {
    object_ = bpf_object__open_mem(weft_bpf_hold,
                                   static_cast<size_t>(weft_bpf_hold_end - weft_bpf_hold), nullptr);
    EXPECT_EQ(bpf_object__load(object_), 0);
    bpf_program* program = bpf_object__find_program_by_name(object_, "weft_hold");
    const absl::StatusOr<std::string> root = FindCgroup2Root();
    EXPECT_TRUE(root.ok()) << root.status();
    const UniqueFd cgroup(open(root->c_str(), O_RDONLY | O_CLOEXEC));
    size_t size = 0;
    words_ = static_cast<Words*>(
        bpf_map__initial_value(bpf_object__find_map_by_name(object_, ".bss"), &size));
    EXPECT_GE(size, sizeof(Words));
    words_->netns_cookie = netns_cookie;
    link_ = bpf_program__attach_cgroup(program, cgroup.get());
    EXPECT_NE(link_, nullptr) << errno;
  }
  ~Hold() {
    Release();
    bpf_link__destroy(link_);
    bpf_object__close(object_);
  }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;

  bool entered() const { return std::atomic_ref(words_->entered).load() != 0; }
  void Release() { std::atomic_ref(words_->release).store(1); }

 private:
  struct Words {  // the program's .bss
    uint64_t netns_cookie;
    uint32_t entered, release;
  };
  bpf_object* object_ = nullptr;
  bpf_link* link_ = nullptr;
  Words* words_ = nullptr;
};

uint64_t EpochInForce(const Node& node) {
  auto paths = PathsOf(node.config().bpffs_root, node.config().node);
  EXPECT_TRUE(paths.ok());
  auto map = OpenPinnedMap(*paths, "weft_epoch");
  EXPECT_TRUE(map.ok()) << map.status();
  uint32_t zero = 0;
  uint64_t epoch = 0;
  EXPECT_EQ(bpf_map_lookup_elem(map->get(), &zero, &epoch), 0);
  return epoch;
}

template <typename Condition>
bool Within5s(Condition condition) {
  const auto end = Clock::now() + std::chrono::seconds(5);
  while (!condition()) {
    if (Clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

TEST(HeldConnect, AConnectionThatPolicyOvertookIsAskedAgainAndCut) {
  Network network;
  Node node("held");
  Pod& client_pod = network.pod(0);
  Pod& server_pod = network.pod(1);
  node.Enrol(client_pod, WEFT_WL_PROXY_READY);
  node.Enrol(server_pod, WEFT_WL_PROXY_READY);
  UniqueFd server = Listener(server_pod, kPort);
  Hold hold(client_pod.cookie);
  UniqueFd client = TcpSocket(client_pod, AF_INET, Blocking::kYes);
  int connected = -1;
  std::thread connecting([&] { connected = Connect(client, server_pod.At(kPort)); });
  EXPECT_TRUE(Within5s([&] { return hold.entered(); }));
  // The change waits for programs that run, so for the held one: it has its thread.
  const uint64_t before = EpochInForce(node);
  SubjectState closed{};
  closed[WEFT_LAYER_INGRESS] = {.says = WEFT_SAYS_DENY, .rule = 9, .lengths = 0};
  std::thread changing([&] { node.Permit(server_pod, closed); });
  EXPECT_TRUE(Within5s([&] { return EpochInForce(node) != before; }));
  hold.Release();
  connecting.join();
  changing.join();
  ASSERT_EQ(connected, 0) << "the program was asked before the change";
  const UniqueFd accepted = Accept(server, Blocking::kYes);

  node.Events();  // hands the socket's word over
  const auto due = node.kernel().CutDue();
  ASSERT_TRUE(due.ok()) << due.status();
  EXPECT_GE(due->destroyed, 1u);
  for (const int end : {client.get(), accepted.get()}) {
    char byte = 0;
    EXPECT_EQ(recv(end, &byte, 1, MSG_DONTWAIT), -1);
    EXPECT_NE(errno, EAGAIN) << "the connection lives on";
  }
  EXPECT_EQ(node.WaitEvent(WEFT_EVENT_CUT).rule, 9u);
}

}  // namespace
}  // namespace weft::bpf
