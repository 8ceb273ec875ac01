/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The splice's half of sockops.bpf.c: which ends enter the splice's map when they are established,
 * and who is to be looked at by late.bpf.c. Fails open: TCP. */
#ifndef WEFT_BPF_SOCKOPS_ENTRY_H
#define WEFT_BPF_SOCKOPS_ENTRY_H

#include "bpf/event.h"
#include "bpf/splice.h"

/* Being in the splice's map is a change of behaviour by itself, so a client that blocks never
 * enters, and its server has no reason to. */
static __always_inline void weft_check_client(struct bpf_sock_ops *ctx, struct weft_sock *st)
{
	struct weft_client_key client = weft_client_of(st);
	struct bpf_sock *sk = ctx->sk;
	struct tcp_sock *tcp = sk ? bpf_skc_to_tcp_sock(sk) : NULL;
	int non_blocking = tcp ? weft_non_blocking((struct sock *)tcp) : -1;

	if (non_blocking == 0)
		weft_client_blocks(&client);
	if (non_blocking != 1)
		st->flags &= ~WEFT_SOCK_SPLICE;
}

static __always_inline void weft_insert(struct bpf_sock_ops *ctx, struct weft_sock *st,
					struct weft_flow *flow)
{
	struct bpf_sock *sk = ctx->sk;
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct weft_learner *learner = bpf_map_lookup_elem(&weft_learners, &cookie);
	struct tcp_sock *tcp;

	if (!sk)
		return;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp || weft_announce_end(st, learner, flow, tcp, cookie)) {
		WEFT_MOVED(insert_failed);
		return;
	}
	if (bpf_sock_hash_update(ctx, &weft_splice, flow, BPF_ANY)) {
		bpf_map_delete_elem(&weft_ends, flow);
		WEFT_MOVED(insert_failed);
		return;
	}
	st->flags |= WEFT_SOCK_IN_MAP;
	WEFT_MOVED(inserted);
}

/* Asks user space to run the iterator in this netns; it decides when. False: the buffer is full. */
static __always_inline int weft_ask(struct bpf_sock_ops *ctx)
{
	struct weft_event *event = bpf_ringbuf_reserve(&weft_events, sizeof(*event), 0);

	if (!event)
		return 0;
	__builtin_memset(event, 0, sizeof(*event));
	event->kind = WEFT_EVENT_LEARN;
	event->netns_cookie = bpf_get_netns_cookie(ctx);
	weft_event_submit(event);
	return 1;
}

/* The connecting end. Looked at again: the program may have changed the flag since connect(). It
 * may still do so later (hiredis connects non-blocking and then clears the flag), so without a walk
 * a socket enters only if its process was never seen to; the proxy (no pid) never does. */
static __always_inline void weft_enter_connecting(struct bpf_sock_ops *ctx, struct weft_sock *st,
						  struct weft_flow *flow)
{
	struct weft_client_key client = weft_client_of(st);

	if (st->flags & WEFT_SOCK_SPLICE)
		weft_check_client(ctx, st);
	if (!(st->flags & WEFT_SOCK_SPLICE) || weft_server_blocks(st, flow))
		return;
	if (!client.pid || weft_client_state(&client) == WEFT_CLIENT_NON_BLOCKING)
		weft_insert(ctx, st, flow);
	else
		weft_ask(ctx); /* if lost: this process's next connection asks again */
}

/* The accepting end: at once if its server is known, otherwise late. */
static __always_inline void weft_enter_accepted(struct bpf_sock_ops *ctx, struct weft_sock *st,
						struct weft_flow *flow)
{
	struct weft_server_key key = {};
	__u32 asked = WEFT_SERVER_ASKED;
	__u32 *state;

	if (st->role == WEFT_ROLE_LISTENER) { /* the proxy never blocks */
		weft_insert(ctx, st, flow);
		return;
	}
	key.workload = st->workload;
	key.port = ctx->local_port;
	state = bpf_map_lookup_elem(&weft_servers, &key);
	if (!state) {
		if (weft_ask(ctx)) /* else the next connection asks again */
			bpf_map_update_elem(&weft_servers, &key, &asked, BPF_ANY);
	} else if (*state == WEFT_SERVER_NON_BLOCKING) {
		weft_insert(ctx, st, flow);
	}
}

/* Another program may listen from now on: what was learned of the port is void. */
static __always_inline void weft_on_listen(struct bpf_sock_ops *ctx)
{
	struct weft_server_key key = {};
	struct weft_workload *workload = weft_workload_of(bpf_get_netns_cookie(ctx));

	if (!workload)
		return;
	key.workload = workload->id;
	key.port = ctx->local_port;
	bpf_map_delete_elem(&weft_servers, &key);
	bpf_map_delete_elem(&weft_port_bins, &key);
}

#endif /* WEFT_BPF_SOCKOPS_ENTRY_H */
