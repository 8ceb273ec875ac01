/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Between harness.bpf.c and the benchmark. */
#ifndef WEFT_TESTS_BENCH_BALANCER_HARNESS_H
#define WEFT_TESTS_BENCH_BALANCER_HARNESS_H

#include <linux/types.h>

#define BENCH_FRAME_BYTES 80 /* Ethernet, IPv6 and TCP headers, rounded up */

struct bench_harness {
  __u64 frame[BENCH_FRAME_BYTES / 8];
  __u64 next;
  __u64 flows;
  __u32 v6;
  __u32 first; /* what the number of a flow, in network order, is added to in the source */
};

#endif
