// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Late insertion into the splice. An accepted socket has no file when it is established, so nobody
 * knows then whether its reader blocks; an iterator sees it once it is accepted. It walks every
 * socket of a netns (milliseconds), so it must not run per connection. Hence learning, per workload
 * and listening port (weft_servers):
 *   1. the first splice-able connection to an unknown port makes sockops send one WEFT_EVENT_LEARN;
 *   2. user space runs this program in that netns: accepted and O_NONBLOCK sockets go into the
 * splice, and their port is marked NON_BLOCKING; a socket found blocking twice, at two runs, marks
 * it BLOCKING (accept(), then fcntl() is one program, seen in between); not accepted yet counts as
 * waiting, and user space runs again soon;
 *   3. from then on sockops inserts connections to a NON_BLOCKING port at PASSIVE_ESTABLISHED,
 * without any walk;
 *      and keeps the clients of a BLOCKING one out of the map as well;
 *   4. listen() on that port, by whomever, forgets what was learned.
 * A client must be O_NONBLOCK when it calls connect(): otherwise nothing of its connection enters,
 * ever. Hook: iter/tcp, which holds the socket's lock. Fails open: no splice. */
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

	if (known) /* only what was asked for: a client's ephemeral port is no server */
		*known = state;
}

static __always_inline void weft_enter(struct sock *sk, struct weft_sock *st)
{
	struct weft_flow flow = {};
	struct weft_core_in6 local = BPF_CORE_READ(sk, __sk_common.skc_v6_rcv_saddr);
	struct weft_core_in6 remote = BPF_CORE_READ(sk, __sk_common.skc_v6_daddr);

	weft_addr_v6(&flow.local, local.words[0], local.words[1], local.words[2], local.words[3],
		     WEFT_HTONS(BPF_CORE_READ(sk, __sk_common.skc_num)));
	weft_addr_v6(&flow.remote, remote.words[0], remote.words[1], remote.words[2],
		     remote.words[3], BPF_CORE_READ(sk, __sk_common.skc_dport));
	if (weft_announce_end(&flow, sk, BPF_CORE_READ(sk, __sk_common.skc_cookie.counter))) {
		WEFT_MOVED(insert_failed);
		return;
	}
	if (bpf_map_update_elem(&weft_splice, &flow, sk, BPF_ANY)) {
		bpf_map_delete_elem(&weft_ends, &flow);
		WEFT_MOVED(insert_failed);
		return;
	}
	st->flags |= WEFT_SOCK_IN_MAP;
	WEFT_MOVED(inserted);
	__sync_fetch_and_add(&late_inserted, 1);
}

SEC("iter/tcp")
int weft_late(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct weft_server_key key = {};
	struct tcp_sock *tcp;
	struct weft_sock *st;
	int non_blocking;

	if (!common || common->skc_state != WEFT_TCP_ESTABLISHED)
		return 0;
	tcp = bpf_skc_to_tcp_sock(common);
	if (!tcp)
		return 0;
	st = bpf_sk_storage_get(&weft_stamps, (struct sock *)tcp, 0, 0);
	if (!st || !(st->flags & WEFT_SOCK_SPLICE) || (st->flags & WEFT_SOCK_IN_MAP))
		return 0;
	key.workload = st->workload;
	key.port = common->skc_num;
	non_blocking = weft_non_blocking((struct sock *)tcp);
	if (non_blocking == 1) {
		weft_learn(&key, WEFT_SERVER_NON_BLOCKING);
		weft_enter((struct sock *)tcp, st);
	} else if (non_blocking == 0 && st->flags & WEFT_SOCK_SEEN_BLOCKING) {
		weft_learn(&key, WEFT_SERVER_BLOCKING);
	} else if (!st->pid) { /* an accepting end */
		if (non_blocking == 0)
			st->flags |= WEFT_SOCK_SEEN_BLOCKING;
		__sync_fetch_and_add(&late_waiting, 1);
	}
	return 0;
}
