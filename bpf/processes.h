/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* process.h and task.h with the kernel's maps behind them: who is the process, what may it do. For
 * programs. A process that cannot be found out (no room to work in) is taken for a program that no
 * rule names, with every argument: what only named programs may do, it may not. */
#ifndef WEFT_BPF_PROCESSES_H
#define WEFT_BPF_PROCESSES_H

#include "bpf/judge.h"
#include "bpf/maps.h"
#include "bpf/process.h"
#include "bpf/task.h"

#define WEFT_SCRATCH_SLOTS 64
#define WEFT_SCRATCH_TRIES 8

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, WEFT_SCRATCH_SLOTS);
	__type(key, __u32);
	__type(value, struct weft_scratch);
} weft_scratches SEC(".maps");

static __always_inline struct weft_scratch *weft_take_scratch(void)
{
	__u32 start = bpf_get_prandom_u32();
	struct weft_scratch *room;
	__u32 slot;
	int i;

	for (i = 0; i < WEFT_SCRATCH_TRIES; ++i) {
		slot = (start + i) % WEFT_SCRATCH_SLOTS;
		room = bpf_map_lookup_elem(&weft_scratches, &slot);
		if (room && !__sync_lock_test_and_set(&room->busy, 1))
			return room;
	}
	return NULL;
}

static __always_inline void weft_give_scratch(struct weft_scratch *room)
{
	__sync_lock_test_and_set(&room->busy, 0);
}

static __always_inline __u32 weft_generation(__u64 epoch)
{
	__u32 zero = 0;

	return weft_class_at(bpf_map_lookup_elem(&weft_proc_gen, &zero), epoch);
}

static __always_inline __u32 weft_arguments_known(void)
{
	__u32 zero = 0;
	struct weft_process_config *config = bpf_map_lookup_elem(&weft_proc_cfg, &zero);

	return config ? config->arguments : 0;
}

/* The number of what process->id and path name; 0: no room. */
static __always_inline __u32 weft_number_binary(struct weft_scratch *room, __u32 workload)
{
	struct weft_process_state *state;
	struct weft_activity *activity;
	struct weft_binary value = {};
	struct weft_binary *found;
	__u32 zero = 0;

	room->binary.id = room->process.id;
	__builtin_memcpy(room->binary.path, room->process.path, sizeof(room->binary.path));
	found = bpf_map_lookup_elem(&weft_binaries, &room->binary);
	if (found)
		return found->number;
	activity = bpf_map_lookup_elem(&weft_activity, &workload);
	state = bpf_map_lookup_elem(&weft_proc_state, &zero);
	if (!state || !activity || activity->binaries >= WEFT_BINARIES_PER_WORKLOAD)
		return 0;
	value.number = __sync_fetch_and_add(&state->last_binary, 1) + 1;
	value.workload = workload;
	if (!bpf_map_update_elem(&weft_binaries, &room->binary, &value, BPF_NOEXIST)) {
		__sync_fetch_and_add(&activity->binaries, 1);
		return value.number;
	}
	found = bpf_map_lookup_elem(&weft_binaries, &room->binary); /* another CPU's? */
	return found ? found->number : 0;
}

struct weft_reading {
	struct weft_scratch *room;
	__u64 at, end;
	__u64 bits;
	__u32 within; /* `at` is not at the start of an argument */
	__u32 failed;
};

static long weft_read_argument(__u32 index, struct weft_reading *reading)
{
	__u8 *text = reading->room->argument;
	__u32 *bit;
	long got;

	(void)index;
	if (reading->at >= reading->end)
		return 1;
	__builtin_memset(text, 0, WEFT_ARGUMENT_BYTES);
	got = bpf_probe_read_user_str(text, WEFT_ARGUMENT_BYTES, (void *)reading->at);
	if (got <= 0) {
		reading->failed = 1;
		return 1;
	}
	if (got == WEFT_ARGUMENT_BYTES) { /* goes on, if only by its zero */
		reading->at += WEFT_ARGUMENT_BYTES - 1;
		reading->within = 1;
		return 0;
	}
	bit = reading->within ? NULL : bpf_map_lookup_elem(&weft_arguments, text);
	if (bit)
		reading->bits |= 1ull << (*bit & 63);
	reading->at += got;
	reading->within = 0;
	return 0;
}

/* Which of the arguments that rules ask for the current process has. */
static __always_inline void weft_find_arguments(weft_task task, struct weft_scratch *room,
						__u64 *bits, __u32 *flags)
{
	struct weft_reading reading = {};

	reading.room = room;
	reading.at = BPF_CORE_READ(task, mm, arg_start);
	reading.end = BPF_CORE_READ(task, mm, arg_end);
	bpf_loop(WEFT_ARGUMENT_MAX, weft_read_argument, &reading, 0);
	*bits = reading.bits;
	if (reading.failed || reading.at < reading.end) {
		*bits = ~0ull;
		*flags |= WEFT_PROCESS_ARGUMENTS_CUT;
	}
}

/* Finds out about `task` and keeps it. `own`: it is the current one, so that its arguments can be
 * read. 0: nobody to keep. room->process is filled if it could
 * be. */
static __always_inline int weft_learn_process(weft_task task, const struct weft_process_key *key,
					      const struct weft_origin *origin, int own,
					      __u32 flags, struct weft_scratch *room)
{
	struct weft_process *process = &room->process;

	if (!weft_find_process(task, origin, room))
		return 0;
	process->flags |= flags;
	process->binary = weft_number_binary(room, origin->workload);
	if (own) {
		process->arguments_known = weft_arguments_known();
		if (process->arguments_known)
			weft_find_arguments(task, room, &process->arguments, &process->flags);
	}
	/* Threads of one process may get here at once: an entry that one of them uses must not be
	 * replaced. At exec there is one thread. */
	bpf_map_update_elem(&weft_processes, key, process,
			    flags & WEFT_PROCESS_SEEN_LATE ? BPF_NOEXIST : BPF_ANY);
	return 1;
}

/* What the current process is to events and rules. */
struct weft_who {
	struct weft_process_key key;
	__u32 binary;
	__u32 program; /* class in `generation` */
	__u32 generation;
	__u32 uid;
	__u64 arguments;
};

/* Generation and class of the program, kept at the process. */
static __always_inline __u64 weft_class_program(struct weft_process *process, __u32 generation,
						struct weft_scratch *room)
{
	__u64 cached = process->program;
	__u32 *number;

	if (cached >> 32 == generation)
		return cached;
	__builtin_memcpy(room->program.path, process->path, sizeof(room->program.path));
	room->program.length = 8 * (sizeof(room->program) - sizeof(__u32));
	room->program.generation = generation;
	number = bpf_map_lookup_elem(&weft_programs, &room->program);
	cached = (__u64)generation << 32;
	if (number && !(process->flags & WEFT_PROCESS_UNTRUSTED))
		cached |= *number;
	process->program = cached;
	return cached;
}

/* Its class where it is asked of a socket of that netns: a path is believed by its own workload. */
static __always_inline __u32 weft_program_in(const struct weft_process *process, __u64 class,
					     __u64 netns_cookie)
{
	return process->netns_cookie == netns_cookie ? (__u32) class : WEFT_PROGRAM_OTHER;
}

/* A process that is known, by who->key: whoever connected a socket of that netns. 0: it has ended,
 * or runs another program. */
__attribute__((noinline)) int weft_look_at_known(struct weft_who *who, __u64 netns_cookie)
{
	struct weft_process *process;
	struct weft_scratch *room;

	if (!who)
		return 0;
	process = bpf_map_lookup_elem(&weft_processes, &who->key);
	if (!process)
		return 0;
	room = weft_take_scratch();
	if (!room)
		return 0;
	who->binary = process->binary;
	who->uid = process->uid;
	who->arguments = process->arguments;
	who->program = weft_program_in(process, weft_class_program(process, who->generation, room),
				       netns_cookie);
	weft_give_scratch(room);
	return 1;
}

/* Who uses a socket of that netns, the workload's. Global, like the functions of judge.h: verified
 * once. Rules that came since the process started may ask for arguments that nobody looked for
 * then: they are looked for now, in its memory. */
__attribute__((noinline)) int weft_look_at_current(__u64 netns_cookie, __u32 workload,
						   struct weft_who *who)
{
	struct weft_origin origin = {};
	weft_task task = (weft_task)bpf_get_current_task();
	struct weft_process *process;
	struct weft_scratch *room;
	__u32 known, flags = 0;
	__u64 bits, cached;

	if (!who)
		return 0;
	weft_key_of(task, &who->key);
	who->program = WEFT_PROGRAM_OTHER;
	who->arguments = ~0ull;
	known = weft_arguments_known();
	process = bpf_map_lookup_elem(&weft_processes, &who->key);
	if (process && process->arguments_known >= known &&
	    process->program >> 32 == who->generation) {
		who->binary = process->binary;
		who->uid = process->uid;
		who->arguments = process->arguments;
		who->program = weft_program_in(process, process->program, netns_cookie);
		return 1;
	}
	room = weft_take_scratch();
	if (!room)
		return 0;
	if (!process) {
		origin.netns_cookie = netns_cookie;
		origin.workload = workload;
		if (!weft_learn_process(task, &who->key, &origin, 1,
					WEFT_PROCESS_SEEN_LATE | WEFT_PROCESS_VISITOR, room)) {
			weft_give_scratch(room);
			return 0;
		}
		process = bpf_map_lookup_elem(&weft_processes, &who->key);
		if (!process)
			process = &room->process; /* no room in the map */
	}
	if (process->arguments_known < known) {
		weft_find_arguments(task, room, &bits, &flags);
		/* Those that were looked for at its exec stay as they were found. */
		bits &= ~0ull << (process->arguments_known & 63);
		__sync_fetch_and_or(&process->arguments, bits);
		process->flags |= flags | WEFT_PROCESS_SEEN_LATE;
		process->arguments_known = known;
	}
	cached = weft_class_program(process, who->generation, room);
	who->binary = process->binary;
	who->uid = process->uid;
	who->arguments = process->arguments;
	who->program = weft_program_in(process, cached, netns_cookie);
	weft_give_scratch(room);
	return 1;
}

__attribute__((noinline)) int weft_find_choice(const struct weft_rule_key *key, __u64 arguments,
					       struct weft_process_answer *out)
{
	struct weft_rules *rules;

	if (!key || !out)
		return 0;
	rules = bpf_map_lookup_elem(&weft_proc_rules, key);
	if (!rules)
		return 0;
	weft_choose(rules, arguments, out);
	return 1;
}

static __always_inline int weft_find_choice_in(void *maps, const struct weft_rule_key *key,
					       __u64 arguments, struct weft_process_answer *out)
{
	(void)maps;
	return weft_find_choice(key, arguments, out);
}

static __always_inline struct weft_watch *weft_watch_of(const struct weft_who *who, __u32 subject)
{
	struct weft_watch_key key = {};

	key.generation = who->generation;
	key.subject = subject;
	return bpf_map_lookup_elem(&weft_watches, &key);
}

static __always_inline void weft_ask(struct weft_process_question *q, const struct weft_who *who,
				     const struct weft_watch *watch,
				     struct weft_process_answer *answer)
{
	q->generation = who->generation;
	q->program = who->program;
	q->arguments = who->arguments;
	weft_judge_process(q, watch, NULL, weft_find_choice_in, answer);
}

struct weft_process_call {
	__u64 epoch; /* that who->generation was read at */
	__u32 subject;
	__u32 service; /* id of an L7 service, 0: none */
	__u32 destination_workload;
	struct weft_addr target;
};

/* May the process connect? Returns answer->action. */
__attribute__((noinline)) int weft_process_verdict(const struct weft_process_call *call,
						   const struct weft_who *who,
						   struct weft_process_answer *answer)
{
	struct weft_process_question q = {};
	struct weft_watch *watch;
	int known = 1;

	if (!call || !who || !answer)
		return WEFT_PROCESS_PASS;
	answer->action = WEFT_PROCESS_PASS;
	answer->rule = 0;
	watch = weft_watch_of(who, call->subject);
	if (!watch)
		return WEFT_PROCESS_PASS;
	q.subject = call->subject;
	if (call->service) {
		q.asks = WEFT_ASKS_SERVICE;
		q.class_number = call->service;
	} else {
		q.asks = WEFT_ASKS_CONNECT;
		q.class_number = weft_class_of(call->target.ip, call->destination_workload,
					       call->epoch, &known);
		q.port = WEFT_HTONS(call->target.port_be);
	}
	weft_ask(&q, who, watch, answer);
	return answer->action;
}

#endif /* WEFT_BPF_PROCESSES_H */
