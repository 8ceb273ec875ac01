// SPDX-License-Identifier: Apache-2.0
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "control/bpf/pins.h"
#include "control/bpf/probe.h"

namespace weft::bpf {
namespace {

// What a probe found: whether, and how it knows.
struct Finding {
  bool present = false;
  std::string detail;
};

Finding FromResult(int result, std::string what) {
  if (result > 0) return {true, std::move(what)};
  if (result == 0) return {false, what + ": the kernel refuses it"};
  return {false, what + ": " + strerror(-result)};
}

Finding Helper(bpf_prog_type type, bpf_func_id helper, const char* what) {
  return FromResult(libbpf_probe_bpf_helper(type, helper, nullptr), what);
}

Finding MapType(bpf_map_type type, const char* what) {
  return FromResult(libbpf_probe_bpf_map_type(type, nullptr), what);
}

Finding ProgramType(bpf_prog_type type, const char* what) {
  return FromResult(libbpf_probe_bpf_prog_type(type, nullptr), what);
}

Finding Btf() {
  const bool present = access("/sys/kernel/btf/vmlinux", R_OK) == 0;
  return {present, present ? "/sys/kernel/btf/vmlinux" : strerror(errno)};
}

Finding KernelSymbol(const char* name) {
  std::ifstream symbols("/proc/kallsyms");
  std::string line;
  while (std::getline(symbols, line)) {
    const size_t at = line.rfind(' ');
    if (at != std::string::npos && line.compare(at + 1, std::string::npos, name) == 0) {
      return {true, std::string(name) + " in /proc/kallsyms"};
    }
  }
  return {false, std::string(name) + " is not in /proc/kallsyms"};
}

Finding Capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  if (syscall(SYS_capget, &header, data) != 0) return {false, strerror(errno)};
  const auto has = [&](int cap) { return (data[cap / 32].effective >> (cap % 32) & 1) != 0; };
  std::string missing;
  for (const auto& [cap, name] :
       {std::pair{CAP_SYS_ADMIN, "CAP_SYS_ADMIN"}, std::pair{CAP_NET_ADMIN, "CAP_NET_ADMIN"},
        std::pair{CAP_BPF, "CAP_BPF"}, std::pair{CAP_PERFMON, "CAP_PERFMON"}}) {
    if (!has(cap)) missing += (missing.empty() ? "missing " : ", ") + std::string(name);
  }
  return {missing.empty(), missing.empty() ? "all held" : missing};
}

// A link to an interface that does not exist: a kernel that knows the attach type complains of the
// interface (ENODEV), an older one of the attach type (EINVAL).
Finding Tcx() {
  bpf_insn code[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 0},
                     {.code = BPF_JMP | BPF_EXIT}};
  const UniqueFd program(
      bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "weft_probe", "GPL", code, 2, nullptr));
  if (!program.ok()) return {false, std::string("tc program: ") + strerror(errno)};
  constexpr int kNoInterface = 0x7ffffffe;
  const UniqueFd link(bpf_link_create(program.get(), kNoInterface, BPF_TCX_INGRESS, nullptr));
  const int error = link.ok() ? 0 : errno;
  if (error == ENODEV || error == 0) return {true, "a tcx link is refused only for its interface"};
  return {false, std::string("tcx link: ") + strerror(error)};
}

Finding SockmapLink() {
  const UniqueFd map(bpf_map_create(BPF_MAP_TYPE_SOCKHASH, "weft_probe", 8, 8, 1, nullptr));
  bpf_insn code[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 1},
                     {.code = BPF_JMP | BPF_EXIT}};
  const UniqueFd program(
      bpf_prog_load(BPF_PROG_TYPE_SK_MSG, "weft_probe", "GPL", code, 2, nullptr));
  if (!map.ok() || !program.ok()) return {false, strerror(errno)};
  const UniqueFd link(bpf_link_create(program.get(), map.get(), BPF_SK_MSG_VERDICT, nullptr));
  return {link.ok(), link.ok() ? "sk_msg link on a sockhash" : strerror(errno)};
}

Finding SysEnter() {
  bpf_insn code[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 0},
                     {.code = BPF_JMP | BPF_EXIT}};
  const UniqueFd program(
      bpf_prog_load(BPF_PROG_TYPE_RAW_TRACEPOINT, "weft_probe", "GPL", code, 2, nullptr));
  if (!program.ok()) return {false, std::string("raw tracepoint program: ") + strerror(errno)};
  const UniqueFd link(bpf_raw_tracepoint_open("sys_enter", program.get()));
  return {link.ok(), std::string("raw tracepoint sys_enter") +
                         (link.ok() ? "" : std::string(": ") + strerror(errno))};
}

Finding Cgroup2() {
  const absl::StatusOr<std::string> root = FindCgroup2Root();
  return {root.ok(), root.ok() ? *root : std::string(StdView(root.status().message()))};
}

Feature Make(const char* name, bool required, Finding finding, const char* consequence,
             const char* remedy) {
  return {name, finding.present, required, std::move(finding.detail), consequence, remedy};
}

void AddHost(const std::string& bpffs_root, std::vector<Feature>& all) {
  all.push_back(Make("capabilities", true, Capabilities(), "nothing can be loaded or attached",
                     "run as root, outside a user namespace"));
  all.push_back(Make("btf", true, Btf(), "programs cannot be fitted to this kernel",
                     "use a kernel with CONFIG_DEBUG_INFO_BTF=y"));
  all.push_back(Make("cgroup2", true, Cgroup2(), "connect() cannot be captured",
                     "mount -t cgroup2 none /sys/fs/cgroup/unified"));
  const bool bpffs = IsBpffs(bpffs_root);
  all.push_back(Make("bpffs", false, {bpffs, bpffs_root + (bpffs ? "" : " is not a bpffs")},
                     "the agent mounts it when it starts",
                     "mount -t bpf bpf /sys/fs/bpf, to have it from boot on"));
}

void AddCapture(std::vector<Feature>& all) {
  all.push_back(Make(
      "netns_cookie", true,
      Helper(BPF_PROG_TYPE_SOCK_OPS, BPF_FUNC_get_netns_cookie, "bpf_get_netns_cookie in sockops"),
      "a pod's sockets cannot be told apart", "use Linux 5.15 or newer"));
  all.push_back(Make("set_retval", true,
                     Helper(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_FUNC_set_retval,
                            "bpf_set_retval in cgroup/connect"),
                     "refusals could not say ECONNREFUSED", "use Linux 5.18 or newer"));
  all.push_back(Make("sk_storage", true, MapType(BPF_MAP_TYPE_SK_STORAGE, "socket storage map"),
                     "sockets cannot be stamped", "use Linux 5.15 or newer"));
  all.push_back(Make("sk_lookup", true, ProgramType(BPF_PROG_TYPE_SK_LOOKUP, "sk_lookup program"),
                     "inbound connections cannot be policed", "use Linux 5.9 or newer"));
  all.push_back(Make("ring_buffer", true, MapType(BPF_MAP_TYPE_RINGBUF, "ring buffer map"),
                     "no flow events", "use Linux 5.8 or newer"));
  all.push_back(Make("tcx", false, Tcx(),
                     "no guard at the host ends of veths: a pod with CAP_NET_RAW or CAP_NET_ADMIN "
                     "can go round the mesh, and UDP and ICMP are under no policy",
                     "use Linux 6.6 or newer"));
}

void AddProcesses(std::vector<Feature>& all) {
  all.push_back(Make("exec_events", true,
                     Helper(BPF_PROG_TYPE_RAW_TRACEPOINT, BPF_FUNC_send_signal,
                            "bpf_send_signal in raw tracepoints"),
                     "processes are neither seen nor killed",
                     "use Linux 5.17 or newer with CONFIG_BPF_EVENTS=y"));
  all.push_back(Make("loop", true, Helper(BPF_PROG_TYPE_RAW_TRACEPOINT, BPF_FUNC_loop, "bpf_loop"),
                     "a program's path and arguments cannot be read", "use Linux 5.17 or newer"));
  all.push_back(Make("kill_at_connect", false, KernelSymbol("bpf_send_signal_task"),
                     "a process that connects where policy kills it fails to connect, and is "
                     "killed by the agent a moment later",
                     "use Linux 6.13 or newer"));
}

void AddSplice(std::vector<Feature>& all) {
  all.push_back(Make("sockhash", true, MapType(BPF_MAP_TYPE_SOCKHASH, "sockhash map"),
                     "neither listeners nor spliced sockets can be kept",
                     "use a kernel with CONFIG_NET_SOCK_MSG=y (BPF stream parser)"));
  all.push_back(Make("sk_msg", true, ProgramType(BPF_PROG_TYPE_SK_MSG, "sk_msg program"),
                     "no splice", "use a kernel with CONFIG_NET_SOCK_MSG=y"));
  all.push_back(Make("sockmap_link", false, SockmapLink(),
                     "the splice's program is attached without a link: replaced, not updated",
                     "use Linux 6.10 or newer"));
  all.push_back(Make("iter_tcp", true, KernelSymbol("bpf_iter_tcp"),
                     "accepted sockets cannot enter the splice",
                     "use Linux 5.15 or newer with CONFIG_BPF_SYSCALL=y"));
  all.push_back(Make("sys_enter", false, SysEnter(),
                     "nothing is learned of programs: weft.dev/splice: auto splices nothing",
                     "use a kernel with CONFIG_FTRACE_SYSCALLS=y and CONFIG_BPF_EVENTS=y"));
  all.push_back(Make("return_rule", false, KernelSymbol("woken_wake_function"),
                     "a connection that fell back to TCP never returns to the splice",
                     "use a kernel with CONFIG_KALLSYMS=y"));
}

}  // namespace

bool HasTcx() {
  const libbpf_print_fn_t before = libbpf_set_print(nullptr);
  const bool present = Tcx().present;
  libbpf_set_print(before);
  return present;
}
bool KernelHasFunction(const char* name) { return KernelSymbol(name).present; }

std::vector<Feature> ProbeFeatures(const std::string& bpffs_root) {
  // A failing probe is a finding, not a message on stderr.
  const libbpf_print_fn_t before = libbpf_set_print(nullptr);
  std::vector<Feature> all;
  AddHost(bpffs_root, all);
  AddCapture(all);
  AddProcesses(all);
  AddSplice(all);
  libbpf_set_print(before);
  return all;
}

}  // namespace weft::bpf
