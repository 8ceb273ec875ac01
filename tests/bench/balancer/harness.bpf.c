// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* What surrounds a balancer program in the benchmark: makes the packet as it was before the last
 * run (which encapsulated it), gives it the next flow, and jumps. The same wrapper that jumps to an
 * empty program is what gets subtracted; adjust_head is called either way, with 0 there. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "tests/bench/balancer/harness.h"

char LICENSE[] SEC("license") = "GPL";

struct bench_harness harness;

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} jump SEC(".maps");

SEC("xdp")
int bench_wrapper(struct xdp_md *ctx)
{
	long grown = (long)ctx->data_end - (long)ctx->data - BENCH_FRAME_BYTES;
	__u64 index = harness.next;
	__u64 *data;
	__u32 flow;

	harness.next = index + 1 == harness.flows ? 0 : index + 1;
	if (bpf_xdp_adjust_head(ctx, (int)grown))
		return XDP_ABORTED;
	data = (__u64 *)(long)ctx->data;
	if ((__u8 *)data + BENCH_FRAME_BYTES > (__u8 *)(long)ctx->data_end)
		return XDP_ABORTED;
	for (int i = 0; i < BENCH_FRAME_BYTES / 8; i++)
		data[i] = harness.frame[i];
	flow = harness.first + __builtin_bswap32((__u32)index);
	if (harness.v6)
		*(__u32 *)((__u8 *)data + 34) = flow; /* the last word of the source */
	else
		*(__u32 *)((__u8 *)data + 26) = flow;
	bpf_tail_call(ctx, &jump, 0);
	return XDP_ABORTED;
}

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} jump_tc SEC(".maps");

/* The same for tc, for packets that are passed on as they are. */
SEC("tcx/ingress")
int bench_wrapper_tc(struct __sk_buff *ctx)
{
	__u64 *data = (__u64 *)(long)ctx->data;

	if ((__u8 *)data + BENCH_FRAME_BYTES > (__u8 *)(long)ctx->data_end)
		return TC_ACT_SHOT;
	for (int i = 0; i < BENCH_FRAME_BYTES / 8; i++)
		data[i] = harness.frame[i];
	bpf_tail_call(ctx, &jump_tc, 0);
	return TC_ACT_SHOT;
}

SEC("tcx/ingress")
int bench_empty_tc(struct __sk_buff *ctx)
{
	(void)ctx;
	return TC_ACT_REDIRECT;
}

SEC("xdp")
int bench_empty(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_TX;
}
