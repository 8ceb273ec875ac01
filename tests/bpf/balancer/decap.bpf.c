// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* A backend's half of direct server return, for kernels without ipip, ip6_tunnel and fou: takes the
 * outer headers (IP in IP, or GUE variant 1 to port 6080) off at tc ingress and lets the inner
 * packet go on to the VIP on lo. Counts by kind. Only for the test. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "bpf/tc/balancer_packet.h"

char LICENSE[] SEC("license") = "GPL";

__u64 decap_count[8]; /* bit 0: outer IPv6, bit 1: GUE, bit 2: inner IPv6 */

SEC("tcx/ingress")
int test_decap(struct __sk_buff *ctx)
{
	__u8 *data = (__u8 *)(long)ctx->data, *end = (__u8 *)(long)ctx->data_end;
	struct weft_lb_eth *eth = (struct weft_lb_eth *)data;
	__u32 outer, kind = 0;
	__u8 protocol, *after;
	__u64 flags;

	if (data + WEFT_LB_ETH_BYTES + 48 > end)
		return TC_ACT_OK;
	if (eth->type == WEFT_LB_ETH_V4) {
		struct weft_lb_ipv4 *ip = (struct weft_lb_ipv4 *)(eth + 1);

		outer = 20;
		protocol = ip->protocol;
	} else if (eth->type == WEFT_LB_ETH_V6) {
		struct weft_lb_ipv6 *ip = (struct weft_lb_ipv6 *)(eth + 1);

		outer = 40;
		protocol = ip->next_header;
		kind = 1;
	} else {
		return TC_ACT_OK;
	}
	after = data + WEFT_LB_ETH_BYTES + outer;
	if (protocol == WEFT_LB_UDP) {
		if (after + 9 > end || ((__u16 *)after)[1] != WEFT_HTONS(6080))
			return TC_ACT_OK;
		kind |= 2;
		outer += 8;
		protocol = after[8] >> 4 == 4 ? 4 : 41;
	}
	if (protocol != 4 && protocol != 41)
		return TC_ACT_OK;
	if (protocol == 41)
		kind |= 4;
	flags = BPF_F_ADJ_ROOM_FIXED_GSO |
		(protocol == 4 ? BPF_F_ADJ_ROOM_DECAP_L3_IPV4 : BPF_F_ADJ_ROOM_DECAP_L3_IPV6);
	if (bpf_skb_adjust_room(ctx, -(int)outer, BPF_ADJ_ROOM_MAC, flags))
		return TC_ACT_SHOT;
	data = (__u8 *)(long)ctx->data;
	if (data + WEFT_LB_ETH_BYTES > (__u8 *)(long)ctx->data_end)
		return TC_ACT_SHOT;
	((struct weft_lb_eth *)data)->type = protocol == 4 ? WEFT_LB_ETH_V4 : WEFT_LB_ETH_V6;
	__sync_fetch_and_add(&decap_count[kind & 7], 1);
	return TC_ACT_OK;
}
