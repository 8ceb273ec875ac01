/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The balancer's hashes and the lookup of a VIP. Pure: user space uses the same functions to place
 * VIPs, and the host tests include it. Flow hashes are keyed by secrets of the node (nobody can aim
 * at a bucket), ring hashes by the fleet's seed (all nodes pick alike). */
#ifndef WEFT_BPF_TC_BALANCER_HASH_H
#define WEFT_BPF_TC_BALANCER_HASH_H

#include "bpf/address.h"
#include "bpf/tc/balancer_abi.h"

#define WEFT_LB_MIX_A 0x9e3779b97f4a7c15ull
#define WEFT_LB_MIX_B 0xd6e8feb86659fd93ull

static __always_inline __u64 weft_lb_mix(__u64 x, __u64 add, __u64 odd)
{
	x = (x ^ add) * (odd | 1);
	x ^= x >> 32;
	x *= WEFT_LB_MIX_B;
	return x ^ (x >> 32);
}

static __always_inline __u64 weft_lb_mix6(__u64 hi, __u64 lo, __u32 key, __u64 add, __u64 odd)
{
	hi = (hi ^ add) * (odd | 1);
	hi ^= hi >> 32;
	lo = (lo ^ hi) * WEFT_LB_MIX_A;
	lo ^= lo >> 32;
	return weft_lb_mix(lo ^ key, add, odd);
}

/* The second word of an IPv4 address as the tables hold it. */
static __always_inline __u64 weft_lb_mapped(__u32 ip)
{
	return (__u64)ip << 32 | WEFT_HTONL(0xffff);
}

static __always_inline __u64 weft_lb_vip_hash4(__u32 ip, __u32 service)
{
	return weft_lb_mix((__u64)ip << 32 | service, 0, WEFT_LB_MIX_A);
}

static __always_inline __u64 weft_lb_vip_hash6(__u64 hi, __u64 lo, __u32 service)
{
	return weft_lb_mix6(hi, lo, service, 0, WEFT_LB_MIX_A);
}

/* Port (as it lies in the packet) and protocol: what a VIP is besides its address. */
static __always_inline __u32 weft_lb_service(__u16 port_be, __u8 protocol)
{
	return (__u32)protocol << 16 | port_be;
}

static __always_inline __u32 weft_lb_tag(__u64 hash)
{
	return (__u32)(hash >> 32) | 1;
}

/* The index of the VIP, 0 if it is none. */
static __always_inline __u32 weft_lb_find_vip(const struct weft_lb_tables *tables, __u64 hash,
					      __u64 hi, __u64 lo, __u32 service)
{
	__u32 at = (__u32)hash & (WEFT_LB_SLOTS - 1);

	for (int i = 0; i < WEFT_LB_PROBES; i++) {
		__u64 slot = tables->slots[at];

		if (!slot)
			return 0;
		if ((__u32)(slot >> 32) == weft_lb_tag(hash)) {
			__u32 index = (__u32)slot & (WEFT_LB_VIPS - 1);
			const struct weft_lb_vip *vip = &tables->vips[index];

			if (vip->addr_lo == lo && vip->addr_hi == hi &&
			    weft_lb_service(vip->port_be, vip->protocol) == service)
				return index;
		}
		at = (at + 1) & (WEFT_LB_SLOTS - 1);
	}
	return 0;
}

static __always_inline __u64 weft_lb_ring_hash4(__u32 ip, __u16 port_be, __u64 seed)
{
	return weft_lb_mix((__u64)ip << 32 | port_be, seed, WEFT_LB_MIX_A);
}

static __always_inline __u64 weft_lb_ring_hash6(__u64 hi, __u64 lo, __u16 port_be, __u64 seed)
{
	return weft_lb_mix6(hi, lo, port_be, seed, WEFT_LB_MIX_A);
}

/* Where a hash falls in a ring word (offset << 32 | entries); entries must not be 0. */
static __always_inline __u32 weft_lb_ring_at(__u64 ring, __u64 hash)
{
	return (__u32)(ring >> 32) + (__u32)(((hash >> 32) * (__u32)ring) >> 32);
}

#endif /* WEFT_BPF_TC_BALANCER_HASH_H */
