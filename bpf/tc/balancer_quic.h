/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* QUIC: which backend a connection id names. Pure. The ids are those of the plaintext algorithm of
 * draft-ietf-quic-load-balancers: the first octet has 3 bits of configuration id (0 to 6; 7 says
 * that the id names nobody) and 5 bits of the server's choice, then 2 octets of server id in
 * network order, then at least 4 octets of nonce. Long headers of version independent layout
 * (RFC 8999); Initial and 0-RTT of versions 1 and 2 may carry an id that the client chose, so they
 * are never routed by it. */
#ifndef WEFT_BPF_TC_BALANCER_QUIC_H
#define WEFT_BPF_TC_BALANCER_QUIC_H

#include "bpf/address.h"
#include "bpf/tc/balancer_abi.h"

#define WEFT_LB_QUIC_V2       0x6b3343cfu
#define WEFT_LB_QUIC_MIN_CID  7 /* first octet, server id, 4 octets of nonce */
#define WEFT_LB_QUIC_UNROUTED 7 /* configuration id */
#define WEFT_LB_QUIC_NONE     0xffffffffu

/* Whether a long header's packet is one that a client may send before it knows a server's id. */
static __always_inline int weft_lb_quic_is_first(__u8 first, __u32 version)
{
	__u8 type = (first >> 4) & 3;

	if (version == WEFT_LB_QUIC_V2)
		return type == 1 || type == 2;
	return type == 0 || type == 1;
}

/* The server id in the UDP payload, or WEFT_LB_QUIC_NONE. */
static __always_inline __u32 weft_lb_quic_server(const void *payload, const void *end,
						 __u32 config_id)
{
	const __u8 *at = (const __u8 *)payload;
	const __u8 *cid = at + 1;

	if (at + 1 + WEFT_LB_QUIC_MIN_CID > (const __u8 *)end)
		return WEFT_LB_QUIC_NONE;
	if (at[0] & 0x80) {
		__u32 version = (__u32)at[1] << 24 | (__u32)at[2] << 16 | (__u32)at[3] << 8 | at[4];

		/* Version 0 is negotiation, which clients do not send. */
		if (!version || weft_lb_quic_is_first(at[0], version) ||
		    at[5] < WEFT_LB_QUIC_MIN_CID)
			return WEFT_LB_QUIC_NONE;
		cid = at + 6;
		if (cid + WEFT_LB_QUIC_MIN_CID > (const __u8 *)end)
			return WEFT_LB_QUIC_NONE;
	}
	if (cid[0] >> 5 != config_id || config_id >= WEFT_LB_QUIC_UNROUTED)
		return WEFT_LB_QUIC_NONE;
	return (__u32)cid[1] << 8 | cid[2];
}

#endif /* WEFT_BPF_TC_BALANCER_QUIC_H */
