/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The permission: may this class reach that port of this subject. Pure: an answer is a bounded
 * number of lookups, never a walk through rules, so its cost does not grow with them. The same
 * header runs in the kernel programs, in the agent (`weft why`) and in tests/unit/bpf, each with
 * lookups of its own. */
#ifndef WEFT_BPF_POLICY_H
#define WEFT_BPF_POLICY_H

#include "bpf/address.h"

/* The maps, as whoever includes this header reaches them. What an entry says in this epoch, 0:
 * there is none; `out` is filled then as well, with nothing. */
typedef int (*weft_find_says)(void *maps, const struct weft_policy_key *, __u64 epoch,
			      struct weft_says *out);
/* NULL: no entry. */
typedef const struct weft_subject *(*weft_find_subject)(void *maps, __u32 workload);

struct weft_question {
	__u64 epoch;          /* read once per decision */
	__u32 source_subject; /* workload of this node, or 0: nothing is asked of the source */
	__u32 source_class;
	__u32 destination_subject; /* likewise */
	__u32 destination_class;
	__u32 layers;  /* bit (1 << enum weft_layer): asked for */
	__u16 port;    /* of the destination, host order; 0 without ports */
	__u8 protocol; /* enum weft_protocol, not ANY */
	__u8 pad;
};

struct weft_answer {
	__u32 allowed;
	__u32 layer; /* that denied */
	__u32 rule;  /* that denied, or the last that allowed; 0: none was needed */
	__u32 by_default;
	__u32 audit; /* number of a dry-run policy that matched, 0: none */
};

/* Index of the version in force, -1: none yet. */
static __always_inline int weft_in_force(const __u64 from[2], __u64 epoch)
{
	__u64 a = ((const volatile __u64 *)from)[0];
	__u64 b = ((const volatile __u64 *)from)[1];

	if (a > epoch)
		return b > epoch ? -1 : 1;
	return b > epoch || a > b ? 0 : 1;
}

/* What an entry says in this epoch; 0: nothing. `entry` may be NULL. */
static __always_inline int weft_says_at(const struct weft_policy *entry, __u64 epoch,
					struct weft_says *out)
{
	int version = entry ? weft_in_force(entry->from, epoch) : -1;

	out->says = WEFT_SAYS_ABSENT;
	out->rule = 0;
	out->audit = 0;
	if (version == 0)
		*out = entry->v[0];
	else if (version == 1)
		*out = entry->v[1];
	if (!(out->says & WEFT_SAYS_ABSENT))
		return 1;
	out->says = 0;
	return 0;
}

static __always_inline __u32 weft_class_at(const struct weft_class *entry, __u64 epoch)
{
	int version = entry ? weft_in_force(entry->from, epoch) : -1;

	if (version < 0)
		return WEFT_CLASS_WORLD;
	return version ? entry->number[1] : entry->number[0];
}

static __always_inline void weft_fill_key(struct weft_policy_key *key, __u32 class_number,
					  __u16 port, __u8 protocol, int length)
{
	key->class_number = class_number;
	key->port = length && length < WEFT_LENGTH_ANY
			    ? (__u16)(port & (__u16)(0xffffu << (16 - length)))
			    : 0;
	key->length = length < WEFT_LENGTH_ANY ? length : 0;
	key->protocol = length < WEFT_LENGTH_ANY ? protocol : (__u8)WEFT_PROTOCOL_ANY;
}

/* The next length of the search: longest prefix first, every protocol last. `left` is not 0. */
static __always_inline int weft_next_length(__u32 left)
{
	__u32 prefixes = left & ((1u << WEFT_LENGTH_ANY) - 1);
	int length = 0;

	if (!prefixes)
		return WEFT_LENGTH_ANY;
	if (prefixes >> 16)
		return 16;
	if (prefixes >> 8) {
		length += 8;
		prefixes >>= 8;
	}
	if (prefixes >> 4) {
		length += 4;
		prefixes >>= 4;
	}
	if (prefixes >> 2) {
		length += 2;
		prefixes >>= 2;
	}
	return length + (prefixes >> 1);
}

/* The search through one layer. In the kernel a loop that the verifier looks at once (bpf_loop),
 * with the lookup called by name, because it cannot be called by address there. */
struct weft_search {
	struct weft_policy_key key;
	struct weft_says mine, others;
	__u64 epoch;
	void *maps;
	weft_find_says find;
	__u32 left; /* lengths that have not been looked at */
	__u32 class_number;
	__u16 port;
	__u8 protocol;
	__u8 mine_found, others_found;
};

#ifdef __bpf__
int weft_find_says_in_map(const struct weft_policy_key *key, __u64 epoch, struct weft_says *out);
#define WEFT_FIND_SAYS(s, out)        weft_find_says_in_map(&(s)->key, (s)->epoch, out)
#define WEFT_REPEAT(n, step, context) bpf_loop(n, step, context, 0)
#else
#define WEFT_FIND_SAYS(s, out) (s)->find((s)->maps, &(s)->key, (s)->epoch, out)
#define WEFT_REPEAT(n, step, context)                                \
	for (__u32 i_ = 0; i_ < (n) && !(step)(i_, context); ++i_) { \
	}
#endif

/* Looks at one length. 1: the search is over. In the kernel a global function, which the verifier
 * looks at once, whatever is in *s. */
#ifdef __bpf__
__attribute__((noinline))
#else
static
#endif
int weft_search_next(struct weft_search *s)
{
	int length;

	if (!s || !s->left || (s->mine_found && s->others_found))
		return 1;
	length = weft_next_length(s->left);
	s->left &= ~(1u << length);
	if (!s->mine_found) {
		weft_fill_key(&s->key, s->class_number, s->port, s->protocol, length);
		s->mine_found = WEFT_FIND_SAYS(s, &s->mine);
	}
	if (!s->others_found) {
		weft_fill_key(&s->key, WEFT_CLASS_ANY, s->port, s->protocol, length);
		s->others_found = WEFT_FIND_SAYS(s, &s->others);
	}
	return 0;
}

static long weft_search_step(__u32 index, void *context)
{
	int over = weft_search_next((struct weft_search *)context);

	(void)index;
	/* The compiler knows that it is 0 or 1, the verifier does not. */
	asm volatile("" : "+r"(over));
	return over ? 1 : 0;
}

/* One layer: the first entry of the class and the first of everybody say what their policies say;
 * DENY wins, then ALLOW, then the default. */
static __always_inline void weft_judge_layer(const struct weft_question *q, __u32 subject,
					     __u32 class_number, __u32 layer,
					     const struct weft_layer_state *state, void *maps,
					     weft_find_says find, struct weft_answer *out)
{
	struct weft_search s = {0};
	__u32 says;

	s.key.subject = subject;
	s.key.layer = layer;
	s.epoch = q->epoch;
	s.maps = maps;
	s.find = find;
	s.left = state->lengths;
	s.class_number = class_number;
	s.port = q->port;
	s.protocol = q->protocol;
	WEFT_REPEAT(WEFT_LENGTH_ANY + 1, weft_search_step, &s);
	says = s.mine.says | s.others.says;
	if (s.mine.says & WEFT_SAYS_AUDIT)
		out->audit = s.mine.audit;
	else if (s.others.says & WEFT_SAYS_AUDIT)
		out->audit = s.others.audit;
	out->layer = layer;
	out->by_default = 0;
	if (says & WEFT_SAYS_DENY) {
		out->allowed = 0;
		out->rule = s.mine.says & WEFT_SAYS_DENY ? s.mine.rule : s.others.rule;
	} else if (says & WEFT_SAYS_ALLOW) {
		out->allowed = 1;
		out->rule = s.mine.says & WEFT_SAYS_ALLOW ? s.mine.rule : s.others.rule;
	} else {
		out->allowed = !!(state->says & WEFT_SAYS_ALLOW);
		out->rule = state->rule;
		out->by_default = 1;
	}
}

/* Network policy cannot keep a workload from itself (Kubernetes: NetworkPolicy); authorization can.
 */
static __always_inline int weft_layer_asked(const struct weft_question *q, __u32 layer)
{
	__u32 subject = layer == WEFT_LAYER_EGRESS ? q->source_subject : q->destination_subject;

	if (!(q->layers >> layer & 1) || !subject)
		return 0;
	if (layer == WEFT_LAYER_AUTHORIZATION)
		return q->protocol == WEFT_PROTOCOL_TCP;
	return q->source_subject != q->destination_subject;
}

/* All layers that are asked for; ends at the first that denies. A subject without an entry may do
 * nothing: by default, rule 0. */
static __always_inline void weft_judge(const struct weft_question *q, void *maps,
				       weft_find_says find, weft_find_subject find_subject,
				       struct weft_answer *out)
{
	__u32 layer;

	out->allowed = 1;
	out->layer = 0;
	out->rule = 0;
	out->by_default = 1;
	out->audit = 0;
	for (layer = 0; layer < WEFT_LAYERS; ++layer) {
		int egress = layer == WEFT_LAYER_EGRESS;
		__u32 workload = egress ? q->source_subject : q->destination_subject;
		const struct weft_layer_state *state;
		const struct weft_subject *subject;
		int version;

		if (!weft_layer_asked(q, layer))
			continue;
		subject = find_subject(maps, workload);
		version = subject ? weft_in_force(subject->from, q->epoch) : -1;
		if (version < 0) {
			out->allowed = 0;
			out->layer = layer;
			out->rule = 0;
			out->by_default = 1;
			return;
		}
		state = version ? &subject->v[1][layer] : &subject->v[0][layer];
		if (!state->says)
			continue;
		weft_judge_layer(q, workload, egress ? q->destination_class : q->source_class,
				 layer, state, maps, find, out);
		if (!out->allowed)
			return;
	}
}

#endif /* WEFT_BPF_POLICY_H */
