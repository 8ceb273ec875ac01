// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Writes the version of a policy entry that is not in force, in place. A map update would replace
 * the entry, and the kernel may use the old one's memory for the next key at once, under a program
 * that still reads it; then one decision could read another's answer. Hook: none, run by
 * control/bpf (BPF_PROG_TEST_RUN; raw_tp, because sleepable programs may not use a trie). Fails:
 * the writer learns it. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "bpf/maps.h"

#define WEFT_ENOENT 2
#define WEFT_EINVAL 22

char LICENSE[] SEC("license") = "GPL";

/* Nobody takes the version while it is being written. The exchanges keep the order. */
#define WEFT_WRITE(entry, change, field, value_)                                                 \
	do {                                                                                     \
		if ((change)->version) {                                                         \
			__sync_lock_test_and_set(&(entry)->from[1], WEFT_NEVER);                 \
			__builtin_memcpy(&(entry)->field[1], value_, sizeof((entry)->field[1])); \
			__sync_lock_test_and_set(&(entry)->from[1], (change)->from);             \
		} else {                                                                         \
			__sync_lock_test_and_set(&(entry)->from[0], WEFT_NEVER);                 \
			__builtin_memcpy(&(entry)->field[0], value_, sizeof((entry)->field[0])); \
			__sync_lock_test_and_set(&(entry)->from[0], (change)->from);             \
		}                                                                                \
	} while (0)

SEC("raw_tp")
int weft_write_version(const __u64 *ctx)
{
	union {
		struct weft_change change;
		__u64 words[sizeof(struct weft_change) / 8];
	} given;
	struct weft_change change;
	int i;
	struct weft_subject *subject;
	struct weft_policy *policy;
	struct weft_class *entry;

#pragma unroll
	for (i = 0; i < (int)(sizeof(given.words) / 8); ++i)
		given.words[i] = ctx[i];
	change = given.change;
	if (change.version > 1)
		return -WEFT_EINVAL;
	if (change.map == WEFT_IN_POLICY) {
		policy = bpf_map_lookup_elem(&weft_policy, &change.key.policy);
		if (!policy)
			return -WEFT_ENOENT;
		WEFT_WRITE(policy, &change, v, &change.value.says);
		return 0;
	}
	if (change.map == WEFT_IN_SUBJECTS) {
		subject = bpf_map_lookup_elem(&weft_subjects, &change.key.subject);
		if (!subject)
			return -WEFT_ENOENT;
		WEFT_WRITE(subject, &change, v, &change.value.layers);
		return 0;
	}
	if (change.map == WEFT_IN_CLASSES)
		entry = bpf_map_lookup_elem(&weft_classes, change.key.ip);
	else if (change.map == WEFT_IN_BLOCKS)
		entry = bpf_map_lookup_elem(&weft_blocks, &change.key.block);
	else
		return -WEFT_EINVAL;
	if (!entry)
		return -WEFT_ENOENT;
	WEFT_WRITE(entry, &change, number, &change.value.class_number);
	return 0;
}
