/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The binary of the process that runs now: device and inode of its executable, and when that file
 * was changed last. Kernel-private fields by CO-RE, in types of this file's own (libbpf drops what
 * follows ___). Not for user space. */
#ifndef WEFT_BPF_BINARY_H
#define WEFT_BPF_BINARY_H

#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "bpf/abi.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct weft_timespec {
	long long tv_sec;
	long tv_nsec;
};
struct super_block___wbin {
	__u32 s_dev;
};
struct inode___wbin {
	unsigned long i_ino;
	struct super_block___wbin *i_sb;
};
struct inode___wbin_6_11 {
	long long i_ctime_sec;
	__u32 i_ctime_nsec;
};
struct inode___wbin_6_6 {
	struct weft_timespec __i_ctime;
};
struct inode___wbin_old {
	struct weft_timespec i_ctime;
};
struct file___wbin {
	struct inode___wbin *f_inode;
};
struct mm_struct___wbin {
	struct file___wbin *exe_file;
};
struct task_struct___wbin {
	struct mm_struct___wbin *mm;
};

#pragma clang attribute pop

static __always_inline __u64 weft_changed_ns(const struct inode___wbin *inode)
{
	const struct inode___wbin_6_11 *now = (const void *)inode;
	const struct inode___wbin_6_6 *between = (const void *)inode;
	const struct inode___wbin_old *old = (const void *)inode;
	struct weft_timespec at = {};

	if (bpf_core_field_exists(now->i_ctime_sec))
		return BPF_CORE_READ(now, i_ctime_sec) * 1000000000ull +
		       BPF_CORE_READ(now, i_ctime_nsec);
	if (bpf_core_field_exists(between->__i_ctime))
		bpf_core_read(&at, sizeof(at), &between->__i_ctime);
	else if (bpf_core_field_exists(old->i_ctime))
		bpf_core_read(&at, sizeof(at), &old->i_ctime);
	return at.tv_sec * 1000000000ull + at.tv_nsec;
}

/* False: a kernel thread. */
static __always_inline int weft_current_binary(struct weft_binary_id *id,
					       const struct inode___wbin **file)
{
	const struct task_struct___wbin *task = (const void *)bpf_get_current_task();
	const struct inode___wbin *inode = BPF_CORE_READ(task, mm, exe_file, f_inode);

	if (!inode)
		return 0;
	id->inode = BPF_CORE_READ(inode, i_ino);
	id->device = BPF_CORE_READ(inode, i_sb, s_dev);
	id->pad = 0;
	*file = inode;
	return 1;
}

#endif /* WEFT_BPF_BINARY_H */
