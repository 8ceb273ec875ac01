// SPDX-License-Identifier: Apache-2.0
// What one worker counts: written by its thread with relaxed stores, read by any thread at any
// time.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>

#include "proxy/base/reason.h"

namespace weft::telemetry {

// A cell with one writer. Add() is a plain load, add and store: no locked instruction.
class Cell final {
 public:
  void Add(uint64_t n = 1) {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  void Sub(uint64_t n = 1) {
    value_.store(value_.load(std::memory_order_relaxed) - n, std::memory_order_relaxed);
  }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// name, Prometheus name, whether it is a gauge, help
#define WEFT_COUNTERS(X)                                                                          \
  X(kOutboundConnections, "weft_outbound_connections_total", false, "connections captured")       \
  X(kOutboundActive, "weft_outbound_connections_active", true, "captured connections now open")   \
  X(kInboundStreams, "weft_inbound_streams_total", false, "CONNECT streams accepted at 15008")    \
  X(kInboundActive, "weft_inbound_streams_active", true, "CONNECT streams now open")              \
  X(kPlaintextConnections, "weft_plaintext_connections_total", false, "connections at 15006")     \
  X(kPlaintextActive, "weft_plaintext_connections_active", true, "connections at 15006 now open") \
  X(kTunnelsOpened, "weft_tunnels_opened_total", false, "HBONE connections made")                 \
  X(kTunnelsActive, "weft_tunnels_active", true, "HBONE connections now open, as client")         \
  X(kTunnelsAccepted, "weft_tunnels_accepted_total", false, "HBONE connections accepted")         \
  X(kTunnelsServed, "weft_tunnels_served", true, "HBONE connections now open, as server")         \
  X(kTunnelStreams, "weft_tunnel_streams_total", false, "CONNECT streams opened")                 \
  X(kConnectRetries, "weft_connect_retries_total", false, "TCP connects repeated elsewhere")      \
  X(kSentBytes, "weft_sent_bytes_total", false, "bytes carried from downstream to upstream")      \
  X(kReceivedBytes, "weft_received_bytes_total", false,                                           \
    "bytes carried from upstream to downstream")                                                  \
  X(kDnsQueries, "weft_dns_queries_total", false, "DNS queries of workloads")                     \
  X(kDnsAnswered, "weft_dns_answered_total", false, "of those, answered from the mesh")           \
  X(kDnsForwarded, "weft_dns_forwarded_total", false, "of those, answered by a resolver")         \
  X(kDnsFailed, "weft_dns_failed_total", false, "of those, malformed or without an answer")       \
  X(kDnsDropped, "weft_dns_dropped_total", false, "no queries, or not from the workload itself")  \
  X(kDnsStrays, "weft_dns_strays_total", false, "datagrams that answered no query of ours")

enum class Counter : uint32_t {
#define X(name, text, gauge, help) name,
  WEFT_COUNTERS(X)
#undef X
      kCount
};

struct Counters {
  std::array<Cell, static_cast<size_t>(Counter::kCount)> cells;
  std::array<Cell, WEFT_R_MAX> closes;  // connections and streams ended, by reason

  Cell& operator[](Counter c) { return cells[static_cast<size_t>(c)]; }
  const Cell& operator[](Counter c) const { return cells[static_cast<size_t>(c)]; }
  void Closed(Reason reason) { closes[reason].Add(); }
};

// Counts something as active for as long as it lives.
class Active final {
 public:
  explicit Active(Cell& cell) : cell_(cell) { cell_.Add(); }
  ~Active() { cell_.Sub(); }
  Active(const Active&) = delete;
  Active& operator=(const Active&) = delete;

 private:
  Cell& cell_;
};

}  // namespace weft::telemetry
