/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The balancer's maps and its decision, the same for tc and XDP: which backend gets a packet, or
 * why none does. No helper is called on the path of a packet with ports (the CPU's number and
 * jiffies are inlined by the verifier). What is rare (ICMP, fragments) is out of line. */
#ifndef WEFT_BPF_TC_BALANCER_CORE_H
#define WEFT_BPF_TC_BALANCER_CORE_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "bpf/tc/balancer_encap.h"
#include "bpf/tc/balancer_quic.h"

#define WEFT_LB_COLD static __attribute__((noinline))

/* Everything user space decides. Zero: no VIP. The only variable in .bss, hence a map of its own,
 * read without a lookup. */
struct weft_lb_tables weft_lb;

/* Sizes are user space's; the CPU with number n has the n-th part of each. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct weft_lb_bucket4);
} weft_lb_flows4 SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct weft_lb_bucket6);
} weft_lb_flows6 SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct weft_lb_fragment);
} weft_lb_frags SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct weft_lb_traffic);
} weft_lb_traffic SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct weft_lb_counts);
} weft_lb_counts SEC(".maps");

struct weft_lb_chunk {
	__u16 backend[WEFT_LB_CHUNK];
};
/* All rings, and tables of QUIC servers, by (offset, entries). Written only where no VIP points. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct weft_lb_chunk);
} weft_lb_rings SEC(".maps");

const volatile __u32 cfg_flow4_bits = 0; /* log2 of buckets per CPU */
const volatile __u32 cfg_flow6_bits = 0;
const volatile __u32 cfg_cpus = 1;
const volatile __u32 cfg_tick_shift = 0; /* jiffies to ticks of about half a second */
const volatile __u64 cfg_secret[2] = {}; /* of the flow hash */

enum weft_lb_action { WEFT_LB_PASS, WEFT_LB_DROP, WEFT_LB_SEND, WEFT_LB_TOO_BIG };

struct weft_lb_decision {
	__u32 action;
	__u32 backend; /* SEND */
	__u32 entropy; /* the same for all packets of a flow */
	__u32 inner_bytes;
	__u32 limit; /* TOO_BIG: the largest packet that would do */
	__u8 encap;
	__u8 inner_v6;
	__u8 tos;
};

struct weft_lb_frame {
	__u8 *l3;
	__u8 *end;       /* of what can be read */
	__u32 l3_bytes;  /* of the frame from l3 on, readable or not */
	__u32 gso_bytes; /* payload of a segment on the wire if it was merged (GRO), else 0 */
};

static __always_inline __u16 weft_lb_now(void)
{
	return (__u16)(bpf_jiffies64() >> cfg_tick_shift);
}

static __always_inline void weft_lb_count(__u32 reason)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct weft_lb_counts *counts = bpf_map_lookup_elem(&weft_lb_counts, &cpu);

	if (counts)
		counts->of[reason & 31]++;
}

static __always_inline struct weft_lb_traffic *weft_lb_traffic_of(__u32 vip)
{
	__u32 index = bpf_get_smp_processor_id() * WEFT_LB_VIPS + vip;

	return bpf_map_lookup_elem(&weft_lb_traffic, &index);
}

/* Entry `at` of the shared array. */
static __always_inline __u32 weft_lb_ring_entry(__u32 at)
{
	__u32 index = at / WEFT_LB_CHUNK;
	struct weft_lb_chunk *chunk = bpf_map_lookup_elem(&weft_lb_rings, &index);

	return chunk ? chunk->backend[at % WEFT_LB_CHUNK] & (WEFT_LB_BACKENDS - 1) : 0;
}

/* A backend for a flow that has none, 0 if the VIP has none. */
static __always_inline __u32 weft_lb_pick(const struct weft_lb_packet *packet,
					  const struct weft_lb_vip *vip)
{
	__u64 ring = *(volatile __u64 *)&vip->ring;
	__u16 port_be = vip->flags & WEFT_LB_VIP_AFFINITY ? 0 : packet->src_port_be;
	__u64 seed = weft_lb.config.ring_seed;

	if (!(__u32)ring)
		return 0;
	return weft_lb_ring_entry(weft_lb_ring_at(
		ring, packet->v6 ? weft_lb_ring_hash6(packet->src_hi, packet->src_lo, port_be, seed)
				 : weft_lb_ring_hash4((__u32)packet->src_lo, port_be, seed)));
}

static __always_inline const struct weft_lb_backend *weft_lb_backend_of(__u32 backend)
{
	return &weft_lb.backends[backend & (WEFT_LB_BACKENDS - 1)];
}

/* Refreshes a flow that is found: its backend, 0 if it must get another one. */
static __always_inline __u32 weft_lb_keep(__u32 *flow, __u32 kind, __u16 now)
{
	__u32 value = *flow, backend = weft_lb_value_backend(value);
	__u32 next = weft_lb_next_value(value, kind, now);

	if (!weft_lb_keeps(value, now, kind, weft_lb_backend_of(backend)->state, &weft_lb.config))
		return 0;
	if (next != value)
		*flow = next;
	return backend;
}

/* From the ring; `old`: the value of the flow's entry, 0 if it has none. */
static __always_inline __u32 weft_lb_pick_anew(const struct weft_lb_packet *packet, __u32 vip,
					       __u32 old, struct weft_lb_traffic *traffic)
{
	__u32 backend = weft_lb_pick(packet, &weft_lb.vips[vip & (WEFT_LB_VIPS - 1)]);

	traffic->flows += backend != 0;
	if (old && weft_lb_value_backend(old) != backend)
		weft_lb_count(WEFT_LB_FLOW_MOVED);
	return backend;
}

/* Whether this packet makes an entry: there is a place, and the flow goes on. */
static __always_inline int weft_lb_enters(__u32 way, __u32 backend, __u32 kind)
{
	if (!backend || kind == WEFT_LB_CLOSE)
		return 0;
	if (way >= WEFT_LB_WAYS)
		weft_lb_count(WEFT_LB_FLOW_UNTRACKED);
	return way < WEFT_LB_WAYS;
}

/* The verifier follows each of the five places on its own through all that comes after, unless it
 * cannot know which one it is: a zero that it must take for anything. */
#define WEFT_LB_FORGET(way, bucket) (((way) | (bucket)->zero) & 7)

struct weft_lb_search {
	__u64 src_hi, src_lo, hash;
	__u32 rest; /* client port << 16 | VIP */
	__u32 v6;
	__u32 backend;
};

static __always_inline int weft_lb_found(struct weft_lb_search *search, __u32 value)
{
	__u32 backend = weft_lb_value_backend(value);

	if (weft_lb_backend_of(backend)->state == WEFT_LB_GONE ||
	    weft_lb_expired(value, weft_lb_now(), &weft_lb.config))
		return 0;
	search->backend = backend;
	return 1;
}

static long weft_lb_search_cpu(__u64 cpu, void *context)
{
	struct weft_lb_search *search = context;
	__u32 low = (__u32)search->hash, way;

	if (search->v6) {
		__u32 index = ((__u32)cpu << cfg_flow6_bits) | (low & ((1u << cfg_flow6_bits) - 1));
		struct weft_lb_bucket6 *bucket = bpf_map_lookup_elem(&weft_lb_flows6, &index);

		if (!bucket)
			return 1;
		way = WEFT_LB_FORGET(
			weft_lb_find6(bucket, search->src_hi, search->src_lo, search->rest),
			bucket);
		return way < WEFT_LB_WAYS && weft_lb_found(search, bucket->value[way]);
	} else {
		__u32 index = ((__u32)cpu << cfg_flow4_bits) | (low & ((1u << cfg_flow4_bits) - 1));
		struct weft_lb_bucket4 *bucket = bpf_map_lookup_elem(&weft_lb_flows4, &index);

		if (!bucket)
			return 1;
		way = WEFT_LB_FORGET(weft_lb_find4(bucket, search->src_lo << 32 | search->rest),
				     bucket);
		return way < WEFT_LB_WAYS && weft_lb_found(search, bucket->value[way]);
	}
}

WEFT_LB_COLD __u32 weft_lb_search_all(struct weft_lb_search *search)
{
	bpf_loop(cfg_cpus, weft_lb_search_cpu, search, 0);
	return search->backend;
}

/* The backend of a flow that any CPU knows, 0 if none does. */
static __always_inline __u32 weft_lb_search(const struct weft_lb_packet *packet, __u32 vip,
					    __u64 hash)
{
	struct weft_lb_search search = {
		.src_hi = packet->src_hi,
		.src_lo = packet->src_lo,
		.hash = hash,
		.rest = (__u32)packet->src_port_be << 16 | vip,
		.v6 = packet->v6,
	};

	return weft_lb_search_all(&search);
}

/* A packet within a flow that this CPU does not know may belong to one that another CPU does: the
 * NIC's spreading was changed, or a sender of this node moved. Where the VIP never changed, the
 * ring says the same and nobody need be asked. 0: pick. */
static __always_inline __u32 weft_lb_adopt(const struct weft_lb_packet *packet, __u32 vip,
					   __u64 hash)
{
	if (packet->kind == WEFT_LB_OPEN ||
	    !(weft_lb.vips[vip & (WEFT_LB_VIPS - 1)].flags & WEFT_LB_VIP_CHANGED))
		return 0;
	return weft_lb_search(packet, vip, hash);
}

/* Entries are written key last: other CPUs read them to deliver ICMP errors. */
static __always_inline __u32 weft_lb_track4(const struct weft_lb_packet *packet, __u32 vip,
					    __u64 hash, struct weft_lb_traffic *traffic)
{
	__u64 key = packet->src_lo << 32 | (__u32)packet->src_port_be << 16 | vip;
	__u32 index = (bpf_get_smp_processor_id() << cfg_flow4_bits) |
		      ((__u32)hash & ((1u << cfg_flow4_bits) - 1));
	struct weft_lb_bucket4 *bucket = bpf_map_lookup_elem(&weft_lb_flows4, &index);
	__u32 way, backend = 0, old = 0;
	__u16 now = weft_lb_now();

	if (!bucket)
		return 0;
	way = WEFT_LB_FORGET(weft_lb_find4(bucket, key), bucket);
	if (way < WEFT_LB_WAYS) {
		backend = weft_lb_keep(&bucket->value[way], packet->kind, now);
		if (backend)
			return backend;
		old = bucket->value[way];
	} else {
		way = WEFT_LB_FORGET(weft_lb_place4(bucket, now, &weft_lb.config), bucket);
		backend = weft_lb_adopt(packet, vip, hash);
	}
	if (!backend)
		backend = weft_lb_pick_anew(packet, vip, old, traffic);
	if (weft_lb_enters(way, backend, packet->kind)) {
		*(volatile __u64 *)&bucket->key[way] = 0;
		*(volatile __u32 *)&bucket->value[way] =
			weft_lb_value(WEFT_LB_FLOW_NEW, backend, now);
		*(volatile __u64 *)&bucket->key[way] = key;
	}
	return backend;
}

static __always_inline __u32 weft_lb_track6(const struct weft_lb_packet *packet, __u32 vip,
					    __u64 hash, struct weft_lb_traffic *traffic)
{
	__u32 key = (__u32)packet->src_port_be << 16 | vip;
	__u32 index = (bpf_get_smp_processor_id() << cfg_flow6_bits) |
		      ((__u32)hash & ((1u << cfg_flow6_bits) - 1));
	struct weft_lb_bucket6 *bucket = bpf_map_lookup_elem(&weft_lb_flows6, &index);
	__u32 way, backend = 0, old = 0;
	__u16 now = weft_lb_now();

	if (!bucket)
		return 0;
	way = WEFT_LB_FORGET(weft_lb_find6(bucket, packet->src_hi, packet->src_lo, key), bucket);
	if (way < WEFT_LB_WAYS) {
		backend = weft_lb_keep(&bucket->value[way], packet->kind, now);
		if (backend)
			return backend;
		old = bucket->value[way];
	} else {
		way = WEFT_LB_FORGET(weft_lb_place6(bucket, now, &weft_lb.config), bucket);
		backend = weft_lb_adopt(packet, vip, hash);
	}
	if (!backend)
		backend = weft_lb_pick_anew(packet, vip, old, traffic);
	if (weft_lb_enters(way, backend, packet->kind)) {
		*(volatile __u32 *)&bucket->key[way] = 0;
		bucket->hi[way] = packet->src_hi;
		bucket->lo[way] = packet->src_lo;
		*(volatile __u32 *)&bucket->value[way] =
			weft_lb_value(WEFT_LB_FLOW_NEW, backend, now);
		*(volatile __u32 *)&bucket->key[way] = key;
	}
	return backend;
}

static __always_inline __u64 weft_lb_flow_hash(const struct weft_lb_packet *packet, __u32 vip)
{
	__u32 rest = (__u32)packet->src_port_be << 16 | vip;

	if (packet->v6)
		return weft_lb_mix6(packet->src_hi, packet->src_lo, rest, cfg_secret[0],
				    cfg_secret[1]);
	return weft_lb_mix(packet->src_lo << 32 | rest, cfg_secret[0], cfg_secret[1]);
}

static __always_inline __u32 weft_lb_vip_of(const struct weft_lb_packet *packet, __u32 service)
{
	if (packet->v6)
		return weft_lb_find_vip(&weft_lb,
					weft_lb_vip_hash6(packet->dst_hi, packet->dst_lo, service),
					packet->dst_hi, packet->dst_lo, service);
	return weft_lb_find_vip(&weft_lb, weft_lb_vip_hash4((__u32)packet->dst_lo, service), 0,
				weft_lb_mapped((__u32)packet->dst_lo), service);
}

/* The backend that a QUIC packet's connection id names, 0 if none. */
static __always_inline __u32 weft_lb_quic(const struct weft_lb_packet *packet,
					  const struct weft_lb_vip *vip, const __u8 *end)
{
	__u64 servers = *(volatile __u64 *)&vip->servers;
	__u32 server = weft_lb_quic_server(packet->l4 + 8, end, vip->quic_config);
	__u32 backend;

	if (server >= (__u32)servers)
		return 0;
	backend = weft_lb_ring_entry((__u32)(servers >> 32) + server);
	return weft_lb_backend_of(backend)->state == WEFT_LB_GONE ? 0 : backend;
}

/* The backend for a packet with ports to VIP `vip`, counted; 0: none. */
static __always_inline __u32 weft_lb_to_vip(const struct weft_lb_packet *packet, __u32 vip,
					    __u64 hash, const __u8 *end)
{
	const struct weft_lb_vip *entry = &weft_lb.vips[vip & (WEFT_LB_VIPS - 1)];
	struct weft_lb_traffic *traffic = weft_lb_traffic_of(vip);
	__u32 backend = 0;

	if (!traffic)
		return 0;
	traffic->packets++;
	traffic->bytes += packet->inner_bytes;
	if (entry->flags & WEFT_LB_VIP_QUIC) {
		backend = weft_lb_quic(packet, entry, end);
		if (backend)
			weft_lb_count(WEFT_LB_QUIC_ROUTED);
	}
	if (!backend)
		backend = packet->v6 ? weft_lb_track6(packet, vip, hash, traffic)
				     : weft_lb_track4(packet, vip, hash, traffic);
	if (!backend) {
		traffic->refused++;
		weft_lb_count(WEFT_LB_DROP_NO_BACKEND);
	}
	return backend;
}

#endif /* WEFT_BPF_TC_BALANCER_CORE_H */
