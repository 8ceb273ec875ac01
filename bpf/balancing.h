/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* balance.h with the kernel's maps behind it: an endpoint for a connect(), and what is remembered
 * of it. For connect.bpf.c. */
#ifndef WEFT_BPF_BALANCING_H
#define WEFT_BPF_BALANCING_H

#include "bpf/balance.h"
#include "bpf/maps.h"
#include "bpf/verdict.h"

static __always_inline const union weft_cell *weft_cell_in_map(void *maps, __u32 at)
{
	(void)maps;
	return bpf_map_lookup_elem(&weft_cells, &at);
}

static __always_inline void weft_remember_backend(const struct weft_affinity_key *key,
						  const struct weft_pick *pick, __u64 now_ns,
						  __u64 flags)
{
	struct weft_affinity value = {};

	value.addr = pick->addr;
	value.index = pick->index;
	value.used_ns = now_ns;
	/* Fails if another CPU was first (BPF_NOEXIST) or has no room: costs affinity only. */
	bpf_map_update_elem(&weft_affinity, key, &value, flags);
}

static __always_inline int weft_pick_with_affinity(struct weft_throw *ask,
						   const struct weft_pool *pool,
						   const struct weft_affinity_key *key,
						   struct weft_pick *pick)
{
	struct weft_affinity *known = bpf_map_lookup_elem(&weft_affinity, key);

	if (known && weft_keep_backend(ask, pool, known, NULL, weft_cell_in_map, pick)) {
		known->used_ns = ask->now_ns;
		return 1;
	}
	if (!weft_throw_ring(ask, pool, NULL, weft_cell_in_map, pick))
		return 0;
	weft_remember_backend(key, pick, ask->now_ns, known ? BPF_ANY : BPF_NOEXIST);
	if (known)
		return 1;
	/* Of several first connects at once, all go where the first one went. */
	known = bpf_map_lookup_elem(&weft_affinity, key);
	if (known && weft_keep_backend(ask, pool, known, NULL, weft_cell_in_map, pick))
		return 1;
	return weft_throw_ring(ask, pool, NULL, weft_cell_in_map, pick);
}

/* An endpoint of an L4 service; `picked` stays zero if it has none. A frame of its own, for the
 * stack. */
static __attribute__((noinline)) void weft_pick_backend(const struct weft_service *service,
							const struct weft_workload *workload,
							const struct weft_addr *asked,
							struct weft_addr *picked)
{
	struct weft_affinity_key key = {};
	const struct weft_pool *pool;
	struct weft_throw ask = {};
	struct weft_pick pick = {};
	__u32 slot = service->slot;
	__u64 *first;
	int found;

	if (service->flags & WEFT_SVC_L7)
		return;
	first = bpf_map_lookup_elem(&weft_pools, &slot);
	if (!first)
		return;
	ask.first = (__u32) * (volatile __u64 *)first;
	ask.service = service->id;
	ask.client = weft_own_ip(workload, asked->ip);
	ask.vip = asked;
	ask.random = bpf_get_prandom_u32();
	pool = weft_pool_of(&ask, NULL, weft_cell_in_map);
	if (!pool)
		return;
	if (pool->affinity_s) {
		ask.now_ns = bpf_ktime_get_ns();
		key.workload = workload->id;
		key.generation = workload->generation;
		key.service = service->id;
		found = weft_pick_with_affinity(&ask, pool, &key, &pick);
	} else {
		found = weft_throw_ring(&ask, pool, NULL, weft_cell_in_map, &pick);
	}
	if (found)
		*picked = pick.addr;
}

#endif /* WEFT_BPF_BALANCING_H */
