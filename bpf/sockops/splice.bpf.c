// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Moves a message from one socket of this node to the other without the TCP stack, when no program
 * can tell (DESIGN 4, rules 3 to 7; facts/splice.md has the case behind each test). Hook: sk_msg on
 * weft_splice, in the sender's context with its socket locked. Fails open: what may not be
 * redirected goes by TCP. Both paths carry every byte in order, because a message leaves TCP only
 * when nothing is under way there (quiet). */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "bpf/sockops/learned.h"
#include "bpf/splice.h"

#define WEFT_MAX_WAITERS 8

char LICENSE[] SEC("license") = "GPL";

extern const void woken_wake_function __ksym __weak;

static __always_inline void weft_other_end(struct sk_msg_md *msg, struct weft_flow *flow)
{
	weft_addr_v6(&flow->local, WEFT_CTX(msg->remote_ip6[0]), WEFT_CTX(msg->remote_ip6[1]),
		     WEFT_CTX(msg->remote_ip6[2]), WEFT_CTX(msg->remote_ip6[3]),
		     (__be16)(msg->remote_port >> 16));
	weft_addr_v6(&flow->remote, WEFT_CTX(msg->local_ip6[0]), WEFT_CTX(msg->local_ip6[1]),
		     WEFT_CTX(msg->local_ip6[2]), WEFT_CTX(msg->local_ip6[3]),
		     WEFT_HTONS(msg->local_port));
}

/* Nothing sent by TCP is unacknowledged here or unread there. */
static __always_inline bool weft_quiet(const struct tcp_sock *self, const struct tcp_sock *peer)
{
	return BPF_CORE_READ(self, snd_una) == BPF_CORE_READ(self, write_seq) &&
	       BPF_CORE_READ(peer, copied_seq) == BPF_CORE_READ(peer, rcv_nxt);
}

/* A reader that sleeps inside recv() must get what comes next by the path it sleeps on. Call after
 * weft_quiet: a reader inside tcp_recvmsg either owns the lock or is on the list, always. */
static __always_inline bool weft_reader_waits(const struct sock *peer)
{
	struct wait_queue_entry *entry;
	struct list_head *head, *node;
	struct socket_wq *wq;
	int i;

	if (!&woken_wake_function || BPF_CORE_READ(peer, sk_lock.owned) ||
	    BPF_CORE_READ(peer, sk_rcvlowat) > 1)
		return true;
	wq = BPF_CORE_READ(peer, sk_wq);
	if (!wq)
		return true;
	head = __builtin_preserve_access_index(&wq->wait.head);
	node = BPF_CORE_READ(wq, wait.head.next);
	for (i = 0; i < WEFT_MAX_WAITERS && node != head; i++) {
		entry = (void *)node - bpf_core_field_offset(struct wait_queue_entry, entry);
		if (BPF_CORE_READ(entry, func) == &woken_wake_function)
			return true;
		node = BPF_CORE_READ(node, next);
	}
	return node != head;
}

/* A message that goes by TCP into a buffer without room is dropped there, and sent again after 200
 * ms only. So the splice leaves the room that the receiver promised to TCP, and the last message by
 * the splice finds room itself. */
static __always_inline bool weft_full(const struct tcp_sock *peer, __u32 size)
{
	const struct sock *sk = (const struct sock *)peer;
	int promised = BPF_CORE_READ(peer, rcv_wup) + BPF_CORE_READ(peer, rcv_wnd) -
		       BPF_CORE_READ(peer, rcv_nxt);
	__u64 used = BPF_CORE_READ(sk, sk_backlog.rmem_alloc.counter);

	if (promised < 0)
		promised = 0;
	return used + size + promised > (__u64)BPF_CORE_READ(sk, sk_rcvbuf);
}

/* Under `splice: auto`: false once the binary at one of the ends was seen to do what the splice
 * breaks (watch.bpf.c). Looked up again only after some verdict was taken back. */
static __always_inline bool weft_both_learned(const struct tcp_sock *self,
					      const struct weft_end *end, struct weft_mover *mover)
{
	struct weft_learner *learner;
	__u32 zero = 0;
	__u64 cookie;
	__u32 *times = bpf_map_lookup_elem(&weft_unlearned, &zero);
	__u32 now = times ? *times + 1 : 0;

	if (mover->checked == now)
		return true;
	cookie = BPF_CORE_READ((const struct sock *)self, __sk_common.skc_cookie.counter);
	learner = bpf_map_lookup_elem(&weft_learners, &cookie);
	if ((learner && !weft_still_learned(&learner->binary, learner->side)) ||
	    !weft_still_learned(&end->binary, end->side))
		return false;
	mover->checked = now;
	return true;
}

enum weft_path {
	WEFT_BY_SPLICE,
	WEFT_BY_TCP,
};

static __always_inline enum weft_path weft_choose(struct sk_msg_md *msg, struct weft_end *end,
						  struct weft_mover *mover,
						  struct weft_moves *moves)
{
	const struct sock *peer = (const struct sock *)end->sock;
	struct weft_client_key client;
	struct bpf_sock *sk = msg->sk;
	struct tcp_sock *self = sk ? bpf_skc_to_tcp_sock(sk) : NULL;

	if (!self ||
	    BPF_CORE_READ(peer, __sk_common.skc_cookie.counter) != (long long)end->cookie) {
		moves->no_peer += 1;
		return WEFT_BY_TCP;
	}
	if (!weft_both_learned(self, end, mover)) {
		moves->unlearned += 1;
		return WEFT_BY_TCP;
	}
	if (weft_non_blocking(peer) == 0) {
		client = end->client;
		weft_client_blocks(&client);
		moves->peer_blocking += 1;
		return WEFT_BY_TCP;
	}
	if (weft_full((const struct tcp_sock *)peer, msg->size)) {
		moves->peer_full += 1;
		return WEFT_BY_TCP;
	}
	if (!weft_quiet(self, (const struct tcp_sock *)peer)) {
		moves->not_quiet += 1;
		return WEFT_BY_TCP;
	}
	if (mover->via_tcp && weft_reader_waits(peer)) {
		moves->peer_waits += 1;
		return WEFT_BY_TCP;
	}
	return WEFT_BY_SPLICE;
}

static __always_inline enum weft_path weft_move(struct sk_msg_md *msg, struct weft_flow *other,
						struct weft_mover *mover, struct weft_moves *moves)
{
	struct weft_config *config;
	struct weft_end *end;
	__u32 zero = 0;

	config = bpf_map_lookup_elem(&weft_config, &zero);
	if (!config || !config->splice) {
		moves->switched_off += 1;
		return WEFT_BY_TCP;
	}
	end = bpf_map_lookup_elem(&weft_ends, other);
	if (!end) {
		moves->no_peer += 1;
		return WEFT_BY_TCP;
	}
	if (weft_choose(msg, end, mover, moves) == WEFT_BY_TCP)
		return WEFT_BY_TCP;
	if (bpf_msg_redirect_hash(msg, &weft_splice, other, BPF_F_INGRESS) != SK_PASS) {
		moves->redirect_failed += 1;
		return WEFT_BY_TCP;
	}
	end->received_bytes += msg->size;
	mover->sent_bytes += msg->size;
	moves->messages += 1;
	moves->bytes += msg->size;
	return WEFT_BY_SPLICE;
}

SEC("sk_msg")
int weft_sk_msg(struct sk_msg_md *msg)
{
	struct bpf_sock *sk = msg->sk;
	struct weft_moves *moves = weft_my_moves();
	struct weft_flow other = {};
	struct weft_mover *mover;

	if (!sk || !moves)
		return SK_PASS;
	mover = bpf_sk_storage_get(&weft_movers, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!mover)
		return SK_PASS;
	weft_other_end(msg, &other);
	mover->via_tcp = weft_move(msg, &other, mover, moves) == WEFT_BY_TCP;
	return SK_PASS; /* SK_DROP, the redirect's answer for an unknown peer, would lose the bytes
			 */
}
