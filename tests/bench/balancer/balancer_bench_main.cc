// SPDX-License-Identifier: Apache-2.0
// Nanoseconds a packet, memory and disruption of the L4 balancer, by BPF_PROG_TEST_RUN: no NIC, no
// stack. Prints a table beside Katran's figures of the same kind. Root only; alone on its CPU it
// measures best: of many short runs the least is shown, and the median beside it.
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sched.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "control/bpf/balancer.h"
#include "tests/bench/balancer/harness.h"

extern "C" {
extern const char weft_bpf_harness[], weft_bpf_harness_end[];
}

namespace weft::bpf {
namespace {

constexpr int kRuns = 60;
constexpr uint32_t kRepeat = 100'000;
constexpr int kCpu = 1;
constexpr int kVips = 512;
constexpr int kBackends = 16;

[[noreturn]] void Fail(const std::string& what) {
  fprintf(stderr, "balancer bench: %s\n", what.c_str());
  exit(1);
}

void Must(const absl::Status& status) {
  if (!status.ok()) Fail(std::string(status.message()));
}

IpAddress Ip(const std::string& text) {
  const std::optional<IpAddress> ip = IpAddress::Parse(text);
  if (!ip) Fail("no address: " + text);
  return *ip;
}

BalancerVip VipOf(int number, int backends, Encapsulation encapsulation, bool v6) {
  BalancerVip vip;
  vip.address = {Ip((v6 ? "2001:db8::" : "192.0.2.") + std::to_string(number % 250 + 1)),
                 static_cast<uint16_t>(80 + number / 250)};
  for (int i = 0; i < backends; ++i) {
    BalancerBackend backend;
    backend.address = Ip((v6 ? "fd00::" : "10.1.0.") + std::to_string(i + 1));
    backend.encapsulation = encapsulation;
    backend.next_hop = MacAddress{2, 0, 0, 0, 0, 1};
    vip.backends.push_back(backend);
  }
  return vip;
}

// A TCP segment of 40 (60) bytes to a VIP.
void FillFrame(bench_harness& harness, const SocketAddress& to, uint8_t tcp_flags) {
  uint8_t frame[BENCH_FRAME_BYTES] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 3};
  const bool v6 = !to.ip.is_v4();
  uint8_t* ip = frame + 14;
  uint8_t* tcp = ip + (v6 ? 40 : 20);
  harness.v6 = v6;
  if (v6) {
    frame[12] = 0x86, frame[13] = 0xdd;
    ip[0] = 0x60, ip[5] = 20, ip[6] = 6, ip[7] = 64;
    const IpAddress from = Ip("2001:db8:1::1");
    memcpy(ip + 8, from.bytes.data(), 16);
    memcpy(ip + 24, to.ip.bytes.data(), 16);
    harness.first = 0;
  } else {
    frame[12] = 8;
    ip[0] = 0x45, ip[3] = 40, ip[8] = 64, ip[9] = 6;
    memcpy(ip + 16, to.ip.bytes.data() + 12, 4);
    harness.first = htonl(0x64000000);  // 100.0.0.0: no carry as long as flows < 2^24
  }
  tcp[0] = 0x30, tcp[1] = 0x39;
  const uint16_t port_be = htons(to.port);
  memcpy(tcp + 2, &port_be, 2);
  tcp[12] = 0x50, tcp[13] = tcp_flags;
  memcpy(harness.frame, frame, sizeof frame);
}

struct Figure {
  double least = 0;
  double median = 0;
};

class Harness {
 public:
  explicit Harness(bool tc);
  bench_harness& state() { return *state_; }
  // Runs the wrapper around `program` so often; the verdict of the last run must be `verdict`.
  double Run(int program, uint32_t repeat, uint32_t verdict);
  // Net of the empty wrapper, both measured in turns.
  Figure Measure(int program, uint64_t flows, uint32_t verdict, bool warm);

 private:
  bpf_object* object_ = nullptr;
  bench_harness* state_ = nullptr;
  int wrapper_ = -1;
  int empty_ = -1;
  int jump_ = -1;
  uint32_t empty_verdict_ = 3;
};

Harness::Harness(bool tc) {
  object_ = bpf_object__open_mem(
      weft_bpf_harness, static_cast<size_t>(weft_bpf_harness_end - weft_bpf_harness), nullptr);
  if (object_ == nullptr || bpf_object__load(object_) != 0) Fail("the harness does not load");
  wrapper_ = bpf_program__fd(
      bpf_object__find_program_by_name(object_, tc ? "bench_wrapper_tc" : "bench_wrapper"));
  empty_ = bpf_program__fd(
      bpf_object__find_program_by_name(object_, tc ? "bench_empty_tc" : "bench_empty"));
  jump_ = bpf_object__find_map_fd_by_name(object_, tc ? "jump_tc" : "jump");
  if (tc) empty_verdict_ = 7;
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, object_) {
    size_t size = 0;
    if (std::string_view(bpf_map__name(map)).ends_with(".bss")) {
      state_ = static_cast<bench_harness*>(bpf_map__initial_value(map, &size));
    }
  }
  if (state_ == nullptr) Fail("the harness has no state");
}

double Harness::Run(int program, uint32_t repeat, uint32_t verdict) {
  const uint32_t zero = 0;
  if (bpf_map_update_elem(jump_, &zero, &program, BPF_ANY) != 0) Fail("cannot jump to the program");
  uint8_t in[BENCH_FRAME_BYTES] = {};
  uint8_t out[512];
  bpf_test_run_opts options{};
  options.sz = sizeof options;
  options.data_in = in;
  options.data_size_in = sizeof in;
  options.data_out = out;
  options.data_size_out = sizeof out;
  options.repeat = static_cast<int>(repeat);
  if (bpf_prog_test_run_opts(wrapper_, &options) != 0) Fail(strerror(errno));
  if (options.retval != verdict) Fail("verdict " + std::to_string(options.retval));
  return options.duration;
}

Figure Harness::Measure(int program, uint64_t flows, uint32_t verdict, bool warm) {
  state_->flows = flows;
  state_->next = 0;
  // Twice round: a flow is live with its second packet.
  for (uint64_t done = 0; warm && done < 2 * flows; done += kRepeat) Run(program, kRepeat, verdict);
  std::vector<double> with;
  std::vector<double> without;
  for (int i = 0; i < kRuns; ++i) {
    with.push_back(Run(program, kRepeat, verdict));
    without.push_back(Run(empty_, kRepeat, empty_verdict_));
  }
  std::sort(with.begin(), with.end());
  std::sort(without.begin(), without.end());
  return {with.front() - without.front(), with[kRuns / 2] - without[kRuns / 2]};
}

void Print(const char* name, const Figure& figure, int katran, int goal) {
  printf("  %-44s %6.0f %6.0f", name, figure.least, figure.median);
  if (katran != 0) printf(" %8d %6d  %s", katran, goal, figure.least <= goal ? "held" : "MISSED");
  printf("\n");
  fflush(stdout);
}

std::unique_ptr<Balancer> Load(uint32_t flow_bits) {
  BalancerConfig config;
  config.source4 = Ip("10.0.0.1");
  config.source6 = Ip("fd00:1::1");
  config.flow4_bits = flow_bits;
  config.flow6_bits = flow_bits;
  absl::StatusOr<std::unique_ptr<Balancer>> balancer = Balancer::Load(config);
  Must(balancer.status());
  return std::move(*balancer);
}

void Nanoseconds(Harness& harness, Balancer& balancer, const std::string& only) {
  const int xdp = balancer.ProgramFd(BalancerHook::kXdpNative);
  const SocketAddress vip = VipOf(7, 1, Encapsulation::kIpip, false).address;
  const auto measure = [&](const char* name, const SocketAddress& to, uint8_t flags, uint64_t flows,
                           uint32_t verdict, bool warm, int katran, int goal) {
    if (std::string(name).find(only) == std::string::npos) return;
    balancer.ForgetFlows();
    FillFrame(harness.state(), to, flags);
    Print(name, harness.Measure(xdp, flows, verdict, warm), katran, goal);
  };
  constexpr uint8_t kAck = 0x10;
  constexpr uint8_t kSyn = 0x02;
  printf("XDP entry, ns a packet net of the wrapper         least median   Katran   goal\n");
  measure("established, 1 flow", vip, kAck, 1, 3, true, 104, 85);
  measure("established, 100 000 flows", vip, kAck, 100'000, 3, true, 272, 220);
  measure("established, 500 000 flows", vip, kAck, 500'000, 3, true, 335, 270);
  measure("SYN, each of a new flow", vip, kSyn, 1 << 23, 3, true, 264, 220);
  measure("not a VIP", {Ip("198.51.100.1"), 80}, kAck, 1, 2, true, 47, 30);
  Must(balancer.SetVip(VipOf(7, kBackends, Encapsulation::kGue, false)));
  measure("GUE, 1 flow", vip, kAck, 1, 3, true, 0, 0);
  Must(balancer.SetVip(VipOf(7, kBackends, Encapsulation::kIpip, false)));
  const SocketAddress vip6 = VipOf(7, 1, Encapsulation::kIpip, true).address;
  measure("IPv6 in IPv6, 1 flow", vip6, kAck, 1, 3, true, 0, 0);
  measure("IPv6 in IPv6, 500 000 flows", vip6, kAck, 500'000, 3, true, 0, 0);
}

void NanosecondsTc(Balancer& balancer) {
  Harness harness(true);
  const int tc = balancer.ProgramFd(BalancerHook::kTc);
  // A packet that was encapsulated once cannot be again, and nothing makes it as it was: the kernel
  // keeps skb->encapsulation (EALREADY). Hence only what is passed on.
  printf("tc entry\n");
  FillFrame(harness.state(), {Ip("198.51.100.1"), 80}, 0x10);
  Print("not a VIP", harness.Measure(tc, 1, 0, true), 0, 0);
}

// Where a flow's packet goes: the outer IPv4 destination.
uint32_t Destination(int program, uint32_t flow, const SocketAddress& vip) {
  bench_harness harness{};
  FillFrame(harness, vip, 0x10);
  uint8_t in[BENCH_FRAME_BYTES];
  uint8_t out[512] = {};
  memcpy(in, harness.frame, sizeof in);
  const uint32_t client = htonl(0x64000000 + flow);
  memcpy(in + 26, &client, 4);
  bpf_test_run_opts options{};
  options.sz = sizeof options;
  options.data_in = in;
  options.data_size_in = sizeof in;
  options.data_out = out;
  options.data_size_out = sizeof out;
  if (bpf_prog_test_run_opts(program, &options) != 0 || options.retval != 3) Fail("not sent");
  uint32_t destination = 0;
  memcpy(&destination, out + 30, 4);
  return destination;
}

// Share of flows that go elsewhere after a change: those known to the connection table, and those
// that are not (another node's, or a table that was lost).
void Disruption(Balancer& balancer) {
  constexpr uint32_t kFlows = 20'000;
  const int program = balancer.ProgramFd(BalancerHook::kXdpNative);
  const BalancerVip before = VipOf(7, kBackends, Encapsulation::kIpip, false);
  const auto all = [&] {
    std::vector<uint32_t> out;
    for (uint32_t flow = 0; flow < kFlows; ++flow) {
      out.push_back(Destination(program, flow, before.address));
    }
    return out;
  };
  const auto moved = [](const std::vector<uint32_t>& a, const std::vector<uint32_t>& b) {
    size_t count = 0;
    for (size_t i = 0; i < a.size(); ++i) count += a[i] != b[i];
    return 100.0 * static_cast<double>(count) / static_cast<double>(a.size());
  };
  const auto change = [&](const char* name, double least, const BalancerVip& after) {
    Must(balancer.SetVip(before));
    balancer.ForgetFlows();
    all();                                    // new,
    const std::vector<uint32_t> was = all();  // now live
    Must(balancer.SetVip(after));
    const double with = moved(was, all());
    balancer.ForgetFlows();
    printf("  %-34s %8.2f %% %8.2f %% %8.2f %%\n", name, with, moved(was, all()), least);
  };
  printf("flows moved by a change, 16 backends           tracked untracked  the least possible\n");
  const double share = 100.0 / kBackends;
  BalancerVip after = before;
  after.backends.back().draining = true;
  change("one drains", share, after);
  after.backends.pop_back();
  change("one is removed", share, after);
  after = VipOf(7, kBackends + 1, Encapsulation::kIpip, false);
  change("one is added", 100.0 / (kBackends + 1), after);
  after = before;
  after.backends[3].weight = 2;
  change("one gets twice the weight", 100.0 * (2.0 / 17 - 1.0 / 16), after);
  change("nothing changes", 0, before);
  Must(balancer.SetVip(before));
}

void Updates(Balancer& balancer) {
  const BalancerVip vip = VipOf(7, kBackends, Encapsulation::kIpip, false);
  std::vector<double> times;
  for (int i = 0; i < 2000; ++i) {
    timespec from{};
    timespec to{};
    clock_gettime(CLOCK_MONOTONIC, &from);
    Must(balancer.SetVip(vip));
    clock_gettime(CLOCK_MONOTONIC, &to);
    times.push_back(static_cast<double>(to.tv_sec - from.tv_sec) * 1e6 +
                    static_cast<double>(to.tv_nsec - from.tv_nsec) / 1e3);
  }
  std::sort(times.begin(), times.end());
  printf("an update of a VIP: median %.0f us, longest of 2000 %.0f us (waits for readers)\n",
         times[times.size() / 2], times.back());
}

// `only`: of the XDP cases, those whose name has it; nothing else then.
int Main(const std::string& only) {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  CPU_SET(kCpu, &cpus);
  if (sched_setaffinity(0, sizeof cpus, &cpus) != 0) Fail("cannot bind to CPU 1");
  Harness harness(false);
  std::unique_ptr<Balancer> balancer;
  // 655 360 places for IPv4 flows on each CPU (the default), then twice as many.
  for (const uint32_t flow_bits : {17, 18}) {
    balancer = Load(flow_bits);
    for (int i = 0; i < kVips; ++i) {
      Must(balancer->SetVip(VipOf(i, kBackends, Encapsulation::kIpip, false)));
    }
    Must(balancer->SetVip(VipOf(7, kBackends, Encapsulation::kIpip, true)));
    printf("flow table of 2^%u buckets of 5 a CPU, %d VIPs of %d backends\n", flow_bits, kVips,
           kBackends);
    Nanoseconds(harness, *balancer, only);
  }
  if (!only.empty()) return 0;
  NanosecondsTc(*balancer);
  Disruption(*balancer);
  Updates(*balancer);
  const BalancerMemory memory = balancer->Memory();
  printf("memory: rings %.1f MB in use for %d VIPs of %d backends, space %.1f MB\n",
         static_cast<double>(memory.rings) / 1e6, kVips, kBackends,
         static_cast<double>(memory.ring_space) / 1e6);
  printf("        flows %.1f MB on all CPUs, tables %.1f MB, counters %.1f MB\n",
         static_cast<double>(memory.flows) / 1e6, static_cast<double>(memory.tables) / 1e6,
         static_cast<double>(memory.counters) / 1e6);
  printf("verified instructions: tc %u, xdp %u\n",
         balancer->VerifiedInstructions(BalancerHook::kTc),
         balancer->VerifiedInstructions(BalancerHook::kXdpNative));
  return 0;
}

}  // namespace
}  // namespace weft::bpf

int main(int argc, char** argv) { return weft::bpf::Main(argc > 1 ? argv[1] : ""); }
