/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Facts of a task: who it is, what it runs, in which namespaces, with which arguments.
 * Kernel-private fields by CO-RE; the types are flavours (___weft), so that they stand beside those
 * of core.h. Not for user space. */
#ifndef WEFT_BPF_TASK_H
#define WEFT_BPF_TASK_H

#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "bpf/abi.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct qstr___weft {
	__u32 hash;
	__u32 len;
	const unsigned char *name;
};
struct dentry___weft {
	struct dentry___weft *d_parent;
	struct qstr___weft d_name;
};
struct vfsmount___weft {
	struct dentry___weft *mnt_root;
};
struct ns_common___weft {
	unsigned int inum;
};
struct user_namespace___weft {
	struct ns_common___weft ns;
};
struct mnt_namespace___weft {
	struct ns_common___weft ns;
	struct user_namespace___weft *user_ns;
};
struct mount___weft {
	struct mount___weft *mnt_parent;
	struct dentry___weft *mnt_mountpoint;
	struct vfsmount___weft mnt;
	struct mnt_namespace___weft *mnt_ns;
};
struct path___weft {
	struct vfsmount___weft *mnt;
	struct dentry___weft *dentry;
};
struct super_block___weft {
	__u32 s_dev;
};
struct inode___weft {
	unsigned long i_ino;
	struct super_block___weft *i_sb;
};
struct file___weft {
	struct path___weft f_path;
	struct inode___weft *f_inode;
};
struct mm_struct___weft {
	struct file___weft *exe_file;
	unsigned long arg_start, arg_end;
};
struct net___weft {
	__u64 net_cookie;
	struct user_namespace___weft *user_ns;
};
struct nsproxy___weft {
	struct mnt_namespace___weft *mnt_ns;
	struct net___weft *net_ns;
};
struct pid_namespace___weft {
	struct ns_common___weft ns;
};
struct upid___weft {
	int nr;
	struct pid_namespace___weft *ns;
};
struct pid___weft {
	unsigned int level;
	struct upid___weft numbers[1];
};
struct cred___weft {
	struct {
		__u32 val;
	} uid;
};
struct signal_struct___weft {
	struct {
		int counter;
	} live;
};
struct task_struct___weft {
	int tgid, pid;
	int exit_code;
	struct task_struct___weft *group_leader, *real_parent;
	__u64 start_boottime;
	__u64 self_exec_id;
	struct mm_struct___weft *mm;
	struct nsproxy___weft *nsproxy;
	struct pid___weft *thread_pid;
	const struct cred___weft *cred;
	struct signal_struct___weft *signal;
};

#pragma clang attribute pop

#define WEFT_PATH_DEPTH   64  /* names of one path */
#define WEFT_PATH_STEPS   192 /* names and mounts */
#define WEFT_ARGUMENT_MAX 1024

typedef const struct task_struct___weft *weft_task;

/* Room that does not fit on the stack. Preemption may be on where programs run, so that a slot is
 * taken and given back instead of being the CPU's. */
struct weft_scratch {
	__u32 busy;
	__u32 pad;
	struct weft_process process;
	struct weft_program_key program;
	struct weft_binary_key binary;
	struct weft_process_event event;
	__u64 names[WEFT_PATH_DEPTH]; /* from the file up */
	__u32 lengths[WEFT_PATH_DEPTH];
	__u8 text[512];
	__u8 argument[WEFT_ARGUMENT_BYTES];
};

/* Differs between two processes that have the same pid one after the other (within 52 days), and
 * between two programs that one process executes. */
static __always_inline __u32 weft_started_of(weft_task task)
{
	__u64 start_ns = BPF_CORE_READ(task, group_leader, start_boottime);

	return (__u32)(start_ns >> 20) +
	       ((__u32)BPF_CORE_READ(task, group_leader, self_exec_id) << 24);
}

static __always_inline void weft_key_of(weft_task task, struct weft_process_key *key)
{
	key->pid = BPF_CORE_READ(task, tgid);
	key->started = weft_started_of(task);
}

static __always_inline __u64 weft_netns_of(weft_task task)
{
	return BPF_CORE_READ(task, nsproxy, net_ns, net_cookie);
}

static __always_inline __u32 weft_pid_ns_of(weft_task task)
{
	struct pid___weft *pid = BPF_CORE_READ(task, thread_pid);
	__u32 level = BPF_CORE_READ(pid, level);
	struct upid___weft *own;

	own = (struct upid___weft *)((char *)pid +
				     bpf_core_field_offset(struct pid___weft, numbers) +
				     (__u64)level * bpf_core_type_size(struct upid___weft));
	return BPF_CORE_READ(own, ns, ns.inum);
}

enum weft_path_end { WEFT_PATH_LOST = 0, WEFT_PATH_ROOT, WEFT_PATH_DETACHED };
struct weft_climb {
	struct weft_scratch *room;
	struct dentry___weft *dentry;
	struct mount___weft *mount;
	__u32 names;
	__u32 end; /* enum weft_path_end */
};

/* Pointers are copied before BPF_CORE_READ, which would relocate every access of its first
 * argument.
 */
static __always_inline int weft_keep_name(struct weft_climb *climb)
{
	struct dentry___weft *dentry = climb->dentry;
	__u32 at = climb->names;

	if (at >= WEFT_PATH_DEPTH)
		return 0;
	climb->room->names[at] = (__u64)BPF_CORE_READ(dentry, d_name.name);
	climb->room->lengths[at] = BPF_CORE_READ(dentry, d_name.len);
	climb->names = at + 1;
	return 1;
}

static long weft_climb_step(__u32 index, struct weft_climb *climb)
{
	struct dentry___weft *dentry = climb->dentry;
	struct mount___weft *mount = climb->mount;
	struct dentry___weft *parent = BPF_CORE_READ(dentry, d_parent);
	struct mount___weft *above;

	(void)index;
	if (dentry == BPF_CORE_READ(mount, mnt.mnt_root)) {
		above = BPF_CORE_READ(mount, mnt_parent);
		if (!above || above == mount) {
			climb->end = WEFT_PATH_ROOT;
			return 1;
		}
		climb->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
		climb->mount = above;
		return 0;
	}
	if (parent == dentry) { /* a memfd, or moved out of what is mounted */
		weft_keep_name(climb);
		climb->end = WEFT_PATH_DETACHED;
		return 1;
	}
	if (!weft_keep_name(climb))
		return 1;
	climb->dentry = parent;
	return 0;
}

struct weft_spell {
	struct weft_scratch *room;
	__u32 names;
	__u32 at;
	__u32 end;
};

static long weft_spell_step(__u32 index, struct weft_spell *spell)
{
	__u32 which = spell->names - 1 - index;
	__u32 at = spell->at;
	__u32 length;

	if (index >= spell->names || which >= WEFT_PATH_DEPTH || at >= WEFT_PATH_BYTES)
		return 1;
	if (index || spell->end != WEFT_PATH_DETACHED)
		spell->room->text[at++ & 255] = '/';
	length = spell->room->lengths[which] & 255;
	bpf_probe_read_kernel(&spell->room->text[at & 255], length,
			      (void *)spell->room->names[which]);
	spell->at = at + length;
	return 0;
}

/* Whose process a task is: the workload's that it started in, also when it has made itself a netns
 * of its own since. */
struct weft_origin {
	__u64 netns_cookie;
	__u32 workload;
	__u32 user_ns; /* that owns that netns; 0: only known if the task is in it */
};

/* The path of what `task` runs, and whether it can be believed: mounts are the workload's own if
 * its user namespace has made them. The task's current netns says nothing: anybody may have a new
 * one, of a user namespace in which they are root. */
static __always_inline void weft_find_path(weft_task task, struct file___weft *file,
					   struct weft_scratch *room)
{
	struct mnt_namespace___weft *mount_ns = BPF_CORE_READ(task, nsproxy, mnt_ns);
	struct weft_process *process = &room->process;
	struct weft_climb climb = {};
	struct weft_spell spell = {};
	struct mount___weft *top;

	climb.room = room;
	climb.dentry = BPF_CORE_READ(file, f_path.dentry);
	climb.mount = (struct mount___weft *)((char *)BPF_CORE_READ(file, f_path.mnt) -
					      bpf_core_field_offset(struct mount___weft, mnt));
	bpf_loop(WEFT_PATH_STEPS, weft_climb_step, &climb, 0);
	spell.room = room;
	spell.names = climb.names;
	spell.end = climb.end;
	__builtin_memset(room->text, 0, sizeof(room->text));
	bpf_loop(WEFT_PATH_DEPTH, weft_spell_step, &spell, 0);
	__builtin_memcpy(process->path, room->text, sizeof(process->path));
	if (spell.at >= WEFT_PATH_BYTES)
		process->flags |= WEFT_PROCESS_PATH_CUT;
	top = climb.mount;
	/* A detached file has no place; the name it was given must not pass for one. */
	if (climb.end != WEFT_PATH_ROOT || BPF_CORE_READ(top, mnt_ns) != mount_ns ||
	    !process->user_ns || BPF_CORE_READ(mount_ns, user_ns, ns.inum) != process->user_ns)
		process->flags |= WEFT_PROCESS_UNTRUSTED;
}

/* Everything but the numbers that maps give and the arguments. 0: a kernel thread, or it has ended.
 */
static __always_inline int weft_find_process(weft_task task, const struct weft_origin *origin,
					     struct weft_scratch *room)
{
	struct file___weft *file = BPF_CORE_READ(task, mm, exe_file);
	struct weft_process *process = &room->process;
	weft_task parent;

	if (!file)
		return 0;
	__builtin_memset(process, 0, sizeof(*process));
	process->netns_cookie = origin->netns_cookie;
	process->workload = origin->workload;
	process->user_ns = weft_netns_of(task) == origin->netns_cookie
				   ? BPF_CORE_READ(task, nsproxy, net_ns, user_ns, ns.inum)
				   : origin->user_ns;
	process->id.inode = BPF_CORE_READ(file, f_inode, i_ino);
	process->id.device = BPF_CORE_READ(file, f_inode, i_sb, s_dev);
	process->uid = BPF_CORE_READ(task, cred, uid.val);
	process->mount_ns = BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum);
	process->pid_ns = weft_pid_ns_of(task);
	parent = BPF_CORE_READ(task, group_leader, real_parent);
	process->parent = BPF_CORE_READ(parent, tgid);
	process->parent_started = weft_started_of(parent);
	weft_find_path(task, file, room);
	return 1;
}

#endif /* WEFT_BPF_TASK_H */
