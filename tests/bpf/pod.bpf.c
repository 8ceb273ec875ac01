// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* For tests: what root in a pod can do to its own packets, here by programs at its own interface.
 * weft_rewrite changes TCP that leaves, as NAT of the pod would; weft_adopt gives SYNs that come to
 * a listener of the pod's choice, past sk_lookup, as TPROXY would. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define NEXT     (-1)
#define ETH      14
#define TCP      6
#define SYN      2
#define ETH_TYPE 12

char LICENSE[] SEC("license") = "GPL";

/* What is written over the frame: `pod_bytes` of `pod_patch` at `pod_at`. */
__u32 pod_at = 0;
__u32 pod_bytes = 0;
__u8 pod_patch[16] = {0};
/* Frames that were rewritten, SYNs that were given away. */
__u32 pod_rewritten = 0;
__u32 pod_adopted = 0;
/* The listener: IPv4 address of the pod, its port. */
__be32 pod_ip = 0;
__u32 pod_port = 0; /* host order */

static int is_tcp(struct __sk_buff *skb, __u32 *tcp)
{
	__u8 head[ETH + 20];

	if (bpf_skb_load_bytes(skb, 0, head, sizeof(head)))
		return 0;
	if (head[ETH_TYPE] == 0x86 && head[ETH_TYPE + 1] == 0xdd) {
		*tcp = ETH + 40;
		return head[ETH + 6] == TCP;
	}
	*tcp = ETH + 20;
	return head[ETH_TYPE] == 0x08 && head[ETH_TYPE + 1] == 0 && head[ETH + 9] == TCP;
}

/* A bridge drops what has a wrong one. */
static void fix_checksum(struct __sk_buff *skb)
{
	__u16 ip[10];
	__u32 sum = 0;

	if (bpf_skb_load_bytes(skb, ETH, ip, sizeof(ip)))
		return;
	ip[5] = 0;
	for (int i = 0; i < 10; i++)
		sum += ip[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	ip[5] = ~sum;
	bpf_skb_store_bytes(skb, ETH + 10, &ip[5], 2, 0);
}

SEC("tcx/egress")
int weft_rewrite(struct __sk_buff *skb)
{
	__u8 everybody[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	__u32 tcp = 0;

	if (!pod_bytes || !is_tcp(skb, &tcp))
		return NEXT;
	bpf_skb_store_bytes(skb, 0, everybody, sizeof(everybody), 0);
	if (pod_bytes == 16)
		bpf_skb_store_bytes(skb, pod_at, pod_patch, 16, 0);
	else if (pod_bytes == 4)
		bpf_skb_store_bytes(skb, pod_at, pod_patch, 4, 0);
	else
		bpf_skb_store_bytes(skb, pod_at, pod_patch, 2, 0);
	if (tcp == ETH + 20)
		fix_checksum(skb);
	__sync_fetch_and_add(&pod_rewritten, 1);
	return NEXT;
}

SEC("tcx/ingress")
int weft_adopt(struct __sk_buff *skb)
{
	struct bpf_sock_tuple own = {};
	struct bpf_sock *sk;
	__u8 flags = 0;
	__u32 tcp = 0;

	if (!is_tcp(skb, &tcp) || tcp != ETH + 20 || bpf_skb_load_bytes(skb, tcp + 13, &flags, 1) ||
	    (flags & 0x12) != SYN)
		return NEXT;
	/* As from the pod itself, which sk_lookup lets through. */
	own.ipv4.saddr = own.ipv4.daddr = pod_ip;
	own.ipv4.sport = own.ipv4.dport = bpf_htons(pod_port);
	sk = bpf_skc_lookup_tcp(skb, &own, sizeof(own.ipv4), BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return NEXT;
	if (!bpf_sk_assign(skb, sk, 0))
		__sync_fetch_and_add(&pod_adopted, 1);
	bpf_sk_release(sk);
	return NEXT;
}
