/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* `weft.dev/splice: auto`: which sockets are watched, what is known of the binaries at both ends,
 * and what was learned of them. Shared by sockops, watch and splice; the verdicts are
 * learn.h's. Fails to TCP: what is not known, or cannot be kept, is not spliced. */
#ifndef WEFT_BPF_SOCKOPS_LEARNED_H
#define WEFT_BPF_SOCKOPS_LEARNED_H

#include "bpf/binary.h"
#include "bpf/learn.h"
#include "bpf/maps.h"

/* What is known of the binary; made if nothing is, or if what is known was of a file that has been
 * changed since. NULL: no memory. */
static __always_inline struct weft_learned *weft_binary_known(const struct weft_binary_id *id,
							      const struct inode___wbin *file)
{
	struct weft_learned *known = bpf_map_lookup_elem(&weft_learned, id);
	__u64 changed_ns = weft_changed_ns(file);
	struct weft_learned fresh = {};

	if (known && known->changed_ns == changed_ns)
		return known;
	fresh.changed_ns = changed_ns;
	bpf_get_current_comm(fresh.comm, sizeof(fresh.comm));
	bpf_map_update_elem(&weft_learned, id, &fresh, BPF_ANY);
	return bpf_map_lookup_elem(&weft_learned, id);
}

static __always_inline void weft_unlearn(void)
{
	__u32 zero = 0;
	__u32 *times = bpf_map_lookup_elem(&weft_unlearned, &zero);

	if (times)
		__sync_fetch_and_add(times, 1);
}

static __always_inline void weft_learner_counts(const struct weft_learner *learner)
{
	struct weft_learned *binary = bpf_map_lookup_elem(&weft_learned, &learner->binary);
	__u32 side = learner->side;

	if (binary && side < WEFT_SIDES)
		__sync_fetch_and_add(&binary->seen[side], 1);
}

/* May what is accepted at that port of a workload under `auto` be spliced? */
static __always_inline int weft_port_learned(__u32 workload, __u16 port, struct weft_binary_id *who)
{
	struct weft_server_key key = {};
	struct weft_binary_id *id;

	key.workload = workload;
	key.port = port;
	id = bpf_map_lookup_elem(&weft_port_bins, &key);
	if (!id || !id->inode)
		return 0;
	if (who)
		*who = *id;
	return weft_binary_judge(bpf_map_lookup_elem(&weft_learned, id), WEFT_SIDE_ACCEPTING) ==
	       WEFT_BINARY_ELIGIBLE;
}

/* True if the binary that runs now, as a connecting end, may be spliced. */
static __always_inline int weft_connecting_learned(struct weft_binary_id *id)
{
	const struct inode___wbin *file = NULL;

	return weft_current_binary(id, &file) &&
	       weft_binary_judge(weft_binary_known(id, file), WEFT_SIDE_CONNECTING) ==
		       WEFT_BINARY_ELIGIBLE;
}

/* From now on the socket is watched. False: no room. */
static __always_inline int weft_watch(__u64 cookie, const struct weft_binary_id *binary, __u32 side,
				      __u32 workload, __u16 port)
{
	struct weft_learner learner = {};

	learner.binary = *binary;
	learner.side = side;
	learner.workload = workload;
	learner.port = port;
	return !bpf_map_update_elem(&weft_learners, &cookie, &learner, BPF_ANY);
}

static __always_inline void weft_watched_closes(__u64 cookie)
{
	struct weft_learner *learner = bpf_map_lookup_elem(&weft_learners, &cookie);

	if (!learner)
		return;
	if (weft_learner_closed(learner))
		weft_learner_counts(learner);
	bpf_map_delete_elem(&weft_learners, &cookie);
}

/* Asked of a socket that is in the splice. */
static __always_inline int weft_still_learned(const struct weft_binary_id *id, __u32 side)
{
	if (!id->inode) /* not under `auto` */
		return 1;
	return weft_binary_judge(bpf_map_lookup_elem(&weft_learned, id), side) ==
	       WEFT_BINARY_ELIGIBLE;
}

#endif /* WEFT_BPF_SOCKOPS_LEARNED_H */
