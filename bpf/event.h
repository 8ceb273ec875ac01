/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Flow events: reserve one, fill it, submit it. The event comes zeroed but for time, kind and
 * reason, and counting the reason is part of it, so that one that is lost or beyond its workload's
 * rate is a line less, never a number. */
#ifndef WEFT_BPF_EVENT_H
#define WEFT_BPF_EVENT_H

#include "bpf/maps.h"
#include "bpf/process.h"

#define WEFT_BUCKET_TRIES 4

/* Whether the workload may make another event now; counts it if not. A workload that nobody counts
 * may. */
static __always_inline int weft_may_report(struct weft_activity *activity)
{
	struct weft_process_config *config;
	__u64 due, next, now;
	__u32 zero = 0;
	int i;

	if (!activity)
		return 1;
	config = bpf_map_lookup_elem(&weft_proc_cfg, &zero);
	if (!config || !config->event_interval_ns)
		return 1;
	now = bpf_ktime_get_ns();
	for (i = 0; i < WEFT_BUCKET_TRIES; ++i) {
		due = *(volatile __u64 *)&activity->due_ns;
		next = weft_bucket_take(due, now, config->event_interval_ns,
					config->event_burst_ns);
		if (!next) {
			__sync_fetch_and_add(&activity->suppressed, 1);
			return 0;
		}
		if (__sync_val_compare_and_swap(&activity->due_ns, due, next) == due)
			return 1;
	}
	return 1; /* others took theirs meanwhile: so many at a time is no flood of one CPU's */
}

static __always_inline void weft_note_report(struct weft_activity *activity, int done)
{
	if (activity && done)
		__sync_fetch_and_add(&activity->events, 1);
	else if (activity)
		__sync_fetch_and_add(&activity->lost, 1);
}

/* `workload`: whose event it is, 0: nobody's. NULL: beyond the rate, or the buffer is full. A kill
 * is beyond no rate: where the kernel cannot do it, whoever reads the event does. The caller must
 * hand the result to weft_event_submit. */
static __always_inline struct weft_event *weft_event_new(__u32 kind, __u32 reason, __u32 workload)
{
	struct weft_activity *activity = bpf_map_lookup_elem(&weft_activity, &workload);
	struct weft_event *event;

	weft_count(reason);
	if (reason != WEFT_R_PROCESS_KILLED && !weft_may_report(activity))
		return NULL;
	event = bpf_ringbuf_reserve(&weft_events, sizeof(*event), 0);
	weft_note_report(activity, !!event);
	if (!event)
		return NULL;
	__builtin_memset(event, 0, sizeof(*event));
	event->time_ns = bpf_ktime_get_ns();
	event->kind = kind;
	event->reason = reason;
	return event;
}

/* Who made the socket, and what the process that connected it runs. */
static __always_inline void weft_name_maker(struct weft_event *event,
					    const struct weft_maker *maker)
{
	if (!maker)
		return;
	event->maker_pid = maker->pid;
	event->maker_binary = maker->binary;
	event->binary = maker->user_binary;
}

static __always_inline void weft_event_submit(struct weft_event *event)
{
	bpf_ringbuf_submit(event, 0);
}

#endif /* WEFT_BPF_EVENT_H */
