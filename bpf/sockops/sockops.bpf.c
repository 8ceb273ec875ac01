// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The life of a captured connection between its two ends: writes the hand-over before the SYN
 * leaves, takes it where the connection is accepted, puts eligible sockets into the splice
 * (entry.h), cleans up and reports at the close. Hook: sockops at the cgroup2 root. Closed for
 * hand-overs: one that cannot be written fails the connect (the route is dropped, so tcp_connect()
 * answers EHOSTUNREACH at once); open for the splice: TCP. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "bpf/judge.h"
#include "bpf/sockops/entry.h"
#include "bpf/sockops/learned.h"
#include "bpf/verdict.h"

#define WEFT_SOL_SOCKET       1
#define WEFT_SO_BINDTOIFINDEX 62
#define WEFT_NO_IFINDEX       0x7ffffffe
#define WEFT_TCP_CLOSE        7
#define WEFT_TCP_SYN_SENT     2

char LICENSE[] SEC("license") = "GPL";

static __always_inline void weft_flow_of(struct bpf_sock_ops *ctx, struct weft_flow *flow)
{
	/* The kernel keeps the mapped form for AF_INET sockets too (facts/splice.md h). */
	weft_addr_v6(&flow->local, WEFT_CTX(ctx->local_ip6[0]), WEFT_CTX(ctx->local_ip6[1]),
		     WEFT_CTX(ctx->local_ip6[2]), WEFT_CTX(ctx->local_ip6[3]),
		     WEFT_HTONS(ctx->local_port));
	weft_addr_v6(&flow->remote, WEFT_CTX(ctx->remote_ip6[0]), WEFT_CTX(ctx->remote_ip6[1]),
		     WEFT_CTX(ctx->remote_ip6[2]), WEFT_CTX(ctx->remote_ip6[3]),
		     (__be16)(ctx->remote_port >> 16));
}

static __always_inline void weft_reverse(const struct weft_flow *flow, struct weft_flow *out)
{
	out->local = flow->remote;
	out->remote = flow->local;
}

static __always_inline void weft_watch_state(struct bpf_sock_ops *ctx)
{
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

/* Cookie of the netns that will accept; 0: the destination is no longer a workload of this node. */
static __always_inline __u64 weft_accepting_netns(struct bpf_sock_ops *ctx,
						  const struct weft_sock *st,
						  const struct weft_flow *flow)
{
	struct weft_peer *peer;

	if (st->role == WEFT_ROLE_TO_APP || st->verdict == WEFT_R_PROXIED)
		return bpf_get_netns_cookie(ctx);
	peer = weft_peer_of(&flow->remote);
	return peer ? peer->netns_cookie : 0;
}

static __always_inline void weft_refuse(struct bpf_sock_ops *ctx, struct weft_sock *st,
					const struct weft_flow *flow, __u32 reason)
{
	int nowhere = WEFT_NO_IFINDEX;
	struct weft_event *event;

	/* Drops the socket's route; tcp_connect() looks for a new one right after this hook and
	 * finds none. */
	bpf_setsockopt(ctx, WEFT_SOL_SOCKET, WEFT_SO_BINDTOIFINDEX, &nowhere, sizeof(nowhere));
	st->flags |= WEFT_SOCK_REFUSED;
	event = weft_event_new(WEFT_EVENT_CONNECT, reason, st->workload);
	if (!event)
		return;
	event->netns_cookie = bpf_get_netns_cookie(ctx);
	event->source_workload = st->workload;
	event->source_identity = st->source_identity;
	event->pid = st->pid;
	__builtin_memcpy(event->comm, st->comm, sizeof(event->comm));
	event->source = flow->local;
	event->destination = st->peer;
	event->picked = st->picked;
	weft_event_submit(event);
}

/* Policy changed after connect.bpf.c had asked it and before the socket could be seen by the walk
 * that follows a change (cut.bpf.c): it can be now. If the event is lost, the next walk finds it.
 */
static __always_inline void weft_check_epoch(const struct weft_sock *st)
{
	struct weft_event *event;

	if (st->role != WEFT_ROLE_APP && st->role != WEFT_ROLE_TO_APP &&
	    st->role != WEFT_ROLE_TUNNEL)
		return;
	if (st->epoch == (__u32)weft_epoch_now())
		return;
	event = bpf_ringbuf_reserve(&weft_events, sizeof(*event), 0);
	if (!event)
		return;
	__builtin_memset(event, 0, sizeof(*event));
	event->kind = WEFT_EVENT_ASK_AGAIN;
	event->source_workload = st->workload;
	weft_event_submit(event);
}

/* Under `splice: auto` the binaries at both ends must be learned. `id` gets the one to watch. */
static __always_inline void weft_learn_connecting(struct bpf_sock_ops *ctx, struct weft_sock *st,
						  const struct weft_flow *flow,
						  struct weft_binary_id *id)
{
	struct weft_workload *workload = weft_workload_of(bpf_get_netns_cookie(ctx));
	struct weft_peer *peer;
	__u32 accepting = 0; /* workload under `auto` whose program will accept */

	if (workload && (workload->flags & WEFT_WL_SPLICE_AUTO)) {
		if (st->role == WEFT_ROLE_TO_APP)
			accepting = workload->id;
		else if (!weft_connecting_learned(id))
			st->flags &= ~WEFT_SOCK_SPLICE;
	}
	if (st->role == WEFT_ROLE_APP && st->verdict == WEFT_R_DIRECT) {
		peer = weft_peer_of(&flow->remote);
		if (peer && (peer->wl_flags & WEFT_WL_SPLICE_AUTO))
			accepting = peer->workload;
	}
	if (accepting && !weft_port_learned(accepting, WEFT_HTONS(flow->remote.port_be), NULL))
		st->flags &= ~WEFT_SOCK_SPLICE;
}

static __always_inline void weft_on_connect(struct bpf_sock_ops *ctx, struct weft_sock *st)
{
	struct weft_handover_key key = {};
	struct weft_handover value = {};
	struct weft_binary_id id = {};
	struct weft_flow flow = {};

	weft_check_epoch(st);
	if (st->role != WEFT_ROLE_APP && st->role != WEFT_ROLE_TO_APP)
		return;
	weft_flow_of(ctx, &flow);
	weft_learn_connecting(ctx, st, &flow, &id);
	if (st->flags & WEFT_SOCK_SPLICE)
		weft_check_client(ctx, st);
	key.netns_cookie = weft_accepting_netns(ctx, st, &flow);
	weft_reverse(&flow, &key.flow);
	value.kind = st->role == WEFT_ROLE_TO_APP    ? WEFT_HANDOVER_CLIENT
		     : st->verdict == WEFT_R_PROXIED ? WEFT_HANDOVER_ORIGINAL
						     : WEFT_HANDOVER_ADMISSION;
	value.identity = st->source_identity;
	value.workload = st->workload;
	value.flags = st->flags & WEFT_SOCK_SPLICE;
	value.dst = st->peer;
	value.picked = st->picked;
	value.connector = bpf_get_socket_cookie(ctx);
	if (!key.netns_cookie)
		weft_refuse(ctx, st, &flow, WEFT_R_WORKLOAD_GONE);
	else if (bpf_map_update_elem(&weft_handovers, &key, &value, BPF_ANY))
		weft_refuse(ctx, st, &flow, WEFT_R_MAP_FULL);
	else
		weft_watch_state(ctx);
	if (!id.inode || (st->flags & WEFT_SOCK_REFUSED))
		return;
	if (!weft_watch(value.connector, &id, WEFT_SIDE_CONNECTING, 0, 0))
		st->flags &= ~WEFT_SOCK_SPLICE;
}

/* A socket that connects without a stamp, of a workload that is being enrolled: connect.bpf.c was
 * asked before it was (a connection to itself needs none). It was not in the kernel's tables when
 * enrolment walked them, so it is stamped as enrol.bpf.c would have done, and policy is asked by
 * the walk that follows. At any other time it stays as it is, and the guard drops it. */
static __always_inline void weft_on_connect_unstamped(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct weft_workload *workload = weft_workload_of(bpf_get_netns_cookie(ctx));
	struct weft_flow flow = {};
	struct weft_sock *st;

	if (!workload || !(workload->flags & WEFT_WL_ENROLLING))
		return;
	weft_flow_of(ctx, &flow);
	if (weft_ip_is_loopback(flow.remote.ip) || weft_is_own(workload, flow.remote.ip))
		return;
	st = bpf_sk_storage_get(&weft_stamps, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!st)
		return;
	st->role = WEFT_ROLE_APP;
	st->workload = workload->id;
	st->generation = workload->generation;
	st->flags = WEFT_SOCK_LEGACY | WEFT_SOCK_LEGACY_OUT;
	weft_check_epoch(st);
}

static __always_inline void weft_on_active(struct bpf_sock_ops *ctx, struct weft_sock *st)
{
	struct weft_flow flow = {};

	weft_flow_of(ctx, &flow);
	weft_enter_connecting(ctx, st, &flow);
}

static __always_inline void weft_fill_accepted(struct weft_sock *st,
					       const struct weft_workload *workload,
					       const struct weft_handover *given)
{
	if (st->role != WEFT_ROLE_LISTENER)
		st->role = WEFT_ROLE_APP;
	st->workload = workload->id;
	st->generation = workload->generation;
	st->flags = given->flags & WEFT_SOCK_SPLICE;
	st->pid = 0; /* a listener that once connected leaves its own here */
	st->source_identity = given->identity;
	st->picked = given->picked;
	if (given->kind == WEFT_HANDOVER_ADMISSION) {
		st->verdict = WEFT_R_DIRECT; /* the peer is who it seems to be */
	} else {
		st->peer = given->dst;
		st->verdict = WEFT_R_PROXIED;
	}
}

/* Under `splice: auto`. The process is not known yet: who received on that port so far stands for
 * it. */
static __always_inline void weft_learn_accepted(struct bpf_sock_ops *ctx, struct weft_sock *st)
{
	struct weft_binary_id expected = {};
	int learned = weft_port_learned(st->workload, ctx->local_port, &expected);

	if (!weft_watch(bpf_get_socket_cookie(ctx), &expected, WEFT_SIDE_ACCEPTING, st->workload,
			ctx->local_port) ||
	    !learned)
		st->flags &= ~WEFT_SOCK_SPLICE;
}

/* Accepted without a hand-over, by a socket that had a stamp when it began to listen: from before
 * the enrolment, or as the end of another connection. The copy lets nothing out. During the
 * enrolment it stands: the connection was under way before. */
static __always_inline void weft_void_inherited(struct weft_sock *st,
						const struct weft_workload *workload)
{
	if (!st || st->role != WEFT_ROLE_APP ||
	    (st->flags & WEFT_SOCK_LEGACY && workload->flags & WEFT_WL_ENROLLING))
		return;
	st->workload = 0;
	st->flags = 0;
	st->verdict = WEFT_R_NONE;
	st->pid = 0;
}

static __always_inline void weft_on_passive(struct bpf_sock_ops *ctx)
{
	struct weft_handover_key key = {};
	struct weft_workload *workload;
	struct bpf_sock *sk = ctx->sk;
	struct weft_handover *found;
	struct weft_handover given;
	struct weft_sock *st;

	key.netns_cookie = bpf_get_netns_cookie(ctx);
	workload = weft_workload_of(key.netns_cookie);
	if (!workload || !sk)
		return;
	weft_flow_of(ctx, &key.flow);
	st = bpf_sk_storage_get(&weft_stamps, sk, 0, 0);
	weft_void_inherited(st, workload);
	found = bpf_map_lookup_elem(&weft_handovers, &key);
	if (!found)
		return;
	given = *found;
	bpf_map_delete_elem(&weft_handovers, &key);
	/* An original destination is for our listener, the rest is for the app: never the other way
	 * round. */
	if ((given.kind == WEFT_HANDOVER_ORIGINAL) != (st && st->role == WEFT_ROLE_LISTENER))
		return;
	if (!st)
		st = bpf_sk_storage_get(&weft_stamps, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!st)
		return;
	weft_fill_accepted(st, workload, &given);
	weft_watch_state(ctx);
	if (st->role == WEFT_ROLE_APP && (workload->flags & WEFT_WL_SPLICE_AUTO))
		weft_learn_accepted(ctx, st);
	if (st->flags & WEFT_SOCK_SPLICE)
		weft_enter_accepted(ctx, st, &key.flow);
}

/* Payload, whichever way it went. */
static __always_inline void weft_count_bytes(struct bpf_sock_ops *ctx, struct weft_event *event,
					     const struct weft_flow *flow)
{
	struct bpf_sock *sk = ctx->sk;
	struct tcp_sock *tcp = sk ? bpf_skc_to_tcp_sock(sk) : NULL;
	struct weft_mover *mover;
	struct weft_end *end;
	__u64 done;

	if (!tcp)
		return;
	event->sent_bytes = BPF_CORE_READ(tcp, bytes_sent) - BPF_CORE_READ(tcp, bytes_retrans);
	done = BPF_CORE_READ((struct sock *)tcp, __sk_common.skc_flags) >> WEFT_SOCK_DONE & 1;
	event->received_bytes = BPF_CORE_READ(tcp, bytes_received) - done;
	end = bpf_map_lookup_elem(&weft_ends, flow);
	if (end)
		event->received_bytes += end->received_bytes;
	mover = bpf_sk_storage_get(&weft_movers, sk, 0, 0);
	if (mover)
		event->sent_bytes += mover->sent_bytes;
}

static __always_inline void weft_report_close(struct bpf_sock_ops *ctx, const struct weft_sock *st,
					      const struct weft_flow *flow, int client)
{
	__u32 reason = ctx->args[0] == WEFT_TCP_SYN_SENT ? WEFT_R_CONNECT_FAILED : WEFT_R_CLOSED;
	struct weft_event *event = weft_event_new(WEFT_EVENT_CLOSE, reason, st->workload);

	if (!event)
		return;
	event->netns_cookie = bpf_get_netns_cookie(ctx);
	event->pid = st->pid;
	__builtin_memcpy(event->comm, st->comm, sizeof(event->comm));
	event->picked = st->picked;
	event->source_identity = st->source_identity;
	if (client) {
		event->source_workload = st->workload;
		event->source = flow->local;
		event->destination = st->peer;
	} else {
		event->destination_workload = st->workload;
		event->source = st->peer;
		event->destination = flow->local;
	}
	if (ctx->sk)
		weft_name_maker(event, bpf_sk_storage_get(&weft_makers, ctx->sk, 0, 0));
	weft_count_bytes(ctx, event, flow);
	weft_event_submit(event);
}

static __always_inline void weft_on_close(struct bpf_sock_ops *ctx, struct weft_sock *st)
{
	struct weft_handover_key key = {};
	struct weft_handover *left;
	struct weft_flow flow = {};
	int client = st->pid != 0;

	weft_flow_of(ctx, &flow);
	if (client ||
	    st->role == WEFT_ROLE_TO_APP) { /* a connecting end: take back what was not taken */
		key.netns_cookie = weft_accepting_netns(ctx, st, &flow);
		weft_reverse(&flow, &key.flow);
		left = bpf_map_lookup_elem(&weft_handovers, &key);
		if (left && left->connector == bpf_get_socket_cookie(ctx))
			bpf_map_delete_elem(&weft_handovers, &key);
	}
	/* One report per connection: a direct one is reported by its client, a proxied one by the
	 * app's end. */
	if (st->role == WEFT_ROLE_APP && (client || st->verdict == WEFT_R_PROXIED))
		weft_report_close(ctx, st, &flow, client);
	weft_watched_closes(bpf_get_socket_cookie(ctx));
	if (st->flags & WEFT_SOCK_IN_MAP) {
		bpf_map_delete_elem(&weft_ends, &flow);
		st->flags &= ~WEFT_SOCK_IN_MAP;
		WEFT_MOVED(removed);
	}
}

SEC("sockops")
int weft_sockops(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct weft_sock *st;

	if (ctx->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB) {
		weft_on_passive(ctx);
		return 1;
	}
	if (ctx->op == BPF_SOCK_OPS_TCP_LISTEN_CB) {
		weft_on_listen(ctx);
		return 1;
	}
	if (ctx->op != BPF_SOCK_OPS_TCP_CONNECT_CB &&
	    ctx->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB && ctx->op != BPF_SOCK_OPS_STATE_CB)
		return 1;
	if (!sk)
		return 1;
	st = bpf_sk_storage_get(&weft_stamps, sk, 0, 0);
	if (!st) {
		if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB)
			weft_on_connect_unstamped(ctx, sk);
		return 1;
	}
	if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		weft_on_connect(ctx, st);
	else if (ctx->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		weft_on_active(ctx, st);
	else if (ctx->args[1] == WEFT_TCP_CLOSE)
		weft_on_close(ctx, st);
	return 1;
}
