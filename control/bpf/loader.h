// SPDX-License-Identifier: Apache-2.0
// The kernel side of one node: loads, pins and attaches the BPF programs, and writes their maps.
// Thread: the agent's one thread. Owns descriptors of maps and links; what is pinned outlives it,
// so that the agent's death changes nothing. Not here: what to write (control/agent/kernel_sync),
// stamping sockets (sockets_maps.h).
#pragma once
#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "bpf/abi.h"
#include "bpf/learn.h"
#include "control/bpf/policy_state.h"
#include "control/bpf/self_test.h"
#include "control/bpf/service_config.h"
#include "proxy/base/address.h"
#include "proxy/base/status.h"

namespace weft::bpf {

// Entries of the maps. Used when the maps are made; adopted maps keep the sizes they were made
// with.
struct MapSizes {
  uint32_t workloads = 1024;
  uint32_t addresses = 65536;
  uint32_t services = 16384;
  uint32_t cells = 524288;  // of 32 bytes, for endpoints and rings: 16 MiB
  uint32_t affinities = 32768;
  uint32_t policies = 262144;
  uint32_t classes = 65536;         // addresses, and as many blocks
  uint32_t handovers = 65536;       // connections being set up at the same time
  uint32_t spliced = 65536;         // sockets in the splice
  uint32_t flows = 65536;           // of UDP, ICMP and other than TCP, at the guards
  uint32_t event_bytes = 1u << 20;  // of each buffer; a power of two and whole pages
  uint32_t processes = 32768;
  uint32_t process_rules = 131072;  // two generations
};

struct KernelConfig {
  std::string node;                        // NAME in <bpffs>/weft/NAME: [a-zA-Z0-9_-]{1,32}
  std::string bpffs_root = "/sys/fs/bpf";  // mounted if it is not a bpffs yet
  std::string cgroup_root;                 // cgroup2 mount; empty: from the mount table (probe.h)
  std::string sockets_cgroup;              // absolute path of weft-sockets' cgroup; made if missing
  MapSizes sizes;
  bool splice = true;  // the node-wide switch; a workload also needs WEFT_WL_SPLICE
  // Of one workload, per second on average and at once; per second 0: no limit.
  uint32_t events_per_second = 1000, events_at_once = 2000;
  bool kill_in_kernel = true;  // where it can, at connect(); false: as on an older kernel
  // What was found on this kernel; if a row does not hold, nothing is spliced, whatever is asked.
  std::optional<SelfTestReport> self_test;
};

struct WorkloadConfig {
  uint32_t id = 0;  // dense, never 0
  uint32_t generation = 0;
  uint32_t identity = 0;
  uint32_t flags = 0;  // WEFT_WL_*
  std::optional<IpAddress> ipv4;
  std::optional<IpAddress> ipv6;
  std::vector<IpAddress> resolvers;  // DNS to them goes to WEFT_PORT_DNS while a proxy listens
};

struct PeerConfig {
  uint64_t netns_cookie = 0;  // of a workload of this node; 0: elsewhere
  uint32_t workload = 0;
  uint32_t identity = 0;
  uint32_t flags = 0;           // WEFT_PEER_*
  uint32_t workload_flags = 0;  // the local workload's WEFT_WL_*: SetWorkload does not update it
};

// What the splice did since the maps were made.
struct SpliceStats {
  uint64_t inserted = 0;       // sockets put into the map
  uint64_t removed = 0;        // of those, closed again
  uint64_t insert_failed = 0;  // map full, MPTCP: the connection stays on TCP
  uint64_t messages = 0;       // redirected
  uint64_t bytes = 0;
  // Messages that went by TCP, by cause.
  uint64_t switched_off = 0;
  uint64_t no_peer = 0;     // the other end is not in the map (blocking, not accepted yet, closed)
  uint64_t not_quiet = 0;   // bytes were under way by TCP
  uint64_t peer_full = 0;   // back-pressure
  uint64_t peer_waits = 0;  // the return rule: a reader that must not be overtaken
  uint64_t peer_blocking = 0;  // the reader has become a blocking one
  uint64_t redirect_failed = 0;
  uint64_t unlearned = 0;  // one of the binaries was seen to do what the splice breaks
};

// What is known of a program under `splice: auto`.
struct BinaryVerdict {
  uint64_t inode = 0;
  uint64_t device = 0;           // as stat() has it
  std::string command;           // name of the process that was seen first
  uint32_t breaker = 0;          // enum weft_breaker
  uint32_t seen[WEFT_SIDES]{};   // connections without a breaker, by enum weft_side
  uint32_t state[WEFT_SIDES]{};  // enum weft_learned_state
};

// What stands between a workload and the rest of the world.
struct GuardReport {
  std::vector<std::string> interfaces;  // of the pod, whose host ends are guarded
  uint32_t stamped = 0;                 // sockets that were open before
  // Why the pod, which was guarded before, may have another way out by now. Empty: it has none.
  std::string problem;
};

struct LateInsertion {
  uint32_t inserted = 0;
  uint32_t waiting =
      0;  // eligible connections that their program has not accepted yet: run again soon
};

class Kernel final {
 public:
  // Loads the programs, pins maps and links under <bpffs>/weft/NAME/ and attaches them. Pinned maps
  // and links of an earlier Open are adopted without a gap and their programs replaced; maps of
  // another WEFT_ABI are an error that names both numbers.
  static absl::StatusOr<std::unique_ptr<Kernel>> Open(const KernelConfig& config);
  ~Kernel();  // what is pinned stays
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;

  // True if Open found the maps of an earlier agent: what it wrote is still in force.
  bool adopted() const;

  // Enrols: the sk_lookup program into the netns, then the map entry. Returns the netns cookie.
  // Repeating it (also after a restart) replaces both without a gap. A duplicate of the descriptor
  // is kept until DetachWorkload.
  absl::StatusOr<uint64_t> AttachWorkload(int netns_fd, const WorkloadConfig& workload);
  // Puts the guard on the host ends of an attached workload's veths, so that nothing leaves the pod
  // but what connect, accept and policy let out; sockets that are open go on. Repeating it adopts
  // what is guarded, also after a restart: nothing of that is given up for what the pod shows, the
  // report tells it. Of a pod that is not guarded: FailedPrecondition, for people, if it has
  // another way out; Unimplemented: this kernel has no tcx. Nothing is guarded then.
  // `host_netns`: where the host ends are; -1: in ours.
  absl::StatusOr<GuardReport> GuardWorkload(uint64_t netns_cookie, int host_netns = -1);
  // Changes flags, identity or addresses of an attached workload.
  absl::Status SetWorkload(uint64_t netns_cookie, const WorkloadConfig& workload);
  // Releases. OK if it was not attached.
  absl::Status DetachWorkload(uint64_t netns_cookie);
  // Every workload of the node is attached with the flags that it shall have: what an earlier agent
  // left for others goes. Call once that is so; further calls do nothing.
  void Settle();
  // Everything enrolled, by an earlier agent too: (netns cookie, entry).
  std::vector<std::pair<uint64_t, weft_workload>> Workloads() const;

  absl::Status SetPeer(const IpAddress& address, const PeerConfig& peer);
  absl::Status RemovePeer(const IpAddress& address);
  std::vector<IpAddress> Peers() const;

  // Replaces the service of that id by one store: no connect sees a half, a hole or an endpoint of
  // another service. ResourceExhausted: it stays as it was, and is tried again by another call. May
  // block for a grace period (some 20 ms) where memory is short.
  absl::Status SetService(const ServiceConfig& service);
  absl::Status RemoveService(uint32_t id);
  std::vector<uint32_t> Services() const;
  ServiceStats GetServiceStats() const;

  // Makes all of it the policy in force at one moment: no decision sees a half of the change.
  // Blocks for a grace period (some 20 ms) if there is a change.
  PolicyReport ApplyPolicy(const PolicyState& want);
  // Entries written or removed so far.
  uint64_t policy_touched() const;
  // Grows with each change, also over a restart of the agent.
  uint64_t policy_epoch() const;
  // Classes that an earlier agent's policy uses are at most this.
  uint32_t highest_class() const;
  // What the kernel's maps say now, by the header that the programs use.
  PolicyAnswer AskPolicy(const PolicyQuestion& question) const;
  // Asks again for every connection of these workloads, and destroys those that policy no longer
  // allows, with an event each (WEFT_EVENT_CUT).
  absl::StatusOr<CutReport> CutDenied(const std::set<uint32_t>& workloads);
  // The same for workloads with a socket that connected while policy changed, which the walk may
  // have missed (an event that Consume keeps for itself). Call after each Consume.
  absl::StatusOr<CutReport> CutDue();

  // FailedPrecondition if it shall be on and the self-test has failed.
  absl::Status SetSplice(bool on);
  bool splice_is_on() const;
  // Puts connections of this netns whose program uses non-blocking sockets into the splice (a
  // connecting end when it is seen twice), and learns from it which servers and clients do
  // (bpf/sockops/late.bpf.c). Normally called by RunDueLateInsertions.
  absl::StatusOr<LateInsertion> RunLateInsertion(int netns_fd);
  // Runs it where it is due (walk_schedule.h) for the workloads that asked, by an event that
  // Consume keeps for itself. Returns after what time to call again; nullopt: nobody waits. Call
  // after each Consume.
  std::optional<std::chrono::nanoseconds> RunDueLateInsertions();

  // Verdicts on binaries under `splice: auto`, by an earlier agent's time too.
  std::vector<BinaryVerdict> Binaries() const;
  // Why this kernel cannot watch programs: nothing is spliced under `auto` then. OK: it can, or
  // there is no workload under `auto`.
  const absl::Status& watching() const;

  // Sum over CPUs, indexed by weft_reason.
  std::array<uint64_t, WEFT_R_MAX> Counters() const;
  SpliceStats GetSpliceStats() const;

  // Readable when there are events; then call Consume until the next wait. The event is valid
  // during the callback only; of a process event, as much as its arguments have.
  int events_fd() const;
  void Consume(const std::function<void(const weft_event&)>& callback,
               const std::function<void(const weft_process_event&)>& process_callback = {});
  // What events made by the kernel mean by weft_event.binary and the like.
  std::optional<Binary> BinaryOf(uint32_t number) const;
  std::vector<Activity> Activities() const;
  // By bit: what rules of an earlier agent, or of this one, ask for (CompilerNumbers::arguments).
  std::vector<std::string> Arguments() const;
  // Whether a process that policy has killed at connect() dies in the kernel; otherwise Consume
  // kills it.
  bool kills_at_connect() const;
  // Makes the processes known that ran in the netns before it was enrolled; AttachWorkload does.
  absl::StatusOr<uint32_t> ScanProcesses(uint64_t netns_cookie);

  // Detaches and unpins everything of this node, for this and any other process. Connections on the
  // splice stay on it until they end (facts/splice.md f), so the switch is turned off first.
  // A bpffs that Open mounted is unmounted with the last node; the cgroup of weft-sockets is its
  // owner's to remove.
  absl::Status Unload();
  // The same without loading anything: for an uninstall after a crash. OK if nothing is there.
  static absl::Status UnloadNode(const std::string& bpffs_root, const std::string& node);

 private:
  struct State;
  explicit Kernel(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// The kernel's number of a network namespace: never reused within a boot.
absl::StatusOr<uint64_t> NetnsCookie(int netns_fd);

}  // namespace weft::bpf
