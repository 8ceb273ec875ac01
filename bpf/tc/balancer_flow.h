/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The connection table's buckets: five flows that share a hash, looked up with their whole key.
 * Pure. A flow is NEW with its first packet, LIVE with its second that is no SYN, CLOSING once its
 * client sent FIN or RST. A newcomer takes a free place, an expired flow's, or that of the flow
 * which has been NEW longest; never that of one which is LIVE or CLOSING: it then stays without an
 * entry and is picked from the ring with every packet. Hence no flood of first packets evicts a
 * flow that was ever LIVE. */
#ifndef WEFT_BPF_TC_BALANCER_FLOW_H
#define WEFT_BPF_TC_BALANCER_FLOW_H

#include "bpf/address.h"
#include "bpf/tc/balancer_abi.h"

#ifdef __clang__
#define WEFT_LB_UNROLL _Pragma("clang loop unroll(full)")
#else
#define WEFT_LB_UNROLL
#endif

enum weft_lb_kind {
	WEFT_LB_OPEN,  /* SYN alone */
	WEFT_LB_DATA,  /* TCP, anything else */
	WEFT_LB_CLOSE, /* FIN or RST */
	WEFT_LB_DATAGRAM
};

static __always_inline __u32 weft_lb_value(__u32 state, __u32 backend, __u16 tick)
{
	return state << 30 | backend << 16 | tick;
}
static __always_inline __u32 weft_lb_value_backend(__u32 value)
{
	return (value >> 16) & (WEFT_LB_BACKENDS - 1);
}
static __always_inline __u32 weft_lb_value_state(__u32 value)
{
	return value >> 30;
}
static __always_inline __u16 weft_lb_age(__u32 value, __u16 now)
{
	return (__u16)(now - (__u16)value);
}

static __always_inline int weft_lb_expired(__u32 value, __u16 now,
					   const struct weft_lb_config *config)
{
	return weft_lb_age(value, now) > config->expiry[weft_lb_value_state(value)];
}

static __always_inline int weft_lb_is_live(__u32 value)
{
	__u32 state = weft_lb_value_state(value);

	return state == WEFT_LB_FLOW_LIVE || state == WEFT_LB_FLOW_LIVE_DATAGRAM;
}

/* Whether the flow's next packet may go where the last one went. */
static __always_inline int weft_lb_keeps(__u32 value, __u16 now, __u32 kind, __u8 backend_state,
					 const struct weft_lb_config *config)
{
	if (backend_state == WEFT_LB_GONE || weft_lb_expired(value, now, config))
		return 0;
	if (kind != WEFT_LB_OPEN)
		return 1;
	/* A SYN within a live flow gets the backend's challenge ACK (RFC 5961), even while that
	 * drains: it may be spoofed. A real one comes again after the client's RST. */
	if (weft_lb_value_state(value) == WEFT_LB_FLOW_CLOSING)
		return 0;
	return backend_state == WEFT_LB_ACTIVE || weft_lb_is_live(value);
}

static __always_inline __u32 weft_lb_next_value(__u32 value, __u32 kind, __u16 now)
{
	__u32 state = weft_lb_value_state(value);

	if (kind == WEFT_LB_CLOSE)
		state = WEFT_LB_FLOW_CLOSING;
	else if (kind != WEFT_LB_OPEN && state == WEFT_LB_FLOW_NEW)
		state = kind == WEFT_LB_DATAGRAM ? WEFT_LB_FLOW_LIVE_DATAGRAM : WEFT_LB_FLOW_LIVE;
	return weft_lb_value(state, weft_lb_value_backend(value), now);
}

/* How willingly a place is given to a newcomer: 0 never. Expired and free come first. */
static __always_inline __u32 weft_lb_yield(__u32 value, __u16 now,
					   const struct weft_lb_config *config)
{
	if (weft_lb_expired(value, now, config))
		return 0x20000;
	return weft_lb_value_state(value) == WEFT_LB_FLOW_NEW ? 1u + weft_lb_age(value, now) : 0;
}

#define WEFT_LB_NO_WAY WEFT_LB_WAYS

static __always_inline __u32 weft_lb_find4(const struct weft_lb_bucket4 *bucket, __u64 key)
{
	WEFT_LB_UNROLL
	for (__u32 way = 0; way < WEFT_LB_WAYS; way++)
		if (bucket->key[way] == key)
			return way;
	return WEFT_LB_NO_WAY;
}

static __always_inline __u32 weft_lb_find6(const struct weft_lb_bucket6 *bucket, __u64 hi, __u64 lo,
					   __u32 key)
{
	WEFT_LB_UNROLL
	for (__u32 way = 0; way < WEFT_LB_WAYS; way++)
		if (bucket->key[way] == key && bucket->hi[way] == hi && bucket->lo[way] == lo)
			return way;
	return WEFT_LB_NO_WAY;
}

/* The place for a newcomer, or WEFT_LB_NO_WAY. Bit i of `free_ways`: place i has no flow. */
static __always_inline __u32 weft_lb_place(const __u32 *values, __u32 free_ways, __u16 now,
					   const struct weft_lb_config *config)
{
	__u32 best = 0, place = WEFT_LB_NO_WAY;

	WEFT_LB_UNROLL
	for (__u32 way = 0; way < WEFT_LB_WAYS; way++) {
		__u32 yield =
			free_ways >> way & 1 ? 0x40000u : weft_lb_yield(values[way], now, config);

		if (yield > best) {
			best = yield;
			place = way;
		}
	}
	return place;
}

static __always_inline __u32 weft_lb_place4(const struct weft_lb_bucket4 *bucket, __u16 now,
					    const struct weft_lb_config *config)
{
	__u32 free_ways = 0;

	WEFT_LB_UNROLL
	for (__u32 way = 0; way < WEFT_LB_WAYS; way++)
		free_ways |= (__u32)!bucket->key[way] << way;
	return weft_lb_place(bucket->value, free_ways, now, config);
}

static __always_inline __u32 weft_lb_place6(const struct weft_lb_bucket6 *bucket, __u16 now,
					    const struct weft_lb_config *config)
{
	__u32 free_ways = 0;

	WEFT_LB_UNROLL
	for (__u32 way = 0; way < WEFT_LB_WAYS; way++)
		free_ways |= (__u32)!bucket->key[way] << way;
	return weft_lb_place(bucket->value, free_ways, now, config);
}

#endif /* WEFT_BPF_TC_BALANCER_FLOW_H */
