// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* connect() and bind() of enrolled workloads: who is asked for, may it be, and which way. Acts only
 * on netns cookies that its own agent enrolled and on sockets that its own weft-sockets stamped;
 * everything else passes untouched. Hooks: cgroup/connect4,6 and bind4,6 at the cgroup2 root. Fails
 * closed for enrolled workloads: what cannot be recorded is refused. Direct: a VIP becomes an
 * endpoint of this node. Proxy: the pod's own address, port 15001; not loopback, which would show
 * in getsockname() and break SO_BINDTODEVICE. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#include "bpf/balancing.h"
#include "bpf/core.h"
#include "bpf/event.h"
#include "bpf/judge.h"
#include "bpf/processes.h"
#include "bpf/sockops/dns.h"
#include "bpf/verdict.h"

#define WEFT_IPPROTO_TCP      6
#define WEFT_SOL_SOCKET       1
#define WEFT_SO_BINDTOIFINDEX 62
#define WEFT_ENETUNREACH      101
#define WEFT_ECONNREFUSED     111
#define WEFT_SIGKILL          9

char LICENSE[] SEC("license") = "GPL";

/* 1: the kernel lets this hook send signals (6.13 or so); otherwise control/bpf kills what an event
 * says was killed. Set by user space, which tries. */
const volatile __u32 cfg_kill_at_connect = 0;

enum pid_type { PIDTYPE_PID, PIDTYPE_TGID };
extern int bpf_send_signal_task(struct task_struct *task, int sig, enum pid_type type,
				__u64 value) __ksym __weak;

/* One call of connect(). */
struct weft_call {
	__u64 netns_cookie;
	struct weft_addr asked;
	struct weft_addr target; /* where the socket is sent, if the decision is direct or proxy */
	struct weft_addr picked; /* the backend of an L4 service, or zero */
	struct weft_decision decision;
	__u32 destination_workload;
	__u32 destination_identity;
	__u64 epoch;         /* of policy, before anything was asked */
	__u32 audit;         /* number of a dry-run policy that matches, 0: none */
	struct weft_who who; /* that calls, if it is a workload's own socket */
	__u32 maker_pid;     /* who made the socket */
	__u32 maker_binary;
	__u32 process_rule; /* of process policy that matches and only reports, 0: none */
};

static __always_inline void weft_police(struct weft_call *call, struct weft_ends_of *ends)
{
	struct weft_answer answer = {};

	ends->protocol = WEFT_PROTOCOL_TCP;
	ends->epoch = call->epoch;
	if (!weft_permit(ends, &answer))
		weft_deny(&call->decision, answer.rule, answer.by_default);
	call->audit = answer.audit;
}

/* A socket of weft-sockets, which keeps to its role: network policy of the workload it stands for,
 * or of the client that it brings. */
static __always_inline void weft_police_stamped(struct weft_call *call,
						const struct weft_sock *stamp,
						const struct weft_workload *workload)
{
	struct weft_peer *peer = weft_peer_of(&call->asked);
	struct weft_peer *client =
		stamp->role == WEFT_ROLE_TO_APP ? weft_peer_of(&stamp->peer) : NULL;
	struct weft_ends_of ends = {};

	ends.layers = weft_stamped_layers_asked(stamp->role, &call->asked, peer, client);
	if (!ends.layers || !workload || workload->id != stamp->workload)
		return; /* a tunnel of a workload that has been released */
	if (stamp->role == WEFT_ROLE_TO_APP) {
		ends.source_subject = client ? client->workload : 0;
		ends.source = stamp->peer;
		ends.destination_subject = stamp->workload;
	} else {
		ends.source_subject = stamp->workload;
	}
	ends.destination = call->asked;
	weft_police(call, &ends);
}

/* What runs in the calling process, after the network's policy has allowed it. A frame of its own,
 * for the stack. */
static __attribute__((noinline)) void weft_police_process(struct weft_call *call,
							  const struct weft_workload *workload,
							  const struct weft_service *service)
{
	struct weft_process_answer answer = {};
	struct weft_process_call asked = {};

	if (call->decision.action != WEFT_ACT_DIRECT && call->decision.action != WEFT_ACT_PROXY)
		return;
	asked.epoch = call->epoch;
	asked.subject = workload->id;
	asked.service = service && (service->flags & WEFT_SVC_L7) ? service->id : 0;
	asked.destination_workload = call->destination_workload;
	asked.target = call->target;
	switch (weft_process_verdict(&asked, &call->who, &answer)) {
	case WEFT_PROCESS_KILL:
		weft_deny(&call->decision, answer.rule, 0);
		call->decision.reason = WEFT_R_PROCESS_KILLED;
		if (cfg_kill_at_connect && bpf_ksym_exists(bpf_send_signal_task))
			bpf_send_signal_task(bpf_get_current_task_btf(), WEFT_SIGKILL, PIDTYPE_TGID,
					     0);
		break;
	case WEFT_PROCESS_DENY:
		weft_deny(&call->decision, answer.rule, 0);
		call->decision.reason = WEFT_R_PROCESS_DENIED;
		break;
	case WEFT_PROCESS_LOG:
		call->process_rule = answer.rule;
		break;
	}
}

static __always_inline void weft_to_own(struct weft_call *call,
					const struct weft_workload *workload, __u16 port)
{
	__builtin_memcpy(call->target.ip,
			 weft_ip_is_v4(call->asked.ip) ? workload->ipv4 : workload->ipv6,
			 sizeof(call->target.ip));
	call->target.port_be = WEFT_HTONS(port);
}

static __always_inline void weft_look_up(struct weft_call *call,
					 const struct weft_workload *workload)
{
	struct weft_facts facts = {};
	struct weft_ends_of ends = {};

	/* TCP to the pod's own resolver. The proxy asks policy for what it forwards. */
	if (weft_may_be_dns(call->asked.port_be) &&
	    weft_captures_dns(workload, call->asked.ip,
			      weft_has_resolver(call->netns_cookie, call->asked.ip))) {
		call->decision.action = WEFT_ACT_PROXY;
		call->decision.reason = WEFT_R_PROXIED;
		call->target = call->asked;
		weft_police_process(call, workload, NULL);
		if (call->decision.action == WEFT_ACT_PROXY)
			weft_to_own(call, workload, WEFT_PORT_DNS);
		return;
	}
	facts.asked = &call->asked;
	facts.workload = workload;
	facts.service = bpf_map_lookup_elem(&weft_services, &call->asked);
	if (facts.service)
		weft_pick_backend(facts.service, workload, &call->asked, &call->picked);
	facts.picked = !weft_ip_is_zero(call->picked.ip);
	call->target = facts.picked ? call->picked : call->asked;
	facts.target = &call->target;
	facts.peer = weft_peer_of(&call->target);
	if (facts.peer) {
		call->destination_workload = facts.peer->workload;
		call->destination_identity = facts.peer->identity;
	}
	call->decision = weft_decide(&facts);
	ends.layers = weft_layers_asked(&facts, call->decision.action);
	if (ends.layers) {
		ends.source_subject = workload->id;
		__builtin_memcpy(ends.source.ip, weft_own_ip(workload, call->target.ip),
				 sizeof(ends.source.ip));
		ends.destination_subject = facts.peer ? facts.peer->workload : 0;
		ends.destination = call->target;
		weft_police(call, &ends);
	}
	weft_police_process(call, workload, facts.service);
	if (call->decision.action == WEFT_ACT_PROXY)
		weft_to_own(call, workload, WEFT_PORT_OUTBOUND);
}

static __always_inline void weft_report_as(const struct weft_call *call,
					   const struct weft_workload *workload, __u32 kind,
					   __u32 reason, __u32 rule)
{
	struct weft_event *event = weft_event_new(kind, reason, workload ? workload->id : 0);

	if (!event)
		return;
	event->netns_cookie = call->netns_cookie;
	event->rule = rule;
	if (workload) {
		event->source_workload = workload->id;
		event->source_identity = workload->identity;
		__builtin_memcpy(event->source.ip,
				 weft_ip_is_v4(call->asked.ip) ? workload->ipv4 : workload->ipv6,
				 sizeof(event->source.ip));
	}
	event->destination_workload = call->destination_workload;
	event->destination_identity = call->destination_identity;
	event->pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	event->destination = call->asked;
	event->picked = call->picked;
	event->binary = call->who.binary;
	event->maker_pid = call->maker_pid;
	event->maker_binary = call->maker_binary;
	weft_event_submit(event);
}

static __always_inline void weft_report(const struct weft_call *call,
					const struct weft_workload *workload)
{
	weft_report_as(call, workload, WEFT_EVENT_CONNECT, call->decision.reason,
		       call->decision.rule);
}

static __always_inline void weft_report_audit(const struct weft_call *call,
					      const struct weft_workload *workload)
{
	if (call->audit)
		weft_report_as(call, workload, WEFT_EVENT_AUDIT, WEFT_R_POLICY_AUDITED,
			       call->audit);
	if (call->process_rule)
		weft_report_as(call, workload, WEFT_EVENT_AUDIT, WEFT_R_PROCESS_MATCHED,
			       call->process_rule);
}

/* Who calls, and who made the socket. Without memory or room to work in, rules match the caller and
 * events do not name it. */
static __always_inline void weft_find_who(struct weft_call *call, struct bpf_sock *sk,
					  const struct weft_workload *workload)
{
	struct weft_maker *maker;

	call->who.generation = weft_generation(call->epoch);
	weft_look_at_current(call->netns_cookie, workload->id, &call->who);
	maker = bpf_sk_storage_get(&weft_makers, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!maker)
		return;
	maker->user_binary = call->who.binary;
	call->maker_pid = maker->pid;
	call->maker_binary = maker->binary;
}

/* Remembers the verdict at the socket. False: no memory. */
static __always_inline int weft_remember(struct bpf_sock_addr *ctx, struct bpf_sock *sk,
					 const struct weft_call *call,
					 const struct weft_workload *workload)
{
	struct weft_sock *st = bpf_sk_storage_get(&weft_stamps, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	int none = 0;

	if (!st)
		return 0;
	if (st->flags & WEFT_SOCK_REFUSED)
		bpf_setsockopt(ctx, WEFT_SOL_SOCKET, WEFT_SO_BINDTOIFINDEX, &none, sizeof(none));
	st->role = WEFT_ROLE_APP;
	st->workload = workload->id;
	st->generation = workload->generation;
	st->flags = call->decision.splice ? WEFT_SOCK_SPLICE : 0;
	st->peer = call->asked;
	st->verdict = call->decision.reason;
	st->picked = call->picked;
	st->source_identity = workload->identity;
	st->epoch = (__u32)call->epoch;
	st->pid = bpf_get_current_pid_tgid() >> 32;
	st->started = call->who.key.started;
	bpf_get_current_comm(st->comm, sizeof(st->comm));
	return 1;
}

static __always_inline void weft_decide_call(struct bpf_sock_addr *ctx, struct weft_call *call)
{
	struct bpf_sock *sk = ctx->sk;
	struct weft_workload *workload;
	struct weft_sock *stamp;

	call->decision.reason = WEFT_R_NONE;
	if (!sk || ctx->protocol != WEFT_IPPROTO_TCP)
		return;
	call->epoch = weft_epoch_now();
	call->netns_cookie = bpf_get_netns_cookie(ctx);
	workload = weft_workload_of(call->netns_cookie);
	stamp = bpf_sk_storage_get(&weft_stamps, sk, 0, 0);
	if (stamp && stamp->role != WEFT_ROLE_APP) {
		call->decision = weft_decide_stamped(stamp, workload, &call->asked);
		if (call->decision.action == WEFT_ACT_PASS)
			weft_police_stamped(call, stamp, workload);
		stamp->epoch = (__u32)call->epoch;
		weft_report_audit(call, workload);
		if (call->decision.action != WEFT_ACT_PASS)
			weft_report(call, workload);
		else if (call->decision.splice)
			stamp->flags |= WEFT_SOCK_SPLICE;
		return;
	}
	if (!workload)
		return;
	weft_find_who(call, sk, workload);
	weft_look_up(call, workload);
	weft_report_audit(call, workload);
	if (call->decision.action == WEFT_ACT_PASS) {
		if (stamp)
			bpf_sk_storage_delete(&weft_stamps, sk);
		weft_count(call->decision.reason);
		return;
	}
	if ((call->decision.action == WEFT_ACT_DIRECT || call->decision.action == WEFT_ACT_PROXY) &&
	    !weft_remember(ctx, sk, call, workload)) {
		call->decision.action = WEFT_ACT_REFUSE;
		call->decision.reason = WEFT_R_MAP_FULL;
	}
	weft_report(call, workload);
}

/* What the hook returns: 1 goes on, 0 fails with EPERM or the error set here. */
static __always_inline int weft_answer(const struct weft_call *call)
{
	switch (call->decision.action) {
	case WEFT_ACT_DENY:
		return 0;
	case WEFT_ACT_REFUSE:
		bpf_set_retval(-WEFT_ECONNREFUSED);
		return 0;
	case WEFT_ACT_UNREACHABLE:
		bpf_set_retval(-WEFT_ENETUNREACH);
		return 0;
	default:
		return 1;
	}
}

static __always_inline int weft_redirects(const struct weft_call *call)
{
	return call->decision.action == WEFT_ACT_PROXY ||
	       (call->decision.action == WEFT_ACT_DIRECT && !weft_ip_is_zero(call->picked.ip));
}

SEC("cgroup/connect4")
int weft_connect4(struct bpf_sock_addr *ctx)
{
	struct weft_call call = {};
	__be32 asked = ctx->user_ip4;
	struct bpf_sock *sk = ctx->sk;

	if (ctx->protocol == WEFT_IPPROTO_UDP)
		return weft_dns_asks4(ctx, 1);
	/* The kernel takes 0.0.0.0 for the address that the socket is bound to, which need not be
	 * the pod's. */
	if (!asked && sk)
		asked = sk->src_ip4;
	weft_addr_v4(&call.asked, asked, (__be16)ctx->user_port);
	weft_decide_call(ctx, &call);
	if (weft_redirects(&call)) {
		ctx->user_ip4 = weft_word(call.target.ip, 3);
		ctx->user_port = call.target.port_be;
	}
	return weft_answer(&call);
}

SEC("cgroup/connect6")
int weft_connect6(struct bpf_sock_addr *ctx)
{
	struct weft_call call = {};

	if (ctx->protocol == WEFT_IPPROTO_UDP)
		return weft_dns_asks6(ctx, 1);
	weft_addr_v6(&call.asked, ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2],
		     ctx->user_ip6[3], (__be16)ctx->user_port);
	weft_decide_call(ctx, &call);
	if (weft_redirects(&call)) {
		ctx->user_ip6[0] = weft_word(call.target.ip, 0);
		ctx->user_ip6[1] = weft_word(call.target.ip, 1);
		ctx->user_ip6[2] = weft_word(call.target.ip, 2);
		ctx->user_ip6[3] = weft_word(call.target.ip, 3);
		ctx->user_port = call.target.port_be;
	}
	return weft_answer(&call);
}

/* A pod's root could otherwise join our listeners by SO_REUSEPORT. */
static __always_inline int weft_bind(struct bpf_sock_addr *ctx)
{
	__be16 port_be = (__be16)ctx->user_port;
	struct bpf_sock *sk = ctx->sk;
	struct weft_workload *workload;
	struct weft_event *event;
	struct weft_sock *stamp;
	__u64 cookie;

	if (!sk || !weft_is_our_port(port_be))
		return 1;
	cookie = bpf_get_netns_cookie(ctx);
	workload = weft_workload_of(cookie);
	if (!workload)
		return 1;
	stamp = bpf_sk_storage_get(&weft_stamps, sk, 0, 0);
	if (weft_bind_allowed(stamp ? stamp->role : WEFT_ROLE_NONE, port_be))
		return 1;
	event = weft_event_new(WEFT_EVENT_BIND, WEFT_R_STAMP_MISUSE, workload->id);
	if (event) {
		event->netns_cookie = cookie;
		event->source_workload = workload->id;
		event->source_identity = workload->identity;
		event->pid = bpf_get_current_pid_tgid() >> 32;
		bpf_get_current_comm(event->comm, sizeof(event->comm));
		event->source.port_be = port_be;
		weft_event_submit(event);
	}
	return 0;
}

SEC("cgroup/bind4")
int weft_bind4(struct bpf_sock_addr *ctx)
{
	return weft_bind(ctx);
}

SEC("cgroup/bind6")
int weft_bind6(struct bpf_sock_addr *ctx)
{
	return weft_bind(ctx);
}
