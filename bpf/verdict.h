/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The way of a connection at connect(): pure, from what the maps said to an action with a reason.
 * Whether policy permits it is policy.h's. Compiled into connect.bpf.c and into tests/unit/bpf.
 * Looking up, rewriting and reporting are connect.bpf.c's. */
#ifndef WEFT_BPF_VERDICT_H
#define WEFT_BPF_VERDICT_H

#include "bpf/address.h"

enum weft_action {
	WEFT_ACT_PASS = 0,
	WEFT_ACT_DENY,        /* EPERM */
	WEFT_ACT_REFUSE,      /* ECONNREFUSED */
	WEFT_ACT_UNREACHABLE, /* ENETUNREACH */
	WEFT_ACT_DIRECT,      /* to facts->target, which is a workload of this node */
	WEFT_ACT_PROXY,       /* to the pod's own address, WEFT_PORT_OUTBOUND */
};

struct weft_decision {
	__u32 action; /* enum weft_action */
	__u32 reason; /* enum weft_reason */
	__u32 rule;   /* policy that decided, 0: none */
	__u32 splice; /* 1: both ends may be spliced */
};

/* What connect.bpf.c found. Pointers are NULL where the map has no entry. */
struct weft_facts {
	const struct weft_addr *asked;        /* by the program */
	const struct weft_workload *workload; /* of the socket's netns */
	const struct weft_service *service;   /* at `asked` */
	const struct weft_addr *target; /* the backend picked for an L4 service, else `asked` */
	__u32 picked;                   /* 1: `target` is a backend */
	const struct weft_peer *peer;   /* who has target's address */
};

static __always_inline int weft_is_own(const struct weft_workload *workload, const __u8 *ip)
{
	if (weft_ip_is_v4(ip))
		return weft_ip_equal(workload->ipv4, ip);
	return !weft_ip_is_zero(ip) && weft_ip_equal(workload->ipv6, ip);
}

/* The workload's address in the family of `ip`, or the one that it has. */
static __always_inline const __u8 *weft_own_ip(const struct weft_workload *workload, const __u8 *ip)
{
	if (weft_ip_is_v4(ip))
		return weft_ip_is_zero(workload->ipv4) ? workload->ipv6 : workload->ipv4;
	return weft_ip_is_zero(workload->ipv6) ? workload->ipv4 : workload->ipv6;
}

/* Ports of ours in every workload's netns: never reached directly from another pod. */
static __always_inline int weft_is_our_port(__be16 port_be)
{
	return port_be == WEFT_HTONS(WEFT_PORT_OUTBOUND) ||
	       port_be == WEFT_HTONS(WEFT_PORT_INBOUND) || port_be == WEFT_HTONS(WEFT_PORT_HBONE) ||
	       port_be == WEFT_HTONS(WEFT_PORT_DNS);
}

static __always_inline int weft_bind_allowed(__u32 role, __be16 port_be)
{
	return role == WEFT_ROLE_LISTENER || !weft_is_our_port(port_be);
}

/* A socket of weft-sockets connects. The stamp lifts the redirection, not the limits of its role.
 * `workload` may be NULL. */
static __always_inline struct weft_decision
weft_decide_stamped(const struct weft_sock *stamp, const struct weft_workload *workload,
		    const struct weft_addr *asked)
{
	struct weft_decision misuse = {WEFT_ACT_DENY, WEFT_R_STAMP_MISUSE, 0, 0};
	struct weft_decision pass = {WEFT_ACT_PASS, WEFT_R_NOT_OURS, 0, 0};

	switch (stamp->role) {
	case WEFT_ROLE_HOST:
	case WEFT_ROLE_TUNNEL:
		return pass;
	case WEFT_ROLE_TO_APP:
		if (!workload || stamp->workload != workload->id ||
		    stamp->generation != workload->generation ||
		    !weft_is_own(workload, asked->ip) || weft_is_our_port(asked->port_be))
			return misuse;
		pass.splice = !!(workload->flags & WEFT_WL_SPLICE);
		return pass;
	default:
		return misuse;
	}
}

static __always_inline struct weft_decision weft_to_proxy(const struct weft_facts *facts)
{
	struct weft_decision decision = {WEFT_ACT_PROXY, WEFT_R_PROXIED, 0, 0};
	int v4 = weft_ip_is_v4(facts->asked->ip);

	if (weft_ip_is_zero(v4 ? facts->workload->ipv4 : facts->workload->ipv6)) {
		/* The pod has no address of that family, so it has no way there without us either.
		 */
		decision.action = WEFT_ACT_UNREACHABLE;
		decision.reason = WEFT_R_NO_ENDPOINT;
	} else if (!(facts->workload->flags & WEFT_WL_PROXY_READY)) {
		decision.action = WEFT_ACT_REFUSE;
		decision.reason = WEFT_R_PROXY_GONE;
	}
	decision.splice = !!(facts->workload->flags & WEFT_WL_SPLICE);
	return decision;
}

/* A workload's own TCP socket connects. facts->workload is not NULL. */
static __always_inline struct weft_decision weft_decide(const struct weft_facts *facts)
{
	struct weft_decision pass = {WEFT_ACT_PASS, WEFT_R_NOT_OURS, 0, 0};
	struct weft_decision none = {WEFT_ACT_REFUSE, WEFT_R_NO_ENDPOINT, 0, 0};
	const struct weft_peer *peer = facts->peer;
	struct weft_decision decision = {WEFT_ACT_DIRECT, WEFT_R_DIRECT, 0, 0};

	if (weft_ip_is_loopback(facts->asked->ip) || weft_is_own(facts->workload, facts->asked->ip))
		return pass;
	if (facts->service && !(facts->service->flags & WEFT_SVC_L7) && !facts->picked)
		return none;
	if (facts->service && (facts->service->flags & WEFT_SVC_L7))
		return weft_to_proxy(facts);
	if (!peer || !peer->netns_cookie || weft_is_our_port(facts->target->port_be))
		return weft_to_proxy(facts);
	if ((peer->wl_flags & WEFT_WL_L7_INBOUND) ||
	    weft_ip_is_v4(facts->asked->ip) != weft_ip_is_v4(facts->target->ip))
		return weft_to_proxy(facts);
	decision.splice = !!(facts->workload->flags & peer->wl_flags & WEFT_WL_SPLICE);
	return decision;
}

/* A resolver's port: worth a look whether it is one of the workload's own. */
static __always_inline int weft_may_be_dns(__be16 port_be)
{
	return port_be == WEFT_HTONS(WEFT_PORT_RESOLVER);
}

/* Whether what is sent to port 53 of `ip` goes to the pod's own address, WEFT_PORT_DNS.
 * `is_resolver`: it is one of the workload's. Without a proxy nobody would answer; a pod without an
 * address of that family has no way there anyway. */
static __always_inline int weft_captures_dns(const struct weft_workload *workload, const __u8 *ip,
					     int is_resolver)
{
	return is_resolver && (workload->flags & WEFT_WL_PROXY_READY) &&
	       !weft_is_own(workload, ip) && !weft_ip_is_loopback(ip) &&
	       !weft_ip_is_zero(weft_ip_is_v4(ip) ? workload->ipv4 : workload->ipv6);
}

/* Which layers of policy must allow a connection that goes that way, by bits of enum weft_layer.
 * Behind an L7 service the proxy picks the endpoint: its own sockets are asked then. */
static __always_inline __u32 weft_layers_asked(const struct weft_facts *facts, __u32 action)
{
	__u32 layers = 1u << WEFT_LAYER_EGRESS;

	if (action != WEFT_ACT_DIRECT && action != WEFT_ACT_PROXY)
		return 0;
	if (facts->service && (facts->service->flags & WEFT_SVC_L7))
		return 0;
	if (facts->peer && facts->peer->netns_cookie && !weft_is_our_port(facts->target->port_be))
		layers |= 1u << WEFT_LAYER_INGRESS | 1u << WEFT_LAYER_AUTHORIZATION;
	return layers;
}

/* The same for a socket of weft-sockets that connects to `asked`, whose owner is `peer` (NULL:
 * nobody known). A tunnel carries streams to many ports: each is asked for by the proxy
 * (WEFT_SO_PERMIT). A to-app socket: `client`, who has the address that the app shall see.
 * Authorization is the proxy's there, which has the proven identity. */
static __always_inline __u32 weft_stamped_layers_asked(__u32 role, const struct weft_addr *asked,
						       const struct weft_peer *peer,
						       const struct weft_peer *client)
{
	switch (role) {
	case WEFT_ROLE_TUNNEL:
		if (peer && (peer->flags & WEFT_PEER_HBONE) &&
		    asked->port_be == WEFT_HTONS(WEFT_PORT_HBONE))
			return 0;
		return 1u << WEFT_LAYER_EGRESS;
	case WEFT_ROLE_TO_APP:
		if (client && client->workload)
			return 1u << WEFT_LAYER_EGRESS | 1u << WEFT_LAYER_INGRESS;
		return 1u << WEFT_LAYER_INGRESS;
	default:
		return 0;
	}
}

/* A denial by policy replaces the way. */
static __always_inline void weft_deny(struct weft_decision *decision, __u32 rule, __u32 by_default)
{
	decision->action = WEFT_ACT_DENY;
	decision->reason = by_default ? WEFT_R_POLICY_DEFAULT_DENIED : WEFT_R_POLICY_DENIED;
	decision->rule = rule;
	decision->splice = 0;
}

#endif /* WEFT_BPF_VERDICT_H */
