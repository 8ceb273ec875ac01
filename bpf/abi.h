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
#define WEFT_WL_SPLICE 1u /* weft.dev/splice: on */
#define WEFT_WL_PROXY_READY \
	2u /* a proxy listens in this netns; without it captured connects get ECONNREFUSED */
#define WEFT_WL_L7_INBOUND 4u /* L7 policy or routes for this workload: never direct */
#define WEFT_WL_STRICT                                                            \
	16u /* plaintext from outside the mesh is refused (by the proxy at 15006) \
	     */

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

/* weft_ends: a socket in the splice, by its own flow -> where it is. Written by sockops and late,
 * removed at its close. */
struct weft_end {
	__u64 sock; /* kernel address of its struct sock: read by CO-RE only, valid if the cookie
		       agrees */
	__u64 cookie;
	__u64 received_bytes;          /* that came by the splice */
	struct weft_client_key client; /* of an app's connecting end; else zero */
	__u32 pad;
};
/* Storage of a socket that sends in the splice. */
struct weft_mover {
	__u64 sent_bytes; /* by the splice */
	__u32 via_tcp;    /* 1: the last message went by TCP, so splicing needs the return rule
			     (DESIGN 4.5) */
	__u32 pad;
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
	__u32 pad;
	__u64 sent_bytes;     /* CLOSE only */
	__u64 received_bytes; /* CLOSE only */
};
WEFT_SIZE(struct weft_event, 144);

#endif /* WEFT_BPF_ABI_H */
