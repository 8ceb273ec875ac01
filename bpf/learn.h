/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which programs may be spliced under `weft.dev/splice: auto`: pure, from what a program was seen
 * to do with its sockets to a verdict on its binary (DESIGN 4.2). Compiled into the kernel programs
 * and into tests/unit/bpf. Each breaker is a call that answers differently, hangs or misreads once
 * the socket is in the splice; facts/splice.md has the measurement behind each. Watching is
 * sockops/watch.bpf.c's, keeping the verdicts learned.h's. */
#ifndef WEFT_BPF_LEARN_H
#define WEFT_BPF_LEARN_H

#include "bpf/abi.h"

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

/* Add at the end: verdicts outlive the agent. */
#define WEFT_BREAKERS(X)                                                                 \
	X(NONE, "none", "nothing that the splice would change")                          \
	X(BLOCKING_RECEIVE, "blocking_receive", "waits inside recv() or read()")         \
	X(WAITALL, "waitall", "recv(MSG_WAITALL)")                                       \
	X(LOW_WATER, "low_water", "SO_RCVLOWAT above 1")                                 \
	X(SPLICE_FROM, "splice_from", "splice(2) or sendfile(2) from the socket")        \
	X(URGENT, "urgent", "MSG_OOB, or asks for the urgent mark")                      \
	X(DISCARD, "discard", "recv(MSG_TRUNC), which discards")                         \
	X(PEEK, "peek", "recv(MSG_PEEK) of more than one byte")                          \
	X(PENDING_COUNT, "pending_count", "FIONREAD or TCP_INQ")                         \
	X(ZEROCOPY_SEND, "zerocopy_send", "send(MSG_ZEROCOPY), which wants completions") \
	X(ZEROCOPY_RECEIVE, "zerocopy_receive", "TCP_ZEROCOPY_RECEIVE")                  \
	X(TCP_INFO, "tcp_info", "reads TCP's own counts (TCP_INFO)")                     \
	X(ULP, "ulp", "an upper layer protocol on the socket, such as kernel TLS")       \
	X(IO_URING, "io_uring", "uses io_uring")

enum weft_breaker {
#define X(name, text, meaning) WEFT_BREAKER_##name,
	WEFT_BREAKERS(X)
#undef X
		WEFT_BREAKER_MAX
};

enum weft_learned_state {
	WEFT_BINARY_LEARNING = 0,
	WEFT_BINARY_ELIGIBLE,
	WEFT_BINARY_INELIGIBLE,
};

/* So many connections of a binary, each received on, must be seen without a breaker before its next
 * ones may be spliced; the two sides count by themselves. Servers accept in the thousands, so few
 * are lost; a program that does something special does it on its first connections or on all. */
#define WEFT_LEARN_CONNECTIONS 8
/* A connection counts when it closes, or after so many receives: pools keep theirs for hours. */
#define WEFT_LEARN_RECEIVES 16

#define WEFT_MSG_OOB              0x1u
#define WEFT_MSG_PEEK             0x2u
#define WEFT_MSG_TRUNC            0x20u
#define WEFT_MSG_DONTWAIT         0x40u
#define WEFT_MSG_WAITALL          0x100u
#define WEFT_MSG_ZEROCOPY         0x4000000u
#define WEFT_FIONREAD             0x541Bu
#define WEFT_SIOCATMARK           0x8905u
#define WEFT_SOL_TCP              6
#define WEFT_TCP_INFO             11
#define WEFT_TCP_ULP              31
#define WEFT_TCP_ZEROCOPY_RECEIVE 35
#define WEFT_TCP_INQ              36
#define WEFT_SOL_SOCKET_LEVEL     1
#define WEFT_SO_RCVLOWAT          18

/* What is known of one receive. */
struct weft_receive {
	__u32 flags; /* with MSG_DONTWAIT if the file is O_NONBLOCK, as the kernel does it */
	__u64 size;
	__u32 low_water; /* the socket's */
	__u32 io_uring;  /* its task has one */
};

static __always_inline __u32 weft_receive_breaks(const struct weft_receive *r)
{
	if (r->flags & WEFT_MSG_OOB)
		return WEFT_BREAKER_URGENT;
	if (r->flags & WEFT_MSG_TRUNC)
		return WEFT_BREAKER_DISCARD;
	if (!(r->flags & WEFT_MSG_DONTWAIT))
		return r->flags & WEFT_MSG_WAITALL ? WEFT_BREAKER_WAITALL
						   : WEFT_BREAKER_BLOCKING_RECEIVE;
	/* One byte is how programs ask whether the peer has closed: it shows by either path. */
	if ((r->flags & WEFT_MSG_PEEK) && r->size > 1)
		return WEFT_BREAKER_PEEK;
	if (r->low_water > 1)
		return WEFT_BREAKER_LOW_WATER;
	if (r->io_uring)
		return WEFT_BREAKER_IO_URING;
	return WEFT_BREAKER_NONE;
}

static __always_inline __u32 weft_send_breaks(__u32 flags)
{
	if (flags & WEFT_MSG_OOB)
		return WEFT_BREAKER_URGENT;
	if (flags & WEFT_MSG_ZEROCOPY)
		return WEFT_BREAKER_ZEROCOPY_SEND;
	return WEFT_BREAKER_NONE;
}

static __always_inline __u32 weft_ioctl_breaks(__u32 command)
{
	if (command == WEFT_FIONREAD)
		return WEFT_BREAKER_PENDING_COUNT;
	if (command == WEFT_SIOCATMARK)
		return WEFT_BREAKER_URGENT;
	return WEFT_BREAKER_NONE;
}

static __always_inline __u32 weft_getsockopt_breaks(int level, int option)
{
	if (level != WEFT_SOL_TCP)
		return WEFT_BREAKER_NONE;
	if (option == WEFT_TCP_ZEROCOPY_RECEIVE)
		return WEFT_BREAKER_ZEROCOPY_RECEIVE;
	if (option == WEFT_TCP_INFO)
		return WEFT_BREAKER_TCP_INFO;
	return WEFT_BREAKER_NONE;
}

static __always_inline __u32 weft_setsockopt_breaks(int level, int option, int value)
{
	if (level == WEFT_SOL_SOCKET_LEVEL && option == WEFT_SO_RCVLOWAT)
		return value > 1 ? WEFT_BREAKER_LOW_WATER : WEFT_BREAKER_NONE;
	if (level != WEFT_SOL_TCP)
		return WEFT_BREAKER_NONE;
	if (option == WEFT_TCP_INQ)
		return value ? WEFT_BREAKER_PENDING_COUNT : WEFT_BREAKER_NONE;
	return option == WEFT_TCP_ULP ? WEFT_BREAKER_ULP : WEFT_BREAKER_NONE;
}

static __always_inline int weft_binary_equal(const struct weft_binary_id *a,
					     const struct weft_binary_id *b)
{
	return a->inode == b->inode && a->device == b->device;
}

/* The verdict; `binary` NULL: never seen. */
static __always_inline __u32 weft_binary_judge(const struct weft_learned *binary, __u32 side)
{
	if (!binary || side >= WEFT_SIDES)
		return WEFT_BINARY_LEARNING;
	if (binary->breaker != WEFT_BREAKER_NONE)
		return WEFT_BINARY_INELIGIBLE;
	return binary->seen[side] >= WEFT_LEARN_CONNECTIONS ? WEFT_BINARY_ELIGIBLE
							    : WEFT_BINARY_LEARNING;
}

/* One more receive on a connection that is being learned. True if it counts from now on. */
static __always_inline int weft_learner_received(struct weft_learner *learner)
{
	if (learner->flags & WEFT_LEARNER_COUNTED)
		return 0;
	learner->receives += 1;
	if (learner->receives < WEFT_LEARN_RECEIVES)
		return 0;
	learner->flags |= WEFT_LEARNER_COUNTED;
	return 1;
}

/* The connection closes. True if it counts: somebody has received on it. */
static __always_inline int weft_learner_closed(struct weft_learner *learner)
{
	if ((learner->flags & WEFT_LEARNER_COUNTED) || !learner->receives)
		return 0;
	learner->flags |= WEFT_LEARNER_COUNTED;
	return 1;
}

#endif /* WEFT_BPF_LEARN_H */
