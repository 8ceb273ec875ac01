// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Enrolment of a running workload: stamps the TCP sockets that were open before, so that the guard
 * (tc/workload.bpf.c) lets them go on. They are never spliced; policy is asked for them by
 * cut.bpf.c, by the side that seems to have connected: TCP does not remember, so a connection whose
 * local port is listened on was accepted. Listeners too: their stamp goes on to connections that
 * are being accepted (BPF_F_CLONE). Connections to itself never leave the pod and stay as they are.
 * Hook: iter/tcp; run by control/bpf in the netns, once capture is on and before the guard is.
 * Fails closed: what is not stamped cannot send. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#include "bpf/core.h"
#include "bpf/judge.h"
#include "bpf/verdict.h"

#define WEFT_TCP_TIME_WAIT    6
#define WEFT_TCP_CLOSE        7
#define WEFT_TCP_LISTEN       10
#define WEFT_TCP_NEW_SYN_RECV 12

char LICENSE[] SEC("license") = "GPL";

/* Set by user space before the run. */
__u64 enrol_netns_cookie = 0;
/* Cleared by user space before the run; the walk comes to listeners first. */
__u8 enrol_listening[8192] = {0};
/* Counts of the run, reset by user space before it. */
__u32 enrol_stamped = 0;
__u32 enrol_failed = 0;

static __always_inline void weft_note_listening(__u16 port)
{
	enrol_listening[port >> 3] |= 1u << (port & 7);
}

static __always_inline int weft_is_listening(__u16 port)
{
	return enrol_listening[port >> 3] >> (port & 7) & 1;
}

/* Both ends in this netns, as connect.bpf.c passes them. */
static __always_inline int weft_stays_inside(struct sock *sk, const struct weft_workload *workload)
{
	struct weft_core_in6 remote = BPF_CORE_READ(sk, __sk_common.skc_v6_daddr);
	struct weft_addr addr;

	weft_addr_v6(&addr, remote.words[0], remote.words[1], remote.words[2], remote.words[3], 0);
	return weft_ip_is_loopback(addr.ip) || weft_is_own(workload, addr.ip);
}

SEC("iter/tcp")
int weft_enrol(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct weft_workload *workload;
	struct tcp_sock *tcp;
	struct weft_sock *st;
	unsigned char state;
	__u16 port;

	if (!common)
		return 0;
	state = common->skc_state;
	if (state == WEFT_TCP_TIME_WAIT || state == WEFT_TCP_CLOSE ||
	    state == WEFT_TCP_NEW_SYN_RECV)
		return 0;
	tcp = bpf_skc_to_tcp_sock(common);
	workload = weft_workload_of(enrol_netns_cookie);
	if (!tcp || !workload)
		return 0;
	port = common->skc_num;
	if (state == WEFT_TCP_LISTEN)
		weft_note_listening(port);
	else if (weft_stays_inside((struct sock *)tcp, workload))
		return 0;
	st = bpf_sk_storage_get(&weft_stamps, (struct sock *)tcp, 0, 0);
	/* Ours keep theirs; so does what was stamped since the enrolment. */
	if (st && (st->role != WEFT_ROLE_APP ||
		   (st->workload == workload->id && st->generation == workload->generation)))
		return 0;
	if (!st)
		st = bpf_sk_storage_get(&weft_stamps, (struct sock *)tcp, 0,
					BPF_SK_STORAGE_GET_F_CREATE);
	if (!st) {
		__sync_fetch_and_add(&enrol_failed, 1);
		return 0;
	}
	st->role = WEFT_ROLE_APP;
	st->workload = workload->id;
	st->generation = workload->generation;
	/* One of an earlier enrolment, spliced or not, has stated what it is. */
	if (st->verdict == WEFT_R_NONE)
		st->flags = WEFT_SOCK_LEGACY | (weft_is_listening(port) ? 0 : WEFT_SOCK_LEGACY_OUT);
	st->epoch = (__u32)weft_epoch_now();
	__sync_fetch_and_add(&enrol_stamped, 1);
	return 0;
}
