// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* DNS over UDP: what a program of an enrolled workload sends to port 53 of one of the workload's
 * own resolvers goes to the pod's own address, port 15053, and the answers come back under the
 * resolver's address. Hooks: cgroup/sendmsg4,6 and recvmsg4,6 at the cgroup2 root; connect4,6 are
 * connect.bpf.c's, which calls dns.h too. Every other datagram, other servers' port 53 too, is left
 * alone: UDP is policed at the veth, and so is what passes here. Fails open for that reason:
 * without a proxy, or without memory to remember the resolver, the query goes to the resolver as it
 * would without us. A query that the proxy forwards leaves the pod's netns from a stamped socket,
 * under the pod's address. */
#include "bpf/sockops/dns.h"

char LICENSE[] SEC("license") = "GPL";

/* The resolver that the socket asked, if `from` is our own port 15053. */
static __always_inline const struct weft_addr *weft_asked(struct bpf_sock_addr *ctx,
							  const struct weft_addr *from)
{
	struct bpf_sock *sk = ctx->sk;
	struct weft_workload *workload;
	struct weft_sock *st;

	if (!sk)
		return NULL;
	st = bpf_sk_storage_get(&weft_stamps, sk, 0, 0);
	if (!st || st->role != WEFT_ROLE_APP || weft_ip_is_zero(st->peer.ip))
		return NULL;
	workload = weft_workload_of(bpf_get_netns_cookie(ctx));
	if (!workload || !weft_is_own(workload, from->ip))
		return NULL;
	return &st->peer;
}

SEC("cgroup/sendmsg4")
int weft_dns_sendmsg4(struct bpf_sock_addr *ctx)
{
	return weft_dns_asks4(ctx, 0);
}

SEC("cgroup/sendmsg6")
int weft_dns_sendmsg6(struct bpf_sock_addr *ctx)
{
	return weft_dns_asks6(ctx, 0);
}

SEC("cgroup/recvmsg4")
int weft_dns_recvmsg4(struct bpf_sock_addr *ctx)
{
	const struct weft_addr *asked;
	struct weft_addr from;

	if ((__be16)ctx->user_port != WEFT_HTONS(WEFT_PORT_DNS))
		return 1;
	weft_addr_v4(&from, ctx->user_ip4, (__be16)ctx->user_port);
	asked = weft_asked(ctx, &from);
	if (asked && weft_ip_is_v4(asked->ip)) {
		ctx->user_ip4 = weft_word(asked->ip, 3);
		ctx->user_port = asked->port_be;
	}
	return 1;
}

/* IPv4 on an AF_INET6 socket comes here too, mapped. */
SEC("cgroup/recvmsg6")
int weft_dns_recvmsg6(struct bpf_sock_addr *ctx)
{
	const struct weft_addr *asked;
	struct weft_addr from;

	if ((__be16)ctx->user_port != WEFT_HTONS(WEFT_PORT_DNS))
		return 1;
	weft_addr_v6(&from, ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3],
		     (__be16)ctx->user_port);
	asked = weft_asked(ctx, &from);
	if (asked) {
		ctx->user_ip6[0] = weft_word(asked->ip, 0);
		ctx->user_ip6[1] = weft_word(asked->ip, 1);
		ctx->user_ip6[2] = weft_word(asked->ip, 2);
		ctx->user_ip6[3] = weft_word(asked->ip, 3);
		ctx->user_port = asked->port_be;
	}
	return 1;
}
