/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Writes the outer headers of a packet to a backend. Pure; the caller has made room for
 * weft_lb_overhead() bytes and checked it. IP in IP: RFC 2003 and 2473. GUE: variant 1 of
 * draft-ietf-intarea-gue, the inner IP header directly after UDP, whose first bits say which IP.
 * UDP over IPv6 carries no checksum (RFC 6935: the inner packet has its own). */
#ifndef WEFT_BPF_TC_BALANCER_ENCAP_H
#define WEFT_BPF_TC_BALANCER_ENCAP_H

#include "bpf/tc/balancer_packet.h"

#define WEFT_LB_OUTER_TTL 64

struct weft_lb_udp {
	__be16 source;
	__be16 destination;
	__be16 bytes;
	__be16 csum;
};

static __always_inline __u32 weft_lb_overhead(__u8 encap)
{
	return (encap & WEFT_LB_ENCAP_V6 ? 40 : 20) + (encap & WEFT_LB_ENCAP_GUE ? 8 : 0);
}

static __always_inline __u16 weft_lb_fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)~sum;
}

/* Sums of 16-bit words as they lie in memory: what never changes for a node, for a backend. */
static __always_inline __u32 weft_lb_sum32(__u32 word)
{
	return (word & 0xffff) + (word >> 16);
}
static __always_inline __u32 weft_lb_source_sum(__u32 source)
{
	return weft_lb_sum32(source) + WEFT_HTONS(0x4000) /* DF */;
}
static __always_inline __u32 weft_lb_backend_sum(__u32 destination, __u8 protocol)
{
	return weft_lb_sum32(destination) + WEFT_HTONS((__u16)(WEFT_LB_OUTER_TTL << 8 | protocol));
}
/* Of an IPv4 outer header; `inner_v6` matters for IP in IP only. */
static __always_inline __u8 weft_lb_outer_protocol(__u8 encap, __u8 inner_v6)
{
	return encap & WEFT_LB_ENCAP_GUE ? WEFT_LB_UDP : inner_v6 ? 41 : 4;
}

static __always_inline void weft_lb_write_udp(struct weft_lb_udp *udp, __u32 inner_bytes,
					      __u32 entropy, __be16 port_be)
{
	udp->source = WEFT_HTONS((__u16)(entropy | 0xc000));
	udp->destination = port_be;
	udp->bytes = WEFT_HTONS((__u16)(inner_bytes + sizeof(*udp)));
	udp->csum = 0;
}

/* `backend->csum` was made with the protocol of an IPv4 inner packet; a header of an IPv6 one
 * differs by the 37 between 4 and 41. */
static __always_inline void weft_lb_write4(struct weft_lb_ipv4 *ip,
					   const struct weft_lb_config *config,
					   const struct weft_lb_backend *backend, __u8 encap,
					   __u8 inner_v6, __u8 tos, __u32 inner_bytes)
{
	__u32 bytes = inner_bytes + (encap & WEFT_LB_ENCAP_GUE ? 28 : 20);
	__be16 first_be = WEFT_HTONS((__u16)(0x4500 | tos));
	__be16 bytes_be = WEFT_HTONS((__u16)bytes);
	__u32 sum = config->source4_sum + backend->csum + first_be + bytes_be;

	if (inner_v6 && !(encap & WEFT_LB_ENCAP_GUE))
		sum += WEFT_HTONS(41 - 4);
	ip->version_ihl = 0x45;
	ip->tos = tos;
	ip->total_bytes = bytes_be;
	ip->id = 0; /* never fragmented: RFC 6864 */
	ip->fragment = WEFT_HTONS(0x4000);
	ip->ttl = WEFT_LB_OUTER_TTL;
	ip->protocol = weft_lb_outer_protocol(encap, inner_v6);
	ip->csum = weft_lb_fold(sum);
	ip->source = config->source4;
	ip->destination = backend->addr[3];
}

static __always_inline void weft_lb_write6(struct weft_lb_ipv6 *ip,
					   const struct weft_lb_config *config,
					   const struct weft_lb_backend *backend, __u8 encap,
					   __u8 inner_v6, __u8 tos, __u32 inner_bytes,
					   __u32 entropy)
{
	__u32 bytes = inner_bytes + (encap & WEFT_LB_ENCAP_GUE ? 8 : 0);

	ip->version_class_label = WEFT_HTONL(0x60000000u | (__u32)tos << 20 | (entropy & 0xfffff));
	ip->payload_bytes = WEFT_HTONS((__u16)bytes);
	ip->next_header = weft_lb_outer_protocol(encap, inner_v6);
	ip->hop_limit = WEFT_LB_OUTER_TTL;
	__builtin_memcpy(ip->source, config->source6, 16);
	__builtin_memcpy(ip->destination, backend->addr, 16);
}

#endif /* WEFT_BPF_TC_BALANCER_ENCAP_H */
