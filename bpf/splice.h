/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the splice's programs share: which sockets may enter it (DESIGN 4.1: only those whose reader
 * does not block), what is known of their programs, and how they are entered. Keys are the socket's
 * own flow by 16-byte addresses and both ports, never by family. */
#ifndef WEFT_BPF_SPLICE_H
#define WEFT_BPF_SPLICE_H

#include <bpf/bpf_core_read.h>

#include "bpf/address.h"
#include "bpf/core.h"
#include "bpf/maps.h"

/* 1: O_NONBLOCK, 0: blocking, -1: no file (not accepted yet, or closed). */
static __always_inline int weft_non_blocking(const struct sock *sk)
{
	struct socket *socket = BPF_CORE_READ(sk, sk_socket);
	struct file *file;

	if (!socket)
		return -1;
	file = BPF_CORE_READ(socket, file);
	if (!file)
		return -1;
	return !!(BPF_CORE_READ(file, f_flags) & WEFT_O_NONBLOCK);
}

/* A connecting end that the proxy made has no process: its pid is 0. */
static __always_inline struct weft_client_key weft_client_of(const struct weft_sock *st)
{
	struct weft_client_key key = {};

	if (st->pid) {
		key.workload = st->workload;
		key.pid = st->pid;
		key.started = st->started;
	}
	return key;
}

/* enum weft_client_state of a process, 0: unknown. */
static __always_inline __u32 weft_client_state(const struct weft_client_key *client)
{
	__u32 *state = bpf_map_lookup_elem(&weft_clients, client);

	return state ? *state : 0;
}

/* A socket of the process was seen blocking. */
static __always_inline void weft_client_blocks(const struct weft_client_key *client)
{
	__u32 mixed = WEFT_CLIENT_MIXED;

	if (client->pid && weft_client_state(client) != mixed)
		bpf_map_update_elem(&weft_clients, client, &mixed, BPF_ANY);
}

/* True if the server at the other end is known to block: then the client stays out as well. */
static __always_inline int weft_server_blocks(const struct weft_sock *st,
					      const struct weft_flow *flow)
{
	struct weft_server_key key = {};
	struct weft_peer *peer;
	__u32 *state;

	if (st->role == WEFT_ROLE_TO_APP) {
		key.workload = st->workload;
	} else if (st->verdict == WEFT_R_DIRECT) {
		peer = weft_peer_of(&flow->remote);
		key.workload = peer ? peer->workload : 0;
	} else {
		return 0; /* the proxy */
	}
	key.port = WEFT_HTONS(flow->remote.port_be);
	state = bpf_map_lookup_elem(&weft_servers, &key);
	return state && *state == WEFT_SERVER_BLOCKING;
}

static __always_inline void weft_flow_of_sock(const struct sock *sk, struct weft_flow *flow)
{
	struct weft_core_in6 local = BPF_CORE_READ(sk, __sk_common.skc_v6_rcv_saddr);
	struct weft_core_in6 remote = BPF_CORE_READ(sk, __sk_common.skc_v6_daddr);

	weft_addr_v6(&flow->local, local.words[0], local.words[1], local.words[2], local.words[3],
		     WEFT_HTONS(BPF_CORE_READ(sk, __sk_common.skc_num)));
	weft_addr_v6(&flow->remote, remote.words[0], remote.words[1], remote.words[2],
		     remote.words[3], BPF_CORE_READ(sk, __sk_common.skc_dport));
}

/* Writes where the sender finds the socket; must precede its entry in weft_splice. */
static __always_inline long weft_announce_end(const struct weft_sock *st,
					      const struct weft_learner *learner,
					      const struct weft_flow *flow, const void *sk,
					      __u64 cookie)
{
	struct weft_end end = {};

	end.sock = (__u64)sk;
	end.cookie = cookie;
	end.client = weft_client_of(st);
	if (learner) {
		end.binary = learner->binary;
		end.side = learner->side;
	}
	return bpf_map_update_elem(&weft_ends, flow, &end, BPF_ANY);
}

#endif /* WEFT_BPF_SPLICE_H */
