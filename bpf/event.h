/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Flow events: reserve one, fill it, submit it. The event comes zeroed but for time, kind and
 * reason, and counting the reason is part of it, so that a full ring buffer loses a line, never a
 * number. */
#ifndef WEFT_BPF_EVENT_H
#define WEFT_BPF_EVENT_H

#include "bpf/maps.h"

/* NULL if the buffer is full. The caller must hand the result to weft_event_submit. */
static __always_inline struct weft_event *weft_event_new(__u32 kind, __u32 reason)
{
	struct weft_event *event;

	weft_count(reason);
	event = bpf_ringbuf_reserve(&weft_events, sizeof(*event), 0);
	if (!event)
		return NULL;
	__builtin_memset(event, 0, sizeof(*event));
	event->time_ns = bpf_ktime_get_ns();
	event->kind = kind;
	event->reason = reason;
	return event;
}

static __always_inline void weft_event_submit(struct weft_event *event)
{
	bpf_ringbuf_submit(event, 0);
}

#endif /* WEFT_BPF_EVENT_H */
