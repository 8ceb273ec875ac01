// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Watches what programs do with the sockets of workloads under `splice: auto` (DESIGN 4.2): counts
 * connections on which a binary received without doing what the splice breaks (learn.h), and takes
 * its verdict back at once when it does: then senders on its live sockets fall back to TCP with the
 * next message (weft_unlearned). Bytes that are in the splice's queue at that moment stay there.
 *
 * Hook: raw tracepoint sys_enter (typed), attached by control/bpf only while a workload is under
 * `auto`. It looks at the few calls that matter, and at those only if their descriptor is a watched
 * socket. What a program means to hide, by exchanging the descriptor meanwhile, deceives itself
 * alone. Of io_uring only its use is seen, which is enough to keep the program out; so are programs
 * whose calls are not the kernel's native ones (32 bit): none of their receives is seen, so none
 * counts. Fails open: not seen, not learned, not spliced. */
#include <linux/bpf.h>
#include <linux/ptrace.h>
#include <asm/unistd.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "bpf/sockops/learned.h"
#include "bpf/splice.h"

#define WEFT_TS_COMPAT 2u
#define WEFT_ANY_SIZE  (1ull << 30) /* of a call whose size is in the program's memory */

char LICENSE[] SEC("license") = "GPL";

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct fdtable___watch {
	unsigned int max_fds;
	struct file___watch **fd;
};
struct files_struct___watch {
	struct fdtable___watch *fdt;
};
struct thread_info___watch {
	__u32 status;
};
struct task_struct___watch {
	struct thread_info___watch thread_info;
	struct files_struct___watch *files;
	void *io_uring;
};
struct file___watch {
	void *private_data;
	unsigned int f_flags;
};
struct socket___watch {
	struct file___watch *file;
	struct sock *sk;
};

#pragma clang attribute pop

/* One call on a watched socket. */
struct weft_watched {
	struct weft_learner *learner;
	struct sock *sk;
	__u32 non_blocking; /* MSG_DONTWAIT or 0 */
};

static __always_inline int weft_find(__u64 number, struct weft_watched *out)
{
	const struct task_struct___watch *task = (const void *)bpf_get_current_task_btf();
	struct files_struct___watch *files = task->files;
	struct fdtable___watch *table = files ? files->fdt : NULL;
	struct socket___watch *socket;
	struct file___watch *file;
	struct sock *sk;
	__u64 cookie;

	number = (__u32)number;
	if (!table || number >= table->max_fds)
		return 0;
	if (bpf_probe_read_kernel(&file, sizeof(file), &table->fd[number]) || !file)
		return 0;
	/* Whether it is a socket at all is asked of what seems to be one: most are none. */
	socket = BPF_CORE_READ(file, private_data);
	if (!socket)
		return 0;
	sk = BPF_CORE_READ(socket, sk);
	cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	if (!cookie)
		return 0;
	out->learner = bpf_map_lookup_elem(&weft_learners, &cookie);
	if (!out->learner || BPF_CORE_READ(socket, file) != file)
		return 0;
	out->sk = sk;
	out->non_blocking = BPF_CORE_READ(file, f_flags) & WEFT_O_NONBLOCK ? WEFT_MSG_DONTWAIT : 0;
	return 1;
}

static __always_inline void weft_broke(__u32 breaker)
{
	const struct inode___wbin *file = NULL;
	struct weft_binary_id id = {};
	struct weft_learned *binary;

	if (breaker == WEFT_BREAKER_NONE || !weft_current_binary(&id, &file))
		return;
	binary = weft_binary_known(&id, file);
	if (binary && binary->breaker == WEFT_BREAKER_NONE) {
		binary->breaker = breaker;
		weft_unlearn();
	}
}

/* Somebody else receives than was known: so for the sender in the splice, and for the port. */
static __always_inline void weft_changes_hands(const struct sock *sk, struct weft_learner *learner,
					       const struct weft_binary_id *id)
{
	struct weft_binary_id *of_port, several = {};
	struct weft_server_key port = {};
	struct weft_flow flow = {};
	struct weft_end *end;

	learner->binary = *id;
	if (learner->side == WEFT_SIDE_ACCEPTING) {
		port.workload = learner->workload;
		port.port = learner->port;
		of_port = bpf_map_lookup_elem(&weft_port_bins, &port);
		if (!of_port)
			bpf_map_update_elem(&weft_port_bins, &port, id, BPF_ANY);
		else if (of_port->inode && !weft_binary_equal(of_port, id))
			bpf_map_update_elem(&weft_port_bins, &port, &several, BPF_ANY);
	}
	weft_flow_of_sock(sk, &flow);
	end = bpf_map_lookup_elem(&weft_ends, &flow);
	if (end && end->sock == (__u64)sk) {
		end->binary = *id;
		weft_unlearn();
	}
}

static __always_inline void weft_received(struct weft_watched *on)
{
	const struct inode___wbin *file = NULL;
	struct weft_binary_id id = {};

	if (!weft_current_binary(&id, &file))
		return;
	if (!weft_binary_equal(&on->learner->binary, &id)) {
		weft_binary_known(&id, file);
		weft_changes_hands(on->sk, on->learner, &id);
	}
	if (weft_learner_received(on->learner))
		weft_learner_counts(on->learner);
}

static __always_inline void weft_receives(__u64 fd, __u32 flags, __u64 size)
{
	const struct task_struct___watch *task = (const void *)bpf_get_current_task_btf();
	struct weft_receive receive = {};
	struct weft_watched on = {};
	const struct sock *sk;
	__u32 breaker;

	if (!weft_find(fd, &on))
		return;
	sk = on.sk;
	receive.flags = flags | on.non_blocking;
	receive.size = size;
	receive.low_water = BPF_CORE_READ(sk, sk_rcvlowat);
	receive.io_uring = task->io_uring != NULL;
	breaker = weft_receive_breaks(&receive);
	if (breaker == WEFT_BREAKER_NONE)
		weft_received(&on);
	else
		weft_broke(breaker);
}

static __always_inline void weft_breaks(__u64 fd, __u32 breaker)
{
	struct weft_watched on = {};

	if (breaker != WEFT_BREAKER_NONE && weft_find(fd, &on))
		weft_broke(breaker);
}

static __always_inline void weft_sets_option(const struct pt_regs *regs)
{
	int value = 0;

	if (PT_REGS_PARM2_SYSCALL(regs) != WEFT_SOL_SOCKET_LEVEL &&
	    PT_REGS_PARM2_SYSCALL(regs) != WEFT_SOL_TCP)
		return;
	bpf_probe_read_user(&value, sizeof(value), (void *)PT_REGS_PARM4_SYSCALL(regs));
	weft_breaks(PT_REGS_PARM1_SYSCALL(regs),
		    weft_setsockopt_breaks(PT_REGS_PARM2_SYSCALL(regs), PT_REGS_PARM3_SYSCALL(regs),
					   value));
}

/* A program that has a watched socket, or had one, uses io_uring. */
static __always_inline void weft_uses_io_uring(void)
{
	const struct inode___wbin *file = NULL;
	struct weft_binary_id id = {};

	if (weft_current_binary(&id, &file) && bpf_map_lookup_elem(&weft_learned, &id))
		weft_broke(WEFT_BREAKER_IO_URING);
}

static __always_inline int weft_matters(long number)
{
	switch (number) {
	case __NR_read:
	case __NR_readv:
	case __NR_recvfrom:
	case __NR_recvmsg:
	case __NR_recvmmsg:
	case __NR_sendto:
	case __NR_sendmsg:
	case __NR_sendmmsg:
	case __NR_ioctl:
	case __NR_getsockopt:
	case __NR_setsockopt:
	case __NR_splice:
	case __NR_sendfile:
	case __NR_io_uring_setup:
	case __NR_io_uring_enter:
		return 1;
	default:
		return 0;
	}
}

static __always_inline void weft_look_at(long number, const struct pt_regs *regs)
{
	__u64 fd = PT_REGS_PARM1_SYSCALL(regs), third = PT_REGS_PARM3_SYSCALL(regs);

	switch (number) {
	case __NR_read:
		return weft_receives(fd, 0, third);
	case __NR_readv:
		return weft_receives(fd, 0, WEFT_ANY_SIZE);
	case __NR_recvfrom:
		return weft_receives(fd, PT_REGS_PARM4_SYSCALL(regs), third);
	case __NR_recvmsg:
		return weft_receives(fd, third, WEFT_ANY_SIZE);
	case __NR_recvmmsg:
		return weft_receives(fd, PT_REGS_PARM4_SYSCALL(regs), WEFT_ANY_SIZE);
	case __NR_sendto:
	case __NR_sendmmsg:
		return weft_breaks(fd, weft_send_breaks(PT_REGS_PARM4_SYSCALL(regs)));
	case __NR_sendmsg:
		return weft_breaks(fd, weft_send_breaks(third));
	case __NR_ioctl:
		return weft_breaks(fd, weft_ioctl_breaks(PT_REGS_PARM2_SYSCALL(regs)));
	case __NR_getsockopt:
		return weft_breaks(fd, weft_getsockopt_breaks(PT_REGS_PARM2_SYSCALL(regs), third));
	case __NR_setsockopt:
		return weft_sets_option(regs);
	case __NR_splice:
		return weft_breaks(fd, WEFT_BREAKER_SPLICE_FROM);
	case __NR_sendfile:
		return weft_breaks(PT_REGS_PARM2_SYSCALL(regs), WEFT_BREAKER_SPLICE_FROM);
	default:
		return weft_uses_io_uring();
	}
}

SEC("tp_btf/sys_enter")
int weft_sys_enter(__u64 *ctx)
{
	const struct task_struct___watch *task;
	long number = ctx[1];

	if (!weft_matters(number))
		return 0;
	task = (const void *)bpf_get_current_task_btf();
	if (bpf_core_field_exists(task->thread_info.status) &&
	    (task->thread_info.status & WEFT_TS_COMPAT))
		return 0;
	weft_look_at(number, (const struct pt_regs *)ctx[0]);
	return 0;
}
