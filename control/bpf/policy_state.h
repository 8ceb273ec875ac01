// SPDX-License-Identifier: Apache-2.0
// Compiled policy of one node: exactly what the kernel's policy maps shall hold (bpf/abi.h,
// bpf/policy.h). Plain values; made by control/policy, written by Kernel::ApplyPolicy.
#pragma once
#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <set>

#include "bpf/abi.h"
#include "control/bpf/process_state.h"
#include "proxy/base/address.h"
#include "proxy/base/status.h"

namespace weft::bpf {

struct PolicyKey {
  uint32_t subject = 0;
  uint32_t class_number = 0;
  uint16_t port = 0;     // the bits beyond `length` are zero
  uint8_t length = 0;    // of the port's prefix
  uint8_t protocol = 0;  // weft_protocol
  uint32_t layer = 0;    // weft_layer
  auto operator<=>(const PolicyKey&) const = default;
};
struct PolicySays {
  uint32_t says = 0;  // WEFT_SAYS_*
  uint32_t rule = 0, audit = 0;
  bool operator==(const PolicySays&) const = default;
};
struct LayerState {
  uint32_t says = 0;  // 0: not active; else the default
  uint32_t rule = 0;
  uint32_t lengths = 0;
  bool operator==(const LayerState&) const = default;
};
using SubjectState = std::array<LayerState, WEFT_LAYERS>;
struct PolicyBlock {
  IpAddress address;    // the bits beyond `length` are zero
  uint32_t length = 0;  // of 128
  auto operator<=>(const PolicyBlock&) const = default;
};

struct PolicyState {
  std::map<PolicyKey, PolicySays> entries;
  std::map<uint32_t, SubjectState> subjects;  // by workload id
  std::map<IpAddress, uint32_t> classes;
  std::map<PolicyBlock, uint32_t> blocks;
  uint32_t full_rule = 0;  // number of the rule that denies where a map was full
  ProcessState processes;
};

// What one change did.
struct PolicyReport {
  absl::Status status;         // the first error; all the rest is in force nevertheless
  size_t touched = 0;          // entries written or removed
  std::set<uint32_t> closed;   // subjects that deny everything, because their entries had no room
  std::set<uint32_t> changed;  // subjects whose connections must be asked again
};

// A question to the maps as they are.
struct PolicyQuestion {
  uint32_t source_subject = 0;  // a workload of this node, or 0
  uint32_t destination_subject = 0;
  IpAddress source, destination;
  uint16_t port = 0;
  uint8_t protocol = WEFT_PROTOCOL_TCP;
};
struct LayerAnswer {
  bool asked = false;   // the layer's subject is of this node, and the protocol has that layer
  bool active = false;  // some policy selects the subject
  bool allowed = true;
  bool by_default = true;
  uint32_t rule = 0, audit = 0;
};
struct PolicyAnswer {
  std::array<LayerAnswer, WEFT_LAYERS> layers;
  uint32_t source_class = 0, destination_class = 0;
  bool allowed() const {
    for (const LayerAnswer& layer : layers) {
      if (!layer.allowed) return false;
    }
    return true;
  }
};

struct CutReport {
  uint32_t asked = 0, destroyed = 0;
};

}  // namespace weft::bpf
