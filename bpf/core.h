/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The few kernel-private fields that the splice, the iterator and connect read, relocated by CO-RE
 * against the running kernel. Only these fields: everything else comes from UAPI contexts. Not for
 * user space. */
#ifndef WEFT_BPF_CORE_H
#define WEFT_BPF_CORE_H

#include <linux/types.h>
#include <stdbool.h>

#define WEFT_O_NONBLOCK 04000u
#define WEFT_SOCK_DONE  1 /* bit of skc_flags: the peer's FIN has come */

/* Copied as a whole, so its own members are not relocated. */
struct weft_core_in6 {
	__u32 words[4];
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct list_head {
	struct list_head *next;
};
struct wait_queue_head {
	struct list_head head;
};
struct wait_queue_entry {
	void *func;
	struct list_head entry;
};
struct socket_wq {
	struct wait_queue_head wait;
};
struct file {
	unsigned int f_flags;
};
struct socket {
	struct file *file;
};

struct weft_core_atomic {
	int counter;
};
struct weft_core_atomic64 {
	long long counter;
};
struct weft_core_backlog {
	struct weft_core_atomic rmem_alloc;
};
struct weft_core_lock {
	int owned;
};

struct sock_common {
	unsigned char skc_state;
	__u16 skc_num; /* local port, host order */
	__be16 skc_dport;
	struct weft_core_in6 skc_v6_daddr; /* IPv4 mapped: the kernel keeps it for AF_INET too */
	struct weft_core_in6 skc_v6_rcv_saddr;
	struct weft_core_atomic64 skc_cookie;
	unsigned long skc_flags;
};
struct sock {
	struct sock_common __sk_common;
	struct weft_core_backlog sk_backlog;
	int sk_rcvbuf;
	int sk_rcvlowat;
	struct weft_core_lock sk_lock;
	struct socket_wq *sk_wq;
	struct socket *sk_socket;
};
struct tcp_sock {
	__u32 snd_una;
	__u32 write_seq;
	__u32 copied_seq;
	__u32 rcv_nxt;
	__u32 rcv_wup; /* rcv_nxt when rcv_wnd was told to the sender */
	__u32 rcv_wnd;
	__u64 bytes_sent; /* payload, with what was sent again */
	__u64 bytes_retrans;
	__u64 bytes_received; /* counts a FIN as a byte */
};

struct task_struct {
	struct task_struct *group_leader;
	__u64 start_boottime;
	__u64 self_exec_id; /* counts exec() */
};

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
};

#pragma clang attribute pop

#endif /* WEFT_BPF_CORE_H */
