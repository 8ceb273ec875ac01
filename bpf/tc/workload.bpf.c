// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The host end of a workload's veth: no way out of the pod but the mesh's, and no false sender. A
 * packet alone is judged by guard.h. TCP that carries something must come from a socket that
 * connect, accept or enrolment stamped, as that socket made it: it is still known here (skb->sk
 * survives the crossing of namespaces), and raw, packet and forwarded packets have none or
 * another. What is not TCP is
 * judged by policy once per flow and change of policy: egress at the sender's end, ingress at the
 * receiver's. Hook: tcx, on the host's side, so that no capability in the pod reaches it. Fails
 * closed. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "bpf/event.h"
#include "bpf/guard.h"
#include "bpf/judge.h"

#define WEFT_TC_NEXT     (-1) /* the next program, or the stack */
#define WEFT_TC_DROP     2
#define WEFT_SOCK_STREAM 1
#define WEFT_SECOND_NS   1000000000ull

char LICENSE[] SEC("license") = "GPL";

/* What would be too much for the stack. One packet at a time: both hooks run with softirqs off. */
struct weft_scratch {
	struct weft_flow_key key;
	__u32 pad;
	struct weft_ends_of ends;
	struct weft_packet packet;
	struct weft_packet quoted;
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct weft_scratch);
} weft_guard_tmp SEC(".maps");

static __always_inline struct weft_scratch *weft_scratch_of_cpu(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&weft_guard_tmp, &zero);
}

static __always_inline int weft_load_skb(void *packet, __u32 offset, void *to, __u32 bytes)
{
	return bpf_skb_load_bytes(packet, offset, to, bytes) ? -1 : 0;
}

static __always_inline void weft_begin_second(struct weft_guard *own)
{
	__u32 second = (__u32)(bpf_ktime_get_ns() / WEFT_SECOND_NS);

	if (own->second == second)
		return;
	own->second = second;
	own->reports = 0;
	own->denials = 0;
}

/* One interface may report so much in a second: every drop is counted, whether reported or not. */
static __always_inline int weft_may_report_drop(struct weft_guard *own)
{
	weft_begin_second(own);
	if (own->reports >= WEFT_GUARD_REPORTS)
		return 0;
	own->reports += 1;
	return 1;
}

static __noinline int weft_drop(struct weft_guard *own, const struct weft_packet *p, __u32 reason,
				__u32 rule, int sent)
{
	struct weft_event *event;

	if (!weft_may_report_drop(own)) {
		weft_count(reason);
		return WEFT_TC_DROP;
	}
	event = weft_event_new(WEFT_EVENT_GUARD, reason, own->workload);
	if (!event)
		return WEFT_TC_DROP;
	event->netns_cookie = own->netns_cookie;
	event->rule = rule;
	if (sent)
		event->source_workload = own->workload;
	else
		event->destination_workload = own->workload;
	__builtin_memcpy(event->source.ip, p->source, 16);
	event->source.port_be = p->source_port_be;
	__builtin_memcpy(event->destination.ip, p->destination, 16);
	event->destination.port_be = p->destination_port_be;
	event->protocol = p->protocol;
	weft_event_submit(event);
	return WEFT_TC_DROP;
}

/* Policy of the workload for a flow that its side (or the other) began. Returns the answer's
 * `allowed`. */
static __noinline int weft_ask_policy(struct weft_scratch *scratch, int by_remote,
				      struct weft_answer *answer)
{
	const struct weft_flow_key *key = &scratch->key;
	struct weft_peer *peer = weft_peer_of(&key->flow.remote);
	struct weft_ends_of *ends = &scratch->ends;

	ends->protocol = weft_policy_protocol(key->protocol);
	if (by_remote) {
		ends->layers = 1u << WEFT_LAYER_INGRESS;
		ends->source_subject = peer ? peer->workload : 0;
		ends->destination_subject = key->workload;
		ends->source = key->flow.remote;
		ends->destination = key->flow.local;
	} else {
		ends->layers = 1u << WEFT_LAYER_EGRESS;
		ends->source_subject = key->workload;
		ends->destination_subject = peer ? peer->workload : 0;
		ends->source = key->flow.local;
		ends->destination = key->flow.remote;
	}
	if (ends->protocol == WEFT_PROTOCOL_OTHER)
		ends->destination.port_be = 0;
	return weft_permit(ends, answer);
}

/* A new flow, or one that began anew. Full: not kept, so every packet is asked for. */
static __always_inline void weft_keep_flow(const struct weft_flow_key *key, int by_remote,
					   __u64 now_ns, __u32 epoch, int allowed)
{
	struct weft_flow_state state = {};

	state.seen_ns = now_ns;
	state.epoch = epoch;
	state.by_remote = by_remote;
	state.denied = !allowed;
	bpf_map_update_elem(&weft_flows, key, &state, BPF_ANY);
}

static __always_inline void weft_touch_flow(struct weft_flow_state *state, __u64 now_ns, int sent)
{
	if (!state->answered && state->by_remote == !!sent)
		state->answered = 1;
	if (now_ns > state->seen_ns + WEFT_FLOW_TOUCH_NS)
		state->seen_ns = now_ns;
}

/* A denial is kept to save asking again. So many new ones a second: what a pod may not do must not
 * evict the flows of others. */
static __always_inline int weft_may_keep_denial(struct weft_guard *own)
{
	weft_begin_second(own);
	if (own->denials >= WEFT_GUARD_DENIALS)
		return 0;
	own->denials += 1;
	return 1;
}

/* The flow of scratch->key. 1: the packet passes. 0: denied; `answer` says why, if it is news. */
static __always_inline int weft_pass_flow(struct weft_guard *own, struct weft_scratch *scratch,
					  int sent, struct weft_answer *answer)
{
	struct weft_flow_state *state = bpf_map_lookup_elem(&weft_flows, &scratch->key);
	__u32 epoch = (__u32)weft_epoch_now();
	__u64 now_ns = bpf_ktime_get_ns();
	__u32 verdict = weft_flow_verdict_of(state, now_ns, epoch, sent);
	int allowed = 0;

	if (verdict == WEFT_FLOW_DENIED)
		return 0;
	if (state && verdict == WEFT_FLOW_CHANGED &&
	    weft_ask_policy(scratch, state->by_remote, answer)) {
		state->epoch = epoch;
		verdict = WEFT_FLOW_PASSES;
	}
	if (state && verdict == WEFT_FLOW_PASSES) {
		weft_touch_flow(state, now_ns, sent);
		return 1;
	}
	/* The packet begins a flow of its own. */
	allowed = weft_ask_policy(scratch, !sent, answer);
	if (allowed || state || weft_may_keep_denial(own))
		weft_keep_flow(&scratch->key, !sent, now_ns, epoch, allowed);
	return allowed;
}

static __noinline int weft_judge_packet(struct weft_guard *own, struct weft_scratch *scratch,
					int sent)
{
	const struct weft_packet *p = &scratch->packet;
	struct weft_answer answer = {.by_default = 1};

	weft_flow_key_of(own, p, sent, &scratch->key);
	if (!weft_pass_flow(own, scratch, sent, &answer))
		return weft_drop(own, p,
				 answer.by_default ? WEFT_R_POLICY_DEFAULT_DENIED
						   : WEFT_R_POLICY_DENIED,
				 answer.rule, sent);
	if (p->part == WEFT_PART_FIRST) {
		weft_fragments_key_of(own, p, sent, &scratch->key);
		weft_keep_flow(&scratch->key, !sent, bpf_ktime_get_ns(), 0, 1);
	}
	return WEFT_TC_NEXT;
}

/* Ports are in the first fragment, which comes first on a veth. */
static __always_inline int weft_judge_fragment(struct weft_guard *own, struct weft_scratch *scratch,
					       int sent)
{
	const struct weft_packet *p = &scratch->packet;

	weft_fragments_key_of(own, p, sent, &scratch->key);
	if (weft_flow_verdict_of(bpf_map_lookup_elem(&weft_flows, &scratch->key),
				 bpf_ktime_get_ns(), 0, sent) == WEFT_FLOW_PASSES)
		return WEFT_TC_NEXT;
	return weft_drop(own, p, WEFT_R_BAD_PACKET, 0, sent);
}

/* An error that is about a flow. One about TCP that the workload sent is for its kernel, which
 * compares sequence numbers; one that the workload sends about TCP would carry bytes out. */
static __noinline int weft_error_belongs(struct __sk_buff *skb, struct weft_guard *own,
					 struct weft_scratch *scratch, int sent)
{
	struct weft_packet *quoted = &scratch->quoted;
	__u32 epoch = (__u32)weft_epoch_now();

	if (weft_parse_quoted(skb, weft_load_skb, &scratch->packet, quoted) ||
	    !weft_guard_owns(own, sent ? quoted->destination : quoted->source))
		return 0;
	/* One that the workload sends goes to whom it is about. */
	if (sent && !weft_ip_equal(scratch->packet.destination, quoted->source))
		return 0;
	if (quoted->protocol == WEFT_IP_TCP)
		return !sent;
	weft_flow_key_of(own, quoted, !sent, &scratch->key);
	return weft_flow_verdict_of(bpf_map_lookup_elem(&weft_flows, &scratch->key),
				    bpf_ktime_get_ns(), epoch, !sent) == WEFT_FLOW_PASSES;
}

/* The kernel keeps the mapped form for IPv4 too, whichever family the socket is of. */
static __always_inline void weft_flow_of(const struct bpf_sock *sk, struct weft_flow *flow)
{
	weft_addr_v6(&flow->local, WEFT_CTX(sk->src_ip6[0]), WEFT_CTX(sk->src_ip6[1]),
		     WEFT_CTX(sk->src_ip6[2]), WEFT_CTX(sk->src_ip6[3]),
		     WEFT_HTONS(WEFT_CTX(sk->src_port)));
	weft_addr_v6(&flow->remote, WEFT_CTX(sk->dst_ip6[0]), WEFT_CTX(sk->dst_ip6[1]),
		     WEFT_CTX(sk->dst_ip6[2]), WEFT_CTX(sk->dst_ip6[3]), WEFT_CTX(sk->dst_port));
}

static __noinline int weft_judge_socket(struct __sk_buff *skb, struct weft_guard *own,
					const struct weft_packet *p)
{
	struct weft_flow flow = {};
	struct weft_sock *stamp;
	struct bpf_sock *sk = skb->sk;

	if (sk)
		sk = bpf_sk_fullsock(sk);
	if (!sk || sk->type != WEFT_SOCK_STREAM || sk->protocol != WEFT_IP_TCP)
		return weft_drop(own, p, WEFT_R_UNSTAMPED, 0, 1);
	stamp = bpf_sk_storage_get(&weft_stamps, sk, 0, 0);
	weft_flow_of(sk, &flow);
	if (!stamp || !weft_stamp_lets(stamp, own, p, &flow))
		return weft_drop(own, p, WEFT_R_UNSTAMPED, 0, 1);
	return WEFT_TC_NEXT;
}

static __always_inline struct weft_guard *weft_guard_of(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex;
	struct weft_guard *own = bpf_map_lookup_elem(&weft_guards, &ifindex);

	if (!own)
		weft_count(WEFT_R_INTERNAL_ERROR);
	return own;
}

static __noinline int weft_read(struct __sk_buff *skb, struct weft_scratch *scratch)
{
	return weft_parse(skb, weft_load_skb, &scratch->packet) || skb->vlan_present;
}

/* Of its own, as weft_read is: their stack is free again when policy is asked. The reason is above
 * the verdict. */
static __noinline __u32 weft_look_from(struct __sk_buff *skb, struct weft_guard *own,
				       struct weft_scratch *scratch)
{
	struct weft_guarded guarded =
		weft_guard_from(skb, weft_load_skb, skb->len, &scratch->packet, own);

	return guarded.verdict | guarded.reason << 16;
}

static __always_inline int weft_act(struct __sk_buff *skb, struct weft_guard *own,
				    struct weft_scratch *scratch, struct weft_guarded guarded,
				    int sent)
{
	switch (guarded.verdict) {
	case WEFT_GUARD_PASS:
		return WEFT_TC_NEXT;
	case WEFT_GUARD_SOCKET:
		return weft_judge_socket(skb, own, &scratch->packet);
	case WEFT_GUARD_FLOW:
		return weft_judge_packet(own, scratch, sent);
	case WEFT_GUARD_FRAGMENT:
		return weft_judge_fragment(own, scratch, sent);
	case WEFT_GUARD_ICMP_ERROR:
		if (weft_error_belongs(skb, own, scratch, sent))
			return WEFT_TC_NEXT;
		return weft_judge_packet(own, scratch, sent);
	default:
		return weft_drop(own, &scratch->packet, guarded.reason, 0, sent);
	}
}

SEC("tcx/ingress")
int weft_from_pod(struct __sk_buff *skb)
{
	struct weft_guard *own = weft_guard_of(skb);
	struct weft_scratch *scratch = weft_scratch_of_cpu();
	struct weft_guarded guarded;
	__u32 looked;

	if (!own || !scratch)
		return WEFT_TC_DROP;
	if (weft_read(skb, scratch))
		return weft_drop(own, &scratch->packet, WEFT_R_BAD_PACKET, 0, 1);
	looked = weft_look_from(skb, own, scratch);
	guarded.verdict = looked & 0xffff;
	guarded.reason = looked >> 16;
	return weft_act(skb, own, scratch, guarded, 1);
}

SEC("tcx/egress")
int weft_to_pod(struct __sk_buff *skb)
{
	struct weft_guard *own = weft_guard_of(skb);
	struct weft_scratch *scratch = weft_scratch_of_cpu();

	if (!own || !scratch)
		return WEFT_TC_DROP;
	if (weft_read(skb, scratch))
		return weft_drop(own, &scratch->packet, WEFT_R_BAD_PACKET, 0, 0);
	return weft_act(skb, own, scratch, weft_guard_to(&scratch->packet, own), 0);
}
