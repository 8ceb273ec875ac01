/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the balancer reads of a packet: IPv4 and IPv6 headers with options, fragments, ports, TCP
 * flags, the inner packet of an ICMP error. Pure; every read is checked against `end`, lengths in
 * the headers against the packet's. Hostile input. */
#ifndef WEFT_BPF_TC_BALANCER_PACKET_H
#define WEFT_BPF_TC_BALANCER_PACKET_H

#include "bpf/tc/balancer_flow.h"
#include "bpf/tc/balancer_hash.h"

#define WEFT_LB_TCP      6
#define WEFT_LB_UDP      17
#define WEFT_LB_ICMP     1
#define WEFT_LB_ICMP6    58
#define WEFT_LB_FRAGMENT 44 /* next header */

#define WEFT_LB_ETH_BYTES 14
#define WEFT_LB_ETH_V4    WEFT_HTONS(0x0800)
#define WEFT_LB_ETH_V6    WEFT_HTONS(0x86dd)

#define WEFT_LB_EXTENSIONS 4 /* IPv6 extension headers looked through */

/* Headers lie at even addresses. The BPF compiler would split loads of packed members into bytes,
 * which the hardware does not need; on the host the sanitizers want to be told. */
#ifdef __bpf__
#define WEFT_LB_HEADER
#else
#define WEFT_LB_HEADER __attribute__((packed, aligned(2)))
#endif

struct weft_lb_eth {
	__u16 destination[3];
	__u16 source[3];
	__be16 type;
};

struct weft_lb_ipv4 {
	__u8 version_ihl;
	__u8 tos;
	__be16 total_bytes;
	__be16 id;
	__be16 fragment; /* 0x4000 DF, 0x2000 more, offset */
	__u8 ttl;
	__u8 protocol;
	__be16 csum;
	__u32 source;
	__u32 destination;
} WEFT_LB_HEADER;

struct weft_lb_ipv6 {
	__be32 version_class_label;
	__be16 payload_bytes;
	__u8 next_header;
	__u8 hop_limit;
	__u64 source[2];
	__u64 destination[2];
} WEFT_LB_HEADER;

enum weft_lb_part { WEFT_LB_WHOLE, WEFT_LB_FIRST, WEFT_LB_LATER };

/* A parsed packet. IPv4 addresses are in *_lo as they lie in the packet (not mapped) where v6 is 0.
 */
struct weft_lb_packet {
	__u64 src_hi, src_lo, dst_hi, dst_lo;
	__u16 src_port_be, dst_port_be;
	__u32 inner_bytes; /* the IP packet, from its header */
	__u32 fragment_id;
	__u32 header_bytes; /* of IP and, where there are ports, TCP or UDP */
	__u8 v6;
	__u8 tos;
	__u8 protocol;
	__u8 part; /* enum weft_lb_part */
	__u8 kind; /* enum weft_lb_kind */
	__u8 *l4;
};

enum weft_lb_parsed { WEFT_LB_PARSED, WEFT_LB_BAD_IP, WEFT_LB_BAD_L4, WEFT_LB_NOT_L4 };

static __always_inline __u32 weft_lb_kind_of_flags(__u8 flags)
{
	if (flags & 0x05) /* RST, FIN */
		return WEFT_LB_CLOSE;
	return (flags & 0x12) == 0x02 ? WEFT_LB_OPEN : WEFT_LB_DATA;
}

/* `l4_bytes`: what the IP header says is there. */
static __always_inline int weft_lb_parse_ports(struct weft_lb_packet *packet, __u8 *l4, __u8 *end,
					       __u32 l4_bytes)
{
	__u16 *ports = (__u16 *)l4;

	if (packet->protocol == WEFT_LB_TCP) {
		if (l4_bytes < 20 || l4 + 20 > end)
			return WEFT_LB_BAD_L4;
		packet->kind = weft_lb_kind_of_flags(l4[13]);
		packet->header_bytes += (__u32)(l4[12] >> 4) * 4;
	} else {
		if (l4_bytes < 8 || l4 + 8 > end)
			return WEFT_LB_BAD_L4;
		packet->kind = WEFT_LB_DATAGRAM;
		packet->header_bytes += 8;
	}
	packet->src_port_be = ports[0];
	packet->dst_port_be = ports[1];
	return WEFT_LB_PARSED;
}

/* `l3_bytes`: of the frame from the IP header on. The addresses are set unless BAD_IP; ports and
 * kind only if PARSED and not a later fragment. NOT_L4: neither TCP nor UDP; `l4` is set. */
static __always_inline int weft_lb_parse4(struct weft_lb_packet *packet, __u8 *l3, __u8 *end,
					  __u32 l3_bytes)
{
	struct weft_lb_ipv4 *ip = (struct weft_lb_ipv4 *)l3;
	__u32 header, fragment;

	if ((__u8 *)(ip + 1) > end)
		return WEFT_LB_BAD_IP;
	header = (__u32)(ip->version_ihl & 15) * 4;
	packet->inner_bytes = WEFT_HTONS(ip->total_bytes);
	if (ip->version_ihl >> 4 != 4 || header < 20 || packet->inner_bytes < header ||
	    packet->inner_bytes > l3_bytes)
		return WEFT_LB_BAD_IP;
	packet->v6 = 0;
	packet->src_hi = packet->dst_hi = 0;
	packet->src_lo = ip->source;
	packet->dst_lo = ip->destination;
	packet->tos = ip->tos;
	packet->protocol = ip->protocol;
	packet->l4 = l3 + header;
	packet->header_bytes = header;
	fragment = ip->fragment & WEFT_HTONS(0x3fff);
	packet->part = WEFT_LB_WHOLE;
	if (fragment) {
		packet->fragment_id = ip->id;
		packet->part = fragment & WEFT_HTONS(0x1fff) ? WEFT_LB_LATER : WEFT_LB_FIRST;
		if (packet->part == WEFT_LB_LATER)
			return WEFT_LB_PARSED;
	}
	if (packet->protocol != WEFT_LB_TCP && packet->protocol != WEFT_LB_UDP)
		return WEFT_LB_NOT_L4;
	return weft_lb_parse_ports(packet, packet->l4, end, packet->inner_bytes - header);
}

static __always_inline int weft_lb_is_extension(__u8 next)
{
	return next == 0 || next == 43 || next == 60 || next == WEFT_LB_FRAGMENT;
}

/* Follows extension headers. Returns the offset of what comes after them, from l3; 0: cut short.
 * Stops at a later fragment: nothing after its header can be read. */
static __always_inline __u32 weft_lb_skip_extensions(struct weft_lb_packet *packet, __u8 *l3,
						     __u8 *end)
{
	__u32 offset = sizeof(struct weft_lb_ipv6);

	for (int i = 0; i < WEFT_LB_EXTENSIONS; i++) {
		__u8 *header = l3 + offset;
		__u8 next = packet->protocol;

		if (!weft_lb_is_extension(next))
			break;
		if (header + 8 > end)
			return 0;
		packet->protocol = header[0];
		if (next == WEFT_LB_FRAGMENT) {
			__u16 field;

			__builtin_memcpy(&field, header + 2, 2);
			__builtin_memcpy(&packet->fragment_id, header + 4, 4);
			offset += 8;
			if (field & WEFT_HTONS(0xfff8)) {
				packet->part = WEFT_LB_LATER;
				return offset;
			}
			if (field & WEFT_HTONS(1))
				packet->part = WEFT_LB_FIRST;
			continue;
		}
		offset += ((__u32)header[1] + 1) * 8;
		offset &= 0x1fff; /* four headers of 2 KiB at most: says so to the verifier */
	}
	return offset;
}

static __always_inline int weft_lb_parse6(struct weft_lb_packet *packet, __u8 *l3, __u8 *end,
					  __u32 l3_bytes)
{
	struct weft_lb_ipv6 *ip = (struct weft_lb_ipv6 *)l3;
	__u32 offset = sizeof(*ip);

	if ((__u8 *)(ip + 1) > end)
		return WEFT_LB_BAD_IP;
	packet->inner_bytes = sizeof(*ip) + WEFT_HTONS(ip->payload_bytes);
	if ((ip->version_class_label & WEFT_HTONL(0xf0000000)) != WEFT_HTONL(0x60000000) ||
	    packet->inner_bytes > l3_bytes)
		return WEFT_LB_BAD_IP;
	packet->v6 = 1;
	packet->src_hi = ip->source[0];
	packet->src_lo = ip->source[1];
	packet->dst_hi = ip->destination[0];
	packet->dst_lo = ip->destination[1];
	packet->tos = (__u8)(WEFT_HTONL(ip->version_class_label) >> 20);
	packet->protocol = ip->next_header;
	packet->part = WEFT_LB_WHOLE;
	if (weft_lb_is_extension(packet->protocol)) {
		offset = weft_lb_skip_extensions(packet, l3, end);
		if (!offset || offset > packet->inner_bytes)
			return WEFT_LB_BAD_L4;
	}
	packet->l4 = l3 + offset;
	packet->header_bytes = offset;
	if (packet->part == WEFT_LB_LATER)
		return WEFT_LB_PARSED;
	if (packet->protocol != WEFT_LB_TCP && packet->protocol != WEFT_LB_UDP)
		return WEFT_LB_NOT_L4;
	return weft_lb_parse_ports(packet, packet->l4, end, packet->inner_bytes - offset);
}

/* Errors a backend's connection may cause: unreachable and too big, time exceeded, parameter. */
static __always_inline int weft_lb_is_icmp_error(__u8 v6, __u8 type)
{
	return v6 ? type >= 1 && type <= 4 : type == 3 || type == 11 || type == 12;
}

/* Reads the packet that an ICMP error at `packet->l4` is about: one that a backend sent, from the
 * VIP. Makes `about` the flow as its client sends it (source and destination exchanged). 0: it has
 * no usable inner packet. Inner IPv6 with extension headers and inner fragments but the first are
 * not usable. */
static __always_inline int weft_lb_parse_inner(const struct weft_lb_packet *packet, __u8 *end,
					       struct weft_lb_packet *about)
{
	__u8 *l3 = packet->l4 + 8;
	__u16 *ports;

	about->v6 = packet->v6;
	about->part = WEFT_LB_WHOLE;
	about->kind = WEFT_LB_DATA;
	if (packet->v6) {
		struct weft_lb_ipv6 *ip = (struct weft_lb_ipv6 *)l3;

		if ((__u8 *)(ip + 1) > end || l3[0] >> 4 != 6)
			return 0;
		about->src_hi = ip->destination[0];
		about->src_lo = ip->destination[1];
		about->dst_hi = ip->source[0];
		about->dst_lo = ip->source[1];
		about->protocol = ip->next_header;
		ports = (__u16 *)(l3 + sizeof(*ip));
	} else {
		struct weft_lb_ipv4 *ip = (struct weft_lb_ipv4 *)l3;
		__u32 header;

		if ((__u8 *)(ip + 1) > end || ip->version_ihl >> 4 != 4)
			return 0;
		header = (__u32)(ip->version_ihl & 15) * 4;
		if (header < 20 || ip->fragment & WEFT_HTONS(0x1fff))
			return 0;
		about->src_hi = about->dst_hi = 0;
		about->src_lo = ip->destination;
		about->dst_lo = ip->source;
		about->protocol = ip->protocol;
		ports = (__u16 *)(l3 + header);
	}
	if ((__u8 *)(ports + 2) > end ||
	    (about->protocol != WEFT_LB_TCP && about->protocol != WEFT_LB_UDP))
		return 0;
	about->src_port_be = ports[1];
	about->dst_port_be = ports[0];
	return about->dst_lo == packet->dst_lo && about->dst_hi == packet->dst_hi;
}

#endif /* WEFT_BPF_TC_BALANCER_PACKET_H */
