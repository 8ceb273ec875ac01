/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Where a UDP socket's connect() or sendmsg() goes that may be DNS: rewrites it to the pod's own
 * address, port 15053, if it is for one of the workload's resolvers, and remembers at the socket
 * which. For connect.bpf.c and datagram.bpf.c, which says why this never fails a call. */
#ifndef WEFT_BPF_DNS_H
#define WEFT_BPF_DNS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "bpf/maps.h"
#include "bpf/verdict.h"

#define WEFT_IPPROTO_UDP 17

static __always_inline int weft_is_our_socket(const struct weft_sock *st)
{
	return st && st->role != WEFT_ROLE_NONE && st->role != WEFT_ROLE_APP;
}

/* The socket now talks to somebody else: getpeername() is to tell the truth again. */
static __always_inline void weft_forget_asked(struct bpf_sock *sk)
{
	struct weft_sock *st = bpf_sk_storage_get(&weft_stamps, sk, 0, 0);

	if (!st || st->role != WEFT_ROLE_APP)
		return;
	__builtin_memset(&st->peer, 0, sizeof(st->peer));
}

/* Remembers which resolver was asked. False: no memory, or a socket of ours. */
static __always_inline int weft_remember_asked(struct bpf_sock *sk,
					       const struct weft_workload *workload,
					       const struct weft_addr *asked)
{
	struct weft_sock *st = bpf_sk_storage_get(&weft_stamps, sk, 0, 0);

	if (weft_is_our_socket(st))
		return 0;
	if (!st)
		st = bpf_sk_storage_get(&weft_stamps, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!st) {
		weft_count(WEFT_R_MAP_FULL);
		return 0;
	}
	st->role = WEFT_ROLE_APP;
	st->workload = workload->id;
	st->generation = workload->generation;
	st->source_identity = workload->identity;
	st->verdict = WEFT_R_PROXIED;
	st->peer = *asked;
	return 1;
}

/* Where the datagram goes instead; NULL: where it was sent. */
static __always_inline const __u8 *weft_dns_captured(struct bpf_sock_addr *ctx, struct bpf_sock *sk,
						     const struct weft_addr *asked)
{
	struct weft_workload *workload;
	__u64 cookie;

	cookie = bpf_get_netns_cookie(ctx);
	workload = weft_workload_of(cookie);
	if (!workload ||
	    !weft_captures_dns(workload, asked->ip, weft_has_resolver(cookie, asked->ip)))
		return NULL;
	if (!weft_remember_asked(sk, workload, asked))
		return NULL;
	weft_count(WEFT_R_PROXIED);
	return weft_ip_is_v4(asked->ip) ? workload->ipv4 : workload->ipv6;
}

static __always_inline int weft_dns_asks4(struct bpf_sock_addr *ctx, int connects)
{
	struct bpf_sock *sk = ctx->sk;
	struct weft_addr asked;
	const __u8 *own = NULL;

	if (!sk || ctx->protocol != WEFT_IPPROTO_UDP)
		return 1;
	weft_addr_v4(&asked, ctx->user_ip4, (__be16)ctx->user_port);
	if (weft_may_be_dns(asked.port_be))
		own = weft_dns_captured(ctx, sk, &asked);
	if (own) {
		ctx->user_ip4 = weft_word(own, 3);
		ctx->user_port = WEFT_HTONS(WEFT_PORT_DNS);
	} else if (connects) {
		weft_forget_asked(sk);
	}
	return 1;
}

static __always_inline int weft_dns_asks6(struct bpf_sock_addr *ctx, int connects)
{
	struct bpf_sock *sk = ctx->sk;
	struct weft_addr asked;
	const __u8 *own = NULL;

	if (!sk || ctx->protocol != WEFT_IPPROTO_UDP)
		return 1;
	weft_addr_v6(&asked, ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3],
		     (__be16)ctx->user_port);
	if (weft_may_be_dns(asked.port_be))
		own = weft_dns_captured(ctx, sk, &asked);
	if (own) {
		ctx->user_ip6[0] = weft_word(own, 0);
		ctx->user_ip6[1] = weft_word(own, 1);
		ctx->user_ip6[2] = weft_word(own, 2);
		ctx->user_ip6[3] = weft_word(own, 3);
		ctx->user_port = WEFT_HTONS(WEFT_PORT_DNS);
	} else if (connects) {
		weft_forget_asked(sk);
	}
	return 1;
}

#endif /* WEFT_BPF_DNS_H */
