/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* From a frame to a decision. The common case (TCP or UDP, not fragmented) is inline, once for each
 * family; ICMP errors, fragments and what is malformed are out of line. Fails open for what is not
 * known to be for a VIP (the node's stack gets it), closed for what is (dropped, counted). */
#ifndef WEFT_BPF_TC_BALANCER_DECIDE_H
#define WEFT_BPF_TC_BALANCER_DECIDE_H

#include "bpf/tc/balancer_core.h"

/* What the rare path answers besides the index of a backend. */
#define WEFT_LB_RARE_PASS 0
#define WEFT_LB_RARE_DROP (-1)

static __always_inline int weft_lb_rare_end(__u32 reason, int verdict)
{
	weft_lb_count(reason);
	return verdict;
}

/* An ICMP error to a VIP's address: to the backend of the flow that it is about. That flow's
 * packets may be handled on another CPU (the NIC spreads by ports), so all tables are searched. */
WEFT_LB_COLD int weft_lb_icmp(struct weft_lb_packet *packet, __u8 *end)
{
	struct weft_lb_packet about = {};
	__u32 vip, backend;

	if (!weft_lb_parse_inner(packet, end, &about))
		return weft_lb_rare_end(WEFT_LB_DROP_ICMP, WEFT_LB_RARE_DROP);
	vip = weft_lb_vip_of(&about, weft_lb_service(about.dst_port_be, about.protocol));
	if (!vip)
		return weft_lb_rare_end(WEFT_LB_DROP_ICMP, WEFT_LB_RARE_DROP);
	backend = weft_lb_search(&about, vip, weft_lb_flow_hash(&about, vip));
	if (!backend)
		backend = weft_lb_pick(&about, &weft_lb.vips[vip & (WEFT_LB_VIPS - 1)]);
	if (!backend)
		return weft_lb_rare_end(WEFT_LB_DROP_NO_BACKEND, WEFT_LB_RARE_DROP);
	return weft_lb_rare_end(WEFT_LB_ICMP_DELIVERED, (int)backend);
}

static __always_inline struct weft_lb_fragment *
weft_lb_fragment_of(const struct weft_lb_packet *packet)
{
	__u64 hash =
		weft_lb_mix6(packet->src_hi ^ packet->src_lo, packet->dst_hi ^ packet->dst_lo,
			     packet->fragment_id ^ packet->protocol, cfg_secret[0], cfg_secret[1]);
	__u32 index = bpf_get_smp_processor_id() * WEFT_LB_FRAGMENTS +
		      ((__u32)hash & (WEFT_LB_FRAGMENTS - 1));

	return bpf_map_lookup_elem(&weft_lb_frags, &index);
}

/* The first fragment has the ports and goes where its flow goes; the later ones follow it. All of a
 * datagram come to the same CPU: NICs spread fragments by addresses alone. A later one that
 * overtakes the first is lost. */
WEFT_LB_COLD int weft_lb_first_fragment(struct weft_lb_packet *packet, __u8 *end)
{
	__u32 vip = weft_lb_vip_of(packet, weft_lb_service(packet->dst_port_be, packet->protocol));
	struct weft_lb_fragment *fragment = weft_lb_fragment_of(packet);
	__u32 backend;

	if (!vip)
		return weft_lb_rare_end(WEFT_LB_PASS_NOT_VIP, WEFT_LB_RARE_PASS);
	backend = weft_lb_to_vip(packet, vip, weft_lb_flow_hash(packet, vip), end);
	if (!backend || !fragment)
		return WEFT_LB_RARE_DROP; /* counted */
	fragment->src_hi = packet->src_hi;
	fragment->src_lo = packet->src_lo;
	fragment->dst_hi = packet->dst_hi;
	fragment->dst_lo = packet->dst_lo;
	fragment->id = packet->fragment_id;
	fragment->protocol = packet->protocol;
	fragment->tick = weft_lb_now();
	fragment->backend = backend;
	return weft_lb_rare_end(WEFT_LB_FRAGMENT_DELIVERED, (int)backend);
}

static __always_inline int weft_lb_later_fragment(const struct weft_lb_packet *packet)
{
	struct weft_lb_fragment *fragment = weft_lb_fragment_of(packet);
	__u32 backend;

	if (!fragment || fragment->src_lo != packet->src_lo || fragment->src_hi != packet->src_hi ||
	    fragment->dst_lo != packet->dst_lo || fragment->dst_hi != packet->dst_hi ||
	    fragment->id != packet->fragment_id || fragment->protocol != packet->protocol)
		return weft_lb_rare_end(WEFT_LB_DROP_FRAGMENT, WEFT_LB_RARE_DROP);
	backend = fragment->backend & (WEFT_LB_BACKENDS - 1);
	if (weft_lb_backend_of(backend)->state == WEFT_LB_GONE ||
	    (__u16)(weft_lb_now() - fragment->tick) > weft_lb.config.fragment_expiry)
		return weft_lb_rare_end(WEFT_LB_DROP_FRAGMENT, WEFT_LB_RARE_DROP);
	return weft_lb_rare_end(WEFT_LB_FRAGMENT_DELIVERED, (int)backend);
}

/* Anything but a whole TCP or UDP packet. */
WEFT_LB_COLD int weft_lb_rare(struct weft_lb_packet *packet, __u32 parsed, __u8 *end)
{
	__u8 *l4 = packet->l4;

	if (parsed == WEFT_LB_BAD_IP)
		return weft_lb_rare_end(WEFT_LB_PASS_MALFORMED, WEFT_LB_RARE_PASS);
	if (!weft_lb_vip_of(packet, 0))
		return weft_lb_rare_end(WEFT_LB_PASS_NOT_VIP, WEFT_LB_RARE_PASS);
	if (parsed == WEFT_LB_BAD_L4)
		return weft_lb_rare_end(WEFT_LB_DROP_TRUNCATED, WEFT_LB_RARE_DROP);
	if (parsed == WEFT_LB_PARSED)
		return packet->part == WEFT_LB_LATER ? weft_lb_later_fragment(packet)
						     : weft_lb_first_fragment(packet, end);
	if (packet->protocol != (packet->v6 ? WEFT_LB_ICMP6 : WEFT_LB_ICMP) || l4 + 8 > end ||
	    packet->part != WEFT_LB_WHOLE || !weft_lb_is_icmp_error(packet->v6, l4[0]))
		return weft_lb_rare_end(WEFT_LB_PASS_PROTOCOL, WEFT_LB_RARE_PASS);
	return weft_lb_icmp(packet, end);
}

static __always_inline void weft_lb_judge(const struct weft_lb_packet *packet, __u32 parsed,
					  const struct weft_lb_frame *frame,
					  struct weft_lb_decision *out)
{
	const struct weft_lb_backend *backend;
	__u32 overhead, segment_bytes;
	__u64 hash = packet->src_lo;

	out->action = WEFT_LB_PASS;
	if (parsed == WEFT_LB_PARSED && packet->part == WEFT_LB_WHOLE) {
		__u32 service = weft_lb_service(packet->dst_port_be, packet->protocol);
		__u32 vip = weft_lb_vip_of(packet, service);

		if (!vip)
			return; /* most of a node's packets: not even counted */
		hash = weft_lb_flow_hash(packet, vip);
		out->backend = weft_lb_to_vip(packet, vip, hash, frame->end);
		if (!out->backend) {
			out->action = WEFT_LB_DROP;
			return;
		}
	} else {
		struct weft_lb_packet copy = *packet; /* `packet` itself stays in registers */
		int answer = weft_lb_rare(&copy, parsed, frame->end);

		if (answer <= 0) {
			out->action = answer == WEFT_LB_RARE_PASS ? WEFT_LB_PASS : WEFT_LB_DROP;
			return;
		}
		out->backend = (__u32)answer;
	}
	backend = weft_lb_backend_of(out->backend);
	out->encap = backend->encap;
	out->inner_v6 = packet->v6;
	out->tos = packet->tos;
	out->inner_bytes = packet->inner_bytes;
	out->entropy = (__u32)(hash >> 32);
	overhead = weft_lb_overhead(out->encap);
	segment_bytes =
		frame->gso_bytes ? packet->header_bytes + frame->gso_bytes : packet->inner_bytes;
	out->limit = weft_lb.config.mtu - overhead;
	out->action =
		segment_bytes + overhead > weft_lb.config.mtu ? WEFT_LB_TOO_BIG : WEFT_LB_SEND;
}

static __always_inline void weft_lb_decide(const struct weft_lb_frame *frame, __be16 type,
					   struct weft_lb_decision *out)
{
	struct weft_lb_packet packet = {};

	if (type == WEFT_LB_ETH_V4) {
		int parsed = weft_lb_parse4(&packet, frame->l3, frame->end, frame->l3_bytes);

		packet.v6 = 0;
		weft_lb_judge(&packet, parsed, frame, out);
	} else if (type == WEFT_LB_ETH_V6) {
		int parsed = weft_lb_parse6(&packet, frame->l3, frame->end, frame->l3_bytes);

		packet.v6 = 1;
		weft_lb_judge(&packet, parsed, frame, out);
	} else {
		out->action = WEFT_LB_PASS;
		weft_lb_count(WEFT_LB_PASS_NOT_IP);
	}
}

#endif /* WEFT_BPF_TC_BALANCER_DECIDE_H */
