/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Turns a frame that is too big into the ICMP error that says so: the caller has cut it after the
 * quoted bytes and made room before them. Sent for IPv4 packets without DF as well: fragmenting the
 * outer packet would be worse, and stacks heed the answer. */
#ifndef WEFT_BPF_TC_BALANCER_ANSWER_H
#define WEFT_BPF_TC_BALANCER_ANSWER_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "bpf/tc/balancer_encap.h"

struct weft_lb_icmp {
	__u8 type;
	__u8 code;
	__be16 csum;
	__be32 rest; /* IPv4: 16 bits unused, 16 bits of MTU */
};

#define WEFT_LB_QUOTE4 128 /* a header with options and 8 bytes more, at least */
#define WEFT_LB_QUOTE6 400
#define WEFT_LB_ROOM4  (sizeof(struct weft_lb_ipv4) + sizeof(struct weft_lb_icmp))
#define WEFT_LB_ROOM6  (sizeof(struct weft_lb_ipv6) + sizeof(struct weft_lb_icmp))

static __always_inline void weft_lb_swap_macs(struct weft_lb_eth *eth)
{
	for (int i = 0; i < 3; i++) {
		__u16 word = eth->destination[i];

		eth->destination[i] = eth->source[i];
		eth->source[i] = word;
	}
}

/* `l3`: room for the headers, then the quote, whose bounds the caller has checked. */
static __always_inline void weft_lb_answer4(__u8 *l3, __u32 limit)
{
	struct weft_lb_ipv4 *ip = (struct weft_lb_ipv4 *)l3;
	struct weft_lb_icmp *icmp = (struct weft_lb_icmp *)(ip + 1);
	struct weft_lb_ipv4 *quoted = (struct weft_lb_ipv4 *)(icmp + 1);
	__u32 sum = 0;

	icmp->type = 3;
	icmp->code = 4;
	icmp->csum = 0;
	icmp->rest = WEFT_HTONL(limit & 0xffff);
	icmp->csum = weft_lb_fold(
		(__u32)bpf_csum_diff(0, 0, (void *)icmp, sizeof(*icmp) + WEFT_LB_QUOTE4, 0));
	ip->version_ihl = 0x45;
	ip->tos = 0;
	ip->total_bytes = WEFT_HTONS(WEFT_LB_ROOM4 + WEFT_LB_QUOTE4);
	ip->id = 0;
	ip->fragment = WEFT_HTONS(0x4000);
	ip->ttl = WEFT_LB_OUTER_TTL;
	ip->protocol = WEFT_LB_ICMP;
	ip->source = quoted->destination;
	ip->destination = quoted->source;
	sum = weft_lb_source_sum(ip->source) + weft_lb_backend_sum(ip->destination, WEFT_LB_ICMP) +
	      WEFT_HTONS(0x4500) + ip->total_bytes;
	ip->csum = weft_lb_fold(sum);
}

static __always_inline void weft_lb_answer6(__u8 *l3, __u32 limit)
{
	struct weft_lb_ipv6 *ip = (struct weft_lb_ipv6 *)l3;
	struct weft_lb_icmp *icmp = (struct weft_lb_icmp *)(ip + 1);
	struct weft_lb_ipv6 *quoted = (struct weft_lb_ipv6 *)(icmp + 1);
	__s64 sum;

	ip->version_class_label = WEFT_HTONL(0x60000000);
	ip->payload_bytes = WEFT_HTONS(sizeof(*icmp) + WEFT_LB_QUOTE6);
	ip->next_header = WEFT_LB_ICMP6;
	ip->hop_limit = WEFT_LB_OUTER_TTL;
	ip->source[0] = quoted->destination[0];
	ip->source[1] = quoted->destination[1];
	ip->destination[0] = quoted->source[0];
	ip->destination[1] = quoted->source[1];
	icmp->type = 2;
	icmp->code = 0;
	icmp->csum = 0;
	icmp->rest = WEFT_HTONL(limit);
	/* The pseudo header: both addresses, length and protocol. */
	sum = bpf_csum_diff(0, 0, (void *)ip->source, 32,
			    (__u32)ip->payload_bytes + WEFT_HTONS(WEFT_LB_ICMP6));
	sum = bpf_csum_diff(0, 0, (void *)icmp, sizeof(*icmp) + WEFT_LB_QUOTE6, (__u32)sum);
	icmp->csum = weft_lb_fold((__u32)sum);
}

#endif /* WEFT_BPF_TC_BALANCER_ANSWER_H */
