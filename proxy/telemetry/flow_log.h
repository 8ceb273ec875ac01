// SPDX-License-Identifier: Apache-2.0
// The last connections, streams and requests a worker ended, with both identities and the reason:
// what `weft status` and `weft events` show of the proxy. Thread: the worker's; others get a copy
// by Worker::Post().
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "proxy/base/address.h"
#include "proxy/base/reason.h"

namespace weft::telemetry {

enum class FlowKind : uint8_t {
  kOutboundTcp,
  kOutboundHttp,
  kInboundTunnel,
  kInboundPlaintext,
  kRequest
};
// "outbound_tcp", ... Static storage.
const char* FlowKindName(FlowKind kind);

struct FlowRecord {
  uint64_t sequence = 0;  // of this worker, from 1
  int64_t time_us = 0;    // of the end, since the epoch
  FlowKind kind = FlowKind::kOutboundTcp;
  SocketAddress source;
  SocketAddress destination;                          // as the downstream asked for it
  SocketAddress upstream;                             // the endpoint; zero: none was chosen
  std::string source_identity, destination_identity;  // verified; empty: plaintext
  std::string workload;                               // uid of the local workload
  std::string policy;                                 // that denied it
  uint64_t sent_bytes = 0;                            // downstream to upstream
  uint64_t received_bytes = 0;
  int64_t duration_us = 0;
  Reason reason = WEFT_R_NONE;
  bool mutual_tls = false;
  std::string request;  // kRequest: method, authority and path
  int status = 0;       // kRequest: of the response
};

class FlowLog final {
 public:
  static constexpr size_t kCapacity = 256;

  // Copies into a slot that keeps its strings' memory: no allocation once warm.
  void Add(const FlowRecord& record);
  // Those with a sequence above `after`, oldest first.
  std::vector<FlowRecord> Since(uint64_t after) const;
  uint64_t last_sequence() const { return last_; }

 private:
  std::vector<FlowRecord> ring_;
  uint64_t last_ = 0;
};

}  // namespace weft::telemetry
