// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* After a change of policy: asks again for every connection of one netns, as connect.bpf.c did (of
 * the process that connected, as long as it runs that program), and destroys those that are no
 * longer allowed. The other end learns it by RST, spliced or not, and is itself walked if its own
 * policy changed. Hook: iter/tcp, which holds the socket's lock; run by control/bpf in the netns.
 * Fails open: the next run. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#include "bpf/core.h"
#include "bpf/event.h"
#include "bpf/judge.h"
#include "bpf/processes.h"
#include "bpf/verdict.h"

#define WEFT_TCP_ESTABLISHED  1
#define WEFT_TCP_TIME_WAIT    6
#define WEFT_TCP_CLOSE        7
#define WEFT_TCP_LISTEN       10
#define WEFT_TCP_NEW_SYN_RECV 12

char LICENSE[] SEC("license") = "GPL";

extern int bpf_sock_destroy(struct sock_common *sock) __ksym;

/* Set by user space before the run. */
__u64 cut_netns_cookie = 0;
/* Counts of the run, reset by user space before it. */
__u32 cut_asked = 0;
__u32 cut_destroyed = 0;

static __always_inline void weft_flow_of(struct sock *sk, struct weft_flow *flow)
{
	struct weft_core_in6 local = BPF_CORE_READ(sk, __sk_common.skc_v6_rcv_saddr);
	struct weft_core_in6 remote = BPF_CORE_READ(sk, __sk_common.skc_v6_daddr);

	weft_addr_v6(&flow->local, local.words[0], local.words[1], local.words[2], local.words[3],
		     WEFT_HTONS(BPF_CORE_READ(sk, __sk_common.skc_num)));
	weft_addr_v6(&flow->remote, remote.words[0], remote.words[1], remote.words[2],
		     remote.words[3], BPF_CORE_READ(sk, __sk_common.skc_dport));
}

/* The connecting end of an app. */
static __always_inline void weft_ends_of_client(const struct weft_sock *st,
						const struct weft_workload *workload,
						const struct weft_flow *flow,
						struct weft_addr *target, struct weft_ends_of *ends)
{
	int direct = st->verdict == WEFT_R_DIRECT;
	struct weft_facts facts = {};

	*target = direct ? flow->remote : !weft_ip_is_zero(st->picked.ip) ? st->picked : st->peer;
	facts.asked = &st->peer;
	facts.workload = workload;
	facts.service = bpf_map_lookup_elem(&weft_services, &st->peer);
	facts.target = target;
	facts.peer = weft_peer_of(target);
	ends->layers = weft_layers_asked(&facts, direct ? WEFT_ACT_DIRECT : WEFT_ACT_PROXY);
	ends->source_subject = st->workload;
	__builtin_memcpy(ends->source.ip, weft_own_ip(workload, target->ip),
			 sizeof(ends->source.ip));
	ends->destination_subject = facts.peer ? facts.peer->workload : 0;
	ends->destination = *target;
}

/* An app's accepted end, direct or from our to-app socket, and that socket itself. */
static __always_inline void weft_ends_of_server(const struct weft_sock *st,
						const struct weft_addr *client,
						const struct weft_addr *own, int direct,
						struct weft_ends_of *ends)
{
	struct weft_peer *peer = weft_peer_of(client);

	ends->layers = weft_stamped_layers_asked(WEFT_ROLE_TO_APP, own, NULL, peer);
	if (direct)
		ends->layers |= 1u << WEFT_LAYER_AUTHORIZATION;
	ends->source_subject = peer ? peer->workload : 0;
	ends->source = *client;
	ends->destination_subject = st->workload;
	ends->destination = *own;
}

/* Open before its workload was enrolled: a connection between two workloads of this node is asked
 * like a direct one; from elsewhere, as far as addresses go. One to itself is nobody's affair: its
 * stamp came from a listener. */
static __always_inline void weft_ends_of_legacy(const struct weft_sock *st,
						const struct weft_workload *workload,
						const struct weft_flow *flow,
						struct weft_ends_of *ends)
{
	struct weft_facts facts = {};
	struct weft_peer *peer;

	if (weft_ip_is_loopback(flow->remote.ip) || weft_is_own(workload, flow->remote.ip))
		return;
	if (!(st->flags & WEFT_SOCK_LEGACY_OUT)) {
		peer = weft_peer_of(&flow->remote);
		weft_ends_of_server(st, &flow->remote, &flow->local, peer && peer->workload, ends);
		return;
	}
	facts.asked = &flow->remote;
	facts.workload = workload;
	facts.target = &flow->remote;
	facts.peer = weft_peer_of(&flow->remote);
	ends->layers = weft_layers_asked(&facts, WEFT_ACT_DIRECT);
	ends->source_subject = st->workload;
	ends->source = flow->local;
	ends->destination_subject = facts.peer ? facts.peer->workload : 0;
	ends->destination = flow->remote;
}

static __always_inline void weft_find_ends(const struct weft_sock *st,
					   const struct weft_workload *workload,
					   const struct weft_flow *flow, struct weft_addr *target,
					   struct weft_ends_of *ends)
{
	ends->protocol = WEFT_PROTOCOL_TCP;
	if (st->flags & WEFT_SOCK_LEGACY) {
		weft_ends_of_legacy(st, workload, flow, ends);
	} else if (st->role == WEFT_ROLE_APP && st->pid) {
		weft_ends_of_client(st, workload, flow, target, ends);
	} else if (st->role == WEFT_ROLE_APP) {
		int direct = st->verdict == WEFT_R_DIRECT;

		weft_ends_of_server(st, direct ? &flow->remote : &st->peer, &flow->local, direct,
				    ends);
	} else if (st->role == WEFT_ROLE_TO_APP) {
		weft_ends_of_server(st, &st->peer, &flow->remote, 0, ends);
	} else if (st->role == WEFT_ROLE_TUNNEL) {
		ends->layers = weft_stamped_layers_asked(st->role, &flow->remote,
							 weft_peer_of(&flow->remote), NULL);
		ends->source_subject = st->workload;
		ends->destination = flow->remote;
	}
}

/* What process policy says of whoever connected the socket. */
static __always_inline void weft_judge_caller(const struct weft_sock *st,
					      const struct weft_addr *target,
					      const struct weft_ends_of *ends,
					      struct weft_process_answer *answer)
{
	struct weft_service *service = bpf_map_lookup_elem(&weft_services, &st->peer);
	struct weft_process_call asked = {};
	struct weft_who who = {};

	asked.epoch = ends->epoch;
	who.generation = weft_generation(asked.epoch);
	who.key.pid = st->pid;
	who.key.started = st->started;
	if (!weft_watch_of(&who, st->workload) || !weft_look_at_known(&who, cut_netns_cookie))
		return;
	asked.subject = st->workload;
	asked.service = service && (service->flags & WEFT_SVC_L7) ? service->id : 0;
	asked.destination_workload = ends->destination_subject;
	asked.target = *target;
	weft_process_verdict(&asked, &who, answer);
}

static __always_inline void weft_report_cut(struct sock *sk, const struct weft_sock *st,
					    const struct weft_flow *flow,
					    const struct weft_ends_of *ends,
					    const struct weft_answer *answer, __u32 reason)
{
	struct weft_event *event = weft_event_new(WEFT_EVENT_CUT, reason, st->workload);
	int client = st->pid || st->role == WEFT_ROLE_TUNNEL || st->flags & WEFT_SOCK_LEGACY_OUT;

	if (!event)
		return;
	event->netns_cookie = cut_netns_cookie;
	event->rule = answer->rule;
	event->source_workload = ends->source_subject;
	event->source_identity = st->source_identity;
	event->destination_workload = ends->destination_subject;
	event->pid = st->pid;
	__builtin_memcpy(event->comm, st->comm, sizeof(event->comm));
	event->source = client ? flow->local
			: st->role == WEFT_ROLE_TO_APP || st->verdict == WEFT_R_PROXIED
				? st->peer
				: flow->remote;
	event->destination = st->pid                                ? st->peer
			     : st->role == WEFT_ROLE_APP && !client ? flow->local
								    : flow->remote;
	event->picked = st->picked;
	weft_name_maker(event, bpf_sk_storage_get(&weft_makers, sk, 0, 0));
	weft_event_submit(event);
}

SEC("iter/tcp")
int weft_cut(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct weft_workload *workload;
	struct weft_process_answer by_process = {};
	struct weft_answer answer = {};
	struct weft_ends_of ends = {};
	struct weft_addr target = {};
	struct weft_flow flow = {};
	struct tcp_sock *tcp;
	struct weft_sock *st;
	unsigned char state;
	int app_client;
	__u32 reason;

	if (!common)
		return 0;
	state = common->skc_state;
	if (state == WEFT_TCP_TIME_WAIT || state == WEFT_TCP_CLOSE || state == WEFT_TCP_LISTEN ||
	    state == WEFT_TCP_NEW_SYN_RECV)
		return 0;
	tcp = bpf_skc_to_tcp_sock(common);
	if (!tcp)
		return 0;
	st = bpf_sk_storage_get(&weft_stamps, (struct sock *)tcp, 0, 0);
	workload = weft_workload_of(cut_netns_cookie);
	if (!st || !workload || st->workload != workload->id ||
	    st->generation != workload->generation)
		return 0;
	ends.epoch = weft_epoch_now();
	weft_flow_of((struct sock *)tcp, &flow);
	weft_find_ends(st, workload, &flow, &target, &ends);
	app_client = st->role == WEFT_ROLE_APP && st->pid;
	if (!ends.layers && !app_client)
		return 0;
	__sync_fetch_and_add(&cut_asked, 1);
	reason = WEFT_R_NONE;
	if (ends.layers && !weft_permit(&ends, &answer))
		reason = answer.by_default ? WEFT_R_POLICY_DEFAULT_DENIED : WEFT_R_POLICY_DENIED;
	if (!reason && app_client)
		weft_judge_caller(st, &target, &ends, &by_process);
	if (by_process.action >= WEFT_PROCESS_DENY) {
		reason = WEFT_R_PROCESS_DENIED;
		answer.rule = by_process.rule;
	}
	if (!reason)
		return 0;
	weft_report_cut((struct sock *)tcp, st, &flow, &ends, &answer, reason);
	if (!bpf_sock_destroy(common))
		__sync_fetch_and_add(&cut_destroyed, 1);
	return 0;
}
