// SPDX-License-Identifier: Apache-2.0
// A service as the kernel balances it at connect(): who computes it (control/agent) and who writes
// it (service_table.h) share these plain values.
#pragma once
#include <cstdint>
#include <vector>

#include "proxy/base/address.h"

namespace weft::bpf {

struct ServiceBackend {
  // Implicit: an address alone is an endpoint of weight 1.
  ServiceBackend(const SocketAddress& at = {}, uint32_t share = 1, bool gets_new = true)
      : address(at), weight(share), in_ring(gets_new) {}

  SocketAddress address;
  uint32_t weight;
  // False: only clients that had it before get it (an endpoint that is less preferred than others).
  bool in_ring;
  bool operator==(const ServiceBackend&) const = default;
};

struct ServiceConfig {
  uint32_t id = 0;
  uint32_t flags = 0;       // WEFT_SVC_*
  bool maglev = false;      // the client's address chooses; else chance
  uint32_t affinity_s = 0;  // 0: no affinity
  std::vector<SocketAddress> vips;
  std::vector<ServiceBackend> backends;
};

// How the memory for endpoints and rings stands.
struct ServiceStats {
  uint32_t services = 0;
  uint32_t cells = 0;       // of 32 bytes
  uint32_t cells_used = 0;  // those that are waiting for a grace period among them
  uint64_t refused_full = 0;
};

}  // namespace weft::bpf
