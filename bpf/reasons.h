/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The one list of reasons: why a connection was handled as it was, or ended. It feeds the kernel
 * programs, the proxy, the metrics and the docs. Add at the end; a number, once released, keeps its
 * meaning (WEFT_ABI covers the rest). */
#ifndef WEFT_BPF_REASONS_H
#define WEFT_BPF_REASONS_H

#define WEFT_REASONS(X)                                                                            \
	X(NONE, "none", "nothing to report")                                                       \
	X(DIRECT, "direct", "carried by the kernel between two workloads of this node")            \
	X(PROXIED, "proxied", "handed to the node's proxy")                                        \
	X(NOT_OURS, "not_ours", "passed: loopback, own address or not TCP")                        \
	X(POLICY_DENIED, "policy_denied", "a policy denies it")                                    \
	X(POLICY_DEFAULT_DENIED, "policy_default_denied", "policies select it and none allows")    \
	X(NO_ENDPOINT, "no_endpoint", "the service has no endpoint that may be used")              \
	X(PROXY_GONE, "proxy_gone", "the proxy of this workload is not running")                   \
	X(MAP_FULL, "map_full", "a kernel map is full; the connection was refused")                \
	X(STAMP_MISUSE, "stamp_misuse", "one of our sockets was used outside its role")            \
	X(NOT_ADMITTED, "not_admitted", "a direct connection arrived without an admission")        \
	X(NO_ORIGINAL_DESTINATION, "no_original_destination",                                      \
	  "the proxy got a connection that no capture program announced")                          \
	X(CLOSED, "closed", "ended normally")                                                      \
	X(PEER_RESET, "peer_reset", "the other side reset the connection")                         \
	X(IO_ERROR, "io_error", "the operating system reported an error")                          \
	X(IDLE_TIMEOUT, "idle_timeout", "nothing moved for the idle timeout")                      \
	X(CONNECT_FAILED, "connect_failed", "the upstream refused or could not be reached")        \
	X(CONNECT_TIMEOUT, "connect_timeout", "the upstream did not answer in time")               \
	X(NO_ROUTE, "no_route", "no route matches the request")                                    \
	X(NO_LISTENER, "no_listener", "no listener matches the original destination")              \
	X(NO_CLUSTER, "no_cluster", "the route names a cluster that does not exist")               \
	X(NO_HEALTHY_UPSTREAM, "no_healthy_upstream", "no endpoint of the cluster may be used")    \
	X(OVERFLOW_CONNECTIONS, "overflow_connections", "circuit breaker: max_connections")        \
	X(OVERFLOW_PENDING, "overflow_pending", "circuit breaker: max_pending_requests")           \
	X(OVERFLOW_REQUESTS, "overflow_requests", "circuit breaker: max_requests")                 \
	X(OVERFLOW_RETRIES, "overflow_retries", "circuit breaker: max_retries or retry budget")    \
	X(ROUTE_TIMEOUT, "route_timeout", "the route's timeout passed")                            \
	X(UPSTREAM_RESET, "upstream_reset", "the upstream ended before its response was complete") \
	X(UPSTREAM_PROTOCOL_ERROR, "upstream_protocol_error", "the upstream broke its protocol")   \
	X(DOWNSTREAM_PROTOCOL_ERROR, "downstream_protocol_error",                                  \
	  "the downstream broke its protocol")                                                     \
	X(HEADERS_TOO_LARGE, "headers_too_large", "headers beyond the limit")                      \
	X(BUFFER_LIMIT, "buffer_limit", "a buffer reached its limit")                              \
	X(TLS_HANDSHAKE_FAILED, "tls_handshake_failed", "the TLS handshake failed")                \
	X(TLS_HANDSHAKE_TIMEOUT, "tls_handshake_timeout", "the TLS handshake took too long")       \
	X(CERT_EXPIRED, "cert_expired", "the peer's certificate is expired or not yet valid")      \
	X(CERT_UNTRUSTED, "cert_untrusted", "the peer's certificate chains to no trusted root")    \
	X(CERT_BAD_SPIFFE, "cert_bad_spiffe", "the peer's certificate is no valid X.509-SVID")     \
	X(IDENTITY_MISMATCH, "identity_mismatch", "the peer is not who the endpoint should be")    \
	X(NO_CERTIFICATE, "no_certificate", "no certificate for this identity yet")                \
	X(PLAINTEXT_REFUSED, "plaintext_refused", "STRICT mutual TLS refuses plaintext")           \
	X(HBONE_REFUSED, "hbone_refused", "the peer refused the CONNECT")                          \
	X(HBONE_BAD_REQUEST, "hbone_bad_request",                                                  \
	  "the peer's CONNECT is malformed or misdirected")                                        \
	X(DRAINING, "draining", "the process is shutting down")                                    \
	X(SOCKETS_UNAVAILABLE, "sockets_unavailable", "weft-sockets gave no socket in time")       \
	X(INTERNAL_ERROR, "internal_error", "a bug in Weft: please report it")                     \
	X(WORKLOAD_GONE, "workload_gone", "the destination left this node during the connect")     \
	X(POLICY_AUDITED, "policy_audited", "a dry-run policy matches; it decides nothing")        \
	X(SPOOFED, "spoofed",                                                                      \
	  "a packet under an address that is not its pod's, or to a pod under that pod's own")     \
	X(UNSTAMPED, "unstamped", "TCP that no connect or accept of the mesh made")                \
	X(BAD_PACKET, "bad_packet", "a frame that the guard cannot judge: no pod may send it")     \
	X(PROCESS_DENIED, "process_denied", "a process policy denies it to this program")          \
	X(PROCESS_KILLED, "process_killed", "a process policy had the process killed")             \
	X(PROCESS_MATCHED, "process_matched", "a process policy matches; it only reports")

enum weft_reason {
#define X(name, text, meaning) WEFT_R_##name,
	WEFT_REASONS(X)
#undef X
		WEFT_R_MAX
};

#endif /* WEFT_BPF_REASONS_H */
