/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What process policy says of a program that runs or connects, and how many events a workload may
 * make. Pure: an answer is a bounded number of lookups, never a walk through rules. The same header
 * runs in the kernel programs and in tests/unit/bpf, each with lookups of its own. */
#ifndef WEFT_BPF_PROCESS_H
#define WEFT_BPF_PROCESS_H

#include "bpf/address.h"

struct weft_process_question {
	__u64 arguments; /* bits of those that the process has */
	__u32 generation;
	__u32 subject;      /* workload of the process */
	__u32 program;      /* class of its path */
	__u32 class_number; /* of the destination; a service's id; 0 at exec */
	__u16 port;         /* host order; CONNECT only */
	__u8 asks;          /* enum weft_asks */
	__u8 pad;
};
struct weft_process_answer {
	__u32 action; /* enum weft_process_action */
	__u32 rule;
};

/* The maps, as whoever includes this header reaches them. 0: no such entry. */
typedef int (*weft_find_rules)(void *maps, const struct weft_rule_key *, __u64 arguments,
			       struct weft_process_answer *out);

/* The first choice whose arguments the process has. Choices are in order of strength. */
static __always_inline void weft_choose(const struct weft_rules *rules, __u64 arguments,
					struct weft_process_answer *out)
{
	int i;

	out->action = WEFT_PROCESS_PASS;
	out->rule = 0;
	for (i = 0; i < WEFT_CHOICES; ++i) {
		if (rules->v[i].arguments & ~arguments)
			continue;
		out->action = rules->v[i].action;
		out->rule = rules->v[i].rule;
		return;
	}
}

/* The longest prefix of the port that the class has. A class that has any has the shortest too, so
 * that the search ends there. */
static __always_inline int weft_find_port(const struct weft_process_question *q, __u32 lengths,
					  __u32 class_number, void *maps, weft_find_rules find,
					  struct weft_process_answer *out)
{
	struct weft_rule_key key = {0};
	int length;

	key.generation = q->generation;
	key.subject = q->subject;
	key.program = q->program;
	key.class_number = class_number;
	key.asks = q->asks;
	for (length = 16; length >= 0; --length) {
		if (!(lengths >> length & 1))
			continue;
		key.length = length;
		key.port = length ? (__u16)(q->port & (__u16)(0xffffu << (16 - length))) : 0;
		if (find(maps, &key, q->arguments, out))
			return 1;
	}
	return 0;
}

/* `watch` is the subject's. */
static __always_inline void weft_judge_process(const struct weft_process_question *q,
					       const struct weft_watch *watch, void *maps,
					       weft_find_rules find,
					       struct weft_process_answer *out)
{
	__u32 wanted = q->asks == WEFT_ASKS_EXEC ? WEFT_WATCH_EXEC : WEFT_WATCH_CONNECT;
	__u32 lengths = q->asks == WEFT_ASKS_CONNECT ? watch->lengths : 1;

	out->action = WEFT_PROCESS_PASS;
	out->rule = 0;
	if ((watch->flags & WEFT_WATCH_CLOSED) && q->asks != WEFT_ASKS_EXEC) {
		out->action = WEFT_PROCESS_DENY;
		out->rule = watch->rule;
		return;
	}
	if (!(watch->flags & wanted))
		return;
	if (weft_find_port(q, lengths, q->class_number, maps, find, out))
		return;
	if (q->asks == WEFT_ASKS_CONNECT &&
	    weft_find_port(q, lengths, WEFT_CLASS_ANY, maps, find, out))
		return;
	out->action = WEFT_PROCESS_PASS;
	out->rule = 0;
}

/* A bucket of events in one word: when the next one is due if they came evenly. The new state; 0:
 * beyond the rate. */
static __always_inline __u64 weft_bucket_take(__u64 due_ns, __u64 now_ns, __u64 interval_ns,
					      __u64 burst_ns)
{
	__u64 due = due_ns > now_ns ? due_ns : now_ns;

	return due - now_ns > burst_ns ? 0 : due + interval_ns;
}

#endif /* WEFT_BPF_PROCESS_H */
