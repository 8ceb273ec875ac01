/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Types shared by the kernel programs and user space. C11 and C++20. Any change to a layout or a
 * meaning bumps WEFT_ABI: pinned maps carry it, and an agent refuses to adopt maps of another ABI.
 * Addresses are always 16 bytes in network order, IPv4 mapped (::ffff:a.b.c.d); ports are in
 * network order (_be). Only bpf/address.h fills struct weft_addr in BPF, control/bpf/address.h in
 * C++. Every padding byte is named and zero. */
#ifndef WEFT_BPF_ABI_H
#define WEFT_BPF_ABI_H

#include <linux/types.h>

#include "bpf/reasons.h"

#define WEFT_ABI 4

#ifdef __cplusplus
#define WEFT_SIZE(T, n) static_assert(sizeof(T) == (n), #T)
#else
#define WEFT_SIZE(T, n) _Static_assert(sizeof(T) == (n), #T)
#endif

/* Ports in a workload's netns (host order). */
#define WEFT_PORT_OUTBOUND 15001
#define WEFT_PORT_INBOUND  15006
#define WEFT_PORT_HBONE    15008
#define WEFT_PORT_DNS      15053
#define WEFT_PORT_RESOLVER 53 /* of others: what WEFT_PORT_DNS answers for */

/* Private socket option level and names ("WEFT"). Answered only for sockets of the agent whose
 * programs are attached to the cgroup of weft-sockets, and only if the socket carries that agent's
 * stamp. */
#define WEFT_SOL 0x57454654
#define WEFT_SO_CLIENT                                                                          \
	1 /* set, before connect, on a to-app socket: struct weft_addr the app shall see as its \
	     peer */
#define WEFT_SO_ORIGINAL 2 /* get, on a connection accepted at 15001: struct weft_original */

#define WEFT_SO_PERMIT                                                                         \
	3 /* set, on a socket stamped with a workload: struct weft_addr. EPERM: the workload's \
	     egress policy does not allow that destination (an event says why) */

struct weft_addr {
	__u8 ip[16];
	__be16 port_be;
	__u16 pad; /* zero */
};
WEFT_SIZE(struct weft_addr, 20);

/* A connection as one of its ends sees it. */
struct weft_flow {
	struct weft_addr local;
	struct weft_addr remote;
};
WEFT_SIZE(struct weft_flow, 40);

/* What the kernel knows of a captured connection when it hands it to the proxy. */
struct weft_original {
	struct weft_addr dst;    /* what the program asked for */
	struct weft_addr picked; /* the endpoint the kernel chose for an L4 service; all zero: the
				    proxy chooses */
};
WEFT_SIZE(struct weft_original, 40);

enum weft_role {
	WEFT_ROLE_NONE = 0,
	WEFT_ROLE_LISTENER, /* 15001, 15006, 15008; accepted connections inherit it (BPF_F_CLONE) */
	WEFT_ROLE_TUNNEL,   /* leaves a workload's netns towards another node or outside the mesh */
	WEFT_ROLE_TO_APP,   /* may connect only to addresses of its own workload */
	WEFT_ROLE_HOST,     /* a proxy's own calls, host netns */
	WEFT_ROLE_APP,      /* a workload's own socket, stamped by the connect programs */
};

/* Socket storage of every socket the mesh knows. */
struct weft_sock {
	__u32 role;            /* enum weft_role */
	__u32 workload;        /* struct weft_workload.id; 0: none */
	__u32 generation;      /* of the workload's enrolment, to tell a reused id */
	__u32 flags;           /* WEFT_SOCK_* */
	struct weft_addr peer; /* APP: what getpeername() and accept() answer instead; all zero: the
				* truth. LISTENER, accepted: the original destination. TO_APP: the
				* client the app shall see */
	__u32 verdict;         /* enum weft_reason of the connect: DIRECT, PROXIED, ... */
	struct weft_addr picked; /* see struct weft_original */
	__u32 source_identity;   /* the identity that connected, for accepted direct connections */
	__u32 pid;               /* process that created or connected it */
	__u32 started;           /* tells pid from a later use of it, or from another program that
				  * it executes; see weft_started */
	__u8 comm[16];
	__u32 epoch; /* of policy (its low half) when it was asked for this connection */
};
WEFT_SIZE(struct weft_sock, 92);
#define WEFT_SOCK_SPLICE 1u /* both ends are of this agent and the workload's splice is on */
#define WEFT_SOCK_VIA_TCP \
	2u /* the last message went by TCP: splicing needs the return rule (DESIGN 4.5) */
#define WEFT_SOCK_IN_MAP 4u
#define WEFT_SOCK_REFUSED \
	8u /* TCP_CONNECT failed closed; undone if the program connects it again */
#define WEFT_SOCK_SEEN_BLOCKING 16u /* late.bpf.c saw it accepted and blocking once */
#define WEFT_SOCK_SEEN_NON_BLOCKING \
	32u /* late.bpf.c saw it O_NONBLOCK once, as a client: it may be about to change */
#define WEFT_SOCK_LEGACY                                                                          \
	64u /* open before its workload was enrolled: never spliced, policy is asked by cut.bpf.c \
	     */
#define WEFT_SOCK_LEGACY_OUT 128u /* with it: this end connected (as far as can be told) */

/* weft_workloads: netns cookie -> workload. Written by the agent at enrolment. */
struct weft_workload {
	__u32 id; /* dense, never 0 */
	__u32 generation;
	__u32 identity; /* weft_addrs uses the same numbers; 0: unknown identity */
	__u32 flags;    /* WEFT_WL_* */
	__u8 ipv4[16];  /* own addresses, all zero if there is none */
	__u8 ipv6[16];
};
WEFT_SIZE(struct weft_workload, 48);
#define WEFT_WL_SPLICE 1u /* weft.dev/splice: on or auto */
#define WEFT_WL_PROXY_READY \
	2u /* a proxy listens in this netns; without it captured connects get ECONNREFUSED */
#define WEFT_WL_L7_INBOUND 4u /* L7 policy or routes for this workload: never direct */
#define WEFT_WL_STRICT                                                            \
	16u /* plaintext from outside the mesh is refused (by the proxy at 15006) \
	     */
#define WEFT_WL_ENROLLING \
	32u /* no guard yet: what was open or under way before may still be stamped legacy */
#define WEFT_WL_SPLICE_AUTO \
	128u /* weft.dev/splice: auto, beside WEFT_WL_SPLICE: only binaries that were learned */

/* weft_resolvers: the resolvers of enrolled workloads. Written by the agent with the workload. */
struct weft_resolver_key {
	__u64 netns_cookie;
	__u8 ip[16];
};
WEFT_SIZE(struct weft_resolver_key, 24);

/* weft_addrs: 16-byte address -> who has it. Written by the agent, from the workload API. */
struct weft_peer {
	__u64 netns_cookie; /* of a local workload; 0: on another node */
	__u32 workload;     /* id of a local workload, or 0 */
	__u32 identity;
	__u32 flags;    /* WEFT_PEER_* */
	__u32 wl_flags; /* copy of the local workload's WEFT_WL_*, saves a lookup */
};
WEFT_SIZE(struct weft_peer, 24);
#define WEFT_PEER_HBONE 1u

/* weft_services: VIP and port -> service. */
struct weft_service {
	__u32 id;
	__u32 slot;  /* of weft_pools */
	__u32 flags; /* WEFT_SVC_* */
	__u32 pad;
};
WEFT_SIZE(struct weft_service, 16);
#define WEFT_SVC_L7 1u /* the proxy must see the bytes */

/* Policy, see policy.h. Whatever a decision reads has two versions: the one in force is that with
 * the highest `from` which is not beyond weft_epoch[0]. The writer (control/bpf/kernel_policy)
 * changes the other one in place, any number of them, and then lets all take effect by one store.
 */
#define WEFT_NEVER (~0ull) /* a `from` that is never reached */

enum weft_layer {                           /* each must allow by itself */
		  WEFT_LAYER_EGRESS = 0,    /* network policy of the source's workload */
		  WEFT_LAYER_INGRESS,       /* network policy of the destination's */
		  WEFT_LAYER_AUTHORIZATION, /* of the destination's; TCP only */
		  WEFT_LAYERS,
};
enum weft_protocol {
	WEFT_PROTOCOL_ANY = 0, /* in keys: every port of every protocol */
	WEFT_PROTOCOL_TCP,
	WEFT_PROTOCOL_UDP,
	WEFT_PROTOCOL_SCTP,
	WEFT_PROTOCOL_OTHER, /* ICMP and the rest: without ports */
};

/* weft_classes (address) and weft_blocks (CIDR block): what policy can tell apart. */
#define WEFT_CLASS_WORLD 0u          /* no policy knows it */
#define WEFT_CLASS_ANY   0xffffffffu /* in keys: everybody */
struct weft_class {
	__u64 from[2];
	__u32 number[2];
};
WEFT_SIZE(struct weft_class, 24);
struct weft_block_key {
	__u32 length; /* of the prefix, in bits of the 16 bytes */
	__u8 ip[16];
};
WEFT_SIZE(struct weft_block_key, 20);

/* weft_policy: who may reach which ports of a subject (ingress, authorization), or be reached by it
 * (egress). */
struct weft_policy_key {
	__u32 subject; /* struct weft_workload.id */
	__u32 class_number;
	__u16 port;    /* host order; the bits beyond `length` are zero */
	__u8 length;   /* of the port's prefix: 0 to 16 */
	__u8 protocol; /* enum weft_protocol */
	__u32 layer;   /* enum weft_layer */
};
WEFT_SIZE(struct weft_policy_key, 16);
#define WEFT_SAYS_ALLOW  1u
#define WEFT_SAYS_DENY   2u
#define WEFT_SAYS_AUDIT  4u /* a dry-run policy matches: report it */
#define WEFT_SAYS_ABSENT 8u /* there is no such entry in this version */
struct weft_says {
	__u32 says;  /* WEFT_SAYS_*; neither ALLOW nor DENY: the default, whatever shorter prefixes
			say */
	__u32 rule;  /* the agent's number of what decided; 0: none */
	__u32 audit; /* the same of the dry-run policy */
};
struct weft_policy {
	__u64 from[2];
	struct weft_says v[2];
};
WEFT_SIZE(struct weft_policy, 40);

/* weft_subjects: workload id -> what is asked of it. A workload of this node that has no entry may
 * do nothing. */
#define WEFT_LENGTH_ANY 17 /* bit of `lengths`: entries of WEFT_PROTOCOL_ANY exist */
struct weft_layer_state {
	__u32 says; /* 0: the layer is not active, it allows; else WEFT_SAYS_ALLOW or DENY: default
		     */
	__u32 rule; /* why the default */
	__u32 lengths; /* bit LENGTH: entries of that length exist */
};
struct weft_subject {
	__u64 from[2];
	struct weft_layer_state v[2][WEFT_LAYERS];
};
WEFT_SIZE(struct weft_subject, 88);

/* Argument of the program that changes one version of one entry in place (versions.bpf.c). */
enum weft_versioned { WEFT_IN_POLICY = 0, WEFT_IN_SUBJECTS, WEFT_IN_CLASSES, WEFT_IN_BLOCKS };
struct weft_change {
	__u32 map;     /* enum weft_versioned */
	__u32 version; /* 0 or 1: the one that is not in force */
	__u64 from;
	union {
		struct weft_policy_key policy;
		__u32 subject;
		__u8 ip[16];
		struct weft_block_key block;
		__u8 room[24];
	} key;
	union {
		struct weft_says says;
		struct weft_layer_state layers[WEFT_LAYERS];
		__u32 class_number;
	} value;
	__u32 pad;
};
WEFT_SIZE(struct weft_change, 80);

/* weft_handovers: what the connecting end tells the accepting end of one TCP connection, before the
 * SYN leaves. Written by sockops at TCP_CONNECT, taken by sockops at PASSIVE_ESTABLISHED (or
 * removed when the connecting socket closes). Plain hash: full means the connection is refused.
 * Also read, not taken, by the sk_lookup program (kind ADMISSION). */
struct weft_handover_key {
	__u64 netns_cookie;    /* of the accepting side */
	struct weft_flow flow; /* as the accepting side sees it */
};
WEFT_SIZE(struct weft_handover_key, 48);
enum weft_handover_kind {
	WEFT_HANDOVER_ORIGINAL = 1, /* app -> proxy: dst is the original destination */
	WEFT_HANDOVER_CLIENT,       /* proxy -> app: dst is the client the app shall see */
	WEFT_HANDOVER_ADMISSION,    /* app -> app, direct */
};
struct weft_handover {
	__u32 kind;
	__u32 identity; /* of the source workload */
	__u32 workload; /* id of the source workload */
	__u32 flags;    /* WEFT_SOCK_SPLICE if both ends may splice */
	struct weft_addr dst;
	struct weft_addr picked;
	__u64 connector; /* socket cookie of the connecting socket */
};
WEFT_SIZE(struct weft_handover, 64);

/* weft_listeners (SOCKHASH): stamped listeners for sk_lookup. */
struct weft_listener_key {
	__u32 workload;
	__u16 port; /* host order: 15006 or 15008 */
	__u16 pad;
};

/* weft_clients: what is known of a process that connects, see late.bpf.c. */
struct weft_client_key {
	__u32 workload;
	__u32 pid;     /* as in weft_sock */
	__u32 started; /* as in weft_sock */
};
enum weft_client_state {
	WEFT_CLIENT_NON_BLOCKING = 1, /* so far each of its sockets was O_NONBLOCK */
	WEFT_CLIENT_MIXED,            /* one was seen blocking: each is judged on its own */
};

/* Which program: the file it was executed from, whatever it is called. */
struct weft_binary_id {
	__u64 inode;
	__u32 device; /* as the kernel numbers it: major << 20 | minor */
	__u32 pad;
};
WEFT_SIZE(struct weft_binary_id, 16);

/* weft_learned: what is known of a program under `splice: auto`, see learn.h. */
enum weft_side {
	WEFT_SIDE_CONNECTING = 0,
	WEFT_SIDE_ACCEPTING,
	WEFT_SIDES,
};
struct weft_learned {
	__u64 changed_ns;       /* when its file was changed last: else the number was used again */
	__u32 seen[WEFT_SIDES]; /* connections without a breaker */
	__u32 breaker;          /* enum weft_breaker (learn.h) */
	__u32 pad;
	__u8 comm[16]; /* of the process that was seen first */
};
WEFT_SIZE(struct weft_learned, 40);

/* weft_learners: socket cookie of a workload under `splice: auto` -> what is known of it. */
struct weft_learner {
	struct weft_binary_id binary; /* who received last, or is expected to; zero: not known */
	__u32 side;                   /* enum weft_side */
	__u32 flags;                  /* WEFT_LEARNER_* */
	__u32 receives;
	__u32 workload; /* ACCEPTING only, as the port */
	__u16 port;     /* host order */
	__u16 pad;
	__u32 pad2;
};
WEFT_SIZE(struct weft_learner, 40);
#define WEFT_LEARNER_COUNTED 1u

/* weft_ends: a socket in the splice, by its own flow -> where it is. Written by sockops and late,
 * removed at its close. */
struct weft_end {
	__u64 sock; /* kernel address of its struct sock: read by CO-RE only, valid if the cookie
		       agrees */
	__u64 cookie;
	__u64 received_bytes;          /* that came by the splice */
	struct weft_client_key client; /* of an app's connecting end; else zero */
	__u32 side;                    /* enum weft_side of `binary` */
	struct weft_binary_id binary;  /* under `splice: auto`; else zero */
};
/* Storage of a socket that sends in the splice. */
struct weft_mover {
	__u64 sent_bytes; /* by the splice */
	__u32 via_tcp;    /* 1: the last message went by TCP, so splicing needs the return rule
			     (DESIGN 4.5) */
	__u32 checked;    /* weft_unlearned[0] + 1 when both ends' binaries were last looked up */
};

/* weft_servers: what is known of the program behind a listening port, see late.bpf.c. */
struct weft_server_key {
	__u32 workload;
	__u16 port; /* host order */
	__u16 pad;
};
enum weft_server_state {
	WEFT_SERVER_ASKED = 1, /* user space was told to run the iterator */
	WEFT_SERVER_NON_BLOCKING,
	WEFT_SERVER_BLOCKING,
};

/* weft_moves[0], per CPU: what the splice did. */
struct weft_moves {
	__u64 inserted;
	__u64 removed;
	__u64 insert_failed;
	__u64 messages;
	__u64 bytes;
	__u64 switched_off; /* from here on: messages that went by TCP, by cause */
	__u64 no_peer;
	__u64 not_quiet;
	__u64 peer_full;
	__u64 peer_waits;
	__u64 peer_blocking;
	__u64 redirect_failed;
	__u64 unlearned; /* a binary at one of the ends was seen to do what the splice breaks */
};

/* Balancing at connect, see balance.h. weft_pools[slot] is the number of the first cell of the pool
 * that counts for the service, 0: it has no endpoint. A pool is never changed while it counts: the
 * writer (control/bpf/service_table) makes another one beside it, and one store of that number lets
 * it take effect. In weft_cells a pool lies in a row: its head, its backends, its ring. */
struct weft_pool {
	__u32 service;    /* struct weft_service.id, whose it is */
	__u32 flags;      /* WEFT_POOL_* */
	__u32 backends;   /* cells after the head */
	__u32 ring;       /* entries after those, 16 a cell */
	__u32 affinity_s; /* a client workload keeps its endpoint as long after its last connect; 0:
			     no affinity */
	__u32 pad[3];
};
WEFT_SIZE(struct weft_pool, 32);
#define WEFT_POOL_MAGLEV 1u /* the client's address chooses; else chance */
struct weft_backend {
	struct weft_addr addr;
	__u32 flags; /* WEFT_BACKEND_*; 0: nobody has this index */
	__u32 pad[2];
};
WEFT_SIZE(struct weft_backend, 32);
#define WEFT_BACKEND_SERVES 1u
#define WEFT_RING_IN_CELL   16u
union weft_cell {
	struct weft_pool pool;
	struct weft_backend backend;
	__u16 ring[WEFT_RING_IN_CELL]; /* indices of backends */
};
WEFT_SIZE(union weft_cell, 32);

/* weft_affinity: which endpoint a client workload had of a service. Believed only as far as the
 * pool that counts still has that endpoint at that index. */
struct weft_affinity_key {
	__u32 workload;
	__u32 generation; /* of its enrolment */
	__u32 service;
};
WEFT_SIZE(struct weft_affinity_key, 12);
struct weft_affinity {
	struct weft_addr addr;
	__u32 index;
	__u64 used_ns; /* CLOCK_MONOTONIC of the last connect */
};
WEFT_SIZE(struct weft_affinity, 32);

/* weft_addrs is keyed by the address alone. */
struct weft_ip {
	__u8 ip[16];
};

/* weft_config[0]: switches that running programs read. */
struct weft_config {
	__u32 abi;
	__u32 splice; /* 0: no message is redirected any more, whatever is in the maps */
};

/* weft_guards: ifindex of the host end of a workload's veth -> whose it is (guard.h). Written by
 * the agent, before it attaches tc/workload.bpf.c there; gone after it is detached. */
struct weft_guard {
	__u64 netns_cookie;
	__u32 workload;
	__u32 generation; /* as in the stamps of its sockets */
	__u8 ipv4[16];    /* own addresses, all zero if there is none */
	__u8 ipv6[16];
	__u8 link_local[16];
	__u8 mac[6];
	__u16 reports; /* events of the current second: a flood must not drown others' */
	__u32 second;  /* CLOCK_MONOTONIC */
	__u32 denials; /* denied flows that were kept in it */
};
WEFT_SIZE(struct weft_guard, 80);

/* weft_flows: what is not TCP, as the workload's end sees it. An entry is what policy said of it.
 */
enum weft_flow_kind {
	WEFT_FLOW_PACKETS = 0,
	WEFT_FLOW_FRAGMENTS, /* of one datagram, whose id is in the two ports */
};
struct weft_flow_key {
	__u32 workload;
	__u32 generation;
	__u8 protocol; /* of IP */
	__u8 kind;     /* enum weft_flow_kind */
	__u16 pad;
	struct weft_flow flow;
};
WEFT_SIZE(struct weft_flow_key, 52);
struct weft_flow_state {
	__u64 seen_ns;
	__u32 epoch;    /* of policy (its low half) when it was asked */
	__u8 by_remote; /* 1: the first packet came to the workload */
	__u8 answered;  /* 1: packets went both ways */
	__u8 denied;
	__u8 pad;
};
WEFT_SIZE(struct weft_flow_state, 16);

/* weft_counters (per-CPU array, indexed by enum weft_reason): every verdict is counted, events may
 * be lost. */

/* weft_events (ring buffer). */
enum weft_event_kind {
	WEFT_EVENT_CONNECT = 1, /* a verdict at connect() */
	WEFT_EVENT_ACCEPT,      /* sk_lookup refused or steered */
	WEFT_EVENT_CLOSE,       /* a connection of a workload ended */
	WEFT_EVENT_BIND,        /* bind() of one of our ports was refused */
	WEFT_EVENT_LEARN, /* asks for the late-insertion iterator; control/bpf keeps it for itself
			   */
	WEFT_EVENT_CUT,   /* a connection was destroyed: policy does not allow it any more */
	WEFT_EVENT_ASK_AGAIN, /* policy changed while a socket of `source_workload` connected;
			       * control/bpf keeps it for itself */
	WEFT_EVENT_AUDIT,     /* a connection matches a dry-run policy, `rule` */
	WEFT_EVENT_GUARD,     /* a packet was dropped at the host end of a workload's veth */
};
struct weft_event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 netns_cookie;
	__u32 kind;
	__u32 reason; /* enum weft_reason */
	__u32 rule;   /* policy number, 0: none */
	__u32 source_workload;
	__u32 source_identity;
	__u32 destination_workload;
	__u32 destination_identity;
	__u32 pid; /* 0: not in process context */
	__u8 comm[16];
	struct weft_addr source;
	struct weft_addr destination; /* as the program asked for it */
	struct weft_addr picked;      /* endpoint after a service was resolved; all zero: none */
	__u32 protocol;               /* of IP; 0: TCP */
	__u64 sent_bytes;             /* CLOSE only */
	__u64 received_bytes;         /* CLOSE only */
	__u32 binary;                 /* number in weft_binaries of what `pid` ran; 0: not known */
	__u32 maker_pid;              /* process that made the socket, and what it ran */
	__u32 maker_binary;
	__u32 pad;
};
WEFT_SIZE(struct weft_event, 160);

/* Processes: who did it. Facts are found by processes.h, rules answered by process.h, and written
 * by control/bpf/kernel_processes. */

/* Paths are those of the mount namespace of the process, from its root mount (chroot changes
 * nothing), padded with zeros; one of more bytes is cut, and then not terminated. */
#define WEFT_PATH_BYTES     248
#define WEFT_ARGUMENT_BYTES 128 /* of weft_arguments; a policy's argument has at most 126 */

/* weft_binaries: (file, path) -> number, never used again. */
struct weft_binary_key {
	struct weft_binary_id id;
	__u8 path[WEFT_PATH_BYTES];
};
WEFT_SIZE(struct weft_binary_key, 264);
struct weft_binary {
	__u32 number;
	__u32 workload; /* that ran it first: the entry goes with it */
};

/* weft_processes: of an enrolled netns. */
struct weft_process_key {
	__u32 pid;     /* thread group */
	__u32 started; /* as in weft_sock: another after exec() */
};
struct weft_process {
	__u64 netns_cookie; /* the workload's; its own may be another one since */
	__u64 arguments;    /* bits: those of weft_arguments that it has */
	__u64 program;      /* generation << 32 | number: answer of weft_programs, kept */
	struct weft_binary_id id;
	__u32 workload;
	__u32 binary; /* number in weft_binaries; 0: no room */
	__u32 uid;
	__u32 parent; /* thread group */
	__u32 parent_started;
	__u32 flags; /* WEFT_PROCESS_* */
	__u32 mount_ns;
	__u32 pid_ns;
	__u32 arguments_known; /* how many of weft_arguments were looked for */
	__u32 user_ns;         /* that owns the workload's netns; 0: not known */
	__u8 path[WEFT_PATH_BYTES];
};
WEFT_SIZE(struct weft_process, 328);
#define WEFT_PROCESS_UNTRUSTED                                                                  \
	1u /* its path says nothing: not below the root of its mount namespace, or that is of a \
	      user namespace which is not its workload's, so that anybody may have made it */
#define WEFT_PROCESS_PATH_CUT 2u
#define WEFT_PROCESS_ARGUMENTS_CUT                                                        \
	4u /* too many, or not readable: it is taken to have every argument that is asked \
	      for */
#define WEFT_PROCESS_SEEN_LATE 8u /* not at its exec: arguments are what its memory held later */
#define WEFT_PROCESS_VISITOR                                                             \
	16u /* known by a socket of the workload that it uses, not by its start: what it \
	       executes in another netns is not the workload's */

/* weft_makers: storage of a socket, from its creation on. Accepted sockets have their listener's.
 */
struct weft_maker {
	__u32 pid;
	__u32 started;
	__u32 binary;
	__u32 uid;
	__u32 user_binary; /* of the process that connected it */
	__u32 pad;
};
WEFT_SIZE(struct weft_maker, 24);

/* Rules. All entries of one state of all policies have one generation; weft_proc_gen names the one
 * in force by epoch, so that policies of processes and of the network change at one moment. */
#define WEFT_PROGRAM_OTHER 0u /* no policy names its path, or that cannot be believed */
struct weft_program_key {     /* weft_programs, longest prefix: -> class of programs */
	__u32 length;         /* bits of generation and path; an exact path ends with its zero */
	__u32 generation;
	__u8 path[WEFT_PATH_BYTES];
};
WEFT_SIZE(struct weft_program_key, 256);

struct weft_watch_key { /* weft_watches: who has rules */
	__u32 generation;
	__u32 subject;
};
struct weft_watch {
	__u32 flags;   /* WEFT_WATCH_* */
	__u32 lengths; /* bit LENGTH: entries with port prefixes of that length exist */
	__u32 rule;    /* why CLOSED */
};
#define WEFT_WATCH_CONNECT 1u
#define WEFT_WATCH_EXEC    2u
#define WEFT_WATCH_CLOSED  4u /* the rules had no room: nothing may connect */

enum weft_asks {
	WEFT_ASKS_EXEC = 1,
	WEFT_ASKS_CONNECT, /* of the class of an address, and a port */
	WEFT_ASKS_SERVICE, /* of an L7 service, whose endpoint the proxy picks: class_number is its
			      id */
};
struct weft_rule_key { /* weft_proc_rules */
	__u32 generation;
	__u32 subject;
	__u32 program; /* class */
	__u32 class_number;
	__u16 port;  /* host order; the bits beyond `length` are zero */
	__u8 length; /* of the port's prefix */
	__u8 asks;   /* enum weft_asks */
};
WEFT_SIZE(struct weft_rule_key, 20);
enum weft_process_action {
	WEFT_PROCESS_PASS = 0,
	WEFT_PROCESS_LOG,
	WEFT_PROCESS_DENY,
	WEFT_PROCESS_KILL
};
struct weft_choice {
	__u64 arguments; /* bits that the process must have */
	__u32 action;    /* enum weft_process_action; PASS: no more choices */
	__u32 rule;      /* the agent's number */
};
#define WEFT_CHOICES 8
struct weft_rules { /* the first whose arguments are there counts */
	struct weft_choice v[WEFT_CHOICES];
};
WEFT_SIZE(struct weft_rules, 128);

/* weft_proc_cfg[0]: written by the agent. */
struct weft_process_config {
	__u32 arguments;         /* entries of weft_arguments that count */
	__u32 event_interval_ns; /* of one workload, on average; 0: no limit */
	__u64 event_burst_ns;    /* may be ahead by that much */
};
/* weft_proc_state[0]: written by the programs. */
struct weft_process_state {
	__u32 last_binary;
	__u32 pad;
};

/* weft_activity: workload id -> its events, of both buffers. */
struct weft_activity {
	__u64 due_ns; /* state of the bucket, see process.h */
	__u64 events;
	__u64 suppressed; /* beyond its rate */
	__u64 lost;       /* the buffer was full */
	__u32 binaries;   /* numbers that it took */
	__u32 pad;
};
WEFT_SIZE(struct weft_activity, 40);
#define WEFT_BINARIES_PER_WORKLOAD 512

/* weft_proc_events (ring buffer); cut after the arguments. */
enum weft_process_event_kind { WEFT_EVENT_EXEC = 1, WEFT_EVENT_EXIT };
struct weft_ancestor {
	__u32 pid; /* 0: none */
	__u32 binary;
};
#define WEFT_ANCESTORS            4
#define WEFT_EVENT_ARGUMENT_BYTES 512
#define WEFT_EVENT_ARGUMENTS_CUT  16u /* of flags: there were more */
struct weft_process_event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 netns_cookie;
	__u64 cgroup;
	struct weft_binary_id id;
	__u32 kind;   /* enum weft_process_event_kind */
	__u32 reason; /* enum weft_reason */
	__u32 rule;
	__u32 workload;
	__u32 pid;
	__u32 started;
	__u32 uid;
	__u32 binary;
	__u32 mount_ns;
	__u32 pid_ns;
	__u32 flags;     /* WEFT_PROCESS_*, WEFT_EVENT_ARGUMENTS_CUT */
	__u32 exit_code; /* EXIT: as wait() tells it */
	struct weft_ancestor parents[WEFT_ANCESTORS];
	__u8 comm[16];
	__u8 path[WEFT_PATH_BYTES];
	__u32 argument_bytes;
	__u32 pad;
	__u8 arguments[WEFT_EVENT_ARGUMENT_BYTES]; /* EXEC: each ends with a zero */
};
WEFT_SIZE(struct weft_process_event, 904);

#endif /* WEFT_BPF_ABI_H */
