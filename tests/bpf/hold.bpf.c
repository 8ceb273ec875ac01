// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* For tests: holds a connect() between our program's answer and the moment at which the socket can
 * be found by a walk. Attached at the same cgroup after ours, so it runs after it. Waits for
 * hold_release, at most some seconds. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define ROUNDS 256
#define SPINS  (1 << 20)

char LICENSE[] SEC("license") = "GPL";

__u64 hold_netns_cookie = 0; /* whose connects are held */
__u32 hold_entered = 0;      /* connects that came here */
__u32 hold_release = 0;

static long weft_spin(__u32 index, void *context)
{
	(void)index;
	(void)context;
	return *(volatile __u32 *)&hold_release ? 1 : 0;
}

static long weft_spin_round(__u32 index, void *context)
{
	(void)index;
	bpf_loop(SPINS, weft_spin, context, 0);
	return *(volatile __u32 *)&hold_release ? 1 : 0;
}

SEC("cgroup/connect4")
int weft_hold(struct bpf_sock_addr *ctx)
{
	if (bpf_get_netns_cookie(ctx) != hold_netns_cookie)
		return 1;
	__sync_fetch_and_add(&hold_entered, 1);
	bpf_loop(ROUNDS, weft_spin_round, NULL, 0);
	return 1;
}
