/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The only place where the kernel programs make a struct weft_addr, and the questions asked of one.
 * Pure: host tests include it as well. Addresses are 16 bytes in network order, IPv4 mapped. */
#ifndef WEFT_BPF_ADDRESS_H
#define WEFT_BPF_ADDRESS_H

#include "bpf/abi.h"

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define WEFT_HTONS(x) ((__be16)__builtin_bswap16((__u16)(x)))
#define WEFT_HTONL(x) ((__be32)__builtin_bswap32((__u32)(x)))
#else
#define WEFT_HTONS(x) ((__be16)(x))
#define WEFT_HTONL(x) ((__be32)(x))
#endif

static __always_inline __u32 weft_word(const __u8 *ip, int index)
{
	__u32 word;

	__builtin_memcpy(&word, ip + 4 * index, sizeof(word));
	return word;
}

static __always_inline void weft_set_words(__u8 *ip, __u32 a, __u32 b, __u32 c, __u32 d)
{
	__builtin_memcpy(ip, &a, sizeof(a));
	__builtin_memcpy(ip + 4, &b, sizeof(b));
	__builtin_memcpy(ip + 8, &c, sizeof(c));
	__builtin_memcpy(ip + 12, &d, sizeof(d));
}

static __always_inline void weft_addr_v6(struct weft_addr *out, __u32 a, __u32 b, __u32 c, __u32 d,
					 __be16 port_be)
{
	weft_set_words(out->ip, a, b, c, d);
	out->port_be = port_be;
	out->pad = 0;
}

static __always_inline void weft_addr_v4(struct weft_addr *out, __be32 ip, __be16 port_be)
{
	weft_addr_v6(out, 0, 0, WEFT_HTONL(0xffff), ip, port_be);
}

static __always_inline int weft_ip_is_zero(const __u8 *ip)
{
	return !(weft_word(ip, 0) | weft_word(ip, 1) | weft_word(ip, 2) | weft_word(ip, 3));
}

static __always_inline int weft_ip_is_v4(const __u8 *ip)
{
	return !(weft_word(ip, 0) | weft_word(ip, 1)) && weft_word(ip, 2) == WEFT_HTONL(0xffff);
}

static __always_inline int weft_ip_equal(const __u8 *a, const __u8 *b)
{
	return !((weft_word(a, 0) ^ weft_word(b, 0)) | (weft_word(a, 1) ^ weft_word(b, 1)) |
		 (weft_word(a, 2) ^ weft_word(b, 2)) | (weft_word(a, 3) ^ weft_word(b, 3)));
}

/* 127.0.0.0/8, ::1, and the unspecified addresses, which connect() takes for loopback. */
static __always_inline int weft_ip_is_loopback(const __u8 *ip)
{
	if (weft_ip_is_v4(ip))
		return ip[12] == 127 || !weft_word(ip, 3);
	return !(weft_word(ip, 0) | weft_word(ip, 1) | weft_word(ip, 2)) &&
	       (weft_word(ip, 3) == 0 || weft_word(ip, 3) == WEFT_HTONL(1));
}

#endif /* WEFT_BPF_ADDRESS_H */
