// SPDX-License-Identifier: Apache-2.0
#include "proxy/telemetry/flow_log.h"

#include <algorithm>

namespace weft::telemetry {

const char* FlowKindName(FlowKind kind) {
  switch (kind) {
    case FlowKind::kOutboundTcp:
      return "outbound_tcp";
    case FlowKind::kOutboundHttp:
      return "outbound_http";
    case FlowKind::kInboundTunnel:
      return "inbound_tunnel";
    case FlowKind::kInboundPlaintext:
      return "inbound_plaintext";
    case FlowKind::kRequest:
      return "request";
  }
  return "unknown";
}

void FlowLog::Add(const FlowRecord& record) {
  ++last_;
  size_t slot = (last_ - 1) % kCapacity;
  if (slot >= ring_.size()) ring_.emplace_back();
  ring_[slot] = record;
  ring_[slot].sequence = last_;
}

std::vector<FlowRecord> FlowLog::Since(uint64_t after) const {
  std::vector<FlowRecord> result;
  if (after >= last_) return result;
  uint64_t oldest = last_ - std::min<uint64_t>(last_, ring_.size());
  for (uint64_t sequence = std::max(after, oldest) + 1; sequence <= last_; ++sequence) {
    result.push_back(ring_[(sequence - 1) % kCapacity]);
  }
  return result;
}

}  // namespace weft::telemetry
