/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The L4 balancer's tables, shared by balancer.bpf.c and control/bpf/balancer.cc. C11 and C++20.
 * User space maps all of them and writes with plain stores of at most 8 bytes; the programs only
 * read them, except flows, fragments and counters, which belong to the CPU that handles a packet.
 * Any change of layout or meaning bumps WEFT_LB_ABI. */
#ifndef WEFT_BPF_TC_BALANCER_ABI_H
#define WEFT_BPF_TC_BALANCER_ABI_H

#include <linux/types.h>

#include "bpf/abi.h"

#define WEFT_LB_ABI 1

#define WEFT_LB_VIPS       2048  /* a VIP takes one, its address another; entry 0 is none */
#define WEFT_LB_SLOTS      16384 /* an eighth full at most */
#define WEFT_LB_PROBES     16    /* slots looked at before a lookup gives up */
#define WEFT_LB_BACKENDS   16384 /* 14 bits of a flow's value; entry 0 is none */
#define WEFT_LB_WAYS       5     /* flows in a bucket */
#define WEFT_LB_CHUNK      2048  /* ring entries in a chunk of weft_lb_rings: 4 KiB */
#define WEFT_LB_FRAGMENTS  1024  /* fragmented datagrams remembered per CPU */
#define WEFT_LB_NO_BACKEND 0

/* A lookup slot: tag (32 bits of the hash, never 0) << 32 | index of the VIP. 0 ends a search. */
#define WEFT_LB_SLOT_GONE 1ull /* removed; a search goes on. Tag 0: matches nothing */

enum weft_lb_vip_flag {
	WEFT_LB_VIP_ADDRESS = 1,  /* stands for an address (port and protocol 0): no ring */
	WEFT_LB_VIP_QUIC = 2,     /* connection ids name the backend */
	WEFT_LB_VIP_AFFINITY = 4, /* the client's port does not count when a backend is picked */
	WEFT_LB_VIP_CHANGED = 8   /* the ring is not the first one: flows may be elsewhere */
};

/* Addresses are two words in network order as they lie in memory; IPv4 mapped (::ffff:a.b.c.d). */
struct weft_lb_vip {
	__u64 addr_hi;
	__u64 addr_lo;
	__be16 port_be;
	__u8 protocol;
	__u8 flags;
	__u32 quic_config; /* the 3 bits that the first octet of a connection id starts with */
	/* offset << 32 | entries, of the current ring in weft_lb_rings: one store switches rings */
	__u64 ring;
	__u64 servers; /* the same for backends by QUIC server id; entries 0: none */
	__u64 unused[3];
};
WEFT_SIZE(struct weft_lb_vip, 64);

enum weft_lb_backend_state {
	WEFT_LB_GONE, /* flows pick anew */
	WEFT_LB_ACTIVE,
	WEFT_LB_DRAINING /* keeps its flows; in no ring */
};
enum weft_lb_encap {
	WEFT_LB_ENCAP_V6 = 1, /* the outer header is IPv6 */
	WEFT_LB_ENCAP_GUE = 2 /* UDP between outer and inner, else IP in IP */
};
struct weft_lb_backend {
	__u8 state;
	__u8 encap;
	__be16 gue_port_be;
	__u32 csum;         /* sum of the constant words of the outer IPv4 header, not folded */
	__u8 next_hop[6];   /* where frames to it go; zero: the kernel's routes are asked */
	__u16 has_next_hop; /* 1 or 0 */
	__u32 addr[4];      /* IPv4 in addr[3]; network order */
};
WEFT_SIZE(struct weft_lb_backend, 32);

enum weft_lb_flow_state {
	WEFT_LB_FLOW_NEW,
	WEFT_LB_FLOW_LIVE,
	WEFT_LB_FLOW_CLOSING,
	WEFT_LB_FLOW_LIVE_DATAGRAM
};
/* Value of a flow: state << 30 | backend << 16 | tick of its last packet. One store. */

/* One cache line: five IPv4 flows. Key: client address, client port, VIP (0: free). */
struct weft_lb_bucket4 {
	__u64 key[WEFT_LB_WAYS];
	__u32 value[WEFT_LB_WAYS];
	__u32 zero; /* never written: see WEFT_LB_FORGET */
};
WEFT_SIZE(struct weft_lb_bucket4, 64);

/* Two cache lines: five IPv6 flows. */
struct weft_lb_bucket6 {
	__u64 hi[WEFT_LB_WAYS];
	__u32 key[WEFT_LB_WAYS]; /* client port << 16 | VIP; 0: free */
	__u32 unused1;
	__u64 lo[WEFT_LB_WAYS];
	__u32 value[WEFT_LB_WAYS];
	__u32 zero;
};
WEFT_SIZE(struct weft_lb_bucket6, 128);

struct weft_lb_fragment {
	__u64 src_hi, src_lo, dst_hi, dst_lo;
	__u32 id;
	__u16 protocol;
	__u16 tick;
	__u32 backend; /* 0: free */
	__u32 unused[5];
};
WEFT_SIZE(struct weft_lb_fragment, 64);

struct weft_lb_traffic { /* of one VIP on one CPU */
	__u64 packets;
	__u64 bytes; /* of the inner packets */
	__u64 flows; /* picked from the ring */
	__u64 refused;
};
WEFT_SIZE(struct weft_lb_traffic, 32);

/* What became of a packet, beyond weft_lb_traffic. PASS: to the node's own stack. */
#define WEFT_LB_REASONS(X)                                                                        \
	X(NONE, "none")                                                                           \
	X(PASS_NOT_IP, "pass_not_ip")       /* ARP, VLAN tags, anything but IPv4 and IPv6 */      \
	X(PASS_MALFORMED, "pass_malformed") /* an IP header the stack will refuse */              \
	X(PASS_PROTOCOL, "pass_protocol")   /* neither TCP, UDP nor an ICMP error */              \
	X(PASS_NOT_VIP, "pass_not_vip")     /* only of ICMP and fragments: see balancer.bpf.c */  \
	X(DROP_TRUNCATED, "drop_truncated") /* to a VIP, without a whole L4 header */             \
	X(DROP_NO_BACKEND, "drop_no_backend")                                                     \
	X(DROP_FRAGMENT, "drop_fragment") /* its first fragment was not seen */                   \
	X(DROP_ICMP, "drop_icmp")         /* an error about something no backend can have sent */ \
	X(DROP_TOO_BIG, "drop_too_big")   /* and the answer could not be built */                 \
	X(DROP_NO_ROUTE, "drop_no_route") /* XDP: the kernel knows no next hop */                 \
	X(DROP_ENCAP, "drop_encap")       /* no room before the packet */                         \
	X(TOO_BIG_ANSWERED, "too_big_answered")                                                   \
	X(ICMP_DELIVERED, "icmp_delivered")                                                       \
	X(FRAGMENT_DELIVERED, "fragment_delivered")                                               \
	X(QUIC_ROUTED, "quic_routed")       /* by the connection id */                            \
	X(FLOW_UNTRACKED, "flow_untracked") /* its bucket is full of live flows */                \
	X(FLOW_MOVED, "flow_moved")         /* its backend is gone, or drains and this is a SYN */

enum weft_lb_reason {
#define X(name, text) WEFT_LB_##name,
	WEFT_LB_REASONS(X)
#undef X
		WEFT_LB_REASON_MAX
};
struct weft_lb_counts { /* on one CPU */
	__u64 of[32];
};

/* Written before VIPs are; the programs read it with every packet. */
struct weft_lb_config {
	__u32 source4; /* network order: outer source of IPv4 encapsulation */
	__u32 mtu;     /* of the uplink: an outer packet's largest size */
	__u32 source6[4];
	__u32 source4_sum; /* not folded sum of the outer header's words that never change */
	__u16 expiry[4];   /* in ticks, by weft_lb_flow_state */
	__u16 fragment_expiry;
	__u16 unused;
	__u64 ring_seed; /* the same on every node: all of them pick the same backend */
};

struct weft_lb_tables {
	struct weft_lb_config config;
	__u64 slots[WEFT_LB_SLOTS];
	struct weft_lb_vip vips[WEFT_LB_VIPS] __attribute__((aligned(64)));
	struct weft_lb_backend backends[WEFT_LB_BACKENDS];
};

#endif /* WEFT_BPF_TC_BALANCER_ABI_H */
