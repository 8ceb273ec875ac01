// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Whose address a program sees. getpeername() and accept() of an app answer what it asked for, or
 * the real client; the proxy asks for the original destination and says whom an app shall see.
 * Hooks: getpeername4,6 at the cgroup2 root; getsockopt and setsockopt at the cgroup where
 * weft-sockets makes our sockets only (at the root they would tax every call on the node). Fails
 * open: the program sees the real peer. Sockets without our own agent's stamp are left alone. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "bpf/event.h"
#include "bpf/judge.h"

#define WEFT_SOL_IP          0
#define WEFT_SOL_IPV6        41
#define WEFT_SO_ORIGINAL_DST 80
#define WEFT_AF_INET         2
#define WEFT_AF_INET6        10

char LICENSE[] SEC("license") = "GPL";

struct weft_sockaddr4 {
	__u16 family;
	__be16 port_be;
	__be32 ip;
	__u8 zero[8];
};
struct weft_sockaddr6 {
	__u16 family;
	__be16 port_be;
	__be32 flow_info;
	__u32 ip[4];
	__u32 scope;
};

static __always_inline const struct weft_addr *weft_shown_peer(struct bpf_sock *sk)
{
	struct weft_sock *st = sk ? bpf_sk_storage_get(&weft_stamps, sk, 0, 0) : NULL;

	if (!st || st->role != WEFT_ROLE_APP || weft_ip_is_zero(st->peer.ip))
		return NULL;
	return &st->peer;
}

SEC("cgroup/getpeername4")
int weft_getpeername4(struct bpf_sock_addr *ctx)
{
	const struct weft_addr *peer = weft_shown_peer(ctx->sk);

	if (peer && weft_ip_is_v4(peer->ip)) {
		ctx->user_ip4 = weft_word(peer->ip, 3);
		ctx->user_port = peer->port_be;
	}
	return 1;
}

SEC("cgroup/getpeername6")
int weft_getpeername6(struct bpf_sock_addr *ctx)
{
	const struct weft_addr *peer = weft_shown_peer(ctx->sk);

	if (peer) {
		ctx->user_ip6[0] = weft_word(peer->ip, 0);
		ctx->user_ip6[1] = weft_word(peer->ip, 1);
		ctx->user_ip6[2] = weft_word(peer->ip, 2);
		ctx->user_ip6[3] = weft_word(peer->ip, 3);
		ctx->user_port = peer->port_be;
	}
	return 1;
}

static __always_inline int weft_answered(struct bpf_sockopt *ctx, int length)
{
	WEFT_CTX_SET(ctx->optlen, length);
	WEFT_CTX_SET(ctx->retval, 0);
	return 1;
}

static __always_inline int weft_get_original(struct bpf_sockopt *ctx, const struct weft_sock *st)
{
	struct weft_original *out = ctx->optval;

	if ((void *)(out + 1) > ctx->optval_end)
		return 1;
	out->dst = st->peer;
	out->picked = st->picked;
	return weft_answered(ctx, sizeof(*out));
}

static __always_inline int weft_get_original4(struct bpf_sockopt *ctx, const struct weft_sock *st)
{
	struct weft_sockaddr4 *out = ctx->optval;

	if ((void *)(out + 1) > ctx->optval_end || !weft_ip_is_v4(st->peer.ip))
		return 1;
	__builtin_memset(out, 0, sizeof(*out));
	out->family = WEFT_AF_INET;
	out->port_be = st->peer.port_be;
	out->ip = weft_word(st->peer.ip, 3);
	return weft_answered(ctx, sizeof(*out));
}

static __always_inline int weft_get_original6(struct bpf_sockopt *ctx, const struct weft_sock *st)
{
	struct weft_sockaddr6 *out = ctx->optval;

	if ((void *)(out + 1) > ctx->optval_end)
		return 1;
	out->family = WEFT_AF_INET6;
	out->port_be = st->peer.port_be;
	out->flow_info = 0;
	out->ip[0] = weft_word(st->peer.ip, 0);
	out->ip[1] = weft_word(st->peer.ip, 1);
	out->ip[2] = weft_word(st->peer.ip, 2);
	out->ip[3] = weft_word(st->peer.ip, 3);
	out->scope = 0;
	return weft_answered(ctx, sizeof(*out));
}

SEC("cgroup/getsockopt")
int weft_getsockopt(struct bpf_sockopt *ctx)
{
	int ours = ctx->level == WEFT_SOL && ctx->optname == WEFT_SO_ORIGINAL;
	int plain = (ctx->level == WEFT_SOL_IP || ctx->level == WEFT_SOL_IPV6) &&
		    ctx->optname == WEFT_SO_ORIGINAL_DST;
	struct bpf_sock *sk = ctx->sk;
	struct weft_sock *st;

	if ((!ours && !plain) || !sk)
		return 1;
	st = bpf_sk_storage_get(&weft_stamps, sk, 0, 0);
	if (!st || st->role != WEFT_ROLE_LISTENER || weft_ip_is_zero(st->peer.ip))
		return 1; /* the kernel's own answer: ENOPROTOOPT or ENOENT */
	if (ours)
		return weft_get_original(ctx, st);
	if (ctx->level == WEFT_SOL_IP)
		return weft_get_original4(ctx, st);
	return weft_get_original6(ctx, st);
}

/* Asked by the proxy for each stream of a tunnel, whose own connect() says nothing of ports. 0:
 * EPERM. */
static __always_inline int weft_ask_permit(struct bpf_sockopt *ctx, const struct weft_sock *st,
					   const struct weft_addr *destination)
{
	struct weft_ends_of ends = {};
	struct weft_answer answer = {};
	struct weft_event *event;

	ends.layers = 1u << WEFT_LAYER_EGRESS;
	ends.source_subject = st->workload;
	ends.destination = *destination;
	ends.protocol = WEFT_PROTOCOL_TCP;
	ctx->optlen = -1; /* done, the kernel has nothing to add */
	if (weft_permit(&ends, &answer))
		return 1;
	event = weft_event_new(WEFT_EVENT_CONNECT,
			       answer.by_default ? WEFT_R_POLICY_DEFAULT_DENIED
						 : WEFT_R_POLICY_DENIED,
			       st->workload);
	if (event) {
		event->netns_cookie = bpf_get_netns_cookie(ctx);
		event->source_workload = st->workload;
		event->rule = answer.rule;
		event->destination = ends.destination;
		weft_event_submit(event);
	}
	return 0;
}

SEC("cgroup/setsockopt")
int weft_setsockopt(struct bpf_sockopt *ctx)
{
	struct weft_addr *client = ctx->optval;
	struct bpf_sock *sk = ctx->sk;
	struct weft_sock *st;

	if (ctx->level != WEFT_SOL || !sk ||
	    (ctx->optname != WEFT_SO_CLIENT && ctx->optname != WEFT_SO_PERMIT))
		return 1;
	st = bpf_sk_storage_get(&weft_stamps, sk, 0, 0);
	if (ctx->optname == WEFT_SO_PERMIT) {
		if (!st || !st->workload || (void *)(client + 1) > ctx->optval_end)
			return 1;
		return weft_ask_permit(ctx, st, client);
	}
	if (!st || st->role != WEFT_ROLE_TO_APP)
		return 1; /* not ours: the kernel answers ENOPROTOOPT */
	if ((void *)(client + 1) > ctx->optval_end)
		return 1;
	__builtin_memcpy(st->peer.ip, client->ip, sizeof(st->peer.ip));
	st->peer.port_be = client->port_be;
	st->peer.pad = 0;
	ctx->optlen = -1; /* done, the kernel has nothing to add */
	return 1;
}
