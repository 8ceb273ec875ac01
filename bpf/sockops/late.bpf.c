// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Late insertion into the splice: what cannot be known of a socket when it is established. An
 * iterator walks every socket of a netns (milliseconds), so it must not run per connection:
 * programs are learned. Hook: iter/tcp, which holds the socket's lock. Fails open: no splice.
 *
 * Accepting ends have no file yet when they are established. Per workload and listening port
 * (weft_servers):
 *   1. the first splice-able connection to an unknown port makes sockops send a WEFT_EVENT_LEARN;
 *   2. user space runs this program in that netns: accepted and O_NONBLOCK sockets go into the
 *      splice, and their port is marked NON_BLOCKING; a socket found blocking twice, at two runs,
 *      marks it BLOCKING (accept(), then fcntl() is one program, seen in between); not accepted yet
 *      counts as waiting, and user space runs again soon;
 *   3. from then on sockops inserts connections to a NON_BLOCKING port at PASSIVE_ESTABLISHED,
 *      without any walk, and keeps the clients of a BLOCKING one out of the map as well;
 *   4. listen() on that port, by whomever, forgets what was learned.
 *
 * Connecting ends must be O_NONBLOCK when they call connect(): otherwise nothing of the connection
 * enters, ever. That is not enough: hiredis clears the flag once it is connected, and a blocking
 * recv() of a socket in the map answers EAGAIN. Per process (weft_clients):
 *   1. unknown: each of its connections asks for a walk; a socket that two of them, at least 20 ms
 *      apart, see O_NONBLOCK enters;
 *   2. NON_BLOCKING, since such a socket: the next ones enter at ACTIVE_ESTABLISHED;
 *   3. MIXED, since a socket was seen blocking by whatever looks (connect(), ESTABLISHED, a walk, a
 *      message to it): as unknown, for good. What was seen blocking never enters.
 * User space bounds the walks that come to nothing (control/bpf/walk_schedule.h). */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "bpf/splice.h"

#define WEFT_TCP_ESTABLISHED 1

char LICENSE[] SEC("license") = "GPL";

/* Counts of the run, reset by user space before it. */
__u32 late_inserted = 0;
__u32 late_waiting = 0;

static __always_inline void weft_learn(const struct weft_server_key *key, __u32 state)
{
	__u32 *known = bpf_map_lookup_elem(&weft_servers, key);

	if (known) /* only what was asked for */
		*known = state;
}

static __always_inline void weft_enter(struct sock *sk, struct weft_sock *st,
				       struct weft_flow *flow)
{
	__u64 cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	struct weft_learner *learner = bpf_map_lookup_elem(&weft_learners, &cookie);

	if (weft_announce_end(st, learner, flow, sk, cookie)) {
		WEFT_MOVED(insert_failed);
		return;
	}
	if (bpf_map_update_elem(&weft_splice, flow, sk, BPF_ANY)) {
		bpf_map_delete_elem(&weft_ends, flow);
		WEFT_MOVED(insert_failed);
		return;
	}
	st->flags |= WEFT_SOCK_IN_MAP;
	WEFT_MOVED(inserted);
	__sync_fetch_and_add(&late_inserted, 1);
}

static __always_inline void weft_late_connecting(struct sock *sk, struct weft_sock *st)
{
	struct weft_client_key client = weft_client_of(st);
	__u32 learned = WEFT_CLIENT_NON_BLOCKING;
	int non_blocking = weft_non_blocking(sk);
	struct weft_flow flow = {};

	if (non_blocking == 0) {
		weft_client_blocks(&client);
		st->flags &= ~WEFT_SOCK_SPLICE;
	}
	if (non_blocking != 1 || (st->flags & WEFT_SOCK_IN_MAP))
		return;
	if (!(st->flags & WEFT_SOCK_SEEN_NON_BLOCKING)) {
		st->flags |= WEFT_SOCK_SEEN_NON_BLOCKING;
		__sync_fetch_and_add(&late_waiting, 1);
		return;
	}
	bpf_map_update_elem(&weft_clients, &client, &learned, BPF_NOEXIST); /* MIXED stays */
	weft_flow_of_sock(sk, &flow);
	if (!weft_server_blocks(st, &flow))
		weft_enter(sk, st, &flow);
}

static __always_inline void weft_late_accepting(struct sock *sk, struct weft_sock *st)
{
	struct weft_server_key key = {};
	struct weft_flow flow = {};
	int non_blocking = weft_non_blocking(sk);

	if (st->flags & WEFT_SOCK_IN_MAP)
		return;
	key.workload = st->workload;
	key.port = BPF_CORE_READ(sk, __sk_common.skc_num);
	if (non_blocking == 1) {
		weft_learn(&key, WEFT_SERVER_NON_BLOCKING);
		weft_flow_of_sock(sk, &flow);
		weft_enter(sk, st, &flow);
	} else if (non_blocking == 0 && st->flags & WEFT_SOCK_SEEN_BLOCKING) {
		weft_learn(&key, WEFT_SERVER_BLOCKING);
	} else {
		if (non_blocking == 0)
			st->flags |= WEFT_SOCK_SEEN_BLOCKING;
		__sync_fetch_and_add(&late_waiting, 1);
	}
}

SEC("iter/tcp")
int weft_late(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct tcp_sock *tcp;
	struct weft_sock *st;

	if (!common || common->skc_state != WEFT_TCP_ESTABLISHED)
		return 0;
	tcp = bpf_skc_to_tcp_sock(common);
	if (!tcp)
		return 0;
	st = bpf_sk_storage_get(&weft_stamps, (struct sock *)tcp, 0, 0);
	/* The proxy's own ends entered when they were established, or stay out. */
	if (!st || st->role != WEFT_ROLE_APP || !(st->flags & WEFT_SOCK_SPLICE))
		return 0;
	if (st->pid)
		weft_late_connecting((struct sock *)tcp, st);
	else
		weft_late_accepting((struct sock *)tcp, st);
	return 0;
}
