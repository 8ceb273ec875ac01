// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Processes of enrolled workloads: knows them from fork() or exec() on, reports exec() and the end,
 * asks process policy at exec(). Hooks: raw tracepoints, which no workload can be without; a
 * process that policy has killed at exec() never runs an instruction of its new program. Acts only
 * on netns that are enrolled. weft_scan (iter/task) finds those that ran before. Fails open: a
 * process that is not known here is found out when it connects. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "bpf/event.h"
#include "bpf/processes.h"

#define WEFT_SIGKILL 9

char LICENSE[] SEC("license") = "GPL";

struct task_struct;
struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
} __attribute__((preserve_access_index));

/* Set by user space before a run of weft_scan: the netns to look for. */
__u64 scan_netns_cookie = 0;
__u32 scan_found = 0;

static __always_inline void weft_fill_event(struct weft_process_event *event, __u32 kind,
					    const struct weft_process_key *key,
					    const struct weft_process *process)
{
	event->time_ns = bpf_ktime_get_ns();
	event->cgroup = bpf_get_current_cgroup_id();
	event->kind = kind;
	event->reason = WEFT_R_NONE;
	event->rule = 0;
	event->pid = key->pid;
	event->started = key->started;
	event->netns_cookie = process->netns_cookie;
	event->id = process->id;
	event->workload = process->workload;
	event->uid = process->uid;
	event->binary = process->binary;
	event->mount_ns = process->mount_ns;
	event->pid_ns = process->pid_ns;
	event->flags = process->flags;
	event->exit_code = 0;
	event->argument_bytes = 0;
	event->pad = 0;
	__builtin_memcpy(event->path, process->path, sizeof(event->path));
	bpf_get_current_comm(event->comm, sizeof(event->comm));
}

/* As far as they are enrolled too; the first always. */
static __always_inline void weft_find_parents(weft_task task, struct weft_process_event *event)
{
	struct weft_process_key key = {};
	struct weft_process *known;
	weft_task parent = task;
	int i;

	__builtin_memset(event->parents, 0, sizeof(event->parents));
	for (i = 0; i < WEFT_ANCESTORS; ++i) {
		parent = BPF_CORE_READ(parent, group_leader, real_parent);
		weft_key_of(parent, &key);
		known = bpf_map_lookup_elem(&weft_processes, &key);
		if (i && !known)
			return;
		event->parents[i].pid = key.pid;
		event->parents[i].binary = known ? known->binary : 0;
	}
}

static __always_inline void weft_send(struct weft_process_event *event, __u32 argument_bytes)
{
	struct weft_activity *activity = bpf_map_lookup_elem(&weft_activity, &event->workload);
	__u32 size = __builtin_offsetof(struct weft_process_event, arguments);

	if (event->reason != WEFT_R_NONE)
		weft_count(event->reason);
	if (!weft_may_report(activity))
		return;
	event->argument_bytes = argument_bytes;
	if (argument_bytes <= WEFT_EVENT_ARGUMENT_BYTES)
		size += argument_bytes;
	weft_note_report(activity, !bpf_ringbuf_output(&weft_proc_events, event, size, 0));
}

/* What policy says of a program that starts. */
static __always_inline void weft_police_exec(const struct weft_process_key *key, __u32 workload,
					     struct weft_scratch *room)
{
	struct weft_process_answer answer = {};
	struct weft_process_question q = {};
	struct weft_who who = {};
	struct weft_watch *watch;

	who.key = *key;
	who.generation = weft_generation(weft_epoch_now());
	who.arguments = room->process.arguments;
	watch = weft_watch_of(&who, workload);
	if (!watch || !(watch->flags & WEFT_WATCH_EXEC))
		return;
	who.program = (__u32)weft_class_program(&room->process, who.generation, room);
	q.subject = workload;
	q.asks = WEFT_ASKS_EXEC;
	weft_ask(&q, &who, watch, &answer);
	if (answer.action == WEFT_PROCESS_PASS)
		return;
	room->event.rule = answer.rule;
	room->event.reason = WEFT_R_PROCESS_MATCHED;
	if (answer.action == WEFT_PROCESS_LOG)
		return;
	room->event.reason = WEFT_R_PROCESS_KILLED;
	bpf_send_signal(WEFT_SIGKILL);
}

static __always_inline void weft_report_exec(weft_task task, const struct weft_process_key *key,
					     __u32 workload, struct weft_scratch *room)
{
	struct weft_process_event *event = &room->event;
	__u64 start = BPF_CORE_READ(task, mm, arg_start);
	__u64 length = BPF_CORE_READ(task, mm, arg_end) - start;
	__u32 bytes = WEFT_EVENT_ARGUMENT_BYTES;

	weft_fill_event(event, WEFT_EVENT_EXEC, key, &room->process);
	weft_find_parents(task, event);
	weft_police_exec(key, workload, room);
	if (length <= WEFT_EVENT_ARGUMENT_BYTES)
		bytes = (__u32)length;
	else
		event->flags |= WEFT_EVENT_ARGUMENTS_CUT;
	if (bytes && bpf_probe_read_user(event->arguments, bytes, (void *)start))
		bytes = 0;
	weft_send(event, bytes);
}

/* Whose it is, by the netns it is in or by what is known of it: one that leaves for a netns that is
 * nobody's, which anybody may make, stays the workload's. 0: nobody's. */
static __always_inline int weft_find_origin(__u64 netns_cookie, const struct weft_process *known,
					    struct weft_origin *origin)
{
	struct weft_workload *workload = weft_workload_of(netns_cookie);

	if (!workload && known && !(known->flags & WEFT_PROCESS_VISITOR)) {
		netns_cookie = known->netns_cookie;
		workload = weft_workload_of(netns_cookie);
	}
	if (!workload)
		return 0;
	origin->netns_cookie = netns_cookie;
	origin->workload = workload->id;
	if (known && known->netns_cookie == netns_cookie)
		origin->user_ns = known->user_ns;
	return 1;
}

SEC("raw_tp/sched_process_exec")
int weft_exec(struct bpf_raw_tracepoint_args *ctx)
{
	weft_task task = (weft_task)ctx->args[0];
	struct weft_process_key key = {}, before = {};
	struct weft_origin origin = {};
	struct weft_scratch *room;
	int known;

	weft_key_of(task, &key);
	before.pid = key.pid;
	before.started = key.started - (1u << 24); /* what it ran until now */
	known = weft_find_origin(weft_netns_of(task), bpf_map_lookup_elem(&weft_processes, &before),
				 &origin);
	bpf_map_delete_elem(&weft_processes, &before);
	if (!known)
		return 0;
	room = weft_take_scratch();
	if (!room)
		return 0;
	if (weft_learn_process(task, &key, &origin, 1, 0, room))
		weft_report_exec(task, &key, origin.workload, room);
	weft_give_scratch(room);
	return 0;
}

SEC("raw_tp/sched_process_fork")
int weft_fork(struct bpf_raw_tracepoint_args *ctx)
{
	weft_task parent = (weft_task)ctx->args[0];
	weft_task child = (weft_task)ctx->args[1];
	struct weft_process_key from = {}, to = {};
	struct weft_origin origin = {};
	struct weft_process *process;

	weft_key_of(parent, &from);
	weft_key_of(child, &to);
	if (from.pid == to.pid) /* a thread */
		return 0;
	process = bpf_map_lookup_elem(&weft_processes, &from);
	if (!process)
		return 0;
	if (!weft_find_origin(weft_netns_of(child), process, &origin) ||
	    bpf_map_update_elem(&weft_processes, &to, process, BPF_ANY))
		return 0;
	process = bpf_map_lookup_elem(&weft_processes, &to);
	if (!process)
		return 0;
	if (process->netns_cookie !=
	    origin.netns_cookie) { /* it was another one's when it was looked at */
		process->flags |= WEFT_PROCESS_UNTRUSTED;
		process->program = 0;
	}
	process->netns_cookie = origin.netns_cookie;
	process->workload = origin.workload;
	process->user_ns = origin.user_ns;
	process->parent = from.pid;
	process->parent_started = from.started;
	process->pid_ns = weft_pid_ns_of(child);
	process->mount_ns = BPF_CORE_READ(child, nsproxy, mnt_ns, ns.inum);
	return 0;
}

SEC("raw_tp/sched_process_exit")
int weft_exit(struct bpf_raw_tracepoint_args *ctx)
{
	weft_task task = (weft_task)ctx->args[0];
	struct weft_process_key key = {};
	struct weft_process *process;
	struct weft_scratch *room;

	if (BPF_CORE_READ(task, signal, live.counter))
		return 0; /* other threads go on */
	weft_key_of(task, &key);
	process = bpf_map_lookup_elem(&weft_processes, &key);
	if (!process)
		return 0;
	room = weft_take_scratch();
	if (room) {
		weft_fill_event(&room->event, WEFT_EVENT_EXIT, &key, process);
		weft_find_parents(task, &room->event);
		room->event.exit_code = BPF_CORE_READ(task, exit_code);
	}
	/* Two threads may both see that they are the last. */
	if (!bpf_map_delete_elem(&weft_processes, &key) && room)
		weft_send(&room->event, 0);
	if (room)
		weft_give_scratch(room);
	return 0;
}

SEC("iter/task")
int weft_scan(struct bpf_iter__task *ctx)
{
	weft_task task = (weft_task)ctx->task;
	struct weft_process_key key = {};
	struct weft_workload *workload;
	struct weft_origin origin = {};
	struct weft_scratch *room;

	if (!task || BPF_CORE_READ(task, pid) != BPF_CORE_READ(task, tgid) ||
	    weft_netns_of(task) != scan_netns_cookie)
		return 0;
	workload = weft_workload_of(scan_netns_cookie);
	weft_key_of(task, &key);
	if (!workload || bpf_map_lookup_elem(&weft_processes, &key))
		return 0;
	room = weft_take_scratch();
	if (!room)
		return 0;
	origin.netns_cookie = scan_netns_cookie;
	origin.workload = workload->id;
	if (weft_learn_process(task, &key, &origin, 0, WEFT_PROCESS_SEEN_LATE, room))
		__sync_fetch_and_add(&scan_found, 1);
	weft_give_scratch(room);
	return 0;
}
