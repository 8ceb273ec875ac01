/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the guard needs to know of a frame. Pure; reads through `load`, which fails beyond the end,
 * because the headers of a packet need not lie in one piece. Hostile input: whatever could be read
 * in two ways is marked odd. */
#ifndef WEFT_BPF_PACKET_H
#define WEFT_BPF_PACKET_H

#include "bpf/address.h"

#define WEFT_IP_ICMP  1
#define WEFT_IP_IGMP  2
#define WEFT_IP_TCP   6
#define WEFT_IP_UDP   17
#define WEFT_IP_ICMP6 58
#define WEFT_IP_SCTP  132

#define WEFT_NEXT_HOP_BY_HOP  0
#define WEFT_NEXT_ROUTING     43
#define WEFT_NEXT_FRAGMENT    44
#define WEFT_NEXT_DESTINATION 60
#define WEFT_EXTENSIONS       4 /* IPv6 extension headers looked through */

#define WEFT_ETH_BYTES 14
#define WEFT_ETH_V4    0x0800
#define WEFT_ETH_ARP   0x0806
#define WEFT_ETH_V6    0x86dd

#define WEFT_TCP_FIN 0x01
#define WEFT_TCP_SYN 0x02
#define WEFT_TCP_RST 0x04
#define WEFT_TCP_ACK 0x10

#define WEFT_MLD_QUERY         130
#define WEFT_MLD_REPORT        131
#define WEFT_MLD_DONE          132
#define WEFT_ND_ROUTER_SOLICIT 133
#define WEFT_ND_SOLICIT        135
#define WEFT_ND_ADVERT         136
#define WEFT_ND_REDIRECT       137
#define WEFT_MLD2_REPORT       143
#define WEFT_ND_OPTIONS        3 /* more are refused */

/* Copies `bytes` from `offset` of the frame. 0, or an error. */
typedef int (*weft_load)(void *packet, __u32 offset, void *to, __u32 bytes);

enum weft_frame { WEFT_FRAME_OTHER = 0, WEFT_FRAME_ARP, WEFT_FRAME_V4, WEFT_FRAME_V6 };
enum weft_part { WEFT_PART_WHOLE = 0, WEFT_PART_FIRST, WEFT_PART_LATER };

struct weft_packet {
	__u8 source[16]; /* mapped; ARP: the sender's */
	__u8 destination[16];
	__u8 mac[6]; /* source of the frame */
	__u8 arp_mac[6];
	__u8 frame;    /* enum weft_frame */
	__u8 odd;      /* options, source routes, a first fragment that does not hold its headers */
	__u8 protocol; /* of IP */
	__u8 part;     /* enum weft_part */
	__u8 hop_limit;
	__u8 type; /* ICMP */
	__u8 code;
	__u8 tcp_flags;
	/* ICMP echo: the id at the side that asks; other ICMP: the type at the sender's */
	__be16 source_port_be;
	__be16 destination_port_be;
	__u32 fragment_id;
	__u32 l4;      /* offset of the header behind IP */
	__u32 end;     /* offset behind the packet, as IP's header has it */
	__u32 l4_head; /* bytes of TCP's */
};

static __always_inline __u16 weft_be16(const __u8 *at)
{
	return (__u16)(at[0] << 8 | at[1]);
}

static __always_inline __be16 weft_raw16(const __u8 *at)
{
	__be16 out;

	__builtin_memcpy(&out, at, sizeof(out));
	return out;
}

static __always_inline void weft_ip4_at(__u8 *ip, const __u8 *at)
{
	__u32 word;

	__builtin_memcpy(&word, at, sizeof(word));
	weft_set_words(ip, 0, 0, WEFT_HTONL(0xffff), word);
}

/* Ethernet and IPv4 only; anything else is odd. */
static __always_inline int weft_parse_arp(void *packet, weft_load load, struct weft_packet *p)
{
	__u8 arp[28];

	if (load(packet, WEFT_ETH_BYTES, arp, sizeof(arp)))
		return -1;
	p->odd = weft_be16(arp) != 1 || weft_be16(arp + 2) != WEFT_ETH_V4 || arp[4] != 6 ||
		 arp[5] != 4;
	__builtin_memcpy(p->arp_mac, arp + 8, 6);
	weft_ip4_at(p->source, arp + 14);
	weft_ip4_at(p->destination, arp + 24);
	return 0;
}

static __always_inline int weft_parse_v4(void *packet, weft_load load, __u32 at,
					 struct weft_packet *p)
{
	__u8 ip[20];
	__u16 fragment;
	__u32 head;

	if (load(packet, at, ip, sizeof(ip)) || ip[0] >> 4 != 4)
		return -1;
	head = (ip[0] & 15) * 4;
	if (head < sizeof(ip))
		return -1;
	p->protocol = ip[9];
	p->hop_limit = ip[8];
	/* A source route would take the packet elsewhere; only IGMP needs an option. */
	p->odd = head != sizeof(ip) && p->protocol != WEFT_IP_IGMP;
	fragment = weft_be16(ip + 6);
	p->part = fragment & 0x1fff   ? WEFT_PART_LATER
		  : fragment & 0x2000 ? WEFT_PART_FIRST
				      : WEFT_PART_WHOLE;
	p->fragment_id = weft_be16(ip + 4);
	weft_ip4_at(p->source, ip + 12);
	weft_ip4_at(p->destination, ip + 16);
	p->l4 = at + head;
	p->end = at + weft_be16(ip + 2);
	return 0;
}

static __always_inline int weft_is_extension(__u8 next)
{
	return next == WEFT_NEXT_HOP_BY_HOP || next == WEFT_NEXT_ROUTING ||
	       next == WEFT_NEXT_FRAGMENT || next == WEFT_NEXT_DESTINATION;
}

/* Behind the fixed header. Extensions that were not looked through are odd. */
static __always_inline int weft_skip_extensions(void *packet, weft_load load, __u32 at, __u8 next,
						struct weft_packet *p)
{
	__u8 ext[8];
	int i;

	for (i = 0; i < WEFT_EXTENSIONS; ++i) {
		if (!weft_is_extension(next))
			break;
		if (load(packet, at, ext, sizeof(ext)))
			return -1;
		if (next == WEFT_NEXT_FRAGMENT) {
			__u16 fragment = weft_be16(ext + 2);

			if (fragment & 0xfff8)
				p->part = WEFT_PART_LATER;
			else if (fragment & 1)
				p->part = WEFT_PART_FIRST;
			__builtin_memcpy(&p->fragment_id, ext + 4, 4);
			at += 8;
		} else {
			p->odd |= next == WEFT_NEXT_ROUTING;
			at += (ext[1] + 1u) * 8;
		}
		next = ext[0];
		if (p->part == WEFT_PART_LATER)
			break; /* what follows is data */
		/* The rest of them may be in another fragment: what is read here would be data. */
		if (p->part == WEFT_PART_FIRST && weft_is_extension(next))
			p->odd = 1;
	}
	if (p->part != WEFT_PART_LATER && i == WEFT_EXTENSIONS)
		p->odd = 1;
	p->protocol = next;
	p->l4 = at;
	return 0;
}

static __always_inline int weft_parse_v6(void *packet, weft_load load, __u32 at,
					 struct weft_packet *p)
{
	__u8 ip[40];

	if (load(packet, at, ip, sizeof(ip)) || ip[0] >> 4 != 6)
		return -1;
	p->hop_limit = ip[7];
	__builtin_memcpy(p->source, ip + 8, 16);
	__builtin_memcpy(p->destination, ip + 24, 16);
	p->end = at + sizeof(ip) + weft_be16(ip + 4);
	if (weft_skip_extensions(packet, load, at + sizeof(ip), ip[6], p))
		return -1;
	/* In our maps that would be the IPv4 address. */
	return weft_ip_is_v4(p->source) || weft_ip_is_v4(p->destination) ? -1 : 0;
}

static __always_inline void weft_icmp_ports(struct weft_packet *p, const __u8 *icmp)
{
	int v6 = p->protocol == WEFT_IP_ICMP6;

	p->type = icmp[0];
	p->code = icmp[1];
	if (p->type == (v6 ? 128 : 8))
		p->source_port_be = weft_raw16(icmp + 4);
	else if (p->type == (v6 ? 129 : 0))
		p->destination_port_be = weft_raw16(icmp + 4);
	else
		p->source_port_be = WEFT_HTONS(0x100 | p->type);
}

/* `quoted`: inside an ICMP error, where 8 bytes are all there need be. */
static __always_inline int weft_parse_l4(void *packet, weft_load load, int quoted,
					 struct weft_packet *p)
{
	__u8 head[14];

	if (p->part == WEFT_PART_LATER)
		return 0;
	/* The receiver would take its ports from another fragment. */
	p->odd |= p->part == WEFT_PART_FIRST && p->l4 + 8 > p->end;
	switch (p->protocol) {
	case WEFT_IP_TCP:
	case WEFT_IP_UDP:
	case WEFT_IP_SCTP:
		if (load(packet, p->l4, head, 8))
			return -1;
		p->source_port_be = weft_raw16(head);
		p->destination_port_be = weft_raw16(head + 2);
		break;
	case WEFT_IP_ICMP:
	case WEFT_IP_ICMP6:
		if (load(packet, p->l4, head, 8))
			return -1;
		weft_icmp_ports(p, head);
		return 0;
	default:
		return 0;
	}
	if (p->protocol != WEFT_IP_TCP || quoted)
		return 0;
	if (load(packet, p->l4, head, sizeof(head)))
		return -1;
	p->l4_head = (head[12] >> 4) * 4;
	p->tcp_flags = head[13];
	return p->l4_head < 20 ? -1 : 0;
}

/* -1: cannot be parsed. */
static __always_inline int weft_parse(void *packet, weft_load load, struct weft_packet *p)
{
	__u8 eth[WEFT_ETH_BYTES];
	int failed = 0;

	__builtin_memset(p, 0, sizeof(*p));
	if (load(packet, 0, eth, sizeof(eth)))
		return -1;
	__builtin_memcpy(p->mac, eth + 6, 6);
	switch (weft_be16(eth + 12)) {
	case WEFT_ETH_ARP:
		p->frame = WEFT_FRAME_ARP;
		return weft_parse_arp(packet, load, p);
	case WEFT_ETH_V4:
		p->frame = WEFT_FRAME_V4;
		failed = weft_parse_v4(packet, load, WEFT_ETH_BYTES, p);
		break;
	case WEFT_ETH_V6:
		p->frame = WEFT_FRAME_V6;
		failed = weft_parse_v6(packet, load, WEFT_ETH_BYTES, p);
		break;
	default:
		return 0;
	}
	return failed ? failed : weft_parse_l4(packet, load, 0, p);
}

/* The packet that an ICMP error `p` is about. */
static __always_inline int weft_parse_quoted(void *packet, weft_load load,
					     const struct weft_packet *p,
					     struct weft_packet *quoted)
{
	int failed;

	__builtin_memset(quoted, 0, sizeof(*quoted));
	quoted->frame = p->frame;
	failed = p->frame == WEFT_FRAME_V4 ? weft_parse_v4(packet, load, p->l4 + 8, quoted)
					   : weft_parse_v6(packet, load, p->l4 + 8, quoted);
	return failed ? failed : weft_parse_l4(packet, load, 1, quoted);
}

#endif /* WEFT_BPF_PACKET_H */
