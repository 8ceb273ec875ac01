// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The L4 balancer of a node's uplink: packets to a VIP leave again, encapsulated, to a backend that
 * answers the client directly. Two entry points over one decision (balancer_decide.h): XDP, and tc
 * ingress (tcx or clsact). What is not for a VIP goes to the node's stack (open); what is for a VIP
 * and cannot be delivered is dropped and counted (closed), never handed to the stack, which would
 * answer for an address that it does not have. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "bpf/tc/balancer_answer.h"
#include "bpf/tc/balancer_decide.h"

#define WEFT_AF_INET  2
#define WEFT_AF_INET6 10
#define WEFT_LB_PULL  256 /* bytes of headers looked at where tc has a packet in pieces */

char LICENSE[] SEC("license") = "GPL";

/* The outer headers at `l3`, whose bounds the caller has checked. */
static __always_inline void weft_lb_write(__u8 *l3, const struct weft_lb_decision *decision,
					  const struct weft_lb_backend *backend, __u8 encap)
{
	__u8 *after = l3 + (encap & WEFT_LB_ENCAP_V6 ? 40 : 20);

	if (encap & WEFT_LB_ENCAP_V6)
		weft_lb_write6((struct weft_lb_ipv6 *)l3, &weft_lb.config, backend, encap,
			       decision->inner_v6, decision->tos, decision->inner_bytes,
			       decision->entropy);
	else
		weft_lb_write4((struct weft_lb_ipv4 *)l3, &weft_lb.config, backend, encap,
			       decision->inner_v6, decision->tos, decision->inner_bytes);
	if (encap & WEFT_LB_ENCAP_GUE)
		weft_lb_write_udp((struct weft_lb_udp *)after, decision->inner_bytes,
				  decision->entropy, backend->gue_port_be);
}

static __always_inline void weft_lb_write_eth(struct weft_lb_eth *eth,
					      const struct weft_lb_backend *backend,
					      const __u16 *own, __u8 encap)
{
	__builtin_memcpy(eth->destination, backend->next_hop, 6);
	__builtin_memcpy(eth->source, own, 6);
	eth->type = encap & WEFT_LB_ENCAP_V6 ? WEFT_LB_ETH_V6 : WEFT_LB_ETH_V4;
}

/* XDP, a backend without a known next hop: asks the kernel's routes and neighbours. */
WEFT_LB_COLD int weft_lb_xdp_route(struct xdp_md *ctx)
{
	struct bpf_fib_lookup route = {};
	__u8 *data = (__u8 *)(long)ctx->data, *end = (__u8 *)(long)ctx->data_end;
	struct weft_lb_eth *eth = (struct weft_lb_eth *)data;

	route.ifindex = ctx->ingress_ifindex;
	if (data + WEFT_LB_ETH_BYTES + sizeof(struct weft_lb_ipv4) > end)
		return XDP_DROP;
	if (eth->type == WEFT_LB_ETH_V4) {
		struct weft_lb_ipv4 *ip = (struct weft_lb_ipv4 *)(eth + 1);

		route.family = WEFT_AF_INET;
		route.ipv4_src = ip->source;
		route.ipv4_dst = ip->destination;
		route.tot_len = WEFT_HTONS(ip->total_bytes);
	} else {
		struct weft_lb_ipv6 *ip = (struct weft_lb_ipv6 *)(eth + 1);

		if ((__u8 *)(ip + 1) > end)
			return XDP_DROP;
		route.family = WEFT_AF_INET6;
		__builtin_memcpy(route.ipv6_src, ip->source, 16);
		__builtin_memcpy(route.ipv6_dst, ip->destination, 16);
		route.tot_len = WEFT_HTONS(ip->payload_bytes) + sizeof(*ip);
	}
	if (bpf_fib_lookup(ctx, &route, sizeof(route), BPF_FIB_LOOKUP_OUTPUT) !=
	    BPF_FIB_LKUP_RET_SUCCESS) {
		weft_lb_count(WEFT_LB_DROP_NO_ROUTE);
		return XDP_DROP;
	}
	__builtin_memcpy(eth->destination, route.dmac, 6);
	__builtin_memcpy(eth->source, route.smac, 6);
	return route.ifindex == ctx->ingress_ifindex ? XDP_TX : bpf_redirect(route.ifindex, 0);
}

static __always_inline int weft_lb_xdp_encap(struct xdp_md *ctx,
					     const struct weft_lb_decision *decision,
					     const __u16 *own, __u8 encap)
{
	const struct weft_lb_backend *backend = weft_lb_backend_of(decision->backend);
	__u32 bytes = weft_lb_overhead(encap);
	__u8 *data, *end;

	if (bpf_xdp_adjust_head(ctx, -(int)bytes))
		goto no_room;
	data = (__u8 *)(long)ctx->data;
	end = (__u8 *)(long)ctx->data_end;
	if (data + WEFT_LB_ETH_BYTES + bytes > end)
		goto no_room;
	weft_lb_write_eth((struct weft_lb_eth *)data, backend, own, encap);
	weft_lb_write(data + WEFT_LB_ETH_BYTES, decision, backend, encap);
	return backend->has_next_hop ? XDP_TX : weft_lb_xdp_route(ctx);
no_room:
	weft_lb_count(WEFT_LB_DROP_ENCAP);
	return XDP_DROP;
}

WEFT_LB_COLD int weft_lb_xdp_too_big(struct xdp_md *ctx, __u32 limit, __u32 v6)
{
	int room = v6 ? WEFT_LB_ROOM6 : WEFT_LB_ROOM4;
	int bytes = WEFT_LB_ETH_BYTES + room + (v6 ? WEFT_LB_QUOTE6 : WEFT_LB_QUOTE4);
	struct weft_lb_eth eth;
	__u8 *data = (__u8 *)(long)ctx->data, *end = (__u8 *)(long)ctx->data_end;
	long had = end - data;

	barrier_var(had); /* or the subtraction is done on halves of pointers: refused */
	if (data + sizeof(eth) > end)
		goto failed;
	eth = *(struct weft_lb_eth *)data;
	weft_lb_swap_macs(&eth);
	if (bpf_xdp_adjust_head(ctx, -room) || bpf_xdp_adjust_tail(ctx, bytes - room - (int)had))
		goto failed;
	data = (__u8 *)(long)ctx->data;
	end = (__u8 *)(long)ctx->data_end;
	if (v6) {
		if (data + WEFT_LB_ETH_BYTES + WEFT_LB_ROOM6 + WEFT_LB_QUOTE6 > end)
			goto failed;
		weft_lb_answer6(data + WEFT_LB_ETH_BYTES, limit);
	} else {
		if (data + WEFT_LB_ETH_BYTES + WEFT_LB_ROOM4 + WEFT_LB_QUOTE4 > end)
			goto failed;
		weft_lb_answer4(data + WEFT_LB_ETH_BYTES, limit);
	}
	*(struct weft_lb_eth *)data = eth;
	weft_lb_count(WEFT_LB_TOO_BIG_ANSWERED);
	return XDP_TX;
failed:
	weft_lb_count(WEFT_LB_DROP_TOO_BIG);
	return XDP_DROP;
}

SEC("xdp")
int weft_lb_xdp(struct xdp_md *ctx)
{
	__u8 *data = (__u8 *)(long)ctx->data, *end = (__u8 *)(long)ctx->data_end;
	struct weft_lb_eth *eth = (struct weft_lb_eth *)data;
	struct weft_lb_decision decision = {};
	struct weft_lb_frame frame = {};
	__u16 own[3];

	if ((__u8 *)(eth + 1) > end)
		return XDP_PASS;
	frame.l3 = (__u8 *)(eth + 1);
	frame.end = end;
	frame.l3_bytes = (__u32)(end - frame.l3);
	__builtin_memcpy(own, eth->destination, 6);
	weft_lb_decide(&frame, eth->type, &decision);
	if (decision.action == WEFT_LB_PASS)
		return XDP_PASS;
	if (decision.action == WEFT_LB_DROP)
		return XDP_DROP;
	if (decision.action == WEFT_LB_TOO_BIG)
		return weft_lb_xdp_too_big(ctx, decision.limit, decision.inner_v6);
	switch (decision.encap) {
	case 0:
		return weft_lb_xdp_encap(ctx, &decision, own, 0);
	case WEFT_LB_ENCAP_GUE:
		return weft_lb_xdp_encap(ctx, &decision, own, WEFT_LB_ENCAP_GUE);
	case WEFT_LB_ENCAP_V6:
		return weft_lb_xdp_encap(ctx, &decision, own, WEFT_LB_ENCAP_V6);
	default:
		return weft_lb_xdp_encap(ctx, &decision, own, WEFT_LB_ENCAP_V6 | WEFT_LB_ENCAP_GUE);
	}
}

static __always_inline int weft_lb_tc_encap(struct __sk_buff *ctx,
					    const struct weft_lb_decision *decision,
					    const __u16 *own, __u8 encap)
{
	const struct weft_lb_backend *backend = weft_lb_backend_of(decision->backend);
	__u32 bytes = weft_lb_overhead(encap);
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO |
		      (encap & WEFT_LB_ENCAP_V6 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV6
						: BPF_F_ADJ_ROOM_ENCAP_L3_IPV4);
	__u8 *data, *end;

	if (encap & WEFT_LB_ENCAP_GUE)
		flags |= BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
	if (bpf_skb_adjust_room(ctx, (int)bytes, BPF_ADJ_ROOM_MAC, flags))
		goto no_room;
	data = (__u8 *)(long)ctx->data;
	end = (__u8 *)(long)ctx->data_end;
	if (data + WEFT_LB_ETH_BYTES + bytes > end)
		goto no_room;
	weft_lb_write_eth((struct weft_lb_eth *)data, backend, own, encap);
	weft_lb_write(data + WEFT_LB_ETH_BYTES, decision, backend, encap);
	if (backend->has_next_hop)
		return bpf_redirect(ctx->ifindex, 0);
	return bpf_redirect_neigh(ctx->ifindex, 0, 0, 0);
no_room:
	weft_lb_count(WEFT_LB_DROP_ENCAP);
	return TC_ACT_SHOT;
}

WEFT_LB_COLD int weft_lb_tc_too_big(struct __sk_buff *ctx, __u32 limit, __u32 v6)
{
	__u32 quote = v6 ? WEFT_LB_QUOTE6 : WEFT_LB_QUOTE4;
	__u32 room = v6 ? WEFT_LB_ROOM6 : WEFT_LB_ROOM4;
	__u8 *data, *end;

	if (bpf_skb_change_tail(ctx, WEFT_LB_ETH_BYTES + quote, 0) ||
	    bpf_skb_adjust_room(ctx, (int)room, BPF_ADJ_ROOM_MAC, 0) || bpf_skb_pull_data(ctx, 0))
		goto failed;
	data = (__u8 *)(long)ctx->data;
	end = (__u8 *)(long)ctx->data_end;
	if (v6) {
		if (data + WEFT_LB_ETH_BYTES + WEFT_LB_ROOM6 + WEFT_LB_QUOTE6 > end)
			goto failed;
		weft_lb_answer6(data + WEFT_LB_ETH_BYTES, limit);
	} else {
		if (data + WEFT_LB_ETH_BYTES + WEFT_LB_ROOM4 + WEFT_LB_QUOTE4 > end)
			goto failed;
		weft_lb_answer4(data + WEFT_LB_ETH_BYTES, limit);
	}
	weft_lb_swap_macs((struct weft_lb_eth *)data);
	weft_lb_count(WEFT_LB_TOO_BIG_ANSWERED);
	return bpf_redirect(ctx->ifindex, 0);
failed:
	weft_lb_count(WEFT_LB_DROP_TOO_BIG);
	return TC_ACT_SHOT;
}

SEC("tcx/ingress")
int weft_lb_tc(struct __sk_buff *ctx)
{
	__u8 *data = (__u8 *)(long)ctx->data, *end = (__u8 *)(long)ctx->data_end;
	__u32 wanted = ctx->len < WEFT_LB_PULL ? ctx->len : WEFT_LB_PULL;
	struct weft_lb_decision decision = {};
	struct weft_lb_frame frame = {};
	struct weft_lb_eth *eth;
	__u16 own[3];

	if (ctx->vlan_present) { /* the tag is no longer in the frame, but it is there */
		weft_lb_count(WEFT_LB_PASS_NOT_IP);
		return TC_ACT_OK;
	}
	if (data + wanted > end) {
		if (bpf_skb_pull_data(ctx, wanted))
			return TC_ACT_OK;
		data = (__u8 *)(long)ctx->data;
		end = (__u8 *)(long)ctx->data_end;
	}
	eth = (struct weft_lb_eth *)data;
	if ((__u8 *)(eth + 1) > end)
		return TC_ACT_OK;
	frame.l3 = (__u8 *)(eth + 1);
	frame.end = end;
	frame.l3_bytes = ctx->len - WEFT_LB_ETH_BYTES;
	frame.gso_bytes = ctx->gso_size;
	__builtin_memcpy(own, eth->destination, 6);
	weft_lb_decide(&frame, eth->type, &decision);
	if (decision.action == WEFT_LB_PASS)
		return TC_ACT_OK;
	if (decision.action == WEFT_LB_DROP)
		return TC_ACT_SHOT;
	if (decision.action == WEFT_LB_TOO_BIG)
		return weft_lb_tc_too_big(ctx, decision.limit, decision.inner_v6);
	switch (decision.encap) {
	case 0:
		return weft_lb_tc_encap(ctx, &decision, own, 0);
	case WEFT_LB_ENCAP_GUE:
		return weft_lb_tc_encap(ctx, &decision, own, WEFT_LB_ENCAP_GUE);
	case WEFT_LB_ENCAP_V6:
		return weft_lb_tc_encap(ctx, &decision, own, WEFT_LB_ENCAP_V6);
	default:
		return weft_lb_tc_encap(ctx, &decision, own, WEFT_LB_ENCAP_V6 | WEFT_LB_ENCAP_GUE);
	}
}
