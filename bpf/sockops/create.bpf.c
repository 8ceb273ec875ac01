// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Stamps a socket of an enrolled netns with the process that makes it, so that events name it also
 * when another process uses the socket later, or after it has ended. What may connect is asked of
 * the process that connects (connect.bpf.c). Hook: cgroup/sock_create at the cgroup2 root. Fails
 * open: an event that names no maker. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "bpf/processes.h"

char LICENSE[] SEC("license") = "GPL";

SEC("cgroup/sock_create")
int weft_create(struct bpf_sock *ctx)
{
	__u64 netns_cookie = bpf_get_netns_cookie(ctx);
	struct weft_workload *workload = weft_workload_of(netns_cookie);
	struct weft_maker *maker;
	struct weft_who who = {};

	if (!workload)
		return 1;
	who.generation = weft_generation(weft_epoch_now());
	if (!weft_look_at_current(netns_cookie, workload->id, &who))
		return 1;
	maker = bpf_sk_storage_get(&weft_makers, ctx, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!maker)
		return 1;
	maker->pid = who.key.pid;
	maker->started = who.key.started;
	maker->binary = who.binary;
	maker->uid = who.uid;
	return 1;
}
