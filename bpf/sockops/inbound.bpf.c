// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Who may reach an app: decides every SYN that arrives in one workload's netns, with its
 * destination left as it is. Own addresses and loopback, or announced by our own sockops (an
 * admission): to whoever listens. 15008: our HBONE listener. Anything else: our plaintext listener,
 * 15006, where the proxy applies policy. UDP is not ours but for port 15053, which answers the pod
 * itself alone. Hook: sk_lookup, one instance per workload; the cookie
 * helper is refused here, hence .rodata. Fails closed: without a listener of ours, or without the
 * workload's entry, the SYN is dropped; never to the app. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "bpf/event.h"
#include "bpf/verdict.h"

#define WEFT_IPPROTO_TCP 6
#define WEFT_IPPROTO_UDP 17
#define WEFT_AF_INET     2

char LICENSE[] SEC("license") = "GPL";

const volatile __u64 cfg_netns_cookie = 0;
const volatile __u32 cfg_workload = 0;

static __always_inline void weft_flow_of(struct bpf_sk_lookup *ctx, struct weft_flow *flow)
{
	__be16 local_be = WEFT_HTONS(ctx->local_port);
	__be16 remote_be = ctx->remote_port;

	if (ctx->family == WEFT_AF_INET) {
		weft_addr_v4(&flow->local, ctx->local_ip4, local_be);
		weft_addr_v4(&flow->remote, ctx->remote_ip4, remote_be);
		return;
	}
	weft_addr_v6(&flow->local, WEFT_CTX(ctx->local_ip6[0]), WEFT_CTX(ctx->local_ip6[1]),
		     WEFT_CTX(ctx->local_ip6[2]), WEFT_CTX(ctx->local_ip6[3]), local_be);
	weft_addr_v6(&flow->remote, WEFT_CTX(ctx->remote_ip6[0]), WEFT_CTX(ctx->remote_ip6[1]),
		     WEFT_CTX(ctx->remote_ip6[2]), WEFT_CTX(ctx->remote_ip6[3]), remote_be);
}

static __always_inline void weft_report(const struct weft_flow *flow,
					const struct weft_workload *workload, __u32 reason)
{
	struct weft_peer *peer = weft_peer_of(&flow->remote);
	struct weft_event *event = weft_event_new(WEFT_EVENT_ACCEPT, reason, cfg_workload);

	if (!event)
		return;
	event->netns_cookie = cfg_netns_cookie;
	event->destination_workload = cfg_workload;
	if (workload)
		event->destination_identity = workload->identity;
	if (peer) {
		event->source_workload = peer->workload;
		event->source_identity = peer->identity;
	}
	event->source = flow->remote;
	event->destination = flow->local;
	weft_event_submit(event);
}

static __always_inline int weft_assign(struct bpf_sk_lookup *ctx, __u16 port)
{
	struct weft_listener_key key = {};
	struct bpf_sock *sk;
	long failed;

	key.workload = cfg_workload;
	key.port = port;
	sk = bpf_map_lookup_elem(&weft_listeners, &key);
	if (!sk)
		return SK_DROP;
	failed = bpf_sk_assign(ctx, sk, BPF_SK_LOOKUP_F_NO_REUSEPORT);
	bpf_sk_release(sk);
	return failed ? SK_DROP : SK_PASS;
}

static __always_inline int weft_steer(struct bpf_sk_lookup *ctx, const struct weft_flow *flow,
				      const struct weft_workload *workload)
{
	struct weft_peer *peer;
	int verdict;

	if (ctx->local_port == WEFT_PORT_HBONE) {
		verdict = weft_assign(ctx, WEFT_PORT_HBONE);
	} else {
		peer = weft_peer_of(&flow->remote);
		if (peer && peer->netns_cookie) /* of this node: it should have been announced */
			weft_report(flow, workload, WEFT_R_NOT_ADMITTED);
		else
			weft_count(WEFT_R_NOT_ADMITTED);
		verdict = weft_assign(ctx, WEFT_PORT_INBOUND);
	}
	if (verdict == SK_DROP)
		weft_report(flow, workload, WEFT_R_PROXY_GONE);
	return verdict;
}

SEC("sk_lookup")
int weft_inbound(struct bpf_sk_lookup *ctx)
{
	struct weft_handover_key key = {};
	struct weft_workload *workload;
	struct weft_handover *given;

	if (ctx->protocol != WEFT_IPPROTO_TCP &&
	    !(ctx->protocol == WEFT_IPPROTO_UDP && ctx->local_port == WEFT_PORT_DNS))
		return SK_PASS;
	key.netns_cookie = cfg_netns_cookie;
	weft_flow_of(ctx, &key.flow);
	workload = weft_workload_of(key.netns_cookie);
	if (!workload) {
		weft_count(WEFT_R_INTERNAL_ERROR);
		return SK_DROP;
	}
	if (weft_ip_is_loopback(key.flow.remote.ip) || weft_is_own(workload, key.flow.remote.ip))
		return SK_PASS;
	if (ctx->local_port == WEFT_PORT_OUTBOUND || ctx->local_port == WEFT_PORT_DNS) {
		weft_report(&key.flow, workload, WEFT_R_NOT_ADMITTED);
		return SK_DROP;
	}
	given = bpf_map_lookup_elem(&weft_handovers, &key);
	if (given && given->kind == WEFT_HANDOVER_ADMISSION)
		return SK_PASS;
	return weft_steer(ctx, &key.flow, workload);
}
