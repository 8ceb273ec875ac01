/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which endpoint of a service a connect() gets. Pure: the same header runs in connect.bpf.c and in
 * tests/unit/bpf, each with lookups of its own. Weights, preference of the own node or zone, and
 * draining are in the ring already (control/bpf/balance_pool, control/agent/kernel_services): here
 * is one throw, or a hash of the client, and the affinity that comes before both. */
#ifndef WEFT_BPF_BALANCE_H
#define WEFT_BPF_BALANCE_H

#include "bpf/address.h"

/* A cell of weft_cells, as whoever includes this header reaches it; NULL: there is none. */
typedef const union weft_cell *(*weft_find_cell)(void *maps, __u32 at);

/* One question. `first`: weft_pools[slot], read once. */
struct weft_throw {
	__u32 first;
	__u32 service;
	const __u8 *client; /* the source's own address, 16 bytes */
	const struct weft_addr *vip;
	__u64 now_ns;
	__u32 random;
};

/* What it got. */
struct weft_pick {
	struct weft_addr addr;
	__u32 index;
	__u32 affinity_s; /* of the pool; 0: nothing has to be remembered */
};

static __always_inline __u64 weft_balance_mix(__u64 x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static __always_inline __u64 weft_balance_half(const __u8 *ip, int half)
{
	return (__u64)weft_word(ip, 2 * half) << 32 | weft_word(ip, 2 * half + 1);
}

/* Of an address and a port: the same on every node and after every restart. */
static __always_inline __u64 weft_balance_hash(const __u8 *ip, __be16 port_be, __u64 seed)
{
	seed = weft_balance_mix(seed + weft_balance_half(ip, 0) + 0x9e3779b97f4a7c15ull);
	seed = weft_balance_mix(seed + weft_balance_half(ip, 1) + 0x9e3779b97f4a7c15ull);
	return weft_balance_mix(seed + port_be);
}

/* NULL: no endpoint, or not this service's pool (which the writer does not let happen). */
static __always_inline const struct weft_pool *weft_pool_of(const struct weft_throw *ask,
							    void *maps, weft_find_cell find_cell)
{
	const union weft_cell *cell = ask->first ? find_cell(maps, ask->first) : 0;

	return cell && cell->pool.service == ask->service ? &cell->pool : 0;
}

static __always_inline int weft_take_backend(const struct weft_throw *ask,
					     const struct weft_pool *pool, __u32 index, void *maps,
					     weft_find_cell find_cell, struct weft_pick *out)
{
	const union weft_cell *cell;

	if (index >= pool->backends)
		return 0;
	cell = find_cell(maps, ask->first + 1 + index);
	if (!cell || !(cell->backend.flags & WEFT_BACKEND_SERVES))
		return 0;
	out->addr = cell->backend.addr;
	out->index = index;
	out->affinity_s = pool->affinity_s;
	return 1;
}

/* By the ring. 0: no endpoint. */
static __always_inline int weft_throw_ring(const struct weft_throw *ask,
					   const struct weft_pool *pool, void *maps,
					   weft_find_cell find_cell, struct weft_pick *out)
{
	const union weft_cell *cell;
	__u64 chance = ask->random;
	__u32 at;

	if (!pool->ring)
		return 0;
	if (pool->flags & WEFT_POOL_MAGLEV)
		chance = weft_balance_hash(ask->client, 0,
					   weft_balance_hash(ask->vip->ip, ask->vip->port_be, 0)) >>
			 32;
	at = (__u32)((chance * pool->ring) >> 32);
	cell = find_cell(maps, ask->first + 1 + pool->backends + at / WEFT_RING_IN_CELL);
	if (!cell)
		return 0;
	return weft_take_backend(ask, pool, cell->ring[at % WEFT_RING_IN_CELL], maps, find_cell,
				 out);
}

/* What the client had before, if its time has not run out and the endpoint still takes connections.
 * `known` may be changing under us, into another client's even: whatever it says, only an endpoint
 * that the pool has at that index with that address is taken, from the pool. */
static __always_inline int weft_keep_backend(const struct weft_throw *ask,
					     const struct weft_pool *pool,
					     const struct weft_affinity *known, void *maps,
					     weft_find_cell find_cell, struct weft_pick *out)
{
	/* Another CPU may have used it after we read the clock. */
	__u64 idle_ns = known->used_ns < ask->now_ns ? ask->now_ns - known->used_ns : 0;
	struct weft_addr addr = known->addr;

	if (idle_ns > pool->affinity_s * 1000000000ull)
		return 0;
	if (!weft_take_backend(ask, pool, known->index, maps, find_cell, out))
		return 0;
	return weft_ip_equal(out->addr.ip, addr.ip) && out->addr.port_be == addr.port_be;
}

#endif /* WEFT_BPF_BALANCE_H */
