// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/balancer.h"

#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/membarrier.h>
#include <net/if.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>

#include "bpf/tc/balancer_encap.h"
#include "control/bpf/balancer_tables.h"
#include "control/bpf/netns.h"
#include "control/bpf/programs.h"

extern "C" {
extern const char weft_bpf_balancer[], weft_bpf_balancer_end[];
}

namespace weft::bpf {
namespace {

constexpr uint32_t kMaxFlowBits = 24;
constexpr uint32_t kMaxRingChunks = 1u << 16;
constexpr uint32_t kMinMtu = 1280;  // below, an answer quotes more than the packet has
constexpr uint32_t kClsactPriority = 1;
constexpr uint32_t kClsactHandle = 1;

// A map's values in this process's memory.
class Mapped final {
 public:
  Mapped() = default;
  Mapped(Mapped&& other) noexcept { *this = std::move(other); }
  Mapped& operator=(Mapped&& other) noexcept {
    std::swap(at_, other.at_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Mapped() {
    if (at_ != nullptr) munmap(at_, bytes_);
  }
  static absl::StatusOr<Mapped> Open(bpf_map* map) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t values =
        size_t{(bpf_map__value_size(map) + 7) / 8 * 8} * bpf_map__max_entries(map);
    Mapped out;
    out.bytes_ = (values + page - 1) / page * page;
    out.at_ = mmap(nullptr, out.bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);
    if (out.at_ == MAP_FAILED) {
      out.at_ = nullptr;
      return ErrnoStatus(errno, std::string("map ") + bpf_map__name(map));
    }
    return out;
  }
  template <typename T>
  std::span<T> As() const {
    return {static_cast<T*>(at_), bytes_ / sizeof(T)};
  }
  size_t bytes() const { return bytes_; }

 private:
  void* at_ = nullptr;
  size_t bytes_ = 0;
};

// Programs run with softirqs or preemption off: RCU's grace period waits for them, and this is the
// system call that waits for one.
absl::Status WaitForGrace() {
  if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) != 0) {
    return ErrnoStatus(errno, "membarrier");
  }
  return absl::OkStatus();
}

// The kernel's ticks a second: what its coarse clock resolves.
uint64_t KernelHz() {
  timespec resolution{};
  if (clock_getres(CLOCK_MONOTONIC_COARSE, &resolution) != 0 || resolution.tv_nsec == 0) return 250;
  return static_cast<uint64_t>(1'000'000'000 / resolution.tv_nsec);
}

struct Ticks {
  uint64_t hz = KernelHz();
  uint32_t shift = 0;
  Ticks() {
    while ((2u << shift) < hz) ++shift;  // half a second, or a little more
    if ((1ull << shift) * 2 < hz) ++shift;
  }
  uint16_t Of(std::chrono::seconds time) const {
    const uint64_t ticks =
        (static_cast<uint64_t>(std::max<int64_t>(time.count(), 0)) * hz + (1ull << shift) - 1) >>
        shift;
    return static_cast<uint16_t>(std::min<uint64_t>(std::max<uint64_t>(ticks, 1), 65000));
  }
};

absl::Status CheckConfig(const BalancerConfig& config) {
  if (!config.source4.is_unspecified() && !config.source4.is_v4()) {
    return absl::InvalidArgumentError("source4 " + config.source4.ToString() + " is not IPv4");
  }
  if (config.source6.is_v4() && !config.source6.is_unspecified()) {
    return absl::InvalidArgumentError("source6 " + config.source6.ToString() + " is not IPv6");
  }
  if (config.flow4_bits > kMaxFlowBits || config.flow6_bits > kMaxFlowBits) {
    return absl::InvalidArgumentError("a CPU's flow table has at most 2^24 buckets");
  }
  if (config.ring_chunks == 0 || config.ring_chunks > kMaxRingChunks) {
    return absl::InvalidArgumentError("ring_chunks is 1 to 65536");
  }
  if (config.mtu < kMinMtu || config.mtu > 65535) {
    return absl::InvalidArgumentError("the MTU is 1280 to 65535");
  }
  return absl::OkStatus();
}

struct Attachment {
  LinkPtr link;      // tcx
  UniqueFd link_fd;  // XDP; neither: clsact
  UniqueFd netns;    // clsact: where the interface is
  bool made_clsact = false;
  int ifindex = 0;
};

}  // namespace

struct Balancer::State {
  BalancerConfig config;
  ObjectPtr object;
  uint32_t cpus = 1;
  Mapped tables, rings, flows4, flows6, fragments, traffic, counts;
  std::unique_ptr<VipTable> vips;
  std::map<int, Attachment> attached;

  weft_lb_tables& Tables() const { return tables.As<weft_lb_tables>()[0]; }
  absl::Status Size(const Ticks& ticks);
  absl::Status Map();
  void Configure(const Ticks& ticks);
  bpf_program* Program(BalancerHook hook) const {
    return bpf_object__find_program_by_name(
        object.get(),
        hook == BalancerHook::kTc || hook == BalancerHook::kClsact ? "weft_lb_tc" : "weft_lb_xdp");
  }
  absl::Status AttachClsact(int ifindex, Attachment* out);
  absl::Status DetachClsact(const Attachment& attachment);
};

namespace {

template <typename T>
absl::Status SetVariable(bpf_object* object, const char* name, const T& value) {
  void* place = FindVariable(object, ".rodata", name);
  if (place == nullptr) {
    return absl::InternalError(std::string("balancer.bpf.c has no ") + name);
  }
  memcpy(place, &value, sizeof value);
  return absl::OkStatus();
}

absl::StatusOr<bpf_map*> FindMap(bpf_object* object, std::string_view name) {
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, object) {
    if (std::string_view(bpf_map__name(map)).ends_with(name)) return map;
  }
  return absl::InternalError("balancer.bpf.c has no map " + std::string(name));
}

}  // namespace

// Map sizes and constants, before the object is loaded.
absl::Status Balancer::State::Size(const Ticks& ticks) {
  struct Wanted {
    const char* map;
    uint64_t entries;
  };
  const Wanted all[] = {{"weft_lb_flows4", uint64_t{cpus} << config.flow4_bits},
                        {"weft_lb_flows6", uint64_t{cpus} << config.flow6_bits},
                        {"weft_lb_frags", uint64_t{cpus} * WEFT_LB_FRAGMENTS},
                        {"weft_lb_traffic", uint64_t{cpus} * WEFT_LB_VIPS},
                        {"weft_lb_counts", cpus},
                        {"weft_lb_rings", config.ring_chunks}};
  for (const Wanted& wanted : all) {
    WEFT_ASSIGN_OR_RETURN(bpf_map * map, FindMap(object.get(), wanted.map));
    if (wanted.entries > UINT32_MAX ||
        bpf_map__set_max_entries(map, static_cast<uint32_t>(wanted.entries)) != 0) {
      return absl::InvalidArgumentError(std::string(wanted.map) + " would be too large");
    }
  }
  uint64_t secret[2] = {};
  if (getrandom(secret, sizeof secret, 0) != sizeof secret) return ErrnoStatus(errno, "getrandom");
  WEFT_RETURN_IF_ERROR(SetVariable(object.get(), "cfg_secret", secret));
  WEFT_RETURN_IF_ERROR(SetVariable(object.get(), "cfg_flow4_bits", config.flow4_bits));
  WEFT_RETURN_IF_ERROR(SetVariable(object.get(), "cfg_flow6_bits", config.flow6_bits));
  WEFT_RETURN_IF_ERROR(SetVariable(object.get(), "cfg_cpus", cpus));
  return SetVariable(object.get(), "cfg_tick_shift", ticks.shift);
}

absl::Status Balancer::State::Map() {
  struct Wanted {
    const char* map;
    Mapped* out;
  };
  const Wanted all[] = {
      {".bss", &tables},           {"weft_lb_rings", &rings},     {"weft_lb_flows4", &flows4},
      {"weft_lb_flows6", &flows6}, {"weft_lb_frags", &fragments}, {"weft_lb_traffic", &traffic},
      {"weft_lb_counts", &counts}};
  for (const Wanted& wanted : all) {
    WEFT_ASSIGN_OR_RETURN(bpf_map * map, FindMap(object.get(), wanted.map));
    WEFT_ASSIGN_OR_RETURN(*wanted.out, Mapped::Open(map));
  }
  if (tables.bytes() < sizeof(weft_lb_tables)) {
    return absl::InternalError("the tables of balancer.bpf.c have another size");
  }
  return absl::OkStatus();
}

void Balancer::State::Configure(const Ticks& ticks) {
  weft_lb_config& out = Tables().config;
  memcpy(&out.source4, config.source4.bytes.data() + 12, sizeof out.source4);
  memcpy(out.source6, config.source6.bytes.data(), sizeof out.source6);
  out.source4_sum = weft_lb_source_sum(out.source4);
  out.mtu = config.mtu;
  out.expiry[WEFT_LB_FLOW_NEW] = ticks.Of(config.expiry_new);
  out.expiry[WEFT_LB_FLOW_LIVE] = ticks.Of(config.expiry_tcp);
  out.expiry[WEFT_LB_FLOW_CLOSING] = ticks.Of(config.expiry_closing);
  out.expiry[WEFT_LB_FLOW_LIVE_DATAGRAM] = ticks.Of(config.expiry_udp);
  out.fragment_expiry = ticks.Of(config.expiry_fragment);
  out.ring_seed = config.ring_seed;
}

absl::StatusOr<std::unique_ptr<Balancer>> Balancer::Load(const BalancerConfig& config) {
  WEFT_RETURN_IF_ERROR(CheckConfig(config));
  auto state = std::make_unique<State>();
  State& s = *state;
  s.config = config;
  const int cpus = libbpf_num_possible_cpus();
  if (cpus <= 0) return ErrnoStatus(-cpus, "count the possible CPUs");
  s.cpus = static_cast<uint32_t>(cpus);
  const Ticks ticks;
  const EmbeddedObject embedded{"balancer", {weft_bpf_balancer, weft_bpf_balancer_end}};
  WEFT_ASSIGN_OR_RETURN(s.object, OpenObject(embedded, PinPaths{}, MapSizes{}));
  WEFT_RETURN_IF_ERROR(s.Size(ticks));
  WEFT_RETURN_IF_ERROR(LoadObject(embedded, s.object.get()));
  WEFT_RETURN_IF_ERROR(s.Map());
  s.Configure(ticks);
  s.vips = std::make_unique<VipTable>(
      BalancerMemoryMap{&s.Tables(), s.rings.As<uint16_t>(), s.flows4.As<weft_lb_bucket4>(),
                        s.flows6.As<weft_lb_bucket6>(), s.fragments.As<weft_lb_fragment>(),
                        WaitForGrace},
      !config.source4.is_unspecified(), !config.source6.is_unspecified());
  return std::unique_ptr<Balancer>(new Balancer(std::move(state)));
}

Balancer::Balancer(std::unique_ptr<State> state) : state_(std::move(state)) {}

Balancer::~Balancer() {
  for (const auto& [ifindex, attachment] : state_->attached) {
    if (attachment.link || attachment.link_fd.ok()) continue;
    (void)state_->DetachClsact(attachment);  // nobody to tell; Detach() does
  }
}

absl::Status Balancer::State::AttachClsact(int ifindex, Attachment* out) {
  out->netns = UniqueFd(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  if (!out->netns.ok()) return ErrnoStatus(errno, "open network namespace");
  bpf_tc_hook hook{};
  hook.sz = sizeof hook;
  hook.ifindex = ifindex;
  hook.attach_point = BPF_TC_INGRESS;
  const int made = bpf_tc_hook_create(&hook);
  if (made != 0 && made != -EEXIST) return ErrnoStatus(-made, "make clsact");
  bpf_tc_opts options{};
  options.sz = sizeof options;
  options.handle = kClsactHandle;
  options.priority = kClsactPriority;
  options.prog_fd = bpf_program__fd(Program(BalancerHook::kTc));
  if (const int error = bpf_tc_attach(&hook, &options); error != 0) {
    return ErrnoStatus(-error, "attach weft_lb_tc by clsact");
  }
  out->made_clsact = made == 0;
  return absl::OkStatus();
}

absl::Status Balancer::State::DetachClsact(const Attachment& attachment) {
  return InNetns(attachment.netns.get(), [&] {
    bpf_tc_hook hook{};
    hook.sz = sizeof hook;
    hook.ifindex = attachment.ifindex;
    hook.attach_point = BPF_TC_INGRESS;
    bpf_tc_opts options{};
    options.sz = sizeof options;
    options.handle = kClsactHandle;
    options.priority = kClsactPriority;
    const int error = bpf_tc_detach(&hook, &options);
    // The interface may be gone, and with it the program.
    if (error != 0 && error != -ENODEV && error != -ENOENT && error != -EINVAL) {
      return ErrnoStatus(-error, "detach weft_lb_tc");
    }
    if (!attachment.made_clsact || error != 0) return absl::OkStatus();
    hook.attach_point = static_cast<bpf_tc_attach_point>(BPF_TC_INGRESS | BPF_TC_EGRESS);
    const int left = bpf_tc_hook_destroy(&hook);
    return left == 0 ? absl::OkStatus() : ErrnoStatus(-left, "remove clsact");
  });
}

absl::Status Balancer::Attach(int ifindex, BalancerHook hook) {
  State& s = *state_;
  if (s.attached.contains(ifindex)) {
    return absl::AlreadyExistsError(absl::StrCat("interface ", ifindex, " has the balancer"));
  }
  Attachment attachment{};
  attachment.ifindex = ifindex;
  bpf_program* program = s.Program(hook);
  if (hook == BalancerHook::kTc) {
    attachment.link.reset(bpf_program__attach_tcx(program, ifindex, nullptr));
    // Before 6.6 there is no tcx; the system call then knows no such link.
    if (!attachment.link) {
      if (errno != EINVAL && errno != EOPNOTSUPP) return ErrnoStatus(errno, "attach weft_lb_tc");
      WEFT_RETURN_IF_ERROR(s.AttachClsact(ifindex, &attachment));
    }
  } else if (hook == BalancerHook::kClsact) {
    WEFT_RETURN_IF_ERROR(s.AttachClsact(ifindex, &attachment));
  } else {
    bpf_link_create_opts options{};
    options.sz = sizeof options;
    options.flags = hook == BalancerHook::kXdpNative ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE;
    const int fd = bpf_link_create(bpf_program__fd(program), ifindex, BPF_XDP, &options);
    if (fd < 0) return ErrnoStatus(-fd, "attach weft_lb_xdp");
    attachment.link_fd = UniqueFd(fd);
  }
  s.attached.emplace(ifindex, std::move(attachment));
  return absl::OkStatus();
}

absl::Status Balancer::Detach(int ifindex) {
  const auto found = state_->attached.find(ifindex);
  if (found == state_->attached.end()) return absl::OkStatus();
  Attachment& attachment = found->second;
  if (attachment.link) {
    bpf_link__detach(attachment.link.get());
  } else if (attachment.link_fd.ok()) {
    bpf_link_detach(attachment.link_fd.get());
  } else {
    WEFT_RETURN_IF_ERROR(state_->DetachClsact(attachment));
  }
  state_->attached.erase(found);
  return absl::OkStatus();
}

absl::Status Balancer::SetVip(const BalancerVip& vip) { return state_->vips->Set(vip); }

absl::Status Balancer::RemoveVip(const SocketAddress& address, uint8_t protocol) {
  return state_->vips->Remove(address, protocol);
}

void Balancer::SetMtu(uint32_t mtu) {
  std::atomic_ref(state_->Tables().config.mtu).store(std::clamp(mtu, kMinMtu, 65535u));
}

weft_lb_traffic Balancer::Traffic(const SocketAddress& address, uint8_t protocol) const {
  weft_lb_traffic sum{};
  const uint32_t index = state_->vips->IndexOf(address, protocol);
  if (index == 0) return sum;
  for (uint32_t cpu = 0; cpu < state_->cpus; ++cpu) {
    const weft_lb_traffic& one = state_->traffic.As<weft_lb_traffic>()[cpu * WEFT_LB_VIPS + index];
    sum.packets += one.packets;
    sum.bytes += one.bytes;
    sum.flows += one.flows;
    sum.refused += one.refused;
  }
  return sum;
}

std::array<uint64_t, WEFT_LB_REASON_MAX> Balancer::Counters() const {
  std::array<uint64_t, WEFT_LB_REASON_MAX> sum{};
  for (uint32_t cpu = 0; cpu < state_->cpus; ++cpu) {
    const weft_lb_counts& one = state_->counts.As<weft_lb_counts>()[cpu];
    for (size_t reason = 0; reason < sum.size(); ++reason) sum[reason] += one.of[reason];
  }
  return sum;
}

BalancerMemory Balancer::Memory() const {
  const State& s = *state_;
  return {.rings = s.vips->ring_bytes(),
          .ring_space = s.rings.bytes(),
          .tables = s.tables.bytes(),
          .flows = s.flows4.bytes() + s.flows6.bytes() + s.fragments.bytes(),
          .counters = s.traffic.bytes() + s.counts.bytes()};
}

uint64_t Balancer::Flows() const {
  uint64_t flows = 0;
  for (const weft_lb_bucket4& bucket : state_->flows4.As<weft_lb_bucket4>()) {
    flows += static_cast<uint64_t>(std::count_if(bucket.key, bucket.key + WEFT_LB_WAYS,
                                                 [](uint64_t key) { return key != 0; }));
  }
  for (const weft_lb_bucket6& bucket : state_->flows6.As<weft_lb_bucket6>()) {
    flows += static_cast<uint64_t>(std::count_if(bucket.key, bucket.key + WEFT_LB_WAYS,
                                                 [](uint32_t key) { return key != 0; }));
  }
  return flows;
}

void Balancer::ForgetFlows() {
  for (const Mapped* map : {&state_->flows4, &state_->flows6, &state_->fragments}) {
    std::ranges::fill(map->As<uint64_t>(), 0);
  }
}

int Balancer::ProgramFd(BalancerHook hook) const { return bpf_program__fd(state_->Program(hook)); }

uint32_t Balancer::VerifiedInstructions(BalancerHook hook) const {
  bpf_prog_info info{};
  uint32_t length = sizeof info;
  if (bpf_prog_get_info_by_fd(ProgramFd(hook), &info, &length) != 0) return 0;
  return info.verified_insns;
}

}  // namespace weft::bpf
