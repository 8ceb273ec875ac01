/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What may pass the host end of a workload's veth, as far as a packet alone can tell: pure, from
 * bytes (packet.h) to a verdict. Compiled into tc/workload.bpf.c and into tests/unit/bpf. Looking
 * at sockets, asking policy and reporting are workload.bpf.c's. Everything that is not known to be
 * harmless is dropped. */
#ifndef WEFT_BPF_GUARD_H
#define WEFT_BPF_GUARD_H

#include "bpf/packet.h"

/* How long a flow lives without packets. */
#define WEFT_FLOW_NEW_NS      (30ull * 1000000000)
#define WEFT_FLOW_ANSWERED_NS (180ull * 1000000000)
#define WEFT_FLOW_TOUCH_NS    (1000000000ull) /* not written more often than that */
#define WEFT_GUARD_REPORTS    10              /* events of one interface in a second */
#define WEFT_GUARD_DENIALS    64              /* denied flows of one interface kept in a second */

enum weft_guard_verdict {
	WEFT_GUARD_PASS = 0,
	WEFT_GUARD_DROP,
	WEFT_GUARD_SOCKET,    /* passes only if a stamped socket of the workload sent it */
	WEFT_GUARD_FLOW,      /* passes as its flow does */
	WEFT_GUARD_FRAGMENT,  /* passes as the first fragment of its datagram did */
	WEFT_GUARD_ICMP_ERROR /* passes if what it quotes is of a flow, else as its own flow does */
};

struct weft_guarded {
	__u32 verdict; /* enum weft_guard_verdict */
	__u32 reason;  /* of a drop */
};

static __always_inline int weft_mac_equal(const __u8 *a, const __u8 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3] && a[4] == b[4] &&
	       a[5] == b[5];
}

static __always_inline int weft_guard_owns(const struct weft_guard *own, const __u8 *ip)
{
	if (weft_ip_is_zero(ip))
		return 0;
	return weft_ip_equal(ip, own->ipv4) || weft_ip_equal(ip, own->ipv6) ||
	       weft_ip_equal(ip, own->link_local);
}

static __always_inline int weft_ip_is_multicast6(const __u8 *ip)
{
	return ip[0] == 0xff;
}

/* Neighbour discovery that a host sends: about itself, under its own MAC, and nothing else on
 * board.
 */
static __always_inline int weft_nd_is_honest(void *packet, weft_load load, __u32 bytes,
					     const struct weft_packet *p,
					     const struct weft_guard *own)
{
	__u32 at = p->l4 + 8;
	__u8 target[16];
	__u8 option[8];
	int i;

	if (p->hop_limit != 255 || p->code)
		return 0;
	if (p->type != WEFT_ND_ROUTER_SOLICIT) {
		if (load(packet, at, target, sizeof(target)))
			return 0;
		if (p->type == WEFT_ND_ADVERT && !weft_guard_owns(own, target))
			return 0;
		at += sizeof(target);
	}
	for (i = 0; i < WEFT_ND_OPTIONS && at < bytes; ++i) {
		if (load(packet, at, option, sizeof(option)) || option[1] != 1)
			return 0;
		if (option[0] == 1 || option[0] == 2) { /* link-layer address */
			if (!weft_mac_equal(option + 2, own->mac))
				return 0;
		} else if (option[0] != 14) { /* nonce */
			return 0;
		}
		at += sizeof(option);
	}
	return at == bytes;
}

/* ICMPv6 that keeps a link working. 0: it is none of it. */
static __always_inline int weft_is_link_control(const struct weft_packet *p)
{
	return p->frame == WEFT_FRAME_V6 && p->protocol == WEFT_IP_ICMP6 &&
	       p->part == WEFT_PART_WHOLE &&
	       ((p->type >= WEFT_MLD_QUERY && p->type <= WEFT_ND_REDIRECT) ||
		p->type == WEFT_MLD2_REPORT);
}

static __always_inline int weft_link_control_is_honest(void *packet, weft_load load, __u32 bytes,
						       const struct weft_packet *p,
						       const struct weft_guard *own)
{
	switch (p->type) {
	case WEFT_ND_ROUTER_SOLICIT:
	case WEFT_ND_SOLICIT:
	case WEFT_ND_ADVERT:
		return weft_nd_is_honest(packet, load, bytes, p, own);
	case WEFT_MLD_REPORT:
	case WEFT_MLD_DONE:
	case WEFT_MLD2_REPORT:
		return p->hop_limit == 1 && weft_ip_is_multicast6(p->destination);
	default: /* queries, router advertisements, redirects: a router's */
		return 0;
	}
}

static __always_inline int weft_icmp_is_error(const struct weft_packet *p)
{
	if (p->part != WEFT_PART_WHOLE)
		return 0;
	if (p->frame == WEFT_FRAME_V4)
		return p->protocol == WEFT_IP_ICMP &&
		       (p->type == 3 || p->type == 4 || p->type == 11 || p->type == 12);
	return p->protocol == WEFT_IP_ICMP6 && p->type >= 1 && p->type <= 4;
}

/* What policy may know as a flow; the same for both directions. */
static __always_inline __u32 weft_guard_flow(const struct weft_packet *p)
{
	if (p->part == WEFT_PART_LATER)
		return WEFT_GUARD_FRAGMENT;
	return weft_icmp_is_error(p) ? WEFT_GUARD_ICMP_ERROR : WEFT_GUARD_FLOW;
}

/* A packet that the workload sends. `bytes`: all of it, so that payload cannot hide behind what the
 * IP header says. */
static __always_inline struct weft_guarded weft_guard_from(void *packet, weft_load load,
							   __u32 bytes, const struct weft_packet *p,
							   const struct weft_guard *own)
{
	struct weft_guarded spoofed = {WEFT_GUARD_DROP, WEFT_R_SPOOFED};
	struct weft_guarded bad = {WEFT_GUARD_DROP, WEFT_R_BAD_PACKET};
	struct weft_guarded out = {WEFT_GUARD_PASS, WEFT_R_NONE};

	if (!weft_mac_equal(p->mac, own->mac))
		return spoofed;
	if (p->frame == WEFT_FRAME_OTHER || p->odd ||
	    (p->part != WEFT_PART_WHOLE && p->end != bytes))
		return bad;
	if (p->frame == WEFT_FRAME_ARP) {
		if (!weft_mac_equal(p->arp_mac, own->mac))
			return spoofed;
		/* A probe has no sender yet. */
		return weft_word(p->source, 3) == 0 || weft_ip_equal(p->source, own->ipv4)
			       ? out
			       : spoofed;
	}
	if (weft_is_link_control(p)) {
		if (!weft_ip_is_zero(p->source) && !weft_guard_owns(own, p->source))
			return spoofed;
		return weft_link_control_is_honest(packet, load, bytes, p, own) ? out : spoofed;
	}
	if (!weft_guard_owns(own, p->source))
		return spoofed;
	if (p->protocol != WEFT_IP_TCP) {
		out.verdict = weft_guard_flow(p);
	} else if (p->part != WEFT_PART_WHOLE || p->l4 + p->l4_head < bytes ||
		   (p->tcp_flags & (WEFT_TCP_SYN | WEFT_TCP_ACK)) == WEFT_TCP_SYN) {
		out.verdict = WEFT_GUARD_SOCKET;
	}
	return out;
}

/* A packet that goes to the workload: bpf/sockops/inbound.bpf.c trusts its own addresses and
 * loopback. TCP is judged there. */
static __always_inline struct weft_guarded weft_guard_to(const struct weft_packet *p,
							 const struct weft_guard *own)
{
	struct weft_guarded spoofed = {WEFT_GUARD_DROP, WEFT_R_SPOOFED};
	struct weft_guarded bad = {WEFT_GUARD_DROP, WEFT_R_BAD_PACKET};
	struct weft_guarded out = {WEFT_GUARD_PASS, WEFT_R_NONE};

	if (p->frame != WEFT_FRAME_V4 && p->frame != WEFT_FRAME_V6)
		return out;
	if (weft_guard_owns(own, p->source))
		return spoofed;
	/* Only what looks for a free address has none of its own. */
	if (weft_ip_is_loopback(p->source) &&
	    !(weft_ip_is_zero(p->source) && weft_is_link_control(p)))
		return spoofed;
	if (p->part != WEFT_PART_WHOLE && p->odd)
		return bad;
	if (p->protocol != WEFT_IP_TCP && !weft_is_link_control(p))
		out.verdict = weft_guard_flow(p);
	return out;
}

static __always_inline int weft_addr_equal(const struct weft_addr *a, const struct weft_addr *b)
{
	return a->port_be == b->port_be && weft_ip_equal(a->ip, b->ip);
}

/* Whether TCP that the workload sends may be of a socket that carries `stamp` and has `flow`. The
 * pod can rewrite packets after the socket made them, and use a socket again: the packet must be
 * the socket's, and that still go where connect.bpf.c let it. */
static __always_inline int weft_stamp_lets(const struct weft_sock *stamp,
					   const struct weft_guard *own,
					   const struct weft_packet *p,
					   const struct weft_flow *flow)
{
	const struct weft_addr *target;

	if (stamp->workload != own->workload || stamp->generation != own->generation)
		return 0;
	if (p->part != WEFT_PART_WHOLE || p->source_port_be != flow->local.port_be ||
	    p->destination_port_be != flow->remote.port_be ||
	    !weft_ip_equal(p->source, flow->local.ip) ||
	    !weft_ip_equal(p->destination, flow->remote.ip))
		return 0;
	if (stamp->role != WEFT_ROLE_APP || !stamp->pid)
		return 1;
	target = weft_ip_is_zero(stamp->picked.ip) ? &stamp->peer : &stamp->picked;
	return stamp->verdict == WEFT_R_DIRECT && weft_addr_equal(target, &flow->remote);
}

/* The flow of a packet that the workload sent (`sent`) or gets. */
static __always_inline void weft_flow_key_of(const struct weft_guard *own,
					     const struct weft_packet *p, int sent,
					     struct weft_flow_key *key)
{
	const __u8 *local = sent ? p->source : p->destination;
	const __u8 *remote = sent ? p->destination : p->source;

	__builtin_memset(key, 0, sizeof(*key));
	key->workload = own->workload;
	key->generation = own->generation;
	key->protocol = p->protocol;
	__builtin_memcpy(key->flow.local.ip, local, 16);
	__builtin_memcpy(key->flow.remote.ip, remote, 16);
	key->flow.local.port_be = sent ? p->source_port_be : p->destination_port_be;
	key->flow.remote.port_be = sent ? p->destination_port_be : p->source_port_be;
}

/* The datagram of a fragment. */
static __always_inline void weft_fragments_key_of(const struct weft_guard *own,
						  const struct weft_packet *p, int sent,
						  struct weft_flow_key *key)
{
	weft_flow_key_of(own, p, sent, key);
	key->kind = WEFT_FLOW_FRAGMENTS;
	key->flow.local.port_be = (__be16)p->fragment_id;
	key->flow.remote.port_be = (__be16)(p->fragment_id >> 16);
}

enum weft_flow_verdict {
	WEFT_FLOW_UNKNOWN = 0, /* ask policy for the packet */
	WEFT_FLOW_CHANGED,     /* ask policy again, for the flow as it began */
	WEFT_FLOW_PASSES,
	WEFT_FLOW_DENIED,
};

static __always_inline __u32 weft_flow_verdict_of(const struct weft_flow_state *state, __u64 now_ns,
						  __u32 epoch, int sent)
{
	__u64 life_ns;

	if (!state)
		return WEFT_FLOW_UNKNOWN;
	life_ns = state->answered ? WEFT_FLOW_ANSWERED_NS : WEFT_FLOW_NEW_NS;
	if (now_ns > state->seen_ns + life_ns)
		return WEFT_FLOW_UNKNOWN;
	if (state->denied) /* the other side may have other rights */
		return state->epoch == epoch && state->by_remote == !sent ? WEFT_FLOW_DENIED
									  : WEFT_FLOW_UNKNOWN;
	return state->epoch == epoch ? WEFT_FLOW_PASSES : WEFT_FLOW_CHANGED;
}

static __always_inline __u32 weft_policy_protocol(__u8 protocol)
{
	return protocol == WEFT_IP_UDP    ? WEFT_PROTOCOL_UDP
	       : protocol == WEFT_IP_SCTP ? WEFT_PROTOCOL_SCTP
	       : protocol == WEFT_IP_TCP  ? WEFT_PROTOCOL_TCP
					  : WEFT_PROTOCOL_OTHER;
}

#endif /* WEFT_BPF_GUARD_H */
