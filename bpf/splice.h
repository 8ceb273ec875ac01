/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What sockops.bpf.c and late.bpf.c share: which sockets may enter the splice (DESIGN 4.1: only
 * those whose reader does not block) and how they are entered. Keys are the socket's own flow by
 * 16-byte addresses and both ports, never by family. */
#ifndef WEFT_BPF_SPLICE_H
#define WEFT_BPF_SPLICE_H

#include <bpf/bpf_core_read.h>

#include "bpf/address.h"
#include "bpf/core.h"
#include "bpf/maps.h"

/* 1: O_NONBLOCK, 0: blocking, -1: no file (not accepted yet, or closed). */
static __always_inline int weft_non_blocking(const struct sock *sk)
{
	struct socket *socket = BPF_CORE_READ(sk, sk_socket);
	struct file *file;

	if (!socket)
		return -1;
	file = BPF_CORE_READ(socket, file);
	if (!file)
		return -1;
	return !!(BPF_CORE_READ(file, f_flags) & WEFT_O_NONBLOCK);
}

/* Writes where the sender finds the socket; must precede its entry in weft_splice. */
static __always_inline long weft_announce_end(const struct weft_flow *flow, const void *sk,
					      __u64 cookie)
{
	struct weft_end end = {};

	end.sock = (__u64)sk;
	end.cookie = cookie;
	return bpf_map_update_elem(&weft_ends, flow, &end, BPF_ANY);
}

#endif /* WEFT_BPF_SPLICE_H */
