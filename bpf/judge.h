/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* policy.h with the kernel's maps behind it: who is at an address, and may these two talk. For
 * programs; the pure half is policy.h. */
#ifndef WEFT_BPF_JUDGE_H
#define WEFT_BPF_JUDGE_H

#include "bpf/maps.h"
#include "bpf/policy.h"

/* The two ends of a connection as policy sees them. */
struct weft_ends_of {
	__u32 source_subject; /* workload of this node, or 0 */
	__u32 destination_subject;
	struct weft_addr source;      /* needed for ingress and authorization; without port */
	struct weft_addr destination; /* needed for egress; its port always */
	__u32 layers;                 /* bits, see struct weft_question */
	__u32 protocol;               /* enum weft_protocol */
	__u64 epoch;                  /* of what else was asked for it; 0: now */
};

static __always_inline __u64 weft_epoch_now(void)
{
	__u32 zero = 0;
	__u64 *epoch = bpf_map_lookup_elem(&weft_epoch, &zero);

	return epoch ? *(volatile __u64 *)epoch : 0;
}

/* Global functions are verified once, whoever calls them: inlined, the search would be beyond what
 * the verifier looks at. Pointers are checked, because the verifier asks for it. */
__attribute__((noinline)) int weft_find_says_in_map(const struct weft_policy_key *key, __u64 epoch,
						    struct weft_says *out)
{
	if (!key || !out)
		return 0;
	return weft_says_at(bpf_map_lookup_elem(&weft_policy, key), epoch, out);
}

static __always_inline const struct weft_subject *weft_find_subject_entry(void *maps,
									  __u32 workload)
{
	(void)maps;
	return bpf_map_lookup_elem(&weft_subjects, &workload);
}

/* The class of an address. 0 in `known`: a workload of this node whose address policy does not know
 * (yet, or for want of room): whoever asks must not go on. */
static __always_inline __u32 weft_class_of(const __u8 *ip, __u32 subject, __u64 epoch, int *known)
{
	struct weft_block_key block = {};
	const struct weft_class *entry;

	__builtin_memcpy(block.ip, ip, sizeof(block.ip));
	entry = bpf_map_lookup_elem(&weft_classes, block.ip);
	if (!entry && subject)
		*known = 0;
	if (!entry) {
		block.length = 128;
		entry = bpf_map_lookup_elem(&weft_blocks, &block);
	}
	return weft_class_at(entry, epoch);
}

/* Returns answer->allowed. */
__attribute__((noinline)) int weft_permit(const struct weft_ends_of *ends,
					  struct weft_answer *answer)
{
	struct weft_question q = {};
	int known = 1;

	if (!ends || !answer)
		return 0;
	q.epoch = ends->epoch ? ends->epoch : weft_epoch_now();
	q.source_subject = ends->source_subject;
	q.destination_subject = ends->destination_subject;
	q.layers = ends->layers;
	q.port = WEFT_HTONS(ends->destination.port_be);
	q.protocol = ends->protocol;
	if (q.layers & ~(1u << WEFT_LAYER_EGRESS))
		q.source_class = weft_class_of(ends->source.ip, q.source_subject, q.epoch, &known);
	if (q.layers & 1u << WEFT_LAYER_EGRESS)
		q.destination_class =
			weft_class_of(ends->destination.ip, q.destination_subject, q.epoch, &known);
	weft_judge(&q, NULL, NULL, weft_find_subject_entry, answer);
	if (!known && answer->allowed) {
		answer->allowed = 0;
		answer->by_default = 1;
		answer->rule = 0;
	}
	return answer->allowed;
}

#endif /* WEFT_BPF_JUDGE_H */
