// SPDX-License-Identifier: Apache-2.0
#include "control/bpf/loader.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <map>
#include <utility>

#include "control/bpf/address.h"
#include "control/bpf/cutter.h"
#include "control/bpf/guard.h"
#include "control/bpf/kernel_maps.h"
#include "control/bpf/kernel_policy.h"
#include "control/bpf/late_insertion.h"
#include "control/bpf/netns.h"
#include "control/bpf/probe.h"
#include "control/bpf/process_watcher.h"
#include "control/bpf/programs.h"
#include "control/bpf/service_table.h"
#include "control/bpf/watcher.h"

namespace weft::bpf {
namespace {

struct CloseRing {
  void operator()(ring_buffer* ring) const { ring_buffer__free(ring); }
};

struct Attached {
  UniqueFd netns;
  uint32_t id = 0;
};

weft_resolver_key ResolverKey(uint64_t netns_cookie, const IpAddress& resolver) {
  weft_resolver_key key{.netns_cookie = netns_cookie, .ip = {}};
  memcpy(key.ip, resolver.bytes.data(), sizeof key.ip);
  return key;
}

absl::StatusOr<UniqueFd> OpenFolder(const std::string& path, bool make) {
  if (make && mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) {
    return ErrnoStatus(errno, "mkdir " + path);
  }
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.ok()) return ErrnoStatus(errno, "open " + path);
  return fd;
}

// mkdir -p of what lies below `root`.
absl::Status MakeBelow(const std::string& root, const std::string& path) {
  if (path.compare(0, root.size() + 1, root + "/") != 0) {
    return absl::InvalidArgumentError("cgroup " + path + " is not below " + root);
  }
  for (size_t end = root.size() + 1; end != std::string::npos;) {
    end = path.find('/', end + 1);
    const std::string part = path.substr(0, end);
    if (mkdir(part.c_str(), 0755) != 0 && errno != EEXIST) {
      return ErrnoStatus(errno, "mkdir " + part);
    }
  }
  return absl::OkStatus();
}

weft_workload ToKernel(const WorkloadConfig& workload) {
  weft_workload out{};
  out.id = workload.id;
  out.generation = workload.generation;
  out.identity = workload.identity;
  out.flags = workload.flags;
  if (workload.ipv4) memcpy(out.ipv4, workload.ipv4->bytes.data(), sizeof out.ipv4);
  if (workload.ipv6) memcpy(out.ipv6, workload.ipv6->bytes.data(), sizeof out.ipv6);
  return out;
}

absl::Status CheckWorkload(const WorkloadConfig& workload) {
  if (workload.id == 0) return absl::InvalidArgumentError("workload id 0 means none");
  if (workload.ipv4 && !workload.ipv4->is_v4()) {
    return absl::InvalidArgumentError(workload.ipv4->ToString() + " is no IPv4 address");
  }
  if (workload.ipv6 && workload.ipv6->is_v4()) {
    return absl::InvalidArgumentError(workload.ipv6->ToString() + " is no IPv6 address");
  }
  return absl::OkStatus();
}

std::string InboundLink(uint64_t cookie) { return absl::StrCat("inbound_", cookie); }

}  // namespace

struct Kernel::State {
  KernelConfig config;
  PinPaths paths;
  bool adopted = false;
  KernelMaps maps;
  std::unique_ptr<ServiceTable> services;
  std::unique_ptr<KernelPolicy> policy;
  std::unique_ptr<Cutter> cutter;
  std::unique_ptr<Guard> guard;
  std::set<uint32_t> ask_again;  // workloads with a socket that connected during a change of policy
  std::unique_ptr<LateInserter> late;
  std::unique_ptr<Watcher> watcher;
  std::unique_ptr<ring_buffer, CloseRing> ring;
  std::map<uint64_t, Attached> attached;  // by netns cookie; only what this Kernel attached
  std::map<uint64_t, std::vector<IpAddress>> resolvers;              // in the map, by netns cookie
  const std::function<void(const weft_event&)>* callback = nullptr;  // during Consume only
  const std::function<void(const weft_process_event&)>* process_callback = nullptr;
  bool kills_at_connect = false;
  std::unique_ptr<ProcessWatcher> processes;

  absl::Status AttachCgroup(bpf_object* object, const char* program_name, const std::string& link,
                            const UniqueFd& cgroup);
  absl::Status LoadCgroupPrograms();
  absl::Status LoadSplice();
  absl::Status OpenMaps();
  absl::StatusOr<ObjectPtr> LoadCgroupObject(const EmbeddedObject& embedded);
  absl::Status PutWorkload(uint64_t netns_cookie, const weft_workload& entry);
  absl::StatusOr<GuardReport> GuardWorkload(uint64_t netns_cookie, int pod_netns,
                                            const weft_workload& entry, int host_netns);
  void KillOutside(const weft_event& event);
  absl::Status SetResolvers(uint64_t netns_cookie, const std::vector<IpAddress>& wanted);
  static int OnEvent(void* self, void* data, size_t size);
  static int OnProcessEvent(void* self, void* data, size_t size);
};

absl::Status Kernel::State::AttachCgroup(bpf_object* object, const char* program_name,
                                         const std::string& link, const UniqueFd& cgroup) {
  WEFT_ASSIGN_OR_RETURN(bpf_program * program, FindProgram(object, program_name));
  struct stat info{};
  if (fstat(cgroup.get(), &info) != 0) return ErrnoStatus(errno, "stat cgroup");
  return AttachPinned(
      paths, link, program,
      [&](const bpf_link_info& pinned) { return pinned.cgroup.cgroup_id == info.st_ino; },
      [&] { return bpf_program__attach_cgroup(program, cgroup.get()); });
}

absl::Status Kernel::State::LoadCgroupPrograms() {
  WEFT_ASSIGN_OR_RETURN(const UniqueFd root, OpenFolder(config.cgroup_root, false));
  WEFT_ASSIGN_OR_RETURN(const UniqueFd ours, OpenFolder(config.sockets_cgroup, true));
  struct Hook {
    const char* program;
    const char* link;
    const UniqueFd& cgroup;
  };
  struct Part {
    EmbeddedObject object;
    std::vector<Hook> hooks;
  };
  // sockops before connect: a connection must not be redirected before its hand-over can be
  // written.
  const Part parts[] = {
      {SockopsObject(), {{"weft_sockops", "sockops", root}}},
      {AddressObject(),
       {{"weft_getpeername4", "getpeername4", root},
        {"weft_getpeername6", "getpeername6", root},
        {"weft_getsockopt", "getsockopt", ours},
        {"weft_setsockopt", "setsockopt", ours}}},
      {CreateObject(), {{"weft_create", "create", root}}},
      // Answers before queries: a program must not see where its answer came from.
      {DatagramObject(),
       {{"weft_dns_recvmsg4", "recvmsg4", root},
        {"weft_dns_recvmsg6", "recvmsg6", root},
        {"weft_dns_sendmsg4", "sendmsg4", root},
        {"weft_dns_sendmsg6", "sendmsg6", root}}},
      {ConnectObject(),
       {{"weft_bind4", "bind4", root},
        {"weft_bind6", "bind6", root},
        {"weft_connect4", "connect4", root},
        {"weft_connect6", "connect6", root}}},
  };
  for (const Part& part : parts) {
    WEFT_ASSIGN_OR_RETURN(const ObjectPtr object, LoadCgroupObject(part.object));
    for (const Hook& hook : part.hooks) {
      WEFT_RETURN_IF_ERROR(AttachCgroup(object.get(), hook.program, hook.link, hook.cgroup));
    }
  }
  return absl::OkStatus();
}

// A kernel that knows how to signal a process from these hooks is found out by trying.
absl::StatusOr<ObjectPtr> Kernel::State::LoadCgroupObject(const EmbeddedObject& embedded) {
  WEFT_ASSIGN_OR_RETURN(ObjectPtr object, OpenObject(embedded, paths, config.sizes));
  void* kill = FindVariable(object.get(), ".rodata", "cfg_kill_at_connect");
  if (kill == nullptr) {
    WEFT_RETURN_IF_ERROR(LoadObject(embedded, object.get()));
    return object;
  }
  kills_at_connect = config.kill_in_kernel && KernelHasFunction("bpf_send_signal_task");
  uint32_t on = kills_at_connect ? 1 : 0;
  memcpy(kill, &on, sizeof on);
  if (LoadObject(embedded, object.get()).ok()) return object;
  kills_at_connect = false;
  WEFT_ASSIGN_OR_RETURN(object, OpenObject(embedded, paths, config.sizes));
  WEFT_RETURN_IF_ERROR(LoadObject(embedded, object.get()));
  return object;
}

// Loads the first object, which makes the maps; sockets inserted later get the program that is
// attached by then.
absl::Status Kernel::State::LoadSplice() {
  const EmbeddedObject embedded = SpliceObject();
  WEFT_ASSIGN_OR_RETURN(ObjectPtr object, OpenObject(embedded, paths, config.sizes));
  WEFT_RETURN_IF_ERROR(LoadObject(embedded, object.get()));
  WEFT_RETURN_IF_ERROR(OpenMaps());
  WEFT_ASSIGN_OR_RETURN(bpf_program * program, FindProgram(object.get(), "weft_sk_msg"));
  const absl::Status linked = AttachPinned(
      paths, "splice", program, [](const bpf_link_info&) { return true; },
      [&] { return bpf_program__attach_sockmap(program, maps.splice.get()); });
  if (linked.ok()) return linked;
  // Before 6.10 there is no link for it; the pinned map then holds the program.
  if (bpf_prog_attach(bpf_program__fd(program), maps.splice.get(), BPF_SK_MSG_VERDICT, 0) != 0) {
    return linked;
  }
  return absl::OkStatus();
}

absl::Status Kernel::State::OpenMaps() {
  WEFT_ASSIGN_OR_RETURN(maps, KernelMaps::Open(paths));
  for (const weft_resolver_key& key : Keys<weft_resolver_key>(maps.resolvers)) {
    IpAddress ip;
    memcpy(ip.bytes.data(), key.ip, sizeof key.ip);
    resolvers[key.netns_cookie].push_back(ip);
  }
  const weft_config value{WEFT_ABI, config.splice ? 1u : 0u};
  return Put(maps.config, uint32_t{0}, value, "write weft_config");
}

absl::Status Kernel::State::SetResolvers(uint64_t netns_cookie,
                                         const std::vector<IpAddress>& wanted) {
  std::vector<IpAddress>& have = resolvers[netns_cookie];
  if (have == wanted) return absl::OkStatus();
  for (const IpAddress& ip : wanted) {
    WEFT_RETURN_IF_ERROR(Put(maps.resolvers, ResolverKey(netns_cookie, ip), uint32_t{1},
                             "resolver " + ip.ToString()));
  }
  for (const IpAddress& ip : have) {
    if (std::find(wanted.begin(), wanted.end(), ip) != wanted.end()) continue;
    WEFT_RETURN_IF_ERROR(
        Drop(maps.resolvers, ResolverKey(netns_cookie, ip), "remove resolver " + ip.ToString()));
  }
  have = wanted;
  return absl::OkStatus();
}

int Kernel::State::OnEvent(void* self, void* data, size_t size) {
  State& state = *static_cast<State*>(self);
  if (size < sizeof(weft_event)) return 0;
  const weft_event& event = *static_cast<const weft_event*>(data);
  if (event.kind == WEFT_EVENT_LEARN) {
    state.late->Request(event.netns_cookie);
  } else if (event.kind == WEFT_EVENT_ASK_AGAIN) {
    state.ask_again.insert(event.source_workload);
  } else {
    if (event.reason == WEFT_R_PROCESS_KILLED && !state.kills_at_connect) state.KillOutside(event);
    (*state.callback)(event);
  }
  return 0;
}

int Kernel::State::OnProcessEvent(void* self, void* data, size_t size) {
  State& state = *static_cast<State*>(self);
  constexpr size_t kFixed = offsetof(weft_process_event, arguments);
  if (size < kFixed || state.process_callback == nullptr || !*state.process_callback) return 0;
  weft_process_event event{};
  memcpy(&event, data, std::min(size, sizeof event));
  event.argument_bytes =
      std::min(event.argument_bytes, static_cast<uint32_t>(std::min(size, sizeof event) - kFixed));
  (*state.process_callback)(event);
  return 0;
}

// Its connect has failed already. The pid is that of the process which the kernel meant as long as
// the kernel knows it after the descriptor is open: entries go when a process ends or executes.
void Kernel::State::KillOutside(const weft_event& event) {
  const UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, event.pid, 0)));
  if (!process.ok()) return;  // it has ended
  if (!policy->processes().KnowsPid(event.pid, event.binary)) return;
  syscall(SYS_pidfd_send_signal, process.get(), SIGKILL, nullptr, 0);
}

absl::StatusOr<std::unique_ptr<Kernel>> Kernel::Open(const KernelConfig& config) {
  auto state = std::make_unique<State>();
  State& s = *state;
  s.config = config;
  if (config.self_test && !config.self_test->ok()) s.config.splice = false;
  WEFT_ASSIGN_OR_RETURN(s.paths, PathsOf(config.bpffs_root, config.node));
  if (s.config.cgroup_root.empty()) {
    WEFT_ASSIGN_OR_RETURN(s.config.cgroup_root, FindCgroup2Root());
  }
  WEFT_RETURN_IF_ERROR(CheckCgroup2(s.config.cgroup_root));
  WEFT_RETURN_IF_ERROR(MakeBelow(s.config.cgroup_root, s.config.sockets_cgroup));
  WEFT_RETURN_IF_ERROR(MountBpffs(config.bpffs_root));
  const absl::Status abi = CheckAbi(s.paths);
  if (!abi.ok() && !absl::IsNotFound(abi)) return abi;
  s.adopted = abi.ok();
  WEFT_RETURN_IF_ERROR(MakeFolders(s.paths));
  WEFT_RETURN_IF_ERROR(s.LoadSplice());
  WEFT_RETURN_IF_ERROR(s.LoadCgroupPrograms());
  s.watcher = std::make_unique<Watcher>(s.paths, s.config.sizes);
  WEFT_ASSIGN_OR_RETURN(s.late, LateInserter::Create(s.paths, s.config.sizes));
  WEFT_ASSIGN_OR_RETURN(s.policy, KernelPolicy::Create(s.paths, s.config.sizes));
  WEFT_RETURN_IF_ERROR(
      s.policy->processes().SetRate(config.events_per_second, config.events_at_once));
  WEFT_ASSIGN_OR_RETURN(s.processes, ProcessWatcher::Create(s.paths, s.config.sizes));
  WEFT_ASSIGN_OR_RETURN(s.cutter, Cutter::Create(s.paths, s.config.sizes));
  WEFT_ASSIGN_OR_RETURN(s.guard, Guard::Create(s.paths, s.config.sizes));
  WEFT_ASSIGN_OR_RETURN(s.services, ServiceTable::Create(s.maps));
  s.ring.reset(ring_buffer__new(s.maps.events.get(), State::OnEvent, &s, nullptr));
  if (!s.ring) return ErrnoStatus(errno, "open weft_events");
  if (const int error =
          ring_buffer__add(s.ring.get(), s.maps.process_events.get(), State::OnProcessEvent, &s);
      error != 0) {
    return ErrnoStatus(-error, "open weft_proc_events");
  }
  return std::unique_ptr<Kernel>(new Kernel(std::move(state)));
}

Kernel::Kernel(std::unique_ptr<State> state) : state_(std::move(state)) {}
Kernel::~Kernel() = default;

bool Kernel::adopted() const { return state_->adopted; }

absl::StatusOr<uint64_t> Kernel::AttachWorkload(int netns_fd, const WorkloadConfig& workload) {
  State& s = *state_;
  WEFT_RETURN_IF_ERROR(CheckWorkload(workload));
  WEFT_ASSIGN_OR_RETURN(const uint64_t cookie, NetnsCookie(netns_fd));
  UniqueFd netns(fcntl(netns_fd, F_DUPFD_CLOEXEC, 3));
  if (!netns.ok()) return ErrnoStatus(errno, "duplicate network namespace");
  const EmbeddedObject embedded = InboundObject();
  WEFT_ASSIGN_OR_RETURN(ObjectPtr object, OpenObject(embedded, s.paths, s.config.sizes));
  void* cookie_variable = FindVariable(object.get(), ".rodata", "cfg_netns_cookie");
  void* id_variable = FindVariable(object.get(), ".rodata", "cfg_workload");
  if (cookie_variable == nullptr || id_variable == nullptr) {
    return absl::InternalError("inbound.bpf.c has no cfg_netns_cookie or cfg_workload");
  }
  memcpy(cookie_variable, &cookie, sizeof cookie);
  memcpy(id_variable, &workload.id, sizeof workload.id);
  WEFT_RETURN_IF_ERROR(LoadObject(embedded, object.get()));
  WEFT_ASSIGN_OR_RETURN(bpf_program * program, FindProgram(object.get(), "weft_inbound"));
  // Gate before capture: between the two, SYNs are dropped and sent again.
  WEFT_RETURN_IF_ERROR(AttachPinned(
      s.paths, InboundLink(cookie), program, [](const bpf_link_info&) { return true; },
      [&] { return bpf_program__attach_netns(program, netns.get()); }));
  WEFT_RETURN_IF_ERROR(s.policy->processes().StartCounting(workload.id));
  weft_workload entry = ToKernel(workload);
  if (!s.guard->Holds(cookie)) entry.flags |= WEFT_WL_ENROLLING;
  if (absl::Status written = s.PutWorkload(cookie, entry); !written.ok()) {
    (void)RemoveLink(s.paths.links + "/" +
                     InboundLink(cookie));  // the first error is the one to tell
    return written;
  }
  // What ran there before; what is missed is found out when it connects.
  WEFT_RETURN_IF_ERROR(s.processes->Scan(cookie).status());
  s.late->Add(cookie, netns.get(), workload.id);
  if (s.adopted) s.late->Request(cookie);  // an earlier agent may have missed the event
  s.attached[cookie] = Attached{std::move(netns), workload.id};
  return cookie;
}

absl::Status Kernel::State::PutWorkload(uint64_t netns_cookie, const weft_workload& entry) {
  watcher->Set(netns_cookie, (entry.flags & WEFT_WL_SPLICE_AUTO) != 0);
  WEFT_RETURN_IF_ERROR(
      Put(maps.workloads, netns_cookie, entry, absl::StrCat("enrol workload ", entry.id)));
  return guard->Update(netns_cookie, entry);
}

absl::Status Kernel::SetWorkload(uint64_t netns_cookie, const WorkloadConfig& workload) {
  WEFT_RETURN_IF_ERROR(CheckWorkload(workload));
  WEFT_RETURN_IF_ERROR(state_->SetResolvers(netns_cookie, workload.resolvers));
  return state_->PutWorkload(netns_cookie, ToKernel(workload));
}

absl::StatusOr<GuardReport> Kernel::State::GuardWorkload(uint64_t netns_cookie, int pod_netns,
                                                         const weft_workload& entry,
                                                         int host_netns) {
  const bool held = guard->Holds(netns_cookie);
  GuardReport report;
  const absl::StatusOr<HostEnds> found = FindHostEnds(pod_netns, host_netns);
  const absl::Status usable = !found.ok() ? found.status()
                              : found->problem.empty()
                                  ? absl::OkStatus()
                                  : absl::FailedPreconditionError(found->problem);
  report.problem = std::string(usable.message());
  if (!held) {
    WEFT_RETURN_IF_ERROR(usable);
    // Once: a socket that has no stamp under the guard has none for a reason.
    WEFT_ASSIGN_OR_RETURN(report.stamped, guard->StampOpenSockets(netns_cookie, pod_netns));
  }
  const std::vector<HostEnd> ends = found.ok() ? found->ends : std::vector<HostEnd>();
  absl::Status attached = guard->Attach(netns_cookie, entry, ends, host_netns);
  if (!attached.ok() && !held) {
    attached.Update(guard->Detach(netns_cookie));
    return attached;
  }
  if (!attached.ok()) report.problem = std::string(attached.message());
  for (const HostEnd& end : ends) report.interfaces.push_back(end.pod_name);
  return report;
}

absl::StatusOr<GuardReport> Kernel::GuardWorkload(uint64_t netns_cookie, int host_netns) {
  State& s = *state_;
  const auto found = s.attached.find(netns_cookie);
  weft_workload entry{};
  if (found == s.attached.end() ||
      bpf_map_lookup_elem(s.maps.workloads.get(), &netns_cookie, &entry) != 0) {
    return absl::NotFoundError(absl::StrCat("netns ", netns_cookie, " is not enrolled"));
  }
  if (!s.guard->available()) {
    return absl::UnimplementedError("this kernel has no tcx: Linux 6.6 has");
  }
  UniqueFd own;
  if (host_netns < 0) {
    own = UniqueFd(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    if (!own.ok()) return ErrnoStatus(errno, "open network namespace");
    host_netns = own.get();
  }
  absl::StatusOr<GuardReport> report =
      s.GuardWorkload(netns_cookie, found->second.netns.get(), entry, host_netns);
  if ((entry.flags & WEFT_WL_ENROLLING) == 0) return report;
  entry.flags &= ~WEFT_WL_ENROLLING;
  WEFT_RETURN_IF_ERROR(s.PutWorkload(netns_cookie, entry));
  return report;
}

absl::Status Kernel::DetachWorkload(uint64_t netns_cookie) {
  State& s = *state_;
  // First: without the rest of us a guarded pod could not talk at all.
  WEFT_RETURN_IF_ERROR(s.guard->Detach(netns_cookie));
  WEFT_RETURN_IF_ERROR(RemoveLink(s.paths.links + "/" + InboundLink(netns_cookie)));
  weft_workload entry{};
  if (bpf_map_lookup_elem(s.maps.workloads.get(), &netns_cookie, &entry) == 0) {
    WEFT_RETURN_IF_ERROR(s.policy->ForgetSubject(entry.id));
    WEFT_RETURN_IF_ERROR(s.policy->processes().StopCounting(entry.id));
    for (const weft_server_key& key : Keys<weft_server_key>(s.maps.servers)) {
      if (key.workload != entry.id) continue;
      WEFT_RETURN_IF_ERROR(Drop(s.maps.servers, key, "forget server"));
    }
    for (const weft_server_key& key : Keys<weft_server_key>(s.maps.port_binaries)) {
      if (key.workload != entry.id) continue;
      WEFT_RETURN_IF_ERROR(Drop(s.maps.port_binaries, key, "forget the binary of a port"));
    }
    for (const weft_client_key& key : Keys<weft_client_key>(s.maps.clients)) {
      if (key.workload != entry.id) continue;
      WEFT_RETURN_IF_ERROR(Drop(s.maps.clients, key, "forget client"));
    }
  }
  // Connections that were on their way here: their clients could no longer find the key to take
  // back.
  for (const weft_handover_key& key : Keys<weft_handover_key>(s.maps.handovers)) {
    if (key.netns_cookie != netns_cookie) continue;
    WEFT_RETURN_IF_ERROR(Drop(s.maps.handovers, key, "drop hand-over"));
  }
  s.watcher->Set(netns_cookie, false);
  WEFT_RETURN_IF_ERROR(s.SetResolvers(netns_cookie, {}));
  s.resolvers.erase(netns_cookie);
  s.late->Remove(netns_cookie);
  s.attached.erase(netns_cookie);
  return Drop(s.maps.workloads, netns_cookie, "release workload");
}

std::vector<std::pair<uint64_t, weft_workload>> Kernel::Workloads() const {
  std::vector<std::pair<uint64_t, weft_workload>> all;
  for (const uint64_t cookie : Keys<uint64_t>(state_->maps.workloads)) {
    weft_workload entry{};
    if (bpf_map_lookup_elem(state_->maps.workloads.get(), &cookie, &entry) == 0) {
      all.emplace_back(cookie, entry);
    }
  }
  return all;
}

absl::Status Kernel::SetPeer(const IpAddress& address, const PeerConfig& peer) {
  weft_peer value{};
  value.netns_cookie = peer.netns_cookie;
  value.workload = peer.workload;
  value.identity = peer.identity;
  value.flags = peer.flags;
  value.wl_flags = peer.workload_flags;
  return Put(state_->maps.addresses, bpf::ToKernel(address), value,
             "address " + address.ToString());
}

absl::Status Kernel::RemovePeer(const IpAddress& address) {
  return Drop(state_->maps.addresses, bpf::ToKernel(address),
              "remove address " + address.ToString());
}

std::vector<IpAddress> Kernel::Peers() const {
  std::vector<IpAddress> all;
  for (const weft_ip& key : Keys<weft_ip>(state_->maps.addresses)) all.push_back(FromKernel(key));
  return all;
}

absl::Status Kernel::SetService(const ServiceConfig& service) {
  return state_->services->Set(service);
}
absl::Status Kernel::RemoveService(uint32_t id) { return state_->services->Remove(id); }
std::vector<uint32_t> Kernel::Services() const { return state_->services->Ids(); }
ServiceStats Kernel::GetServiceStats() const { return state_->services->stats(); }

PolicyReport Kernel::ApplyPolicy(const PolicyState& want) { return state_->policy->Apply(want); }
uint64_t Kernel::policy_touched() const { return state_->policy->touched(); }

uint64_t Kernel::policy_epoch() const { return state_->policy->epoch(); }
uint32_t Kernel::highest_class() const { return state_->policy->highest_class(); }
PolicyAnswer Kernel::AskPolicy(const PolicyQuestion& question) const {
  return state_->policy->Ask(question);
}

absl::StatusOr<CutReport> Kernel::CutDenied(const std::set<uint32_t>& workloads) {
  CutReport all;
  for (const auto& [cookie, attached] : state_->attached) {
    if (!workloads.contains(attached.id)) continue;
    WEFT_ASSIGN_OR_RETURN(const CutReport one, state_->cutter->Run(cookie, attached.netns.get()));
    all.asked += one.asked;
    all.destroyed += one.destroyed;
  }
  return all;
}

absl::Status Kernel::SetSplice(bool on) {
  const std::optional<SelfTestReport>& test = state_->config.self_test;
  if (on && test && !test->ok()) {
    return absl::FailedPreconditionError("the splice stays off: " + test->Summary());
  }
  state_->config.splice = on;
  const weft_config value{WEFT_ABI, on ? 1u : 0u};
  return Put(state_->maps.config, uint32_t{0}, value, "write weft_config");
}

bool Kernel::splice_is_on() const { return state_->config.splice; }

absl::StatusOr<LateInsertion> Kernel::RunLateInsertion(int netns_fd) {
  return state_->late->Run(netns_fd);
}

std::optional<std::chrono::nanoseconds> Kernel::RunDueLateInsertions() {
  return state_->late->RunDue(state_->maps.servers);
}

std::array<uint64_t, WEFT_R_MAX> Kernel::Counters() const {
  std::array<uint64_t, WEFT_R_MAX> all{};
  for (uint32_t reason = 0; reason < WEFT_R_MAX; ++reason) {
    all[reason] = SumPerCpu(state_->maps.counters, reason, 1)[0];
  }
  return all;
}

SpliceStats Kernel::GetSpliceStats() const {
  constexpr size_t kCounters = sizeof(weft_moves) / sizeof(uint64_t);
  const std::vector<uint64_t> sum = SumPerCpu(state_->maps.moves, 0, kCounters);
  weft_moves moves;
  memcpy(&moves, sum.data(), sizeof moves);
  return SpliceStats{.inserted = moves.inserted,
                     .removed = moves.removed,
                     .insert_failed = moves.insert_failed,
                     .messages = moves.messages,
                     .bytes = moves.bytes,
                     .switched_off = moves.switched_off,
                     .no_peer = moves.no_peer,
                     .not_quiet = moves.not_quiet,
                     .peer_full = moves.peer_full,
                     .peer_waits = moves.peer_waits,
                     .peer_blocking = moves.peer_blocking,
                     .redirect_failed = moves.redirect_failed,
                     .unlearned = moves.unlearned};
}

std::vector<BinaryVerdict> Kernel::Binaries() const { return ReadBinaries(state_->maps.binaries); }
void Kernel::Settle() { state_->watcher->Settle(); }
const absl::Status& Kernel::watching() const { return state_->watcher->status(); }

int Kernel::events_fd() const { return ring_buffer__epoll_fd(state_->ring.get()); }

void Kernel::Consume(const std::function<void(const weft_event&)>& callback,
                     const std::function<void(const weft_process_event&)>& process_callback) {
  state_->callback = &callback;
  state_->process_callback = &process_callback;
  ring_buffer__consume(state_->ring.get());
  state_->callback = nullptr;
  state_->process_callback = nullptr;
}

std::optional<Binary> Kernel::BinaryOf(uint32_t number) const {
  return state_->policy->processes().BinaryOf(number);
}
std::vector<Activity> Kernel::Activities() const {
  return state_->policy->processes().Activities();
}
std::vector<std::string> Kernel::Arguments() const {
  return state_->policy->processes().Arguments();
}
bool Kernel::kills_at_connect() const { return state_->kills_at_connect; }
absl::StatusOr<uint32_t> Kernel::ScanProcesses(uint64_t netns_cookie) {
  return state_->processes->Scan(netns_cookie);
}

absl::StatusOr<CutReport> Kernel::CutDue() {
  if (state_->ask_again.empty()) return CutReport{};
  return CutDenied(std::exchange(state_->ask_again, {}));
}

absl::Status Kernel::Unload() {
  WEFT_RETURN_IF_ERROR(SetSplice(false));
  state_->late.reset();
  state_->attached.clear();
  WEFT_RETURN_IF_ERROR(RemovePins(state_->paths));
  return UnmountBpffsIfOurs(state_->config.bpffs_root);
}

absl::Status Kernel::UnloadNode(const std::string& bpffs_root, const std::string& node) {
  WEFT_ASSIGN_OR_RETURN(const PinPaths paths, PathsOf(bpffs_root, node));
  if (absl::StatusOr<UniqueFd> config = OpenPinnedMap(paths, "weft_config"); config.ok()) {
    const weft_config off{WEFT_ABI, 0};
    WEFT_RETURN_IF_ERROR(Put(*config, uint32_t{0}, off, "write weft_config"));
  }
  WEFT_RETURN_IF_ERROR(RemovePins(paths));
  return UnmountBpffsIfOurs(bpffs_root);
}

}  // namespace weft::bpf
