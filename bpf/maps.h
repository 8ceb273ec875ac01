/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Every map of one node, pinned by name under <bpffs>/weft/NAME/maps and shared by all programs of
 * that node (never by two nodes). Each comment says who writes, when an entry dies, and what
 * happens when the map is full. The sizes here are defaults; control/bpf sets them before the maps
 * are made. */
#ifndef WEFT_BPF_MAPS_H
#define WEFT_BPF_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "bpf/abi.h"

/* Netns cookie -> workload. The agent, at enrolment; gone at release. Full: the enrolment fails. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct weft_workload);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_workloads SEC(".maps");

/* Resolvers whose port 53 the proxy answers in a workload's place. The agent, with the workload;
 * gone at its release. Full: the enrolment fails. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct weft_resolver_key);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_resolvers SEC(".maps");

/* Address -> workload. The agent, from the workload API. Full: the update fails; an unknown address
 * goes to the proxy. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct weft_ip);
	__type(value, struct weft_peer);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_addrs SEC(".maps");

/* VIP and port -> service. The agent. Full: the update fails; an unknown VIP goes to the proxy. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct weft_addr);
	__type(value, struct weft_service);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_services SEC(".maps");

/* Slot of a service -> its pool in weft_cells. The agent, through a mapping; a slot is used again a
 * grace period after its service has gone. Full: the service is not made known, so the proxy
 * balances it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_pools SEC(".maps");

/* Endpoints and rings of all services. The agent, through a mapping; cells are used again a grace
 * period after no slot names their pool. Full: the service keeps its endpoints of before. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 524288);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, union weft_cell);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_cells SEC(".maps");

/* Client workload and service -> endpoint. connect; evicted when others need the room, which costs
 * affinity only. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct weft_affinity_key);
	__type(value, struct weft_affinity);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_affinity SEC(".maps");

/* Compiled policy, all layers of all workloads of this node. The agent (control/bpf/kernel_policy),
 * here and in the next four: an entry in force is never replaced, its other version is changed in
 * place; removed a grace period after no version of it is in force. Full: the agent lets the
 * subject deny everything. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct weft_policy_key);
	__type(value, struct weft_policy);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_policy SEC(".maps");

/* Workload id -> which layers are asked, and what is said where no entry matches. Full (or not
 * there yet): the workload may do nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct weft_subject);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_subjects SEC(".maps");

/* Address -> class: workloads of this node, and others that some policy here names. Full: all
 * subjects deny everything. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct weft_ip);
	__type(value, struct weft_class);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_classes SEC(".maps");

/* CIDR block -> class, for addresses without an entry of their own. Full: all subjects deny
 * everything. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct weft_block_key);
	__type(value, struct weft_class);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_blocks SEC(".maps");

/* The epoch of policy: one store by the agent, through a mapping, lets a whole change take effect.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_epoch SEC(".maps");

/* What the connecting end tells the accepting end. sockops at TCP_CONNECT; taken by sockops at
 * PASSIVE_ESTABLISHED, or removed when the connecting socket closes. Never LRU. Full: the connect
 * fails (EHOSTUNREACH, reason map_full). */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct weft_handover_key);
	__type(value, struct weft_handover);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_handovers SEC(".maps");

/* Stamped listeners for sk_lookup. weft-sockets; the kernel removes a socket when it closes. Full:
 * the update fails, and SYNs for that workload are dropped. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 4096);
	__type(key, struct weft_listener_key);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_listeners SEC(".maps");

/* Stamps and what is known of a socket. weft-sockets by descriptor, connect and sockops. Dies with
 * its socket. Accepted sockets get a copy of their listener's (BPF_F_CLONE). No memory: the
 * connection is refused. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct weft_sock);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_stamps SEC(".maps");

/* Sockets whose bytes may be moved, by their own flow; splice.bpf.c is attached to it. sockops and
 * late; the kernel removes a socket when it closes. Never deleted by us: that would lose bytes.
 * Full: the connection stays on TCP, counted. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 65536);
	__type(key, struct weft_flow);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_splice SEC(".maps");

/* The same sockets, as the sender reaches them. Written before weft_splice, removed at the socket's
 * close. Full: TCP. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct weft_flow);
	__type(value, struct weft_end);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_ends SEC(".maps");

/* State of a sender in the splice. splice. Dies with its socket. No memory: TCP. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct weft_mover);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_movers SEC(".maps");

/* What was learned of servers. sockops and late; forgotten when a program listens on the port anew.
 * Full: no splice for the accepting side, hence none for the connection. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct weft_server_key);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_servers SEC(".maps");

/* What was learned of processes that connect. sockops, late and splice; evicted when others need
 * the room, forgotten when the workload is released. An entry that is gone is learned anew. No
 * memory: sockets enter late only. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct weft_client_key);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_clients SEC(".maps");

/* Host ends of workloads' veths. The agent, at enrolment; gone at release. Full: the enrolment
 * fails.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2048);
	__type(key, __u32);
	__type(value, struct weft_guard);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_guards SEC(".maps");

/* Flows of what is not TCP. tc/workload.bpf.c; times out (guard.h), evicted when others need the
 * room. What is gone is asked anew with its next packet: if that is an answer, as a flow of its
 * own. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct weft_flow_key);
	__type(value, struct weft_flow_state);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_flows SEC(".maps");
/* Verdicts on binaries under `splice: auto`. sockops and watch; survives the agent. Evicted
 * when others need the room: learned anew. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct weft_binary_id);
	__type(value, struct weft_learned);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_learned SEC(".maps");

/* Under `splice: auto`: listening port -> binary that receives on what is accepted there; inode 0:
 * several do. watch; forgotten when a program listens on the port anew. Full: not spliced. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct weft_server_key);
	__type(value, struct weft_binary_id);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_port_bins SEC(".maps");

/* What is being learned of a socket, by its cookie. sockops makes it and removes it at the socket's
 * close, watch changes it; not socket storage, which a tracepoint of system calls cannot reach.
 * Full: not learned, not spliced. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct weft_learner);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_learners SEC(".maps");

/* How often a verdict was taken back, or a socket changed hands: senders then look at both ends
 * again. watch. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_unlearned SEC(".maps");

/* ABI and switches. The agent. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct weft_config);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_config SEC(".maps");

/* Every verdict, by reason. All programs. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, WEFT_R_MAX);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_counters SEC(".maps");

/* What the splice did. sockops, splice, late. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct weft_moves);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_moves SEC(".maps");

/* Flow events. All programs; read by the agent. Full: the event is lost, its verdict stays counted.
 */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_events SEC(".maps");

/* Processes of enrolled workloads. trace/process, and whatever meets one that is not known; gone at
 * its exit or next exec(). Full: what is needed of a process is found out each time. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct weft_process_key);
	__type(value, struct weft_process);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_processes SEC(".maps");

/* Programs by number, for events. The same; gone when the workload that ran it first is released.
 * Full, or the workload's share is: number 0, an event names no binary. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct weft_binary_key);
	__type(value, struct weft_binary);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_binaries SEC(".maps");

/* Who made a socket. create, connect. Dies with its socket. No memory: an event names nobody. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct weft_maker);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_makers SEC(".maps");

/* Process policy, compiled. The agent (control/bpf/kernel_processes), here and in the next four: an
 * entry is never changed; one of a generation that is no longer in force is removed a grace period
 * later. Full: the workload may not connect. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct weft_rule_key);
	__type(value, struct weft_rules);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_proc_rules SEC(".maps");

/* Workload -> whether it has rules. Has room for two generations of every workload. Full: the old
 * generation stays in force. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2048);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct weft_watch_key);
	__type(value, struct weft_watch);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_watches SEC(".maps");

/* Path -> class of programs. Full: no workload with rules may connect. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 8192);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct weft_program_key);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_programs SEC(".maps");

/* Arguments that rules ask for -> bit, 0 to 63. Never removed. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u8[WEFT_ARGUMENT_BYTES]);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_arguments SEC(".maps");

/* The generation in force, by epoch. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct weft_class);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_proc_gen SEC(".maps");

/* The agent. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct weft_process_config);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_proc_cfg SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct weft_process_state);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_proc_state SEC(".maps");

/* Workload -> its events: rate, and what was suppressed or lost. Made and removed by the agent with
 * the workload, counted by all programs. Full: that workload's are neither limited nor counted. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct weft_activity);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_activity SEC(".maps");

/* exec() and exit. trace/process; read by the agent. Full: lost, counted by workload. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} weft_proc_events SEC(".maps");

/* A context field read as it is declared: clang would merge neighbours into one load, which the
 * verifier refuses. */
#define WEFT_CTX(field) (*(const volatile __typeof__(field) *)&(field))

#define WEFT_CTX_SET(field, value) (*(volatile __typeof__(field) *)&(field) = (value))

static __always_inline void weft_count(__u32 reason)
{
	__u64 *count = bpf_map_lookup_elem(&weft_counters, &reason);

	if (count)
		*count += 1;
}

static __always_inline struct weft_moves *weft_my_moves(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&weft_moves, &zero);
}

#define WEFT_MOVED(field)                                    \
	do {                                                 \
		struct weft_moves *moves_ = weft_my_moves(); \
		if (moves_)                                  \
			moves_->field += 1;                  \
	} while (0)

static __always_inline struct weft_workload *weft_workload_of(__u64 netns_cookie)
{
	return bpf_map_lookup_elem(&weft_workloads, &netns_cookie);
}

static __always_inline int weft_has_resolver(__u64 netns_cookie, const __u8 *ip)
{
	struct weft_resolver_key key = {};

	key.netns_cookie = netns_cookie;
	__builtin_memcpy(key.ip, ip, sizeof(key.ip));
	return !!bpf_map_lookup_elem(&weft_resolvers, &key);
}

static __always_inline struct weft_peer *weft_peer_of(const struct weft_addr *addr)
{
	struct weft_ip key;

	__builtin_memcpy(key.ip, addr->ip, sizeof(key.ip));
	return bpf_map_lookup_elem(&weft_addrs, &key);
}

#endif /* WEFT_BPF_MAPS_H */
